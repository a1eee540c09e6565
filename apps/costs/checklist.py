"""What the close of a month waits for: each item with what is wrong, how many, and where to look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from textwrap import shorten
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.db import connection
from django.urls import reverse

from apps.clusters.models import Cluster
from apps.core import clock, formats
from apps.core.money import MILLISECONDS_PER_HOUR
from apps.costs import disputes, period_books
from apps.costs.choices import ChargeKind, CheckState, WaiverKind
from apps.costs.models import Correction, CrossCheck, DayCharge, Period, PeriodWaiver
from apps.metering import billing
from apps.metering.fitness import unfit_sources
from apps.metering.models import NamespaceOwner, Source

HOUR = timedelta(hours=1)
#: How many places of an item are named; all are counted.
NAMED = 50


@dataclass(frozen=True, slots=True)
class Place:
    """One thing that is wrong, with where to look; `subject` is what a waiver would name."""

    text: str
    link: str = ""
    cluster_id: int | None = None
    subject: str = ""
    waived: bool = False


@dataclass(frozen=True, slots=True)
class CheckItem:
    """One line of the checklist. `ok`: nothing is wrong; `waived`: all that is wrong was waived by name.

    `blocking` False: a remark that closing does not wait for. `waiver`: the kind that settles it, "" where nothing can.
    """

    code: str
    title: str
    ok: bool
    waived: bool = False
    detail: str = ""
    link: str = ""
    count: int = 0
    blocking: bool = True
    waiver: str = ""
    places: Sequence[Place] = field(default_factory=tuple)

    @property
    def settled(self) -> bool:
        """Whether closing need not wait for it."""
        return self.ok or self.waived or not self.blocking

    @property
    def state(self) -> str:
        """In one word: ok, waived, remark or open."""
        if self.ok:
            return "ok"
        if self.waived:
            return "waived"
        return "open" if self.blocking else "remark"

    def plain(self) -> dict[str, Any]:
        """Return it as it is kept with the closed month."""
        found = asdict(self)
        found["places"] = [place["text"] for place in found["places"]]
        return found


def checklist(period: Period) -> list[CheckItem]:
    """Return the checklist of a month as it stands now."""
    waivers = list(period.waivers.all())
    names = dict(Cluster.objects.values_list("pk", "name"))
    charged, daily = period_books.charges(period)
    return [
        _hours(period, waivers, names),
        _claims(period),
        _sources(period, waivers),
        _priced(period, names),
        _unpriced(period, waivers, names),
        _identity("capacity", "Capacity lines equal physical GPU time", period_books.capacity(period), names),
        _identity("charges", "Charges equal what was metered", charged, names),
        _identity("days", "Daily charges equal charges", daily, names),
        _disputes(period, waivers),
        _cross_checks(period, waivers, names),
    ]


def blockers(items: Sequence[CheckItem]) -> list[CheckItem]:
    """Return the items that closing waits for."""
    return [item for item in items if not item.settled]


def _covered(waivers: Sequence[PeriodWaiver], kind: str, cluster_id: int | None, hour: datetime | None = None) -> bool:
    """Whether a waiver of `kind` covers a cluster (and hour)."""
    return any(
        waiver.kind == kind
        and waiver.cluster_id in (None, cluster_id)
        and (
            hour is None
            or (
                (waiver.hours_from is None or waiver.hours_from <= hour)
                and (waiver.hours_until is None or hour < waiver.hours_until)
            )
        )
        for waiver in waivers
    )


def _named(waivers: Sequence[PeriodWaiver], kind: str, subject: UUID | None) -> bool:
    """Whether a waiver of `kind` names `subject`, or all."""
    return any(waiver.kind == kind and waiver.subject_uid in (None, subject) for waiver in waivers)


_OPEN_HOURS = """
SELECT h.cluster_id, h.hour, coalesce(s.state, 'missing'), coalesce(s.reason, '') FROM (
  SELECT DISTINCT src.cluster_id, g.hour FROM metering_source src
  CROSS JOIN LATERAL generate_series(
    greatest(coalesce(lower(src.valid), %(start)s), %(start)s),
    least(coalesce(upper(src.valid), %(end)s), %(end)s, %(now)s) - interval '1 hour', interval '1 hour') AS g(hour)
) h
LEFT JOIN metering_hourstatus s ON s.cluster_id = h.cluster_id AND s.hour = h.hour
WHERE coalesce(s.state, 'missing') <> 'final' ORDER BY h.hour, h.cluster_id
"""


def _hours(period: Period, waivers: Sequence[PeriodWaiver], names: dict[int, str]) -> CheckItem:
    with connection.cursor() as cursor:
        cursor.execute(_OPEN_HOURS, {"start": period.start, "end": period.end, "now": clock.hour_floor(clock.now())})
        rows = cursor.fetchall()
    spans: list[tuple[int, datetime, datetime, str, str, bool]] = []
    last: dict[int, int] = {}
    for cluster_id, hour, state, reason in rows:
        waived = _covered(waivers, WaiverKind.HOURS, cluster_id, hour)
        index = last.get(cluster_id)
        if index is not None:
            known = spans[index]
            if known[2] == hour and (known[3], known[5]) == (state, waived):
                spans[index] = (cluster_id, known[1], hour + HOUR, state, known[4] or reason, waived)
                continue
        last[cluster_id] = len(spans)
        spans.append((cluster_id, hour, hour + HOUR, state, reason, waived))
    left = sum(1 for cluster_id, hour, *_ in rows if not _covered(waivers, WaiverKind.HOURS, cluster_id, hour))
    sources = list(Source.objects.filter(cluster_id__in={row[0] for row in rows}))
    places = [
        Place(
            f"{names.get(cluster_id, cluster_id)}: {formats.datetime_utc(start)} to {formats.datetime_utc(end)},"
            f" {(end - start) // HOUR} h {state}" + (f" ({reason})" if reason else ""),
            _source_url(sources, cluster_id, start),
            cluster_id,
            waived=waived,
        )
        for cluster_id, start, end, state, reason, waived in spans[:NAMED]
    ]
    detail = "Every hour of every cluster with a source is final."
    if rows:
        detail = f"{len(rows):,} hours are missing, incomplete or not final yet" + (
            "; all of them are waived." if not left else f"; {left:,} of them are not waived."
        )
    return CheckItem(
        "hours", "Every hour is metered", not rows, bool(rows) and not left, detail,
        reverse("metering:source-list"), len(rows), waiver=WaiverKind.HOURS,
        places=places,
    )  # fmt: skip


def _claims(period: Period) -> CheckItem:
    """Claims of namespaces whose hours are still being moved: closed before, the hours would stay nobody's for good."""
    rows = NamespaceOwner.objects.filter(pending_from__isnull=False, pending_from__lt=period.end)
    found = list(rows.select_related("cluster").order_by("pk"))
    detail = "Every claimed namespace's hours have moved to its team."
    if found:
        detail = f"Hours of {len(found):,} claims are still being moved; that takes a minute."
    return CheckItem(
        "claims", "Claimed namespaces have moved", not found, detail=detail, link=reverse("metering:namespace-list"),
        count=len(found), places=[Place(f"{row.cluster}: {row.namespace}") for row in found[:NAMED]],
    )  # fmt: skip


def _source_url(sources: Sequence[Source], cluster_id: int, at: datetime) -> str:
    """Return the page of the source of record of a cluster at a moment: it shows the hours and reads them again."""
    for source in sources:
        if source.cluster_id == cluster_id and at in source.valid:
            return reverse("metering:source-detail", kwargs={"source_uid": source.uid}) + f"?month={at:%Y-%m}"
    return reverse("metering:source-list")


def _sources(period: Period, waivers: Sequence[PeriodWaiver]) -> CheckItem:
    found = unfit_sources(period.start, period.end)
    places = [
        Place(
            f"{one.source} on {one.source.cluster}: {', '.join(one.codes)}",
            reverse("metering:source-detail", kwargs={"source_uid": one.source.uid}),
            one.source.cluster_id,
            str(one.source.uid),
            _named(waivers, WaiverKind.SOURCE, one.source.uid),
        )
        for one in found
    ]
    left = sum(1 for place in places if not place.waived)
    detail = (
        "Every source of record passed its last self-test, or is waived."
        if not places
        else (f"{len(places)} sources failed their last self-test: what they told may be wrong.")
    )
    return CheckItem(
        "sources", "Sources are fit to bill from", not places, bool(places) and not left, detail,
        reverse("metering:source-list"), len(places), waiver=WaiverKind.SOURCE, places=places,
    )  # fmt: skip


def _priced(period: Period, names: dict[int, str]) -> CheckItem:
    found = period_books.stale(period)
    detail = "Every hour's charges stand on its present facts."
    if found.count:
        detail = f"{found.count:,} hours are still to be priced; that takes a minute."
    return CheckItem(
        "priced", "Every hour is priced", not found.count, detail=detail, count=found.count,
        places=[Place(f"{names.get(d.cluster_id, '')}: {formats.datetime_utc(d.hour)}") for d in found.differences],
    )  # fmt: skip


def _unpriced(period: Period, waivers: Sequence[PeriodWaiver], names: dict[int, str]) -> CheckItem:
    sums: dict[tuple[int, str], int] = {}
    charges = DayCharge.objects.filter(
        day__gte=period.month, day__lt=billing.following(period.month), rate_id__isnull=True, quantity_ms__gt=0
    )
    corrections = Correction.objects.filter(period=period, rate_id__isnull=True).exclude(quantity_ms=0)
    for rows in (charges, corrections):
        for cluster_id, kind, quantity in rows.values_list("cluster_id", "kind", "quantity_ms"):
            sums[cluster_id, kind] = sums.get((cluster_id, kind), 0) + abs(quantity)
    query = urlencode({"month": f"{period.month:%Y-%m}", "unpriced": "true"})
    link = f"{reverse('costs:charge-list')}?{query}"
    places = [
        Place(
            f"{names.get(cluster_id, '')}, {ChargeKind(kind).label}: {quantity / MILLISECONDS_PER_HOUR:,.2f} hours"
            " without a price",
            f"{link}&{urlencode({'kind': kind})}",
            cluster_id,
            waived=_covered(waivers, WaiverKind.UNPRICED, cluster_id),
        )
        for (cluster_id, kind), quantity in sorted(sums.items())
    ]
    left = any(not place.waived for place in places)
    detail = "Everything that was metered has a price."
    if places:
        detail = "What has no price is shown on statements as unknown, never as zero. Publish a rate, or waive it."
    return CheckItem(
        "unpriced", "Everything has a price", not places, bool(places) and not left, detail, link, len(places),
        waiver=WaiverKind.UNPRICED, places=places[:NAMED],
    )  # fmt: skip


def _identity(code: str, title: str, found: period_books.Compared, names: dict[int, str]) -> CheckItem:
    detail = "The difference is 0 in every cluster-hour."
    if found.count:
        detail = f"{found.count:,} differences. The books contradict each other: this cannot be waived."
    return CheckItem(
        code, title, not found.count, detail=detail, count=found.count,
        places=[
            Place(
                f"{names.get(d.cluster_id, d.cluster_id)}, {formats.datetime_utc(d.hour)}"
                + (f", {d.what}" if d.what else "") + f": {d.ours:,} against {d.theirs:,} ms"
            )
            for d in found.differences
        ],
    )  # fmt: skip


def _disputes(period: Period, waivers: Sequence[PeriodWaiver]) -> CheckItem:
    """Open disputes of earlier months: their outcome is billed in a month that is not closed."""
    rows = disputes.blocking(period)
    places = [
        Place(
            f"{row.statement.number}: {shorten(row.text, 80, placeholder=' …')}",
            reverse("costs:dispute-detail", kwargs={"dispute_uid": row.uid}),
            subject=str(row.uid),
            waived=_named(waivers, WaiverKind.DISPUTE, row.uid),
        )
        for row in rows.select_related("statement").order_by("pk")
    ]
    left = any(not place.waived for place in places)
    detail = "No dispute of an earlier month is open."
    if places:
        detail = "1 dispute is open: settle it, or waive it to be settled in a later month."
    if len(places) > 1:
        detail = f"{len(places)} disputes are open: settle them, or waive them to be settled in a later month."
    return CheckItem(
        "disputes", "Disputes are settled", not places, bool(places) and not left, detail, count=len(places),
        waiver=WaiverKind.DISPUTE, places=places[:NAMED],
    )  # fmt: skip


def _cross_checks(period: Period, waivers: Sequence[PeriodWaiver], names: dict[int, str]) -> CheckItem:
    rows = CrossCheck.objects.filter(
        state=CheckState.OPEN, day__gte=period.month, day__lt=billing.following(period.month)
    ).order_by("day", "cluster_id")
    count = rows.count()
    waived = _named(waivers, WaiverKind.CROSS_CHECK, None)
    detail = "No unexplained difference to another system's dollars or an invoice."
    if count:
        days = "1 day differs" if count == 1 else f"{count} days differ"
        detail = f"{days} from another system and nobody explained why. Closing does not wait for it."
    return CheckItem(
        "cross_checks", "Differences to other systems are explained", not count, bool(count) and waived, detail,
        count=count, blocking=False, waiver=WaiverKind.CROSS_CHECK,
        places=[Place(f"{names.get(row.cluster_id, '')}: {row.day:%Y-%m-%d}, {row.get_kind_display()}",
                      reverse("costs:cross-check-detail", kwargs={"check_uid": row.uid}))
                for row in rows[:NAMED]],
    )  # fmt: skip


__all__ = ["CheckItem", "Place", "blockers", "checklist"]
