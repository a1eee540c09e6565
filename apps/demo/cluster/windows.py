"""Time windows and durations of the allocation API's query parameters."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from apps.demo.cluster.errors import bad_request

_SPAN = re.compile(r"(\d+)(m|h|d)\Z")
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


def parse_span(text: str, name: str) -> timedelta:
    """`30m`, `1h`, `7d`. Raises 400."""
    match = _SPAN.match(text)
    if match is None or int(match.group(1)) == 0:
        raise bad_request(f"{name} must be a duration such as 30m, 1h or 1d, not {text!r}")
    return int(match.group(1)) * _UNITS[match.group(2)]


def parse_window(text: str, now: datetime) -> tuple[datetime, datetime]:
    """Keyword, duration back from now, or `start,end` in RFC 3339 or seconds since the epoch. Raises 400."""
    now = now.astimezone(UTC)
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    month = today.replace(day=1)
    week = today - timedelta(days=(today.weekday() + 1) % 7)  # OpenCost's weeks begin on Sunday
    named = {
        "today": (today, today + timedelta(days=1)),
        "yesterday": (today - timedelta(days=1), today),
        "week": (week, week + timedelta(days=7)),
        "lastweek": (week - timedelta(days=7), week),
        "month": (month, (month + timedelta(days=32)).replace(day=1)),
        "lastmonth": ((month - timedelta(days=1)).replace(day=1), month),
    }
    if text in named:
        return named[text]
    if _SPAN.match(text):
        return now - parse_span(text, "window"), now
    first, comma, second = text.partition(",")
    if not comma:
        raise bad_request(f"illegal window: {text}")
    start, end = _moment(first), _moment(second)
    if end <= start:
        raise bad_request(f"illegal window: {text}: it must end after it starts")
    return start, end


def _moment(text: str) -> datetime:
    try:
        if text.isdigit():
            return datetime.fromtimestamp(int(text), UTC)
        # A plus sign that was not escaped in the URL arrives as a space.
        moment = datetime.fromisoformat(text.replace(" ", "+"))
    except (ValueError, OverflowError, OSError) as error:
        raise bad_request(f"illegal window: {text!r} is no RFC 3339 time and no seconds since the epoch") from error
    if moment.tzinfo is None:
        raise bad_request(f"illegal window: {text!r} needs a time zone")
    return moment.astimezone(UTC)
