"""`column = ANY(array)`: hundreds of keys as one parameter, where an IN of each costs more than the rows it finds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.contrib.postgres.fields import ArrayField
from django.db.models import BigIntegerField, BooleanField, Func, UUIDField, Value


class Among(Func):
    """Whether a column (of whole numbers or uids) is one of many values: `rows.filter(Among("pk", pks))`."""

    template = "(%(expressions)s))"
    arg_joiner = " = ANY("
    output_field = BooleanField()

    def __init__(self, column: str, values: Iterable[int] | Iterable[UUID], **extra: Any) -> None:
        found = list(values)
        base = UUIDField() if found and isinstance(found[0], UUID) else BigIntegerField()
        super().__init__(column, Value(found, output_field=ArrayField(base)), **extra)
