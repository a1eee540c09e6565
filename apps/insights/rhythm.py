"""What the clock tells: hours of the week at which work rests, and hours that cost far more than usual. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from statistics import median

WEEKS = 4
SLOTS = 168
HOUR = timedelta(hours=1)
#: A median absolute deviation × this estimates a standard deviation (normal distribution: 1 ÷ Φ⁻¹(3/4)).
MAD_SCALE = Decimal("1.4826")
#: So many scaled deviations above the median, and so much of it at least, an hour counts as unusual.
DEVIATIONS, LEAST_RATIO = 3, Decimal("1.25")
#: Less than so many hours of the week at rest, or in use, make no rhythm.
MIN_REST, MIN_BUSY = 12, 12


@dataclass(frozen=True, slots=True)
class Hour:
    """What a workspace held in an hour; `idle` None: its use is not known."""

    gpu_ms: int
    product: Decimal
    idle: bool | None


@dataclass(frozen=True, slots=True)
class Rest:
    """Hours of the week (0: Monday 00:00) at which held GPUs lay idle in each of the four weeks."""

    slots: list[int]
    gpu_ms: int
    product: Decimal

    @property
    def spans(self) -> list[tuple[int, int]]:
        """The slots as ranges [from, to)."""
        found: list[tuple[int, int]] = []
        for slot in self.slots:
            if found and found[-1][1] == slot:
                found[-1] = (found[-1][0], slot + 1)
            else:
                found.append((slot, slot + 1))
        return found


def resting(hours: Mapping[datetime, Hour], end: datetime) -> Rest | None:
    """Return when work rests, judged by the four weeks that end at `end`; None: no rhythm, or not known.

    A slot rests where GPUs were held and known to be idle in every week; an hour of unknown use rests never.
    """
    start = end - timedelta(weeks=WEEKS)
    rest: list[int] = []
    busy = 0
    gpu, product = 0, Decimal(0)
    for number in range(SLOTS):
        first = start + number * HOUR
        seen = [hours.get(first + timedelta(weeks=week)) for week in range(WEEKS)]
        if all(one is not None and one.idle for one in seen):
            rest.append(first.weekday() * 24 + first.hour)
            gpu += sum(one.gpu_ms for one in seen if one is not None)
            product += sum((one.product for one in seen if one is not None), Decimal(0))
        elif any(one is not None and one.idle is False for one in seen):
            busy += 1
    if len(rest) < MIN_REST or busy < MIN_BUSY:
        return None
    return Rest(sorted(rest), gpu, product)


def words(spans: Sequence[tuple[int, int]]) -> str:
    """Write slots as days and hours: "Mon 19:00 to Tue 07:00, …", at most six spans."""
    days = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

    def at(slot: int) -> str:
        return f"{days[slot // 24 % 7]} {slot % 24:02}:00"

    shown = [f"{at(first)} to {at(last)}" for first, last in spans[:6]]
    return ", ".join(shown) + (f" and {len(spans) - 6} more" if len(spans) > 6 else "")


@dataclass(frozen=True, slots=True)
class Spike:
    """Unusual hours of a day: what they cost, what is usual at these hours, the difference."""

    hours: list[datetime]
    cost: Decimal
    usual: Decimal

    @property
    def excess(self) -> Decimal:
        """Beyond what is usual."""
        return self.cost - self.usual


def unusual(now: Decimal, earlier: Sequence[Decimal]) -> Decimal | None:
    """Return the median of the same hour of earlier weeks where `now` is unusual against it, else None."""
    middle = median(earlier)
    spread = median([abs(value - middle) for value in earlier]) * MAD_SCALE
    return middle if now > middle + DEVIATIONS * spread and now > middle * LEAST_RATIO else None


def spike(day: Mapping[datetime, Decimal], earlier: Mapping[datetime, Sequence[Decimal]]) -> Spike | None:
    """Return the unusual hours of a day, None where there are none; hours without four earlier weeks tell nothing."""
    hours: list[datetime] = []
    cost = usual = Decimal(0)
    for hour, now in sorted(day.items()):
        before = earlier.get(hour, ())
        if len(before) < WEEKS:
            continue
        middle = unusual(now, before)
        if middle is not None:
            hours.append(hour)
            cost, usual = cost + now, usual + middle
    return Spike(hours, cost, usual) if hours else None
