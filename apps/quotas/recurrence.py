"""Weekly windows of a recurring quota: reading, words, expansion to dated windows. Pure: no ORM, no clock.

Stored as `{"days": [0-6], "start": "HH:MM", "minutes": n}` in UTC (Monday is 0): on each of the days a window begins at
the start and lasts so many minutes, past midnight where it has to. Ranges are half-open `[start, end)`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

DAY_MINUTES = 24 * 60
WEEK_MINUTES = 7 * DAY_MINUTES
#: A recurring quota ends, and no later than so many days ahead: it is written down window by window.
MAX_DAYS_AHEAD = 366
MAX_WINDOWS = 400
#: Hours of an average month, as the rates room counts them (730 h), in weeks of 168 h.
_HOURS_PER_MONTH = 730
DAY_NAMES = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_WEEKDAYS, _WEEKEND = (0, 1, 2, 3, 4), (5, 6)
_CLOCK = re.compile(r"^([01]\d|2[0-3]):([0-5]\d)$")
_KEYS = {"days", "start", "minutes"}

Window = tuple[datetime, datetime]


class Unreadable(ValueError):
    """A repetition that cannot be taken: `errors` holds part ("days", "start", "minutes") → message."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__("; ".join(errors.values()))
        self.errors = dict(errors)


@dataclass(frozen=True, slots=True)
class Recurrence:
    """On each of `days` (Monday 0) a window from `start` (minutes after midnight UTC) of so many `minutes`."""

    days: tuple[int, ...]
    start: int
    minutes: int

    @property
    def clock(self) -> str:
        """The start as HH:MM."""
        return _hhmm(self.start)

    @property
    def minutes_per_week(self) -> int:
        """Minutes of all windows of a week."""
        return len(self.days) * self.minutes

    @property
    def hours_per_month(self) -> int:
        """Hours of all windows in an average month of 730 h, to the nearest whole hour, at least one."""
        scaled = self.minutes_per_week * _HOURS_PER_MONTH
        return max(1, (2 * scaled + WEEK_MINUTES) // (2 * WEEK_MINUTES))

    def plain(self) -> dict[str, Any]:
        """Return it as it is stored, sent and approved."""
        return {"days": list(self.days), "start": self.clock, "minutes": self.minutes}


#: What the request form offers by name.
PRESETS: Mapping[str, Recurrence] = {
    "nights": Recurrence(_WEEKDAYS, 18 * 60, 12 * 60),
    "weekends": Recurrence((5,), 0, 2 * DAY_MINUTES),
}


def _hhmm(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def parse(value: object) -> Recurrence | None:
    """Read a stored or sent repetition; None: none. Raises Unreadable with a message per part."""
    if value is None or value == {}:
        return None
    if not isinstance(value, Mapping):
        raise Unreadable({"days": 'Send an object such as {"days": [0, 1], "start": "18:00", "minutes": 720}.'})
    if unknown := sorted(str(key) for key in set(value) - _KEYS):
        raise Unreadable({"days": f"Unknown in a repetition: {', '.join(unknown)}."})
    errors: dict[str, str] = {}
    days, start, minutes = value.get("days"), value.get("start"), value.get("minutes")
    found: tuple[int, ...] = ()
    if not isinstance(days, list | tuple) or not days:
        errors["days"] = "Choose at least one day of the week."
    elif not all(_whole(day) and 0 <= day <= 6 for day in days):
        errors["days"] = "Days of the week go from 0 (Monday) to 6 (Sunday)."
    elif len(set(days)) != len(days):
        errors["days"] = "Name every day of the week once."
    else:
        found = tuple(sorted(days))
    match = _CLOCK.match(start) if isinstance(start, str) else None
    if match is None:
        errors["start"] = "Enter the start as HH:MM in UTC, such as 18:00."
    if not _whole(minutes) or not 1 <= int(minutes or 0) <= WEEK_MINUTES:
        errors["minutes"] = f"A window lasts between 1 minute and a week ({WEEK_MINUTES:,} minutes)."
    if errors or match is None or minutes is None:
        raise Unreadable(errors)
    made = Recurrence(found, int(match.group(1)) * 60 + int(match.group(2)), int(minutes))
    gap = _smallest_gap(made)
    if made.minutes > gap:
        raise Unreadable({"minutes": f"The next window begins {_length(gap)} later: a window may not last longer."})
    if made.minutes_per_week == WEEK_MINUTES:
        raise Unreadable({"minutes": "That never pauses: choose no repetition instead."})
    return made


def _smallest_gap(recurrence: Recurrence) -> int:
    """Return the minutes between the starts of the two windows that follow each other most closely."""
    days = recurrence.days
    return min(((later - day) % 7 or 7) * DAY_MINUTES for day, later in zip(days, days[1:] + days[:1], strict=True))


def _first_midnight(at: datetime) -> datetime:
    """Return a midnight so far before `at` that no window beginning earlier reaches `at`."""
    day = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return day - timedelta(days=8)


def windows(recurrence: Recurrence, start: datetime, end: datetime) -> list[Window]:
    """Return the dated windows within `[start, end)`, clipped to it, in order; windows that touch are one.

    The same span always gives the same windows, and a cut span gives the same instants. Raises ValueError for a span
    that ends before it starts.
    """
    if end <= start:
        raise ValueError("the span must end after it starts")
    found: list[Window] = []
    midnight = _first_midnight(start)
    length = timedelta(minutes=recurrence.minutes)
    while midnight < end:
        if midnight.weekday() in recurrence.days:
            begins = midnight + timedelta(minutes=recurrence.start)
            low, high = max(begins, start), min(begins + length, end)
            if low < high:
                if found and found[-1][1] == low:
                    low = found.pop()[0]
                found.append((low, high))
        midnight += timedelta(days=1)
    return found


def next_window(recurrence: Recurrence, at: datetime, end: datetime) -> Window | None:
    """Return the window in force at `at`, or the next one before `end`; None: there is none any more."""
    if end <= at:
        return None
    horizon = min(end, at + timedelta(days=8))
    return next(iter(windows(recurrence, at, horizon)), None)


def covers(recurrence: Recurrence, at: datetime) -> bool:
    """Whether `at` lies in a window."""
    found = windows(recurrence, at, at + timedelta(minutes=1))
    return bool(found) and found[0][0] == at


def _length(minutes: int) -> str:
    hours, rest = divmod(minutes, 60)
    parts = [f"{hours:,} h" if hours else "", f"{rest} min" if rest else ""]
    return " ".join(part for part in parts if part)


def _days_words(days: Iterable[int]) -> str:
    chosen = tuple(days)
    if chosen == tuple(range(7)):
        return "every day"
    if chosen == _WEEKDAYS:
        return "every weekday"
    names = [DAY_NAMES[day] for day in chosen]
    return "every " + (names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}")


def words(recurrence: Recurrence) -> str:
    """Return it in words: "every weekday 18:00–06:00 UTC", with the length where it goes past a day."""
    ends = _hhmm((recurrence.start + recurrence.minutes) % DAY_MINUTES)
    days = _days_words(recurrence.days)
    if recurrence.minutes < DAY_MINUTES:
        return f"{days} {recurrence.clock}–{ends} UTC"
    return f"{days} from {recurrence.clock} UTC for {_length(recurrence.minutes)}"


__all__ = [
    "DAY_NAMES",
    "MAX_DAYS_AHEAD",
    "MAX_WINDOWS",
    "PRESETS",
    "WEEK_MINUTES",
    "Recurrence",
    "Unreadable",
    "Window",
    "covers",
    "next_window",
    "parse",
    "windows",
    "words",
]
