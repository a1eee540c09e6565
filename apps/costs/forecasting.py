"""Where a month will end: by weekday where history carries it, else by the month's daily mean. Pure: no ORM, no floats.

Seasonal-naive: a day to come is the mean of its weekday over the last eight weeks × a level, the level being how the
last fourteen known days compare with those means. The range comes from history: all sums of residuals over as many
days in a row as are still to come, the tenth and the ninetieth percentile of them (nearest rank). See Hyndman,
*Forecasting: principles and practice*, ch. 5.2 (seasonal naive) and 5.5 (intervals from residuals, no normality).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, localcontext
from typing import Final

WEEK: Final = 7
#: Weeks of history that count; older ones say little about next week.
WEEKS: Final = 8
#: Known days of the month without which nothing is said.
MIN_DAYS: Final = 3
#: Known days of history without which weekdays say nothing; each weekday at least twice.
MIN_HISTORY: Final = 28
LEVEL_DAYS: Final = 14
#: Sums of residuals without which percentiles are none.
MIN_SUMS: Final = 5
LOW_PERCENT: Final = 10
HIGH_PERCENT: Final = 90
#: Of a run rate: at least a quarter more or less a day.
WIDE_LOW, WIDE_HIGH = Decimal("0.75"), Decimal("1.25")
_PLACES = Decimal("0.000001")

EXACT, WEEKDAYS, RUN_RATE = "exact", "weekdays", "run_rate"

Known = Decimal | int | None


@dataclass(frozen=True, slots=True)
class Forecast:
    """Where a month will end: low ≤ mid ≤ high, in the unit of the days given; `basis` says on what it stands."""

    low: Decimal
    mid: Decimal
    high: Decimal
    basis: str
    method: str

    @property
    def is_exact(self) -> bool:
        """Whether nothing is left to guess."""
        return self.method == EXACT


def forecast(
    daily: Sequence[Known],
    days_in_month: int,
    history: Sequence[Known],
    *,
    running: Decimal | int = 0,
    month: date | None = None,
) -> Forecast | None:
    """Forecast a month's total from its full days so far; None where fewer than three of them are known.

    `daily`: the month's full days from its first on, `history`: the days right before it, oldest first; None is an
    unknown day (it is forecast, never taken for zero). `running`: what the day under way has reached already. `month`
    only names the month in `basis`. Raises ValueError for more days than the month has.
    """
    if len(daily) > days_in_month:
        raise ValueError(f"{len(daily)} days in a month of {days_in_month}")
    known = [Decimal(value) for value in daily if value is not None]
    if len(known) < MIN_DAYS:
        return None
    with localcontext() as context:
        context.prec = 60
        spent = sum(known, Decimal(0)) + running
        missing = [index for index in range(days_in_month) if index >= len(daily) or daily[index] is None]
        name = f"{month:%B}" if month is not None else "the month"
        if not missing:
            return Forecast(spent, spent, spent, f"all {days_in_month} days of {name}", EXACT)
        found = _by_weekday(daily, history, missing, name) or _by_mean(known, len(missing), name)
        low, mid, high, basis, method = found
        already = sum(known, Decimal(0))
        floor = max(spent, already)
        mid = max(floor, (already + mid).quantize(_PLACES))
        low = min(mid, max(floor, (already + low).quantize(_PLACES)))
        high = max(mid, (already + high).quantize(_PLACES))
    return Forecast(low, mid, high, basis, method)


def moved(guess: Forecast, by: Decimal | int) -> Forecast:
    """Return a forecast of days with what is billed besides them added: it is known, so the range stays as wide."""
    if not by:
        return guess
    with localcontext() as context:
        context.prec = 60
        low, mid, high = (value + by for value in (guess.low, guess.mid, guess.high))
    return Forecast(low, mid, high, f"{guess.basis}, with the corrections and credits billed so far", guess.method)


def _by_mean(known: Sequence[Decimal], left: int, name: str) -> tuple[Decimal, Decimal, Decimal, str, str]:
    """The daily mean goes on; the range reaches from the month's least to its greatest day, and a quarter at least."""
    mean = sum(known, Decimal(0)) / len(known)
    low = min(min(known), mean * WIDE_LOW)
    high = max(max(known), mean * WIDE_HIGH)
    basis = f"the mean of {len(known)} days of {name}; too little history for weekdays, so the range is wide"
    return low * left, mean * left, high * left, basis, RUN_RATE


def _by_weekday(
    daily: Sequence[Known], history: Sequence[Known], missing: Sequence[int], name: str
) -> tuple[Decimal, Decimal, Decimal, str, str] | None:
    """Means by weekday × the level of late; None where the history carries neither means nor a range."""
    past: list[Decimal | None] = [None if v is None else Decimal(v) for v in history[-WEEKS * WEEK :]]
    if sum(value is not None for value in past) < MIN_HISTORY:
        return None
    # The weekday of a position counted from the month's first day; the history lies before it.
    first = -len(past)
    by_day: list[list[Decimal]] = [[] for _ in range(WEEK)]
    for offset, value in enumerate(past):
        if value is not None:
            by_day[(first + offset) % WEEK].append(value)
    if min(len(values) for values in by_day) < 2:
        return None
    means = [sum(values, Decimal(0)) / len(values) for values in by_day]
    late = [(first + i, value) for i, value in enumerate(past)]
    late += [(i, None if value is None else Decimal(value)) for i, value in enumerate(daily)]
    recent = [(at, value) for at, value in late if value is not None][-LEVEL_DAYS:]
    usual = sum((means[at % WEEK] for at, _ in recent), Decimal(0))
    if usual <= 0:
        return None
    level = sum((value for _, value in recent), Decimal(0)) / usual
    sums = _residual_sums(past, means, len(missing))
    if len(sums) < MIN_SUMS:
        return None
    mid = sum((means[index % WEEK] for index in missing), Decimal(0)) * level
    below = min(Decimal(0), _percentile(sums, LOW_PERCENT)) * level
    above = max(Decimal(0), _percentile(sums, HIGH_PERCENT)) * level
    days = sum(value is not None for value in daily)
    weeks = -(-len(past) // WEEK)
    basis = f"{days} days of {name} and the weekdays of {weeks} weeks before"
    return mid + below, mid, mid + above, basis, WEEKDAYS


def _residual_sums(past: Sequence[Decimal | None], means: Sequence[Decimal], days: int) -> list[Decimal]:
    """Return, for every run of `days` days of history, by how much it missed the weekdays' means; sorted.

    An unknown day missed by nothing: it is left out, not taken for zero.
    """
    first = -len(past)
    off = [Decimal(0) if v is None else v - means[(first + i) % WEEK] for i, v in enumerate(past)]
    total = sum(off[:days], Decimal(0))
    sums = [total] if len(off) >= days else []
    for index in range(days, len(off)):
        total += off[index] - off[index - days]
        sums.append(total)
    return sorted(sums)


def _percentile(ordered: Sequence[Decimal], percent: int) -> Decimal:
    """Return the nearest-rank percentile of sorted values."""
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, rank - 1)]
