"""Which price applies: pure, no ORM.

A price may be for one capacity type and one service class or ("") for every one that has no price of its own. Of the
prices in force at a moment the one of the exact service class goes before the standard, and among those the one of the
exact capacity type before the one for every type: a class is a promise to the team, a capacity type only how the node
was bought.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Protocol, TypeVar

from apps.rates.pricing import RateLike, Segment

T = TypeVar("T")


class KeyedRate(RateLike, Protocol):
    """A rate that says for which capacity type and service class it is."""

    @property
    def capacity_type(self) -> str:
        """ "" or the type it is for."""
        ...

    @property
    def service_class(self) -> str:
        """ "" (standard) or the class it is for."""
        ...


K = TypeVar("K", bound=KeyedRate)

#: The order in which `chosen` looks, for SQL: `ORDER BY` this, first row wins.
SQL_ORDER = "(r.service_class <> '') DESC, (r.capacity_type <> '') DESC"


def keys(capacity_type: str, service_class: str) -> list[tuple[str, str]]:
    """Return the (capacity type, service class) of prices that fit, best first, each once."""
    return list(
        dict.fromkeys(
            [(capacity_type, service_class), ("", service_class), (capacity_type, ""), ("", "")],
        )
    )


def layers(rates: Iterable[K], capacity_type: str, service_class: str) -> list[list[K]]:
    """Return the rates that fit, in layers, best first; rates of one layer never overlap (database constraint)."""
    by_key: dict[tuple[str, str], list[K]] = {}
    for rate in rates:
        by_key.setdefault((rate.capacity_type, rate.service_class), []).append(rate)
    return [by_key[key] for key in keys(capacity_type, service_class) if key in by_key]


def chosen(rates: Iterable[K], capacity_type: str, service_class: str, at: datetime) -> K | None:
    """Return the rate of one flavour (or resource) that applies at `at`; None: nobody published one."""
    for layer in layers(rates, capacity_type, service_class):
        for rate in layer:
            low, high = rate.valid.lower, rate.valid.upper
            if (low is None or low <= at) and (high is None or at < high):
                return rate
    return None


def pieces(start: int, end: int, spans: Sequence[Sequence[tuple[int, int, T]]]) -> list[tuple[int, int, T | None]]:
    """Cut `[start, end)` by layered spans (from, until, value), best layer first; None where no span lies.

    Neighbouring pieces of the same value are one piece. The pieces join without gap or overlap.
    """
    edges = {start, end}
    for layer in spans:
        for low, high, _ in layer:
            edges.update(edge for edge in (low, high) if start < edge < end)
    ordered = sorted(edges)
    found: list[tuple[int, int, T | None]] = []
    for low, high in itertools.pairwise(ordered):
        value: T | None = None
        for layer in spans:
            inside = [item for first, last, item in layer if first <= low and high <= last]
            if inside:
                value = inside[0]
                break
        if found and found[-1][2] == value:
            found[-1] = (found[-1][0], high, value)
        else:
            found.append((low, high, value))
    return found


def split(
    start: datetime, end: datetime, rates: Iterable[K], capacity_type: str, service_class: str
) -> list[Segment[K]]:
    """Cut `[start, end)` where another price begins to apply; the pieces join and carry their rate or None.

    `rates` are those of one flavour or resource on one cluster, in any order. Raises ValueError for an empty span.
    """
    if end <= start:
        raise ValueError("the span must end after it starts")
    fitting = layers(rates, capacity_type, service_class)
    edges = {start, end}
    for layer in fitting:
        for rate in layer:
            edges.update(edge for edge in (rate.valid.lower, rate.valid.upper) if edge and start < edge < end)
    ordered = sorted(edges)
    flat = [rate for layer in fitting for rate in layer]
    found: list[Segment[K]] = []
    for low, high in itertools.pairwise(ordered):
        best = chosen(flat, capacity_type, service_class, low)
        if found and found[-1].rate is best:
            found[-1] = Segment(found[-1].start, high, best)
        else:
            found.append(Segment(low, high, best))
    return found
