"""Findings kept true: found, updated, and closed by themselves once they are no longer so. Idempotent.

Rows are written one finding at a time, under lock. What a person dismissed stays so for a while, unless it grew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

from django.db import IntegrityError, transaction
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from apps import audit
from apps.clusters.models import Cluster, Flavour, Pool
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.events import EventType
from apps.core.money import Money
from apps.insights import events, reading
from apps.insights.choices import FindingKind, FindingStatus
from apps.insights.hoarding import Hoard, assess
from apps.insights.models import Finding
from apps.quotas import book
from apps.quotas.choices import OPEN_STATUSES, RequestStatus
from apps.quotas.ledger import breaches
from apps.quotas.models import Quota, Workspace
from apps.rates.selectors import monthly_estimate
from apps.teams import scope
from apps.teams.choices import Role
from apps.teams.models import Team

SYSTEM = Actor.system("insights.findings")
OPEN = (FindingStatus.OPEN, FindingStatus.SNOOZED)
#: A dismissed finding comes back after so long, or once it has grown by so many per cent.
_DISMISSED_FOR = timedelta(days=90)
_GROWN_PERCENT = 25
#: How far ahead lost capacity is told.
AHEAD = timedelta(days=90)
#: A request that was granted or applied, or is on its way, keeps its finding closed.
_UNDERWAY = (*OPEN_STATUSES, RequestStatus.SCHEDULED, RequestStatus.APPLYING)


@dataclass(frozen=True, slots=True)
class Seen:
    """A finding as it would be written now."""

    kind: FindingKind
    key: str
    title: str
    cluster_id: int
    window: tuple[datetime, datetime]
    gpu_ms: int
    amount: Money | None
    evidence: dict[str, Any]
    proposal: dict[str, Any]
    team_id: int | None = None
    workspace_id: int | None = None
    flavour_id: int | None = None
    size: int = 0


@dataclass(slots=True)
class Look:
    """What one look found: findings, and the keys that were really looked at (the others stay as they are)."""

    seen: list[Seen] = field(default_factory=list)
    looked: set[str] = field(default_factory=set)


# -- guaranteed but unused ------------------------------------------------------------------------------------------


def look_for_hoards(cluster: Cluster, at: datetime) -> Look:
    """Look at a cluster's lasting quotas over the window that ends with the last whole hour. Reads only."""
    rules = reading.rules()
    end = clock.hour_floor(at)
    start = end - timedelta(days=rules.days)
    quotas = reading.holders(cluster, at, rules.days)
    found = Look()
    # The hour just ended may not be metered yet: the window ends with the last one that is.
    metered = reading.metered_hours(cluster, start - timedelta(hours=6), end)
    if not metered:
        return found
    behind = end - (max(metered) + timedelta(hours=1))
    if behind > timedelta(hours=6):
        return found
    start, end = start - behind, end - behind
    if _too_many_gaps(metered, start, end, rules.max_gap_permille):
        return found
    workspaces = {quota.workspace_id for quota in quotas}
    held = reading.held_by(cluster, workspaces, start - timedelta(days=rules.min_held_days), at)
    uses = reading.uses_of(cluster, workspaces, start, end)
    unused = reading.reserved_unused(cluster, workspaces, start, end)
    waiting = reading.waiting_by_model(cluster)
    priced = reading.all_priced(cluster, start, end, sum(1 for hour in metered if start <= hour < end))
    for quota in quotas:
        key = (quota.workspace_id, quota.flavour_id)
        found.looked.add(key_of(quota.workspace, quota.flavour))
        hoard = assess(
            held.get(key, []), uses.get(key, {}), metered, start, end, rules,
            guaranteed=quota.guaranteed, floor=quota.serving,
        )  # fmt: skip
        if hoard is not None:
            books = unused.get(key, reading.Unused())
            found.seen.append(_hoard_seen(quota, hoard, (start, end), books if priced else None, waiting, at))
    # What is no longer held at all has been looked at, too.
    found.looked |= set(
        Finding.objects.filter(kind=FindingKind.HOARDED_QUOTA, cluster=cluster, status__in=OPEN).values_list(
            "key", flat=True
        )
    )
    return found


def key_of(workspace: Workspace, flavour: Flavour) -> str:
    """Return what identifies a finding about a quota."""
    return f"{workspace.uid}:{flavour.slug}"


def _too_many_gaps(metered: Collection[datetime], start: datetime, end: datetime, most: int) -> bool:
    expected = int((end - start) / timedelta(hours=1))
    present = sum(1 for hour in metered if start <= hour < end)
    return (expected - present) * 1000 > most * expected


def _hoard_seen(
    quota: Quota,
    hoard: Hoard,
    window: tuple[datetime, datetime],
    unused: reading.Unused | None,
    waiting: dict[str, dict[str, int]],
    at: datetime,
) -> Seen:
    workspace, flavour = quota.workspace, quota.flavour
    share = Fraction(flavour.numerator, flavour.denominator)
    estimate = monthly_estimate(workspace.cluster_id, flavour.pk, -hoard.give_back, at)
    tally = unused.tally if unused is not None else None
    others = waiting.get(flavour.gpu_model, {})
    return Seen(
        kind=FindingKind.HOARDED_QUOTA,
        key=key_of(workspace, flavour),
        title=(
            f"{workspace.namespace} on {workspace.cluster}: {hoard.give_back} of {hoard.guaranteed} × {flavour} "
            f"guaranteed, never used in {(window[1] - window[0]).days} days"
        ),
        cluster_id=workspace.cluster_id,
        team_id=workspace.team_id,
        workspace_id=workspace.pk,
        flavour_id=flavour.pk,
        window=window,
        gpu_ms=int(hoard.unused_unit_ms * share),
        amount=tally.amount if tally is not None and not tally.unpriced_ms else None,
        size=hoard.give_back,
        evidence={
            "guaranteed": hoard.guaranteed,
            "peak": hoard.peak,
            "p95": hoard.p95,
            "days_used": hoard.days_used,
            "unused_gpu_ms": int(hoard.unused_unit_ms * share),
            "held_gpu_ms": int(hoard.held_unit_ms * share),
            "free_gpu_ms": tally.gpu_ms if tally is not None else None,
            "unpriced_gpu_ms": int(tally.unpriced_ms * share) if tally is not None else None,
            "hours_metered": hoard.hours_metered,
            "hours_expected": int((window[1] - window[0]) / timedelta(hours=1)),
            "waiting_requests": others.get("requests", 0),
            "waiting_teams": others.get("teams", 0),
            "days": [
                {
                    "day": day.day.isoformat(),
                    "guaranteed": day.guaranteed,
                    "peak": day.peak,
                    "used_gpu_ms": int(day.unit_ms * share),
                    "unused_gpu_ms": int(day.unused_unit_ms * share),
                    "hours": day.hours,
                }
                for day in hoard.days
            ],
        },
        proposal={
            "guaranteed": hoard.keep,
            "give_back": hoard.give_back,
            "give_back_gpus": str(hoard.give_back * share),
            "margin_percent": reading.rules().margin_percent,
            "monthly": f"{-estimate.amount.amount.normalize():f}" if estimate.amount is not None else None,
            "currency": estimate.amount.currency if estimate.amount is not None else "",
            "basis": estimate.basis,
        },
    )


# -- promised beyond capacity ---------------------------------------------------------------------------------------


def look_for_lost_capacity(at: datetime) -> Look:
    """Look for pools that promise more than they will have within 90 days (design invariant 1). Reads only."""
    found = Look()
    for pool in Pool.objects.select_related("cluster").order_by("pk"):
        found.looked.add(str(pool.uid))
        view = book.load(pool, at)
        over = [(when, too_many) for when, too_many in breaches(view.capacity, view.all_promises(), at)]
        over = [(when, too_many) for when, too_many in over if when <= at + AHEAD]
        if not over:
            continue
        first, most = over[0][0], max(too_many for _, too_many in over)
        when = "now" if first <= at else f"from {first:%d %b %Y} on"
        found.seen.append(
            Seen(
                kind=FindingKind.CAPACITY_LOST,
                key=str(pool.uid),
                title=f"{pool.gpu_model} on {pool.cluster}: {_number(most)} GPUs more promised than there are, {when}",
                cluster_id=pool.cluster_id,
                window=(at, at + AHEAD),
                gpu_ms=0,
                amount=None,
                size=int(most) + (most.denominator != 1),
                evidence={
                    "pool": str(pool.uid),
                    "most": _number(most),
                    "steps": [{"at": w.isoformat(), "too_many": _number(n)} for w, n in over[:50]],
                },
                proposal={},
            )
        )
    return found


def _number(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    return f"{Decimal(value.numerator) / Decimal(value.denominator):.2f}"


# -- writing --------------------------------------------------------------------------------------------------------


def settle(kind: FindingKind, look: Look, at: datetime) -> int:
    """Write what a look found; returns how many findings were opened, changed or closed."""
    moved = sum(_write(seen, at) for seen in look.seen)
    seen_keys = {seen.key for seen in look.seen}
    gone = Finding.objects.filter(kind=kind, status__in=OPEN, key__in=look.looked - seen_keys)
    for pk in gone.order_by("pk").values_list("pk", flat=True):
        moved += _close(pk, at)
    return moved


@transaction.atomic
def _close(pk: int, at: datetime) -> int:
    row = Finding.objects.locked(pk)
    if row.status not in OPEN:
        return 0
    row.status, row.closed_at = FindingStatus.GONE, at
    row.bump("status", "closed_at")
    record(events.GONE, row)
    return 1


@transaction.atomic
def _write(seen: Seen, at: datetime) -> int:
    row = Finding.objects.select_for_update(of=("self",)).filter(kind=seen.kind, key=seen.key, status__in=OPEN).first()
    if row is None:
        return _open(seen, at) if not _left_alone(seen, at) else 0
    values = _values(seen)
    changed = [name for name, value in values.items() if getattr(row, name) != value]
    if set(changed) <= {"window"}:
        return 0
    for name in changed:
        setattr(row, name, values[name])
    row.bump(*changed)
    return 1


def _values(seen: Seen) -> dict[str, Any]:
    return {
        "title": seen.title[:300],
        "evidence": seen.evidence,
        "proposal": seen.proposal,
        "window": DateTimeTZRange(*seen.window, "[)"),
        "gpu_ms": seen.gpu_ms,
        "amount": None if seen.amount is None else seen.amount.amount.quantize(Decimal("0.000001")),
        "currency": "" if seen.amount is None else seen.amount.currency,
    }


def _open(seen: Seen, at: datetime) -> int:
    row = Finding(
        kind=seen.kind, key=seen.key, team_id=seen.team_id, workspace_id=seen.workspace_id,
        cluster_id=seen.cluster_id, flavour_id=seen.flavour_id, found_at=at, **_values(seen),
    )  # fmt: skip
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError:  # another worker found it at the same moment
        return 0
    record(events.FOUND if seen.team_id is not None else events.CAPACITY_LOST, row, publish=True)
    return 1


def _left_alone(seen: Seen, at: datetime) -> bool:
    """Whether somebody has already dealt with it: dismissed lately and not grown since, or a request is under way."""
    last = Finding.objects.filter(kind=seen.kind, key=seen.key).select_related("request").order_by("-pk").first()
    if last is None:
        return False
    if last.status == FindingStatus.ACTED:
        return last.request is not None and last.request.status in _UNDERWAY
    if last.status == FindingStatus.DISMISSED:
        before = int(last.proposal.get("size") or last.proposal.get("give_back") or 0)
        grown = seen.size * 100 > before * (100 + _GROWN_PERCENT)
        return last.closed_at is not None and last.closed_at + _DISMISSED_FOR > at and not grown
    return False


def wake_snoozed(at: datetime) -> int:
    """Open the findings whose snooze is over; returns how many."""
    due = Finding.objects.filter(status=FindingStatus.SNOOZED, snoozed_until__lte=at).order_by("pk")
    moved = 0
    for pk in due.values_list("pk", flat=True):
        with transaction.atomic():
            row = Finding.objects.locked(pk)
            if row.status != FindingStatus.SNOOZED or row.snoozed_until is None or row.snoozed_until > at:
                continue
            row.status, row.snoozed_until = FindingStatus.OPEN, None
            row.bump("status", "snoozed_until")
            record(events.REOPENED, row)
            moved += 1
    return moved


def find_all(at: datetime | None = None) -> int:
    """Look everywhere; returns how many findings moved."""
    from apps.insights import money_findings, realised  # which write through this module

    at = at or clock.now()
    moved = wake_snoozed(at)
    for cluster in Cluster.objects.order_by("pk"):
        moved += settle(FindingKind.HOARDED_QUOTA, look_for_hoards(cluster, at), at)
        moved += realised.settle_acted(cluster, at)
        for kind, seen in money_findings.look(cluster, at).items():
            moved += settle(kind, seen, at)
    moved += realised.measure_realised(at)
    return moved + settle(FindingKind.CAPACITY_LOST, look_for_lost_capacity(at), at)


def record(event: EventType, row: Finding, *, actor: Actor = SYSTEM, publish: bool = False, reason: str = "") -> None:
    """Audit what happened to a finding, and tell the people it is for. In the caller's transaction."""
    payload = events.FindingEvent(
        str(row.uid), row.kind, row.key, row.title, row.gpu_ms,
        "" if row.amount is None else str(Money(row.amount, row.currency).quantized().amount),
        row.currency, row.status, str(row.request.uid) if row.request is not None else "", row.snoozed_until,
    )  # fmt: skip
    team_uid = Team.objects.values_list("uid", flat=True).get(pk=row.team_id) if row.team_id is not None else None
    audit.record(
        event, payload, actor=actor, subject_type="insights.finding", subject_uid=row.uid, team_uid=team_uid,
        reason=reason,
    )  # fmt: skip
    if publish:
        outbox.publish(event, payload, recipients=recipients(row.team_id), subject_uid=row.uid)


def recipients(team_id: int | None) -> Iterable[int]:
    """Return whom a finding is for: the team's leads, its unit's owners where it has none; else platform admins."""
    if team_id is None:
        return scope.holders("clusters.cluster.manage")
    return scope.holders_of_role(Role.TEAM_LEAD, team_id=team_id) or scope.holders(
        "insights.finding.decide", team_id=team_id
    )
