"""What pages, panels and the API read of findings and idle workloads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.db.models import F
from django.urls import reverse

from apps.core import clock, formats
from apps.core.charts import Figure, Series, lines
from apps.core.money import Money
from apps.costs.tally import Tally
from apps.insights.choices import FindingKind, FindingStatus, IdleStatus
from apps.insights.models import Finding, IdleCase
from apps.insights.together import Counted, Worth, together
from apps.metering import billing
from apps.quotas.choices import OPEN_STATUSES
from apps.quotas.models import QuotaRequest
from apps.rates.models import Rate

#: Kinds that propose something which saves money.
PROPOSED = (FindingKind.IDLE_WORK, FindingKind.RIGHT_SIZE, FindingKind.OFF_HOURS)


_EFFECTS = ("Price", "Quantity", "Mix")


@dataclass(frozen=True, slots=True)
class SpikeHours:
    """The unusual hours of a day in words ("09:00 to 20:00", UTC), what they cost, and what is usual for them."""

    words: str
    cost: Money
    usual: Money


@dataclass(frozen=True, slots=True)
class EvidenceDay:
    """One day of a finding's evidence, with the page that shows its workloads."""

    day: date
    guaranteed: int
    peak: int
    used_gpu_ms: int
    unused_gpu_ms: int
    hours: int
    url: str


@dataclass(frozen=True, slots=True)
class Number:
    """One number of the evidence: what it is, how much, and where it can be checked."""

    label: str
    value: str
    unit: str = ""
    url: str = ""
    note: str = ""


def evidence_days(finding: Finding) -> list[EvidenceDay]:
    """Return the days that were looked at. The window's days are UTC; a day's page is the billing day of its noon."""
    found = []
    for row in finding.evidence.get("days", []):
        day = date.fromisoformat(row["day"])
        url = ""
        if finding.team is not None:
            shown = billing.day_of(clock.hour_floor(_noon(day)))
            url = reverse("costs:team-day", kwargs={"team_slug": finding.team.slug, "day": shown.isoformat()})
        found.append(
            EvidenceDay(
                day, row["guaranteed"], row["peak"], row["used_gpu_ms"], row["unused_gpu_ms"], row["hours"], url
            )
        )
    return found


def _noon(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 12, tzinfo=UTC)


def evidence_figure(finding: Finding, days: Sequence[EvidenceDay]) -> Figure:
    """Return guaranteed against the highest use, day by day."""
    links = [day.url for day in days]
    colour = finding.team.colour if finding.team is not None else "accent"
    return lines(
        [day.day for day in days],
        [
            Series("Guaranteed", [day.guaranteed for day in days], "other", links),
            Series("Highest use of the day", [day.peak for day in days], colour, links),
        ],
        unit="units",
        title="Guaranteed and used",
        step=True,
    )


def monthly_of(finding: Finding) -> Money | None:
    """Return what the proposal saves in a month at today's rate; None: unknown."""
    amount = finding.proposal.get("monthly")
    return Money(Decimal(amount), finding.proposal["currency"]) if amount is not None else None


def action_of(finding: Finding) -> tuple[str, str] | None:
    """Return (label, address) of what acting on a finding takes, its form filled in; None: there is nothing to click.

    The finding's workspace and flavour are read: select them.
    """
    place, proposal = finding.workspace, finding.proposal
    if place is None:
        return None
    if finding.kind in (FindingKind.IDLE_WORK, FindingKind.OFF_HOURS):
        where = reverse("quotas:workspace-idle-policy", kwargs={"workspace_uid": place.uid})
        values = {name: proposal[name] for name in ("threshold_percent", "idle_minutes") if name in proposal}
        return "Stop it when idle", f"{where}?{urlencode({**values, 'reason': finding.title})}"
    if finding.kind == FindingKind.RIGHT_SIZE:
        change = proposal.get("change")
        fewer = change is not None and int(change) < 0
        name = proposal.get("flavour_name", "the smaller size")
        return f"Request {'less ' if fewer else ''}{name}", right_size_url(
            str(place.uid), proposal.get("flavour", ""), change, finding.title
        )
    if finding.kind == FindingKind.HOARDED_QUOTA:
        return "Give it back", reverse("insights:finding-give-back", kwargs={"finding_uid": finding.uid})
    return None


def right_size_url(workspace_uid: str, flavour: str, change: int | str | None, title: str) -> str:
    """Return the quota request a smaller size takes, filled in: `change` units more or fewer than are held."""
    query = {"workspace": workspace_uid, "flavour": flavour, "reason": title}
    if change is not None:
        query["change"] = str(int(change))
    return f"{reverse('quotas:request-create')}?{urlencode(query)}"


def realised_of(finding: Finding) -> Money | None:
    """Return what acting saved a month, measured; None: not measured yet."""
    return Money(finding.realised, finding.currency) if finding.realised is not None else None


@dataclass(frozen=True, slots=True)
class EvidenceWorkload:
    """A workload of a finding's evidence with the page of its last day."""

    row: dict[str, Any]
    amount: Money | None
    url: str


def evidence_workloads(finding: Finding) -> list[EvidenceWorkload]:
    """Return the workloads that a finding stands on, each with the page of its hourly facts."""
    found = []
    for row in finding.evidence.get("workloads", []):
        url = ""
        if finding.team is not None:
            address = reverse("costs:workload-day", kwargs={"team_slug": finding.team.slug, "day": row["day"]})
            query = {"cluster": finding.cluster.slug, "namespace": row["namespace"], "name": row["name"]}
            url = f"{address}?{urlencode(query)}"
        amount = Money(Decimal(row["amount"]), settings.COMMONS_CURRENCY) if row["amount"] is not None else None
        found.append(EvidenceWorkload(row, amount, url))
    return found


def evidence_effects(finding: Finding) -> list[tuple[str, Money]]:
    """Return what moved the cost of a spike's day against the same day of the week before."""
    currency = finding.evidence.get("currency", settings.COMMONS_CURRENCY)
    effects = finding.evidence.get("effects", {})
    # As a report names them; stored JSON has no order.
    return [(name, Money(Decimal(effects[name]), currency)) for name in _EFFECTS if name in effects]


def evidence_hours(finding: Finding) -> SpikeHours | None:
    """Return a spike's unusual hours with what they cost and what is usual; None: no spike."""
    seen = finding.evidence
    if finding.kind != FindingKind.SPIKE or "cost" not in seen:
        return None
    currency = seen.get("currency", settings.COMMONS_CURRENCY)
    spans: list[list[datetime]] = []
    for hour in sorted(datetime.fromisoformat(text) for text in seen.get("hours", [])):
        if spans and spans[-1][1] == hour:
            spans[-1][1] = hour + timedelta(hours=1)
        else:
            spans.append([hour, hour + timedelta(hours=1)])
    words = ", ".join(f"{first:%H:%M} to {last:%H:%M}" for first, last in spans)
    return SpikeHours(words, Money(Decimal(seen["cost"]), currency), Money(Decimal(seen["usual"]), currency))


def cost_of(finding: Finding) -> Money | None:
    """Return what it cost in the window; None: unknown."""
    return Money(finding.amount, finding.currency) if finding.amount is not None else None


@dataclass(frozen=True, slots=True)
class Summary:
    """Open findings about unused quota, in sum. `monthly` None: of none is the price known; `unpriced`: of how many."""

    count: int
    gpus: str
    monthly: Money | None
    unpriced: int
    lost: int
    findings: list[Finding]
    proposals: int = 0
    saving: Money | None = None
    spikes: int = 0


def summary(findings: Iterable[Finding]) -> Summary:
    """Add up open findings."""
    rows = list(findings)
    hoards = [row for row in rows if row.kind == FindingKind.HOARDED_QUOTA]
    gpus = sum((Fraction(row.proposal.get("give_back_gpus", "0")) for row in hoards), Fraction(0))
    amounts = [monthly_of(row) for row in hoards]
    known = [amount for amount in amounts if amount is not None]
    proposed = [row for row in rows if row.kind in PROPOSED]
    savings = _savings(proposed)
    return Summary(
        count=len(hoards),
        gpus=_plain(gpus),
        monthly=sum(known[1:], known[0]) if known else None,
        unpriced=len(amounts) - len(known),
        lost=sum(1 for row in rows if row.kind == FindingKind.CAPACITY_LOST),
        findings=rows,
        proposals=len(proposed),
        saving=sum(savings[1:], savings[0]) if savings else None,
        spikes=sum(1 for row in rows if row.kind == FindingKind.SPIKE),
    )


@dataclass(frozen=True, slots=True)
class Overlap:
    """What of a proposal another one saves anyway; `whole`: all of it."""

    amount: Money
    within: Finding
    whole: bool


def _worth(row: Finding, monthly: Money) -> Worth:
    place = row.workspace_id
    if row.kind == FindingKind.RIGHT_SIZE:
        share, of_idle = row.proposal.get("share"), row.proposal.get("of_idle")
        return Worth(
            monthly.amount, place, share=Decimal(share or "0"), of_idle=None if of_idle is None else Decimal(of_idle)
        )
    return Worth(monthly.amount, place, stops=True, clock=row.kind == FindingKind.OFF_HOURS)


def _counted(proposed: Iterable[Finding]) -> list[tuple[Finding, Money, Counted, Finding | None]]:
    rows = [(row, amount) for row in proposed if (amount := monthly_of(row)) is not None]
    counted = together([_worth(row, amount) for row, amount in rows])
    return [
        (row, amount, one, None if one.within is None else rows[one.within][0])
        for (row, amount), one in zip(rows, counted, strict=True)
    ]


def _savings(proposed: Iterable[Finding]) -> list[Money]:
    """Return what proposals add a month to what all of them save together (`together`): no GPU-hour counts twice."""
    return [Money(one.amount, amount.currency).quantized() for _, amount, one, _ in _counted(proposed)]


def overlaps(findings: Iterable[Finding]) -> dict[int, Overlap]:
    """Return by finding what of it another one saves anyway, among those given."""
    proposed = [row for row in findings if row.kind in PROPOSED]
    return {
        row.pk: Overlap(Money(one.included, amount.currency).quantized(), within, not one.amount)
        for row, amount, one, within in _counted(proposed)
        if within is not None
    }


def overlap_words(found: Overlap | None) -> str:
    """Say what of a proposal is counted with which other: "All of it: rests 80 hours …"; "" where nothing is."""
    if found is None:
        return ""
    part = "All of it" if found.whole else f"{formats.money(found.amount)} a month"
    return f"{part}: {found.within.get_kind_display()}"


def overlap_of(finding: Finding, user: Any) -> Overlap | None:
    """Return what of an open proposal another one of the same workspace saves anyway; None: nothing."""
    if finding.workspace_id is None or finding.kind not in PROPOSED or finding.status != FindingStatus.OPEN:
        return None
    return overlaps(open_findings(user, workspace_id=finding.workspace_id, kind__in=PROPOSED)).get(finding.pk)


def _plain(value: Fraction) -> str:
    whole = Decimal(value.numerator) / Decimal(value.denominator)
    return f"{whole.quantize(Decimal('0.01')).normalize():f}" if value.denominator != 1 else str(value.numerator)


def open_findings(user: Any, **where: Any) -> list[Finding]:
    """Return the open findings a person may see, dearest first, without their evidence."""
    rows = Finding.objects.visible_to(user).filter(status=FindingStatus.OPEN, **where)
    return list(rows.defer("evidence").order_by(F("amount").desc(nulls_last=True), "-pk")[:5000])


def open_request(finding: Finding) -> QuotaRequest | None:
    """Return the open quota request for the same workspace and flavour, which stands in the way of another."""
    if finding.workspace_id is None or finding.flavour_id is None:
        return None
    return QuotaRequest.objects.filter(
        workspace_id=finding.workspace_id, flavour_id=finding.flavour_id, status__in=OPEN_STATUSES
    ).first()


# -- idle workloads -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Saved:
    """GPU time and money that stopping saved. `amount` None: no rate was in force; `unpriced_ms`: for so much."""

    gpu_ms: int
    amount: Money | None
    unpriced_ms: int


def saved_by(cases: Iterable[IdleCase]) -> Saved:
    """Return what the cases saved at the rates in force while they were stopped: one query."""
    rows = [case for case in cases if case.stopped_at is not None and case.counted_until is not None]
    tally = Tally(str(settings.COMMONS_CURRENCY))
    wanted = {(case.workspace.cluster_id, case.flavour_id) for case in rows}
    rates: dict[tuple[int, int | None], list[Rate]] = {}
    found = Rate.objects.filter(
        cluster_id__in={cluster for cluster, _ in wanted},
        flavour_id__in={flavour for _, flavour in wanted if flavour is not None},
    )
    for rate in found.order_by("pk") if rows else ():
        rates.setdefault((rate.cluster_id, rate.flavour_id), []).append(rate)
    for case in rows:
        start, end = case.stopped_at, case.counted_until
        if start is None or end is None:
            continue
        left = case.gpus * _ms(end - start)
        for rate in rates.get((case.workspace.cluster_id, case.flavour_id), []):
            low, high = max(start, rate.valid.lower or start), min(end, rate.valid.upper or end)
            if low < high:
                quantity = case.gpus * _ms(high - low)
                left -= quantity
                tally.add(quantity, 0, rate.amount, rate.currency)
        if left:
            tally.add(left, 0, None, None)
    return Saved(sum(case.saved_gpu_ms for case in rows), tally.amount, tally.unpriced_ms)


def _ms(span: timedelta) -> int:
    return span // timedelta(milliseconds=1)


def open_cases(user: Any, **where: Any) -> list[IdleCase]:
    """Return the idle workloads that wait or are stopped, those that stop first before others, at most 100."""
    rows = IdleCase.objects.visible_to(user).filter(
        status__in=[IdleStatus.NOTICED, IdleStatus.KEPT, IdleStatus.STOPPING, IdleStatus.STOPPED], **where
    )
    return list(rows.select_related("team", "workspace__cluster", "flavour").order_by("status", "stop_at", "pk")[:100])


def hours_of(case: IdleCase) -> list[dict[str, Any]]:
    """Return the metered hours that a case stands on, for the page."""
    return [{**row, "hour": datetime.fromisoformat(row["hour"])} for row in case.evidence.get("hours", [])]
