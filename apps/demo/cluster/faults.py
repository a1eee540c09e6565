"""Faults that a test or a presenter can switch on: the server down, slow, throttling, failing or conflicting."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass

from apps.demo.cluster.errors import ApiError, Obj, bad_request

MODES = ("down", "slow", "429", "500", "409", "none")


class Down(Exception):
    """The connection is to be cut without an answer."""


@dataclass
class Fault:
    """One switched-on fault. `until` is on the monotonic clock; None means until cleared."""

    mode: str
    match: re.Pattern[str]
    methods: frozenset[str]
    until: float | None
    delay: float
    left: int | None

    def wire(self) -> Obj:
        """State as the admin endpoint shows it."""
        return {
            "mode": self.mode,
            "match": self.match.pattern,
            "methods": sorted(self.methods),
            "delay_ms": round(self.delay * 1000),
            "seconds_left": None if self.until is None else round(max(0.0, self.until - time.monotonic()), 1),
            "requests_left": self.left,
        }


class Faults:
    """The faults in force, matched against method and path of each request."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def set(
        self,
        mode: str,
        *,
        seconds: float | None = None,
        delay_ms: int = 1000,
        match: str = "",
        methods: list[str] | None = None,
        count: int | None = None,
    ) -> Fault | None:
        """Switch a fault on; `none` clears all.

        `match` is a regular expression searched in path and query, `methods` limits to HTTP methods, `count` ends the
        fault after that many requests, `seconds` after that time. Raises 400 for nonsense.
        """
        if mode not in MODES:
            raise bad_request(f"mode must be one of {', '.join(MODES)}")
        if mode == "none":
            self.clear()
            return None
        try:
            pattern = re.compile(match)
        except re.error as error:
            raise bad_request(f"match is no regular expression: {error}") from error
        until = None if seconds is None else time.monotonic() + seconds
        chosen = frozenset(method.upper() for method in methods or [])
        fault = Fault(mode, pattern, chosen, until, delay_ms / 1000, count)
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Everything works again."""
        with self._lock:
            self._faults.clear()

    def active(self) -> list[Fault]:
        """Faults still in force."""
        with self._lock:
            now = time.monotonic()
            self._faults = [
                each for each in self._faults if (each.until is None or each.until > now) and each.left != 0
            ]
            return list(self._faults)

    def cuts(self, path: str) -> bool:
        """Whether an open stream on this path is to be cut now."""
        return any(each.mode == "down" and each.match.search(path) for each in self.active())

    def strike(self, method: str, path: str) -> None:
        """Let the matching faults act on a request: delay it, or raise `Down` or the error to answer."""
        for fault in self.active():
            if not fault.match.search(path) or (fault.methods and method not in fault.methods):
                continue
            if fault.mode == "409" and method not in ("POST", "PUT", "PATCH", "DELETE"):
                continue
            if fault.left is not None:
                with self._lock:
                    if fault.left == 0:
                        continue
                    fault.left -= 1
            _act(fault)


def _act(fault: Fault) -> None:
    if fault.mode == "slow":
        time.sleep(fault.delay)
    elif fault.mode == "down":
        raise Down
    elif fault.mode == "429":
        raise ApiError(
            429,
            "TooManyRequests",
            "the server has received too many requests and has asked us to try again later",
            retry_after=1,
        )
    elif fault.mode == "409":
        raise ApiError(
            409,
            "Conflict",
            "Operation cannot be fulfilled: the object has been modified; please apply your changes to the latest "
            "version and try again (simulated fault)",
        )
    else:
        raise ApiError(500, "InternalError", "Internal error occurred: simulated fault")
