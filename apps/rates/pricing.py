"""Pricing of quantities over dated rates: pure, exact, no ORM (design §7; worked case in the tests)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal, localcontext
from typing import Generic, NamedTuple, Protocol, TypeVar

from apps.core.money import MILLISECONDS_PER_HOUR, Money, largest_remainder

_MICROSECOND = timedelta(microseconds=1)


class Span(Protocol):
    """A half-open time range `[lower, upper)`; an open bound is None (psycopg's DateTimeTZRange fits)."""

    @property
    def lower(self) -> datetime | None:
        """Where it begins."""
        ...

    @property
    def upper(self) -> datetime | None:
        """Where it ends, exclusive."""
        ...


class RateLike(Protocol):
    """What pricing needs of a rate: rates of ONE flavour on one cluster are given together."""

    @property
    def valid(self) -> Span:
        """When it is in force."""
        ...

    @property
    def hourly(self) -> Money:
        """Price of one unit for one hour."""
        ...


R = TypeVar("R", bound=RateLike)


class NoRate(ValueError):
    """No rate is in force in `[start, end)`: the price is unknown, which is not zero."""

    def __init__(self, start: datetime, end: datetime) -> None:
        super().__init__(f"no rate is in force from {start:%Y-%m-%d %H:%M:%S} to {end:%Y-%m-%d %H:%M:%S} UTC")
        self.start = start
        self.end = end


class Segment(NamedTuple, Generic[R]):
    """A piece of time `(start, end, rate)` with the rate in force in it; rate None: nobody published one."""

    start: datetime
    end: datetime
    rate: R | None

    @property
    def microseconds(self) -> int:
        """Its length in microseconds."""
        return (self.end - self.start) // _MICROSECOND


def split_by_rate(start: datetime, end: datetime, rates: Sequence[R]) -> list[Segment[R]]:
    """Cut `[start, end)` where a rate begins or ends; the pieces join without gap and carry their rate or None.

    `rates` are those of one flavour on one cluster, in any order. Rates begin and end on whole seconds (the publishing
    action sees to it), hence a change in mid-hour splits at the second. Raises ValueError for an empty or reversed
    span and for rates that overlap.
    """
    if end <= start:
        raise ValueError("the span must end after it starts")
    spans: list[tuple[datetime, datetime, R]] = []
    for rate in rates:
        low = start if rate.valid.lower is None else max(start, rate.valid.lower)
        high = end if rate.valid.upper is None else min(end, rate.valid.upper)
        if low < high:
            spans.append((low, high, rate))
    spans.sort(key=lambda span: span[0])
    segments: list[Segment[R]] = []
    at = start
    for low, high, rate in spans:
        if low < at:
            raise ValueError(f"two rates are in force at {low.isoformat()}")
        if low > at:
            segments.append(Segment(at, low, None))
        segments.append(Segment(low, high, rate))
        at = high
    if at < end:
        segments.append(Segment(at, end, None))
    return segments


def allot(quantity_ms: int, segments: Sequence[Segment[R]]) -> list[int]:
    """Spread `quantity_ms` unit-milliseconds over the segments in proportion to their length (largest remainder).

    The parts sum to the quantity exactly.
    """
    return largest_remainder(quantity_ms, [segment.microseconds for segment in segments])


def price(quantity_ms: int, segments: Sequence[Segment[R]]) -> Money:
    """Return the price of `quantity_ms` unit-milliseconds spread evenly over `segments`, exact and unrounded.

    Formula: Σ (part × hourly rate) ÷ 3,600,000 ms, divided once. Raises NoRate for the first part without a rate
    (also for a quantity of nothing: unknown is never zero), ValueError for no segments,
    CurrencyMismatch where rates of two currencies meet.
    """
    if not segments:
        raise ValueError("nothing to price: no segments")
    total: Money | None = None
    with localcontext() as context:
        context.prec = 60
        for part, segment in zip(allot(quantity_ms, segments), segments, strict=True):
            if segment.rate is None:
                raise NoRate(segment.start, segment.end)
            amount = segment.rate.hourly * part
            total = amount if total is None else total + amount
        if total is None:
            raise ValueError("nothing to price: no segments")
        return Money(total.amount / MILLISECONDS_PER_HOUR, total.currency)


#: Hours of the month that estimates use: 365 × 24 ÷ 12.
HOURS_PER_MONTH = 730


def monthly(units: int, hourly: Money) -> Money:
    """Return what `units` cost in a month of 730 hours, used around the clock; negative for a reduction."""
    return hourly * Decimal(units * HOURS_PER_MONTH)
