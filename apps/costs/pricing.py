"""Turns facts, capacity lines and resource facts of cluster-hours into charges: quantity and rate, never an amount.

What has one price all hour is priced by one INSERT … SELECT per table (`pricing_sql`). Where the price of a row begins
or ends inside its hour, the row is split at that second: facts by the spans that they keep, resources by time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from django.db import connection

from apps.core import clock
from apps.core.money import largest_remainder
from apps.core.partitions import ensure_month, months_between
from apps.costs import pricing_sql as sql
from apps.costs import rollups
from apps.costs.models import PricedHour
from apps.metering import billing
from apps.metering.engine import HOUR_MS
from apps.metering.models import HourStatus
from apps.metering.ports import Written
from apps.metering.sources.base import ms
from apps.rates.choosing import keys, pieces
from apps.rates.models import Rate
from apps.rates.selectors import first_prices, rates_between

HOUR = timedelta(hours=1)
#: Shapes of split rows in memory at a time.
CHUNK = 50_000
#: Stands for "before the resource's first price": not charged for at all, which is not the same as unknown.
NOT_SOLD = -1
#: (from ms, until ms, rate id)
Span = tuple[int, int, int]
#: What a price is for: (flavour id or None, resource, capacity type, service class).
Key = tuple[int | None, str, str, str]


@dataclass(frozen=True, slots=True)
class Cut:
    """A rate in force in part of an hour: milliseconds from the hour's start; `rate_id` None: no rate."""

    start: int
    end: int
    rate_id: int | None


def cuts_of_hour(hour: int, *layers: Sequence[Span]) -> list[Cut]:
    """Return the pieces of the hour beginning at `hour` (ms) by rate; `layers`: (from ms, until ms, id), best first."""
    return [Cut(low - hour, high - hour, rate) for low, high, rate in pieces(hour, hour + HOUR_MS, layers)]


def split_quantity(
    spans: Sequence[int], unit_ms: int, gpu_ms: int, cuts: Sequence[Cut]
) -> list[tuple[int | None, int, int]]:
    """Split one fact over the rates of its hour: (rate id, unit ms, GPU ms) per piece with any quantity.

    Where the fact keeps its spans (start, end, units, … in ms of the hour) and they make up `unit_ms`, each piece gets
    exactly what was held in it; otherwise the quantity is spread by time. GPU time follows by largest remainder.
    """
    held = [0] * len(cuts)
    for start, end, units in zip(spans[0::3], spans[1::3], spans[2::3], strict=True):
        for index, cut in enumerate(cuts):
            overlap = min(end, cut.end) - max(start, cut.start)
            if overlap > 0:
                held[index] += overlap * units
    if sum(held) != unit_ms:
        held = largest_remainder(unit_ms, [cut.end - cut.start for cut in cuts])
    physical = largest_remainder(gpu_ms, held) if any(held) else [0] * len(cuts)
    return [
        (cut.rate_id, quantity, gpu) for cut, quantity, gpu in zip(cuts, held, physical, strict=True) if quantity or gpu
    ]


def price_hours(written: Written) -> None:
    """Replace the charges of the hours written, and the daily charges of their days; in the caller's transaction."""
    if not written.hours:
        return
    hours = sorted(written.hours)
    low, high = hours[0], hours[-1]
    for month in months_between(low, high):
        ensure_month("costs_charge", month)
    rates = rates_between(written.cluster_id, low, high + HOUR)
    parameters: dict[str, Any] = {"cluster": written.cluster_id, "low": low, "high": high, "hours": hours}
    with _joined_by_hash(), connection.cursor() as cursor:
        cursor.execute(sql.DELETE, parameters)
        for statement in (sql.FACTS, sql.LINES, sql.RESOURCES):
            cursor.execute(statement, parameters)
        if crossed := _crossed(rates, hours):
            _price_split(written.cluster_id, sorted(crossed), rates)
    roll_up(written.cluster_id, written.days)
    _remember(written, hours)


@contextmanager
def _joined_by_hash() -> Iterator[None]:
    """Keep the planner from nested loops: facts written in this transaction have no statistics yet."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('enable_nestloop'), set_config('enable_nestloop', 'off', true)")
        before = cursor.fetchone()[0]
        yield
        cursor.execute("SELECT set_config('enable_nestloop', %s, true)", [before])


def _crossed(rates: Iterable[Rate], hours: Sequence[datetime]) -> set[datetime]:
    """Return the hours inside which a rate begins or ends."""
    wanted = set(hours)
    edges = (edge for rate in rates for edge in (rate.valid.lower, rate.valid.upper) if edge is not None)
    return {hour for edge in edges if (hour := clock.hour_floor(edge)) != edge and hour in wanted}


class Cuts:
    """The pieces of hours for everything that has prices, each worked out once."""

    def __init__(self, rates: Iterable[Rate], sold_since: Mapping[str, datetime | None]) -> None:
        self._spans: dict[Key, list[Span]] = {}
        for rate in rates:
            start = ms(rate.valid.lower) if rate.valid.lower else 0
            end = ms(rate.valid.upper) if rate.valid.upper else 1 << 60
            key = (rate.flavour_id, rate.resource, rate.capacity_type, rate.service_class)
            self._spans.setdefault(key, []).append((start, end, rate.pk))
        self._since = {resource: ms(at) if at else 0 for resource, at in sold_since.items()}
        self._found: dict[tuple[int, Key], list[Cut]] = {}

    def of(self, hour: int, key: Key) -> list[Cut]:
        """Return the pieces of an hour for a flavour or resource, capacity type and service class."""
        if (hour, key) not in self._found:
            flavour, resource, capacity_type, service_class = key
            fitting = [(flavour, resource, *one) for one in keys(capacity_type, service_class)]
            layers = [self._spans[one] for one in fitting if one in self._spans]
            if resource:
                layers.append([(0, self._since.get(resource, 1 << 60), NOT_SOLD)])
            self._found[hour, key] = cuts_of_hour(hour, *layers)
        return self._found[hour, key]


def _price_split(cluster_id: int, hours: Sequence[datetime], rates: Iterable[Rate]) -> None:
    """Charge the rows whose own price begins or ends inside their hour.

    Rows of the same spans and quantities are split alike: each such shape is worked out once here, and the database
    makes the charges of all rows that have it. A chunk of shapes in memory at a time.
    """
    cuts = Cuts(rates, first_prices(cluster_id))
    parameters: dict[str, Any] = {"cluster": cluster_id, "low": hours[0], "high": hours[-1], "hours": list(hours)}
    for shapes, insert in sql.SPLITS:
        with connection.chunked_cursor() as reader, connection.cursor() as writer:
            reader.execute(shapes, parameters)
            while rows := reader.fetchmany(CHUNK):
                writer.execute(insert, {**parameters, **_pieces(rows, cuts)})


def _pieces(shapes: Iterable[tuple[Any, ...]], cuts: Cuts) -> dict[str, list[Any]]:
    """Return the pieces of shapes as columns for `pricing_sql.SPLITS`: price keys once, then piece by piece."""
    numbers: dict[tuple[datetime, Key], int] = {}
    columns: list[tuple[Any, ...]] = []
    for hour, flavour, resource, capacity_type, service_class, spans, unit_ms, gpu_ms in shapes:
        key = (flavour, resource, capacity_type, service_class)
        number = numbers.setdefault((hour, key), len(numbers) + 1)
        parts = split_quantity(spans, unit_ms, gpu_ms, cuts.of(ms(hour), key))
        # Spread over the whole hour first: what lies before a resource's first price is then left out, not moved.
        sold = [part for part in parts if part[0] != NOT_SOLD]
        shape = (number, "{" + ",".join(map(str, spans)) + "}", unit_ms, gpu_ms)
        columns += [(*shape, index, *part) for index, part in enumerate(sold)]
    names = ("keys", "spans", "units", "gpu", "numbers", "rates", "quantities", "gpu_parts")
    found: dict[str, list[Any]] = {name: [line[at] for line in columns] for at, name in enumerate(names)}
    for at, name in enumerate(("key_flavours", "key_resources", "key_types", "key_classes")):
        found[name] = [key[at] for _, key in numbers]
    found["key_hours"] = [hour for hour, _ in numbers]
    found["key_flavours"] = [flavour or 0 for flavour in found["key_flavours"]]
    return found


def roll_up(cluster_id: int, days: Sequence[date]) -> None:
    """Replace the daily charges of `days` (billing days) of a cluster."""
    start, _ = billing.day_bounds(min(days))
    _, end = billing.day_bounds(max(days))
    zone = f"{int(billing.offset().total_seconds())} seconds"
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM costs_daycharge WHERE cluster_id = %s AND day = ANY(%s)", [cluster_id, list(days)])
        cursor.execute(sql.ROLL_UP, [zone, cluster_id, start, end, list(days)])
    rollups.roll_up(cluster_id, days)


def _remember(written: Written, hours: Sequence[datetime]) -> None:
    """Record which revisions are priced, and how much of each hour has no rate."""
    revisions = dict(zip(written.hours, written.revisions, strict=True))
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT hour, sum(quantity_ms) FROM costs_charge WHERE cluster_id = %s AND hour >= %s AND hour <= %s"
            " AND hour = ANY(%s) AND rate_id IS NULL GROUP BY hour",
            [written.cluster_id, hours[0], hours[-1], list(hours)],
        )
        unpriced = dict(cursor.fetchall())
    now = clock.now()
    PricedHour.objects.bulk_create(
        [
            PricedHour(
                cluster_id=written.cluster_id,
                hour=hour,
                revision=revisions[hour],
                priced_at=now,
                unpriced_ms=int(unpriced.get(hour, 0)),
            )
            for hour in hours
        ],
        batch_size=2000,
        update_conflicts=True,
        unique_fields=["cluster", "hour"],
        update_fields=["revision", "priced_at", "unpriced_ms"],
    )


def due_hours(limit: int) -> dict[int, list[HourStatus]]:
    """Return hours whose charges do not stand on the present facts and rates, by cluster, newest first.

    Hours of a closed month are never due: late facts of theirs become corrections, and no later price reaches them.
    """
    with connection.cursor() as cursor:
        cursor.execute(sql.DUE, [limit])
        ids = [pk for (pk,) in cursor.fetchall()]
    found: dict[int, list[HourStatus]] = {}
    for status in HourStatus.objects.filter(pk__in=ids).order_by("-hour"):
        found.setdefault(status.cluster_id, []).append(status)
    return found
