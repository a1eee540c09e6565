"""What became of findings in money: closed once somebody acted, and what acting saved, measured two weeks later."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db import transaction

from apps.clusters.models import Cluster
from apps.core.money import MILLISECONDS_PER_HOUR
from apps.insights import advice, events, reading
from apps.insights.choices import FindingKind, FindingStatus
from apps.insights.findings import OPEN, record
from apps.insights.models import Finding
from apps.insights.money_findings import HOUR, MAX_GAP_PERMILLE, covered
from apps.insights.workloads import PROPOSED, workloads_of
from apps.metering import billing
from apps.metering.choices import METERED
from apps.metering.models import HourStatus
from apps.rates.pricing import HOURS_PER_MONTH

#: What was saved is measured so long after somebody acted.
MEASURED_AFTER = timedelta(days=14)


def settle_acted(cluster: Cluster, at: datetime) -> int:
    """Close findings about idle work whose workspace got a policy that stops it; returns how many."""
    moved = 0
    kinds = [FindingKind.IDLE_WORK, FindingKind.OFF_HOURS]
    rows = Finding.objects.filter(kind__in=kinds, cluster=cluster, status__in=OPEN).select_related("workspace")
    for finding in rows.order_by("pk"):
        if finding.workspace is None or not covered(finding.workspace):
            continue
        with transaction.atomic():
            row = Finding.objects.locked(finding.pk)
            if row.status not in OPEN:
                continue
            row.status, row.closed_at, row.reason = FindingStatus.ACTED, at, "An idle policy is in force."
            row.bump("status", "closed_at", "reason")
            record(events.ACTED, row)
            moved += 1
    return moved


def measure_realised(at: datetime) -> int:
    """Measure, two weeks after somebody acted, what was saved: the same workspace before and after; returns how many.

    Before: what could have been saved per metered hour of the finding's window. After: the same figure of the two
    weeks since. The difference × 730 is a month's; below zero it is shown so: acting did not help.
    """
    moved = 0
    rows = Finding.objects.filter(
        status=FindingStatus.ACTED, realised_at__isnull=True, closed_at__lte=at - MEASURED_AFTER,
        kind__in=[FindingKind.IDLE_WORK, FindingKind.HOARDED_QUOTA],
    )  # fmt: skip
    for finding in rows.select_related("workspace", "cluster").order_by("pk"):
        basis = _basis(finding)
        if basis is None:
            continue
        with transaction.atomic():
            row = Finding.objects.locked(finding.pk)
            if row.realised_at is not None:
                continue
            row.realised, row.realised_basis, row.realised_at = Decimal(basis["monthly"]), basis, at
            row.currency = row.currency or str(settings.COMMONS_CURRENCY)
            row.bump("realised", "realised_basis", "realised_at", "currency")
            record(events.REALISED, row)
            moved += 1
    return moved


def _basis(finding: Finding) -> dict[str, Any] | None:
    if finding.closed_at is None or finding.workspace_id is None:
        return None
    start = billing.day_start(billing.day_of(finding.closed_at) + timedelta(days=1))
    end = start + MEASURED_AFTER - timedelta(days=1)
    hours = HourStatus.objects.filter(
        cluster=finding.cluster, hour__gte=start, hour__lt=end, state__in=METERED
    ).count()  # fmt: skip
    expected = (end - start) // HOUR
    if (expected - hours) * 1000 > MAX_GAP_PERMILLE * expected:
        return None
    before_hours = int(finding.evidence.get("hours_metered") or 0)
    if finding.kind == FindingKind.IDLE_WORK:
        before = Decimal(finding.evidence.get("savable_product", "0")) / MILLISECONDS_PER_HOUR
        ran = [one for one in workloads_of(finding.cluster_id, start, end) if one.workspace_id == finding.workspace_id]
        if any(one.unpriced_ms for one in ran):
            return None
        after = sum((work.savable_product for work in advice.idle_work(ran, PROPOSED)), Decimal(0))
        after /= MILLISECONDS_PER_HOUR
    else:
        if finding.amount is None:
            return None
        before = finding.amount
        unused = reading.reserved_unused(finding.cluster, [finding.workspace_id], start, end)
        tally = unused.get((finding.workspace_id, finding.flavour_id or 0), reading.Unused()).tally
        if tally.unpriced_ms:
            return None
        after = tally.amount.amount if tally.amount is not None else Decimal(0)
    if not before_hours or not hours:
        return None
    rate_before, rate_after = before / before_hours, after / hours
    return {
        "before": str(before.quantize(Decimal("0.01"))), "before_hours": before_hours,
        "after": str(after.quantize(Decimal("0.01"))), "after_hours": hours,
        "after_from": start.isoformat(), "after_until": end.isoformat(),
        "monthly": str(((rate_before - rate_after) * HOURS_PER_MONTH).quantize(Decimal("0.01"))),
    }  # fmt: skip
