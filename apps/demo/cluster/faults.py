"""Faults that a test or a presenter can switch on: the server down, slow, throttling, failing or conflicting, its
watches cut, its certificate expired, its clock wrong."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass
from datetime import timedelta

from apps.demo.cluster.errors import ApiError, Obj, bad_request

SERVING = ("load-fails", "tampered", "serving-errors", "serving-slow", "serving-silent")
"""Faults of what is served, matched against the pods that serve it."""
MODES = (
    "down", "slow", "429", "500", "409", "401", "half", "watch-cut", "expired-cert", "clock-skew", *SERVING, "none",
)  # fmt: skip
_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_STANDING = ("watch-cut", "expired-cert", "clock-skew", *SERVING)
"""Faults that strike no single request."""


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
    after: int = 0
    skew: float = 0.0
    ratio: float = 0.2

    def wire(self) -> Obj:
        """State as the admin endpoint shows it."""
        return {
            "mode": self.mode,
            "match": self.match.pattern,
            "methods": sorted(self.methods),
            "delay_ms": round(self.delay * 1000),
            "seconds_left": None if self.until is None else round(max(0.0, self.until - time.monotonic()), 1),
            "requests_left": self.left,
            "after": self.after,
            "skew_seconds": self.skew,
            "ratio": self.ratio,
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
        after: int = 0,
        skew_seconds: float = 0.0,
        ratio: float = 0.2,
    ) -> Fault | None:
        """Switch a fault on; `none` clears all.

        `match` is a regular expression searched in path and query, `methods` limits to HTTP methods, `count` ends the
        fault after that many requests, `seconds` after that time; `after` lets so many matching requests pass first.
        `half` fails one write with 500 and lets those before and after it pass. `watch-cut` ends every watch
        `delay_ms` after its start, `clock-skew` moves the server's clock by `skew_seconds`. Of what is served
        (`match` is searched in namespace/name, labels, images and addresses of a pod): `load-fails` lets no model load,
        `tampered` has other bytes found, `serving-errors` fails the share `ratio` of requests, `serving-slow` adds
        `delay_ms` to each, `serving-silent` keeps figures away. Raises 400 for nonsense.
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
        if not 0 <= ratio <= 1:
            raise bad_request("ratio must lie between 0 and 1")
        until = None if seconds is None else time.monotonic() + seconds
        chosen = frozenset(method.upper() for method in methods or [])
        if mode == "half":
            chosen, count = chosen or _WRITES, 1 if count is None else count
        fault = Fault(mode, pattern, chosen, until, delay_ms / 1000, count, after, float(skew_seconds), float(ratio))
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

    def cuts(self, path: str, age: float = 0.0) -> bool:
        """Whether an open stream on this path, `age` seconds old, is to be cut now."""
        return any(
            (each.mode == "down" or (each.mode == "watch-cut" and age >= each.delay)) and each.match.search(path)
            for each in self.active()
        )

    def tick(self) -> float:
        """How long, in seconds, an idle watch may wait before it looks around."""
        return min((each.delay / 2 for each in self.active() if each.mode == "watch-cut"), default=1.0)

    def serving(self, mode: str, subject: str) -> Fault | None:
        """The fault of that mode that is in force for what `subject` describes."""
        return next((each for each in self.active() if each.mode == mode and each.match.search(subject)), None)

    def expired(self) -> bool:
        """Whether new connections get a certificate that has run out."""
        return any(each.mode == "expired-cert" for each in self.active())

    def skew(self) -> timedelta:
        """How far the server's clock is off."""
        return timedelta(seconds=sum(each.skew for each in self.active() if each.mode == "clock-skew"))

    def strike(self, method: str, path: str) -> None:
        """Let the matching faults act on a request: delay it, or raise `Down` or the error to answer."""
        for fault in self.active():
            if not fault.match.search(path) or (fault.methods and method not in fault.methods):
                continue
            if fault.mode in _STANDING or (fault.mode == "409" and method not in _WRITES):
                continue
            with self._lock:
                if fault.after > 0:
                    fault.after -= 1
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
    elif fault.mode == "401":
        raise ApiError(401, "Unauthorized", "Unauthorized")
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
