"""Findings in money: idle work, work that is larger than needed, work that rests by the clock, cost spikes.

Looked for once a day over whole metered days; each stands on rows that its evidence leads to. Reads only.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db import connection

from apps.clusters.choices import Sharing
from apps.clusters.models import Cluster, Flavour
from apps.core.money import MILLISECONDS_PER_HOUR, Money
from apps.costs.explaining import Item, ItemKey, explain
from apps.insights import advice, reading, rhythm
from apps.insights.choices import FindingKind
from apps.insights.findings import OPEN, Look, Seen
from apps.insights.idle_use import MIN_COVERAGE_PERMILLE, known_as
from apps.insights.models import Finding
from apps.insights.workloads import PROPOSED, Workload, workloads_of
from apps.metering import billing
from apps.metering.choices import METERED
from apps.metering.models import HourStatus
from apps.quotas import idle_policy
from apps.quotas.models import Workspace
from apps.rates.pricing import HOURS_PER_MONTH
from apps.teams.models import Team

HOUR = timedelta(hours=1)
WINDOW = timedelta(weeks=rhythm.WEEKS)
#: More than so many hours of the window missing (per mille), nothing is said.
MAX_GAP_PERMILLE = 50
#: A spike below this part of the team's usual day, per mille, is noise.
MIN_SPIKE_PERMILLE = 100
#: A spike nobody decided about closes by itself after this time.
TOLD_FOR = timedelta(days=14)


def window_of(cluster: Cluster, at: datetime) -> tuple[datetime, datetime, int] | None:
    """Return (start, end, metered hours) of the four weeks that end with the last wholly metered billing day.

    None where that day is more than three days ago, or too many hours are missing: nothing can be said.
    """
    today = billing.day_start(billing.day_of(at))
    start = today - WINDOW - timedelta(days=3)
    rows = HourStatus.objects.filter(cluster=cluster, hour__gte=start, hour__lt=today, state__in=METERED)
    metered = set(rows.values_list("hour", flat=True))
    for back in range(3):
        end = today - timedelta(days=back)
        if all(end - number * HOUR in metered for number in range(1, 25)):
            inside = sum(1 for hour in metered if end - WINDOW <= hour < end)
            expected = WINDOW // HOUR
            return (end - WINDOW, end, inside) if (expected - inside) * 1000 <= MAX_GAP_PERMILLE * expected else None
    return None


def look(cluster: Cluster, at: datetime) -> dict[FindingKind, Look]:
    """Look at a cluster's last four weeks for everything that costs money; kinds not looked at are left out."""
    window = window_of(cluster, at)
    if window is None:
        return {}
    start, end, hours = window
    ran = workloads_of(cluster.pk, start, end)
    places = {
        place.pk: place
        for place in Workspace.objects.filter(cluster=cluster, archived_at__isnull=True).select_related(
            "team", "cluster"
        )
    }
    found = {
        FindingKind.IDLE_WORK: _idle(ran, places, (start, end), hours),
        FindingKind.RIGHT_SIZE: _large(cluster, ran, places, (start, end), hours),
        FindingKind.OFF_HOURS: _resting(cluster, places, (start, end)),
        FindingKind.SPIKE: _spikes(cluster, end),
    }
    saved = {seen.workspace_id: seen for seen in found[FindingKind.IDLE_WORK].seen}
    rest = found[FindingKind.OFF_HOURS]
    # Where stopping what is idle saves nearly as much anyway, the clock adds nothing.
    rest.seen = [
        one
        for one in rest.seen
        if one.workspace_id not in saved or one.gpu_ms > saved[one.workspace_id].gpu_ms * 5 // 4
    ]
    for kind, one in found.items():
        rows = Finding.objects.filter(kind=kind, cluster=cluster, status__in=OPEN)
        if kind == FindingKind.SPIKE:  # a day that is over stays as it was: told for two weeks
            rows = rows.filter(found_at__lt=at - TOLD_FOR)
        one.looked |= set(rows.values_list("key", flat=True))
    return found


def monthly(product: Decimal, currency: str, hours: int) -> Money | None:
    """Return Σ quantity × price over `hours` of the clock as what a month of 730 hours would be; None: no price."""
    if not currency or not hours:
        return None
    return Money(product / MILLISECONDS_PER_HOUR * HOURS_PER_MONTH / hours, currency).quantized()


def _proposal(monthly_saving: Money | None, **more: Any) -> dict[str, Any]:
    return {
        **more,
        "monthly": str(monthly_saving.amount) if monthly_saving is not None else None,
        "currency": monthly_saving.currency if monthly_saving is not None else "",
        "size": int(monthly_saving.amount) if monthly_saving is not None else 0,
    }


def _row(one: Workload) -> dict[str, Any]:
    return {
        "namespace": one.namespace, "kind": one.workload_kind, "name": one.workload_name, "flavour": one.flavour_name,
        "purpose": one.purpose, "hours": one.hours, "idle_hours": one.idle_hours,
        "allocated_gpu_ms": one.allocated_gpu_ms, "idle_gpu_ms": one.idle_gpu_ms,
        "savable_gpu_ms": one.savable_gpu_ms, "coverage_permille": one.coverage_permille,
        "amount": None if one.amount is None else str(one.amount.quantize(Decimal("0.01"))),
        "day": billing.day_of(one.last_hour).isoformat(),
    }  # fmt: skip


def _idle(ran: list[Workload], places: dict[int, Workspace], window: tuple[datetime, datetime], hours: int) -> Look:
    found = Look()
    for work in advice.idle_work(ran, PROPOSED):
        place = places.get(work.workspace_id)
        if place is None or covered(place):
            continue
        saving = None if work.unpriced else monthly(work.savable_product, work.currency, hours)
        whole = None if work.unpriced else monthly(work.product, work.currency, hours)
        found.seen.append(
            Seen(
                kind=FindingKind.IDLE_WORK,
                key=str(place.uid),
                title=advice.sentence(
                    f"{place.team.name} ({place.namespace})", work, PROPOSED.idle_hours, monthly=saving, whole=whole
                ),
                cluster_id=place.cluster_id,
                team_id=place.team_id,
                workspace_id=place.pk,
                window=window,
                gpu_ms=work.savable_gpu_ms,
                amount=work.saving,
                size=int(saving.amount) if saving is not None else 0,
                evidence={
                    "hours_metered": hours,
                    "hours_expected": WINDOW // HOUR,
                    "allocated_gpu_ms": work.allocated_gpu_ms,
                    "idle_gpu_ms": work.idle_gpu_ms,
                    "savable_gpu_ms": work.savable_gpu_ms,
                    "coverage_permille": work.coverage_permille,
                    "idle_permille": int(work.idle_share * 1000),
                    "savable_product": str(work.savable_product),
                    "workloads": [_row(one) for one in work.workloads[:20]],
                    "workload_count": len(work.workloads),
                },
                proposal=_proposal(
                    saving, threshold_percent=PROPOSED.threshold_percent, idle_minutes=PROPOSED.idle_minutes
                ),
            )
        )
    return found


def covered(place: Workspace) -> bool:
    """Whether the workspace's own policy stops idle work as early as would be proposed."""
    policy = idle_policy.of(place.idle_policy)
    return policy.enabled and policy.idle_minutes <= PROPOSED.idle_minutes


def _large(
    cluster: Cluster, ran: list[Workload], places: dict[int, Workspace], window: tuple[datetime, datetime], hours: int
) -> Look:
    flavours = {row.pk: row for row in Flavour.objects.filter(pools__cluster=cluster).distinct()}
    sizes = [
        advice.Size(row.pk, row.name, row.gpu_model, row.numerator, row.denominator, row.memory_mib)
        for row in flavours.values()
        if row.sharing == Sharing.MIG and row.memory_mib
    ]
    found = Look()
    for one in ran:
        flavour = flavours.get(one.flavour_id or 0)
        place = places.get(one.workspace_id or 0)
        if flavour is None or place is None:
            continue
        whole = flavour.sharing == Sharing.EXCLUSIVE and flavour.numerator == flavour.denominator
        fitting = advice.fit(one, flavour.gpu_model, whole, sizes)
        if fitting is None or fitting.saved_gpu_ms < advice.MIN_SAVABLE_MS:
            continue
        currency = "" if one.unpriced_ms else one.currency
        saving = monthly(fitting.saving_product, currency, hours)
        instead = f"fits {fitting.size.name}" if fitting.size else f"needs {fitting.keep_units} of {fitting.units} GPUs"
        found.seen.append(
            Seen(
                kind=FindingKind.RIGHT_SIZE,
                key=f"{place.uid}:{one.workload_kind}:{one.workload_name}:{flavour.slug}"[:200],
                title=f"{one.workload_name} in {one.namespace} {instead}"
                + (f": saves about {advice.about(saving)} a month" if saving else ""),
                cluster_id=cluster.pk,
                team_id=place.team_id,
                workspace_id=place.pk,
                flavour_id=flavour.pk,
                window=window,
                gpu_ms=fitting.saved_gpu_ms,
                amount=Money(fitting.saving_product / MILLISECONDS_PER_HOUR, currency) if currency else None,
                size=int(saving.amount) if saving is not None else 0,
                evidence={
                    **_row(one),
                    "hours_metered": hours,
                    "hours_expected": WINDOW // HOUR,
                    "use_p95_permille": one.use_p95_permille,
                    "most_memory_mib": one.most_memory_mib,
                    "units": fitting.units,
                    "workloads": [_row(one)],
                },
                proposal=_proposal(
                    saving,
                    keep_units=fitting.keep_units,
                    # One share of its size on top of what the workspace holds of it; or so many whole ones fewer.
                    change=fitting.keep_units if fitting.size else fitting.keep_units - fitting.units,
                    flavour=flavours[fitting.size.flavour_id].slug if fitting.size else flavour.slug,
                    flavour_name=fitting.size.name if fitting.size else flavour.name,
                    share=f"{fitting.share.normalize():f}"[:8],
                    of_idle=_of_idle(one, fitting, place, currency, hours),
                ),
            )
        )
    return found


def _of_idle(one: Workload, fitting: advice.Fit, place: Workspace, currency: str, hours: int) -> str | None:
    """Return what of a smaller size's saving stopping the workload when idle would save anyway; None: unknown."""
    kind, _ = known_as(one.workload_kind or "", one.workload_name)
    if PROPOSED.spares(kind, one.environment) or covered(place):
        return "0"
    found = monthly(one.savable_product * (1 - fitting.share), currency, hours)
    return None if found is None else str(found.amount)


_HOURS = """
SELECT f.workspace_id, f.hour, sum(f.allocated_gpu_ms),
  CASE WHEN bool_or(f.used_gpu_ms IS NULL OR f.coverage_permille < %(coverage)s) THEN NULL
    ELSE sum(f.used_gpu_ms) * 100 < sum(f.allocated_gpu_ms) * %(threshold)s END,
  coalesce(sum(c.quantity_ms * r.amount), 0), max(r.currency), bool_or(r.id IS NULL)
FROM metering_hourfact f
LEFT JOIN costs_charge c ON c.hour = f.hour AND c.fact_uid = f.uid AND c.cluster_id = f.cluster_id
LEFT JOIN rates_rate r ON r.id = c.rate_id
WHERE f.cluster_id = %(cluster)s AND f.hour >= %(start)s AND f.hour < %(end)s AND f.workspace_id IS NOT NULL
  AND f.allocated_gpu_ms > 0 GROUP BY 1, 2
"""


def _resting(cluster: Cluster, places: dict[int, Workspace], window: tuple[datetime, datetime]) -> Look:
    hours: dict[int, dict[datetime, rhythm.Hour]] = {}
    codes: dict[int, str] = {}
    with connection.cursor() as cursor:
        cursor.execute(
            _HOURS,
            {
                "cluster": cluster.pk, "start": window[0], "end": window[1], "coverage": MIN_COVERAGE_PERMILLE,
                "threshold": PROPOSED.threshold_percent,
            },
        )  # fmt: skip
        for workspace, hour, gpu, idle, product, currency, unpriced in cursor.fetchall():
            hours.setdefault(workspace, {})[hour] = rhythm.Hour(int(gpu), product, idle)
            codes[workspace] = "" if unpriced or codes.get(workspace) == "" else str(currency or "")
    found = Look()
    for workspace, seen in hours.items():
        place, rest = places.get(workspace), rhythm.resting(seen, window[1])
        if place is None or rest is None or rest.gpu_ms < advice.MIN_SAVABLE_MS:
            continue
        saving = monthly(rest.product, codes[workspace], WINDOW // HOUR)
        found.seen.append(
            Seen(
                kind=FindingKind.OFF_HOURS,
                key=str(place.uid),
                title=f"{place.team.name} ({place.namespace}) rests {len(rest.slots)} hours of every week"
                + (f": stopping then saves about {advice.about(saving)} a month" if saving else ""),
                cluster_id=cluster.pk,
                team_id=place.team_id,
                workspace_id=workspace,
                window=window,
                gpu_ms=rest.gpu_ms,
                amount=Money(rest.product / MILLISECONDS_PER_HOUR, codes[workspace]) if codes[workspace] else None,
                size=int(saving.amount) if saving is not None else 0,
                evidence={
                    "slots": rest.slots, "spans": rhythm.words(rest.spans), "weeks": rhythm.WEEKS,
                    "hours_metered": len(seen), "hours_expected": WINDOW // HOUR,
                },
                proposal=_proposal(
                    saving, threshold_percent=PROPOSED.threshold_percent, idle_minutes=PROPOSED.idle_minutes
                ),
            )
        )  # fmt: skip
    return found


_CHARGED = """
SELECT c.team_id, c.hour, c.flavour_id, c.capacity_type, c.service_class, sum(c.quantity_ms * r.amount), sum(c.gpu_ms),
  max(r.currency)
FROM costs_charge c JOIN rates_rate r ON r.id = c.rate_id
WHERE c.cluster_id = %s AND c.hour >= %s AND c.hour < %s AND c.kind = 'allocated' AND c.team_id IS NOT NULL
GROUP BY 1, 2, 3, 4, 5
"""


def _spikes(cluster: Cluster, end: datetime) -> Look:
    """Compare the last whole day, hour by hour, with the same hours of the four weeks before it."""
    start = end - timedelta(days=1)
    days: dict[int, dict[datetime, Decimal]] = {}
    items: dict[tuple[int, int], dict[ItemKey, Item]] = {}
    currency = str(settings.COMMONS_CURRENCY)
    with connection.cursor() as cursor:
        for week in range(rhythm.WEEKS + 1):
            back = timedelta(weeks=week)
            cursor.execute(_CHARGED, [cluster.pk, start - back, end - back])
            for team, hour, flavour, capacity, service, product, gpu, code in cursor.fetchall():
                if code != currency:
                    continue
                costs = days.setdefault(team, {})
                costs[hour] = costs.get(hour, Decimal(0)) + product / MILLISECONDS_PER_HOUR
                if week < 2:
                    own = items.setdefault((team, week), {})
                    own.setdefault(("gpu", (flavour, capacity, service)), Item()).add(int(gpu), product)
    found = Look()
    teams = Team.objects.in_bulk(list(days))
    metered = reading.metered_hours(cluster, start - WINDOW, end)
    today = [start + number * HOUR for number in range(24)]
    for team_id, costs in sorted(days.items()):
        nothing = Decimal(0)
        earlier = {
            hour: [
                costs.get(past, nothing)
                for week in range(1, rhythm.WEEKS + 1)
                if (past := hour - timedelta(weeks=week)) in metered
            ]
            for hour in today
        }
        seen = rhythm.spike({hour: costs.get(hour, nothing) for hour in today}, earlier)
        usual = sum((sum(values, nothing) / len(values) for values in earlier.values() if values), nothing)
        team = teams.get(team_id)
        # A team that is new has no usual: it is no spike to begin.
        if seen is None or team is None or not usual or seen.excess * 1000 < usual * MIN_SPIKE_PERMILLE:
            continue
        now, before = items.get((team_id, 0), {}), items.get((team_id, 1), {})
        effects = explain(before, now, shown_before=_cost(before, currency), shown_after=_cost(now, currency))
        excess = Money(seen.excess, currency)
        day = billing.day_of(start)
        found.seen.append(
            Seen(
                kind=FindingKind.SPIKE,
                key=f"{team.uid}:{cluster.uid}:{day}",
                title=f"{team.name} on {cluster}: {advice.about(excess)} more than usual on {day:%d %b %Y}",
                cluster_id=cluster.pk,
                team_id=team_id,
                window=(start, end),
                gpu_ms=0,
                amount=excess,
                size=int(seen.excess),
                evidence={
                    "day": day.isoformat(),
                    "hours": [hour.isoformat() for hour in seen.hours],
                    "cost": str(seen.cost.quantize(Decimal("0.01"))),
                    "usual": str(seen.usual.quantize(Decimal("0.01"))),
                    "effects": {name: str(money.amount) for name, money in effects.parts},
                    "week_before": str(effects.before.amount),
                    "currency": currency,
                },
                proposal=_proposal(None),
            )
        )
    return found


def _cost(items: dict[ItemKey, Item], currency: str) -> Money:
    total = sum((item.product for item in items.values()), Decimal(0))
    return Money(total / MILLISECONDS_PER_HOUR, currency).quantized()
