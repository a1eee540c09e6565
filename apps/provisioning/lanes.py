"""The threads that call one cluster: they take written-down attempts from one queue and hand outcomes back.

They take by themselves, so a lane never waits for the task's thread while that one writes. They do network only.
"""

from __future__ import annotations

import contextvars
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from apps.provisioning.applier import Outcome, Work
from apps.provisioning.models import ApplyRun

Attempt = tuple[ApplyRun, Work]


class Lanes:
    """At most `count` attempts at once (one until the first success where `careful`); leave the block to end them."""

    def __init__(self, call: Callable[[ApplyRun, Work], Outcome], count: int, *, careful: bool) -> None:
        self._call, self._count = call, count
        # A cluster that failed last time is asked by one lane before all of them run into it.
        self._at_once = 1 if careful else count
        self._waiting: deque[Attempt] = deque()
        self._busy = 0
        self._closed = False
        self._turn = threading.Condition()
        self._outcomes: queue.SimpleQueue[tuple[ApplyRun, Outcome | BaseException]] = queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(max_workers=count, thread_name_prefix="apply")

    def __enter__(self) -> Self:
        for _ in range(self._count):
            self._pool.submit(contextvars.copy_context().run, self._lane)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        self._pool.shutdown()

    @property
    def waiting(self) -> int:
        """How many attempts wait for a lane."""
        return len(self._waiting)

    @property
    def free(self) -> int:
        """How many more attempts could be on the network at once."""
        with self._turn:
            return max(0, self._at_once - self._busy - len(self._waiting))

    def put(self, attempts: Sequence[Attempt], *, first: bool = False) -> None:
        """Queue attempts, in the order given; `first`: before what waits already."""
        with self._turn:
            if first:
                self._waiting.extendleft(reversed(attempts))
            else:
                self._waiting.extend(attempts)
            self._turn.notify_all()

    def close(self) -> list[ApplyRun]:
        """Begin nothing more; returns the attempts that nobody has begun."""
        with self._turn:
            self._closed = True
            left = [run for run, _ in self._waiting]
            self._waiting.clear()
            self._turn.notify_all()
            return left

    def outcomes(self, seconds: float) -> list[tuple[ApplyRun, Outcome | Exception]]:
        """Return what is done, waiting at most `seconds` for a first one; raises what ends a process."""
        done: list[tuple[ApplyRun, Outcome | Exception]] = []
        try:
            run, outcome = self._outcomes.get(timeout=seconds)
            while True:
                if isinstance(outcome, BaseException) and not isinstance(outcome, Exception):
                    raise outcome
                done.append((run, outcome))
                run, outcome = self._outcomes.get_nowait()
        except queue.Empty:
            return done

    def _lane(self) -> None:
        while (attempt := self._take()) is not None:
            outcome: Outcome | BaseException
            try:
                outcome = self._call(*attempt)
            except BaseException as error:  # noqa: BLE001 (handed to the task's thread, which raises or records it)
                outcome = error
            with self._turn:
                self._busy -= 1
                if isinstance(outcome, Outcome):
                    # Where the breaker opens, what waits goes on after it instead of failing one by one.
                    broken = outcome.error is not None and outcome.error.cluster_wide
                    self._at_once = 0 if broken or not self._at_once else self._count
                self._turn.notify_all()
            self._outcomes.put((attempt[0], outcome))

    def _take(self) -> Attempt | None:
        with self._turn:
            while not self._closed and (not self._waiting or self._busy >= self._at_once):
                self._turn.wait()
            if self._closed:
                return None
            self._busy += 1
            return self._waiting.popleft()
