"""The one source of "now", so that tests and outage drills can inject a clock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta

from django.utils import timezone

_frozen: ContextVar[datetime | None] = ContextVar("commons_frozen_now", default=None)


def now() -> datetime:
    """Return the present moment, timezone-aware, in UTC."""
    return _frozen.get() or timezone.now()


def hour_floor(at: datetime) -> datetime:
    """Return the start of the UTC hour that `at` lies in."""
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


@contextmanager
def frozen(at: datetime) -> Iterator[None]:
    """Make `now()` return `at` inside the block (tests, drills). Raises ValueError for a naive time."""
    if at.tzinfo is None:
        raise ValueError("a frozen clock needs a timezone-aware time")
    token = _frozen.set(at)
    try:
        yield
    finally:
        _frozen.reset(token)


def advance(by: timedelta) -> datetime:
    """Move a frozen clock forward by `by` and return the new time. Raises RuntimeError where it runs."""
    current = _frozen.get()
    if current is None:
        raise RuntimeError("only a frozen clock can be advanced")
    _frozen.set(current + by)
    return current + by
