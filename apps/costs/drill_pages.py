"""What the pages of the way down share: pages of a long table, moments in addresses."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any, TypeVar

from django.core.paginator import EmptyPage, PageNotAnInteger, Paginator
from django.http import HttpRequest

from apps.core.errors import Invalid, NotVisible
from apps.core.lists import PER_PAGE

Moment = TypeVar("Moment", date, datetime)


def sensible(found: Moment) -> Moment:
    """Return a moment in this century. Raises ValueError for others: calendars end there, and pages look beside it."""
    if not 2000 <= found.year < 2100:
        raise ValueError(f"not a year from 2000 to 2099: {found.year}")
    return found


def page_of(request: HttpRequest, rows: Sequence[Any]) -> Any:
    """Return the page of rows asked for. Raises Invalid for one that is no number, NotVisible past the end."""
    try:
        return Paginator(rows, PER_PAGE).page(request.GET.get("page", 1))
    except PageNotAnInteger as error:
        raise Invalid({"page": "The page is a whole number."}) from error
    except EmptyPage as error:
        raise NotVisible("There are fewer pages than that.") from error


def hour_text(hour: datetime) -> str:
    """Return an hour as addresses write it: 2026-10-01T05, in UTC."""
    return f"{hour.astimezone(UTC):%Y-%m-%dT%H}"


def hour_of(text: str) -> datetime:
    """Return the hour that an address names. Raises NotVisible for none."""
    try:
        return sensible(datetime.strptime(text, "%Y-%m-%dT%H").replace(tzinfo=UTC))
    except ValueError as error:
        raise NotVisible("There is no such hour.") from error


__all__ = ["hour_of", "hour_text", "page_of", "sensible"]
