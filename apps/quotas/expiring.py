"""Quotas that end soon: their team's leads hear of it 14, 3 and 1 days before, if less shows below."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import transaction

from apps import audit
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.quotas import book, events
from apps.quotas.choices import BorrowMode
from apps.quotas.ledger import Holding, in_force
from apps.quotas.models import Quota
from apps.teams import scope

SYSTEM = Actor.system("quotas.expiring")
#: Days before the end of a quota at which its team is told.
NOTICE_DAYS = (14, 3, 1)


def notify_expiring(at: datetime | None = None) -> int:
    """Tell the leads of quotas that end in 14, 3 and 1 days and leave less behind; returns how many were told."""
    now = at or clock.now()
    ending = (
        Quota.objects.filter(valid__endswith__gt=now, valid__endswith__lte=now + timedelta(days=max(NOTICE_DAYS)))
        .filter(valid__startswith__lte=now, workspace__archived_at__isnull=True)
        .order_by("pk")
        .values_list("pk", flat=True)
    )
    return sum(_notify_one(pk, now) for pk in list(ending))


def _reach(holding: Holding | None) -> int | None:
    """Return the most that may run at once; None: unlimited."""
    if holding is None:
        return 0
    return None if holding.borrow_mode == BorrowMode.UNLIMITED else holding.guaranteed + holding.borrow_limit


@transaction.atomic
def _notify_one(quota_id: int, now: datetime) -> int:
    quota = (
        Quota.objects.select_for_update(of=("self",))
        .select_related("workspace__team", "workspace__cluster", "flavour", "request")
        .filter(pk=quota_id)
        .first()
    )
    if quota is None or quota.valid.upper is None or quota.valid.upper <= now:
        return 0
    left = quota.valid.upper - now
    days = min((limit for limit in NOTICE_DAYS if left <= timedelta(days=limit)), default=None)
    if days is None or (quota.noticed_days is not None and quota.noticed_days <= days):
        return 0
    rows = Quota.objects.filter(workspace=quota.workspace, flavour=quota.flavour)
    below = in_force([book.holding(row) for row in rows], quota.valid.upper)
    reach = quota.maximum
    next_reach = _reach(below)
    quota.noticed_days = days
    quota.save(update_fields=["noticed_days"])
    if next_reach is None or (reach is not None and next_reach >= reach):
        return 0
    had = "unlimited" if reach is None else f"{reach:,}"
    payload = events.QuotaExpiring(
        workspace_uid=quota.workspace.uid,
        team_slug=quota.workspace.team.slug,
        what=f"{quota.flavour} in {quota.workspace.namespace} falls from {had} to {next_reach:,}",
        ends_at=quota.valid.upper,
        days=days,
    )
    leads = scope.holders_of_role("team_lead", team_id=quota.workspace.team_id)
    outbox.publish(events.QUOTA_EXPIRING, payload, recipients=leads, subject_uid=quota.workspace.uid)
    audit.record(
        events.QUOTA_EXPIRING,
        payload,
        actor=SYSTEM,
        subject_type="quotas.workspace",
        subject_uid=quota.workspace.uid,
        team_uid=quota.workspace.team.uid,
    )
    return 1
