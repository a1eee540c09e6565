"""Corrections in the books: reads what stands billed and what arrived late, and writes the difference.

Runs in the transaction that writes the late rows, under the cluster's lock (`metering.writer.lock_cluster`), so that
two readings of one hour never correct it twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db import connection

from apps import audit
from apps.clusters.models import Cluster
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.formats import datetime_utc
from apps.core.money import MILLISECONDS_PER_HOUR
from apps.costs import adjusting_events as events
from apps.costs import period_calendar, pricing, pricing_sql
from apps.costs.choices import PeriodStatus
from apps.costs.corrections import Entry, Key, Owner, differences
from apps.costs.models import Correction, Period
from apps.metering import billing
from apps.metering.ports import Late, Written
from apps.metering.sources.base import ms
from apps.rates.models import Rate
from apps.rates.selectors import first_prices, rates_between
from apps.teams import scope

HOUR = timedelta(hours=1)
ACTOR = Actor.system("costs.corrections")
#: Late rows stand beside the frozen ones in tables of the same form, revision by revision.
_LATE_TABLES = {
    "metering_hourfact f": "metering_latefact",
    "metering_capacityline l": "metering_lateline",
    "metering_resourcefact f": "metering_lateresource",
}
_OF_REVISION = (
    "(SELECT x.* FROM {table} x JOIN unnest(%(hours)s::timestamptz[], %(revisions)s::integer[]) AS w(hour, revision)"
    " ON w.hour = x.hour AND w.revision = x.revision WHERE x.cluster_id = %(cluster)s) {alias}"
)


def late_statement() -> str:
    """Return the statement that reads everything chargeable of late hours in the form of `pricing_sql.SPLIT`."""
    statement = pricing_sql.SPLIT
    for source, table in _LATE_TABLES.items():
        statement = statement.replace(f"FROM {source}", f"FROM {_OF_REVISION.format(table=table, alias=source[-1])}")
    return statement


def late_entries(cluster_id: int, hours: Sequence[datetime], revisions: Sequence[int]) -> dict[datetime, list[Entry]]:
    """Return the late content of the given revisions by hour, priced with the prices of each hour."""
    cuts = pricing.Cuts(rates_between(cluster_id, min(hours), max(hours) + HOUR), first_prices(cluster_id))
    found: dict[datetime, list[Entry]] = defaultdict(list)
    parameters: dict[str, Any] = {
        "cluster": cluster_id,
        "hours": list(hours),
        "revisions": list(revisions),
        "low": min(hours),
        "high": max(hours),
    }
    with connection.cursor() as cursor:
        cursor.execute(late_statement(), parameters)
        for row in cursor.fetchall():
            hour, _, kind, _, team_id, unit_id, unit_path, centre, team, unit, _, flavour, model = row[:13]
            resource, spans, quantity, gpu_ms, _, _, capacity_type, service_class = row[13:]
            owner = Owner(tuple(unit_path), team, unit)
            pieces = cuts.of(ms(hour), (flavour, resource, capacity_type, service_class))
            for rate_id, part, gpu in pricing.split_quantity(spans, quantity, gpu_ms, pieces):
                if rate_id == pricing.NOT_SOLD:
                    continue
                key = Key(kind, team_id, unit_id, centre, flavour, model, rate_id)
                found[hour].append(Entry(key, owner, part, gpu))
    return found


_COLUMNS = (
    "hour, kind, team_id, unit_id, cost_centre, flavour_id, gpu_model, rate_id, max(unit_path), max(team_name),"
    " max(unit_name), sum(quantity_ms)::bigint, sum(gpu_ms)::bigint"
)


def _entries(table: str, cluster_id: int, hours: Sequence[datetime]) -> dict[datetime, list[Entry]]:
    found: dict[datetime, list[Entry]] = defaultdict(list)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {_COLUMNS} FROM {table} WHERE cluster_id = %s AND hour >= %s AND hour <= %s AND hour = ANY(%s)"  # noqa: S608 (own constants)
            " GROUP BY hour, kind, team_id, unit_id, cost_centre, flavour_id, gpu_model, rate_id",
            [cluster_id, min(hours), max(hours), list(hours)],
        )
        for hour, kind, team_id, unit_id, centre, flavour, model, rate, path, team, unit, quantity, gpu in cursor:
            key = Key(kind, team_id, unit_id, centre, flavour, model, rate)
            found[hour].append(Entry(key, Owner(tuple(path or ()), team, unit), int(quantity), int(gpu)))
    return found


def charged_entries(cluster_id: int, hours: Sequence[datetime]) -> dict[datetime, list[Entry]]:
    """Return the charges of hours, added up by what is billed apart."""
    return _entries("costs_charge", cluster_id, hours)


def corrected_entries(cluster_id: int, hours: Sequence[datetime]) -> dict[datetime, list[Entry]]:
    """Return the corrections made of hours so far, added up."""
    return _entries("costs_correction", cluster_id, hours)


def correct_late(late: Late) -> list[Correction]:
    """Write what late readings of frozen hours change, into the open month. In the caller's transaction.

    What `metering.ports.on_late` tells leads here. Telling the same reading again writes nothing.
    """
    if not late.hours:
        return []
    charged = charged_entries(late.cluster_id, late.hours)
    corrected = corrected_entries(late.cluster_id, late.hours)
    known = late_entries(late.cluster_id, late.hours, late.revisions)
    found = {
        (hour, revision): differences([*charged.get(hour, []), *corrected.get(hour, [])], known.get(hour, []))
        for hour, revision in zip(late.hours, late.revisions, strict=True)
    }
    return _write(late.cluster_id, found, "arrived after {month} was closed (reading {revision})")


def take_back(written: Written) -> list[Correction]:
    """Take back the corrections of hours that were written anew, as those of a re-opened month are.

    What `metering.ports.on_hours_written` tells leads here, after the charges were made: those say everything now, so
    that what was corrected before would be billed twice.
    """
    if not written.hours:
        return []
    corrected = corrected_entries(written.cluster_id, written.hours)
    if not corrected:
        return []
    revisions = dict(zip(written.hours, written.revisions, strict=True))
    found = {(hour, revisions[hour]): differences(entries, []) for hour, entries in corrected.items()}
    return _write(
        written.cluster_id, found, "is charged in full again since {month} was re-opened (reading {revision})"
    )


def _write(cluster_id: int, found: Mapping[tuple[datetime, int], Sequence[Entry]], cause: str) -> list[Correction]:
    if not any(found.values()):
        return []
    period = lock_open_period()
    closed = _periods_of([hour for hour, _ in found])
    rows = [
        Correction(
            period=period,
            corrects=closed[hour],
            cluster_id=cluster_id,
            hour=hour,
            hour_revision=revision,
            kind=entry.key.kind,
            team_id=entry.key.team_id,
            unit_id=entry.key.unit_id,
            unit_path=list(entry.owner.unit_path),
            cost_centre=entry.key.cost_centre,
            team_name=entry.owner.team_name,
            unit_name=entry.owner.unit_name,
            flavour_id=entry.key.flavour_id,
            gpu_model=entry.key.gpu_model,
            rate_id=entry.key.rate_id,
            quantity_ms=entry.quantity_ms,
            gpu_ms=entry.gpu_ms,
            reason=f"{datetime_utc(hour)} " + cause.format(month=f"{closed[hour].month:%B %Y}", revision=revision),
        )
        for (hour, revision), entries in sorted(found.items(), key=lambda item: item[0])
        for entry in entries
    ]
    Correction.objects.bulk_create(rows, batch_size=1000)
    _tell(cluster_id, period, rows)
    return rows


def lock_open_period() -> Period:
    """Return the month that is billed next, locked so that nobody begins to close it before this transaction ends.

    Raises RuntimeError where months are closed faster than they are found, which no installation does.
    """
    at = clock.now()
    for _ in range(24):
        candidate = period_calendar.open_period_for(at)
        with connection.cursor() as cursor:
            # Shared: whoever begins to close it has to wait, but writers of several clusters, who share the row through
            # the books' triggers already, do not wait for each other (each for the other's share would be for ever).
            cursor.execute("SELECT status FROM costs_period WHERE id = %s FOR SHARE", [candidate.pk])
            (status,) = cursor.fetchone()
        if status == PeriodStatus.OPEN:
            return Period.objects.get(pk=candidate.pk)
        at = max(at, candidate.end)
    raise RuntimeError("no open month was found within two years")


def _periods_of(hours: Iterable[datetime]) -> dict[datetime, Period]:
    found: dict[datetime, Period] = {}
    months: dict[Any, Period] = {}
    for hour in hours:
        month = billing.month_of(hour)
        if month not in months:
            months[month] = Period.objects.filter(month=month).first() or period_calendar.ensure_period(month)
        found[hour] = months[month]
    return found


def _tell(cluster_id: int, period: Period, rows: Sequence[Correction]) -> None:
    """Record one event per month corrected, and tell finance."""
    cluster = Cluster.objects.only("uid", "name").get(pk=cluster_id)
    prices = Rate.objects.in_bulk([row.rate_id for row in rows if row.rate_id is not None])
    by_month: dict[str, list[Correction]] = defaultdict(list)
    for row in rows:
        by_month[f"{row.corrects.month:%Y-%m}"].append(row)
    recipients = scope.holders("costs.period.manage")
    for month, own in sorted(by_month.items()):
        priced = (row.quantity_ms * prices[row.rate_id].amount for row in own if row.rate_id is not None)
        amount = sum(priced, Decimal(0))
        payload = events.CorrectionsWritten(
            month=month,
            billed_in=f"{period.month:%Y-%m}",
            cluster=cluster.name,
            hours=len({row.hour for row in own}),
            rows=len(own),
            amount=str((amount / MILLISECONDS_PER_HOUR).quantize(events.CENT)),
            currency=period.currency,
            unpriced=sum(1 for row in own if row.rate_id is None),
        )
        audit.record(
            events.CORRECTIONS_WRITTEN,
            payload,
            actor=ACTOR,
            subject_type="costs.period",
            subject_uid=period.uid,
        )
        outbox.publish(events.CORRECTIONS_WRITTEN, payload, recipients=recipients, subject_uid=period.uid)


def _on_late(late: Late) -> None:
    correct_late(late)


def _on_written(written: Written) -> None:
    take_back(written)


def register() -> None:
    """Listen to metering (called when the room loads)."""
    from apps.metering import ports

    ports.on_late("costs.corrections", _on_late)
    # After "costs.charges" by name: the charges of the hours stand when this looks.
    ports.on_hours_written("costs.corrections", _on_written)
