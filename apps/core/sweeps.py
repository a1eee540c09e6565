"""Sweeps: the guarantee behind every nudge. A sweep looks at rows, does what is due, and says how much it did.

    @sweep("quotas.expire_quotas", every=timedelta(minutes=1))
    def expire_quotas() -> int: ...

registers a Celery task of that name, a beat entry, and the function that `core.testing.settle()` runs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from celery import shared_task
from django.db import transaction

logger = logging.getLogger(__name__)

#: After a nudge that did not get through, none is tried for so long: a request with many would wait for each.
SILENCE_SECONDS = 5.0
_silent_until = 0.0


@dataclass(frozen=True, slots=True)
class Sweep:
    """A registered sweep: `run()` returns the number of rows it moved (0: nothing was due)."""

    name: str
    every: timedelta
    run: Callable[[], int]
    task: Any


_registry: dict[str, Sweep] = {}


def sweep(name: str, *, every: timedelta, seconds: int | None = None) -> Callable[[Callable[[], int]], Any]:
    """Register a function as sweep `room.verb_noun`; returns the Celery task (call `.delay()` through `nudge`).

    `seconds`: how long one run may take, where that is longer than the installation's limit. Never set an attribute of
    the returned task: that would make Celery finalise while rooms are still being imported, and the sweeps of the later
    ones would never be scheduled.
    """
    limits: dict[str, Any] = {} if seconds is None else {"time_limit": seconds, "soft_time_limit": seconds}

    def register(function: Callable[[], int]) -> Any:
        # An identical message may be delivered twice or late: expire it before the next one is due.
        make: Any = shared_task(name=name, expires=max(30.0, every.total_seconds()), ignore_result=True, **limits)
        task = make(function)
        _registry[name] = Sweep(name, every, function, task)
        return task

    return register


def registered() -> list[Sweep]:
    """Return all sweeps, by name."""
    return [_registry[name] for name in sorted(_registry)]


def nudge(task: Any, *args: Any) -> None:
    """Ask a worker to run `task` soon, after the present transaction commits.

    A lost nudge (Redis away) is logged and harmless: the sweep over rows finds the work.
    """

    def send() -> None:
        global _silent_until
        if time.monotonic() < _silent_until:
            return
        try:
            task.apply_async(args=args, retry=False)
        except Exception as error:  # noqa: BLE001 (kombu raises many classes; the sweep is the guarantee)
            _silent_until = time.monotonic() + SILENCE_SECONDS
            logger.warning("nudge lost, the sweep will find the work", extra={"task": task.name, "error": str(error)})

    transaction.on_commit(send)
