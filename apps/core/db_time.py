"""Times read as whole numbers: a page over thousands of them spends longer on parsing dates than on its figures."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import BigIntegerField, Func

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICRO = timedelta(microseconds=1)


class Micros(Func):
    """A time as microseconds since the epoch, exactly (PostgreSQL tells the epoch as numeric); NULL stays NULL."""

    template = "(extract(epoch FROM %(expressions)s) * 1000000)::bigint"
    output_field = BigIntegerField()

    def get_db_converters(self, connection: BaseDatabaseWrapper) -> list[Any]:
        """None: the driver gives a whole number already."""
        return []


def at_micros(value: int) -> datetime:
    """Return microseconds since the epoch as a time in UTC."""
    return _EPOCH + timedelta(microseconds=value)


def micros_of(at: datetime) -> int:
    """Return a time as microseconds since the epoch, exactly."""
    return (at - _EPOCH) // _MICRO


__all__ = ["Micros", "at_micros", "micros_of"]
