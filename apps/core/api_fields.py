"""Fields and bodies that several rooms' serializers share."""

from __future__ import annotations

import re
from datetime import date
from typing import Any

from django.db import models
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from apps.core.errors import Invalid

_MONTH = re.compile(r"^(\d{4})-(0[1-9]|1[0-2])$")
#: A month as the API writes and takes it.
MONTH_SCHEMA = {"type": "string", "pattern": _MONTH.pattern, "example": "2026-11"}


@extend_schema_field(MONTH_SCHEMA)
class MonthField(serializers.Field[date, Any, str, Any]):
    """A calendar month: `yyyy-mm` outside, its first day inside."""

    default_error_messages = {"invalid": "Write a month as yyyy-mm."}

    def to_internal_value(self, data: Any) -> date:
        """Return the month's first day. Raises ValidationError."""
        match = _MONTH.match(data) if isinstance(data, str) else None
        if match is None or match[1] == "0000":
            self.fail("invalid")
        return date(int(match[1]), int(match[2]), 1)

    def to_representation(self, value: date) -> str:
        """Return `yyyy-mm`."""
        return f"{value:%Y-%m}"


class ReasonBody(serializers.Serializer[Any]):
    """Why."""

    reason = serializers.CharField(max_length=500)


class RemarkBody(serializers.Serializer[Any]):
    """Why, where there is something to say."""

    reason = serializers.CharField(max_length=500, required=False, allow_blank=True, default="")


def key_of(rows: models.QuerySet[Any], field: str, **names: Any) -> int:
    """Return the key of a visible row by its uid or slug. Raises Invalid for `field` where the caller sees none."""
    found = rows.filter(**names).values_list("pk", flat=True).first()
    if found is None:
        raise Invalid({field: "There is no such row, or it is not yours to see."})
    return int(found)


def optional_key(rows: models.QuerySet[Any], field: str, **names: Any) -> int | None:
    """Return `key_of`, None where nothing is named."""
    return None if all(value in (None, "") for value in names.values()) else key_of(rows, field, **names)
