"""Which prices are tried when, and how a span of hours is read: pure.

Prices are tried flat (over the whole span) or each within its own validity. Between two edges of tried prices whole
billing days are read from daily charges, the hours left over from charges; an hour inside which a tried price begins
or ends is split from the facts, at the second, as the ledger does it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal

from apps.core.clock import hour_floor
from apps.costs.whatif import Of, TriedPrices
from apps.metering import billing

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True, slots=True)
class TriedPrice:
    """One price to try. `low`/`high` None: without an end. `source`: the card or proposal; `rank`: lower goes first."""

    of: Of
    capacity_type: str
    service_class: str
    amount: Decimal
    low: datetime | None = None
    high: datetime | None = None
    ident: object = None
    source: str = ""
    rank: int = 0

    def overlaps(self, other: TriedPrice) -> bool:
        """Whether there is a moment at which both would be in force."""
        return (self.low is None or other.high is None or self.low < other.high) and (
            other.low is None or self.high is None or other.low < self.high
        )


@dataclass(slots=True)
class Timetable:
    """Prices in time. `flat`: whenever they were in force, they are tried over the whole span."""

    currency: str
    prices: list[TriedPrice] = field(default_factory=list)
    scale: Decimal = Decimal(1)
    flat: bool = True

    def conflict(self) -> tuple[TriedPrice, TriedPrice] | None:
        """Return two prices of different sources for the same thing at the same time; None: there are none."""
        seen: dict[tuple[object, ...], list[TriedPrice]] = {}
        for one in self.prices:
            # Flat, a proposal and a card do not follow each other: both would count all the time.
            rank = 0 if self.flat else one.rank
            known = seen.setdefault((one.of, one.capacity_type, one.service_class, rank), [])
            for other in known:
                if other.source != one.source and (self.flat or one.overlaps(other)):
                    return other, one
            known.append(one)
        return None

    def at(self, moment: datetime) -> TriedPrices:
        """Return the prices tried at a moment: a better rank replaces base price and classes of the same thing."""
        found = TriedPrices(self.currency, scale=self.scale)
        ranked = sorted(self.prices, key=lambda one: (one.rank, one.low is not None, one.low or moment))
        taken: dict[tuple[Of, str], int] = {}
        for one in ranked:
            inside = (one.low is None or one.low <= moment) and (one.high is None or moment < one.high)
            if not (self.flat or inside):
                continue
            if taken.setdefault((one.of, one.capacity_type), one.rank) == one.rank:
                # Of a card's own prices for the same thing the latest counts where it is tried flat.
                found.add(one.of, one.capacity_type, one.service_class, one.amount, one.ident)
        return found

    def edges(self, start: datetime, end: datetime) -> dict[int, list[datetime]]:
        """Return per cluster the moments inside (start, end) at which a tried price begins or ends."""
        found: dict[int, set[datetime]] = {}
        for one in self.prices if not self.flat else ():
            for edge in (one.low, one.high):
                if edge is not None and start < edge < end:
                    found.setdefault(one.of[0], set()).add(edge)
        return {cluster: sorted(edges) for cluster, edges in found.items()}


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of the span at unchanging tried prices: whole days, or hours, or (`cut`) one hour that has to be split.

    `clusters`: of these alone; `without`: of all but these. `days`: from, until (exclusive).
    """

    prices: TriedPrices
    clusters: tuple[int, ...] = ()
    without: tuple[int, ...] = ()
    days: tuple[date, date] | None = None
    hours: tuple[tuple[datetime, datetime], ...] = ()
    cut: datetime | None = None


def plan(start: datetime, end: datetime, prices: Timetable, *, by_month: bool = False) -> list[Piece]:
    """Cut [start, end), whole hours, into pieces that join without gap or overlap, cluster by cluster.

    `by_month`: no piece of days is longer than a billing month, so that work in between can be told. Raises ValueError
    for a span that is empty or not of whole hours.
    """
    if end <= start or hour_floor(start) != start or hour_floor(end) != end:
        raise ValueError("a span of whole hours that ends after it starts")
    edges = prices.edges(start, end)
    found = list(_pieces(start, end, [], prices, by_month, without=tuple(sorted(edges))))
    for cluster in sorted(edges):
        found += _pieces(start, end, edges[cluster], prices, by_month, clusters=(cluster,))
    return found


def _pieces(
    start: datetime,
    end: datetime,
    edges: Sequence[datetime],
    prices: Timetable,
    by_month: bool,
    *,
    clusters: tuple[int, ...] = (),
    without: tuple[int, ...] = (),
) -> Iterator[Piece]:
    for low, high in itertools.pairwise([start, *edges, end]):
        first = low if hour_floor(low) == low else hour_floor(low) + HOUR
        last = hour_floor(high)
        if first >= last:
            continue
        tried = prices.at(first)
        days, hours = _days(first, last)
        if hours:
            yield Piece(tried, clusters, without, hours=tuple(hours))
        for span in _by_month(days) if by_month and days else filter(None, [days]):
            yield Piece(tried, clusters, without, days=span)
    for hour in sorted({hour_floor(edge) for edge in edges if hour_floor(edge) != edge}):
        yield Piece(prices.at(hour), clusters, without, cut=hour)


def _days(first: datetime, last: datetime) -> tuple[tuple[date, date] | None, list[tuple[datetime, datetime]]]:
    """Return the whole billing days inside [first, last), and the hours beside them."""
    begin = billing.day_of(first)
    if billing.day_start(begin) != first:
        begin += DAY
    until = billing.day_of(last)
    if begin >= until:
        return None, [(first, last)]
    low, high = billing.day_start(begin), billing.day_start(until)
    return (begin, until), [span for span in ((first, low), (high, last)) if span[0] < span[1]]


def _by_month(days: tuple[date, date]) -> Iterator[tuple[date, date]]:
    at, until = days
    while at < until:
        following = min(billing.following(at), until)
        yield at, following
        at = following


__all__ = ["Piece", "Timetable", "TriedPrice", "plan"]
