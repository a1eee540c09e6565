"""Quotas that end soon: their team's leads hear of it 14, 3 and 1 days before, if less shows below.

Of a recurring quota only the end of the whole repetition is announced: that a window closes is what was asked for.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Exists, OuterRef, Q

from apps import audit
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.formats import datetime_utc
from apps.quotas import book, events, expiry, ladder, recurrence, renewal
from apps.quotas.choices import BorrowMode, RequestStatus
from apps.quotas.ledger import Holding
from apps.quotas.models import Quota, QuotaRequest
from apps.teams import scope

SYSTEM = Actor.system("quotas.expiring")
#: Days before the end of a quota at which its team is told.
NOTICE_DAYS = (14, 3, 1)


def notify_expiring(at: datetime | None = None) -> int:
    """Tell the leads of quotas that end in 14, 3 and 1 days and leave less behind; returns how many were told."""
    now = at or clock.now()
    later = Quota.objects.filter(request=OuterRef("request"), valid__startswith__gte=OuterRef("valid__endswith"))
    ending = (
        Quota.objects.filter(valid__endswith__gt=now, valid__endswith__lte=now + timedelta(days=max(NOTICE_DAYS)))
        .filter(workspace__archived_at__isnull=True)
        .filter(
            Q(request__isnull=True, valid__startswith__lte=now)
            | Q(request__recurrence__isnull=True, valid__startswith__lte=now)
            # The last window, begun or not.
            | (Q(request__recurrence__isnull=False) & ~Exists(later))
        )
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
    reach, next_reach = quota.maximum, _below(quota)
    quota.noticed_days = days
    quota.save(update_fields=["noticed_days"])
    if next_reach is None or (reach is not None and next_reach >= reach):
        return 0
    had = "unlimited" if reach is None else f"{reach:,}"
    repeats = recurrence.parse(quota.request.recurrence) if quota.request is not None else None
    what = f"{quota.flavour} in {quota.workspace}"
    what += f", {recurrence.words(repeats)}," if repeats is not None else ""
    renewed = renewal.open_renewal(quota.workspace_id, quota.flavour_id, quota.valid.upper)
    payload = events.QuotaExpiring(
        workspace_uid=quota.workspace.uid,
        team_slug=quota.workspace.team.slug,
        what=f"{what} falls from {had} to {next_reach:,}",
        ends_at=quota.valid.upper,
        days=days,
        quota_uid=quota.uid,
        renewal_uid=renewed.uid if renewed is not None else None,
        renewal=_renewal_words(renewed),
        then=ladder.sentence(expiry.approved_policy(quota.workspace)) if next_reach == 0 else "",
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


def _below(quota: Quota) -> int | None:
    """Return what may run at once when a quota has ended; None: unlimited.

    A piece that ends because a window of a repetition begins is no end that anybody has to hear of, and of a
    repetition that a granted one continues neither.
    """
    repeats = quota.request is not None and quota.request.recurrence is not None
    rows = Quota.objects.filter(workspace=quota.workspace, flavour=quota.flavour).select_related("request")
    after = rows.filter(valid__contains=quota.valid.upper).first()
    if after is not None and not repeats and after.request is not None and after.request.recurrence is not None:
        return quota.maximum
    if repeats and renewal.continues(quota):
        return quota.maximum
    return _reach(book.holding(after) if after is not None else None)


def _renewal_words(renewed: QuotaRequest | None) -> str:
    """Say whether somebody has asked for what comes after."""
    if renewed is None:
        return ""
    if renewed.status == RequestStatus.SCHEDULED:
        return "What comes after is granted already."
    label = RequestStatus(renewed.status).label.lower()
    renews = renewal.read(renewed.change)
    held = ""
    if renews is not None and (kept := min(renewed.guaranteed, renews.guaranteed)):
        held = (
            f" Until it is decided, nobody else is promised {kept:,} of these GPUs; at the latest until "
            f"{datetime_utc(renews.until + renewal.HOLD_AFTER)}."
        )
    return f"A request for what comes after is {label}.{held}"
