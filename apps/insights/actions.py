"""What people do about a finding: give the quota back, leave it until a date, or say why it is none."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db import transaction

from apps.accounts.models import User
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.permissions import may
from apps.insights import events, findings
from apps.insights.choices import FindingKind, FindingStatus
from apps.insights.models import Finding
from apps.quotas import actions as quota_actions
from apps.quotas.choices import LendMode
from apps.quotas.models import Quota, QuotaRequest
from apps.quotas.terms import Extras

DECIDE = "insights.finding.decide"
LONGEST_SNOOZE = timedelta(days=90)
MIN_REASON = 10


def person(actor: Actor) -> User:
    """Return the active person behind an actor. Raises NotAllowed."""
    user = User.objects.filter(pk=actor.user_id, is_active=True).first() if actor.user_id is not None else None
    if not isinstance(user, User):
        raise NotAllowed("Only a person can do this.")
    return user


def checked_reason(reason: str) -> str:
    """Return a reason as it is stored. Raises Invalid."""
    text = reason.strip()
    if len(text) < MIN_REASON:
        raise Invalid({"reason": f"Say in a sentence why (at least {MIN_REASON} characters): others read it."})
    if len(text) > 300:
        raise Invalid({"reason": "At most 300 characters."})
    return text


def _open_one(finding_id: int, actor: Actor, expected_version: int | None) -> tuple[Finding, User]:
    user = person(actor)
    if not Finding.objects.visible_to(user).filter(pk=finding_id).exists():
        raise NotVisible
    row = Finding.objects.locked(finding_id, expected_version=expected_version)
    if not may(user, DECIDE, row):
        raise NotAllowed("This is for the team's leads, the unit's owner and platform admins.", rule=DECIDE)
    if row.status not in findings.OPEN:
        raise Conflict(
            f"This finding is {FindingStatus(row.status).label.lower()}: nothing is left to decide.",
            current={"version": row.version, "status": row.status},
        )
    return row, user


@transaction.atomic
def snooze(
    finding_id: int, until: datetime, reason: str, *, actor: Actor, expected_version: int | None = None
) -> Finding:
    """Leave a finding alone until a date, at most 90 days ahead. Raises NotVisible, NotAllowed, Conflict, Invalid."""
    row, user = _open_one(finding_id, actor, expected_version)
    now = clock.now()
    if not now < until <= now + LONGEST_SNOOZE:
        raise Invalid({"until": "Choose a time within the next 90 days."})
    row.reason = checked_reason(reason)
    row.status, row.snoozed_until, row.decided_by = FindingStatus.SNOOZED, until, user
    row.bump("status", "snoozed_until", "reason", "decided_by")
    findings.record(events.SNOOZED, row, actor=actor, reason=row.reason)
    return row


@transaction.atomic
def dismiss(finding_id: int, reason: str, *, actor: Actor, expected_version: int | None = None) -> Finding:
    """Say that a finding is none. It comes back after 90 days, or once it has grown by a quarter.

    Raises NotVisible, NotAllowed, Conflict, Invalid.
    """
    row, user = _open_one(finding_id, actor, expected_version)
    row.reason = checked_reason(reason)
    row.status, row.closed_at, row.decided_by, row.snoozed_until = FindingStatus.DISMISSED, clock.now(), user, None
    row.bump("status", "closed_at", "reason", "decided_by", "snoozed_until")
    findings.record(events.DISMISSED, row, actor=actor, reason=row.reason)
    return row


def held_now(row: Finding) -> Quota | None:
    """Return the quota in force that a finding is about, None where it is no longer held."""
    if row.workspace_id is None or row.flavour_id is None:
        return None
    quotas = Quota.objects.filter(workspace_id=row.workspace_id, flavour_id=row.flavour_id, valid__contains=clock.now())
    return quotas.select_related("flavour", "workspace__cluster", "workspace__team").first()


def terms_of(row: Finding, quota: Quota) -> dict[str, Any]:
    """Return what giving back would request: fewer guaranteed units, everything else as it is.

    Raises Conflict where the quota is already as low as that.
    """
    keep = int(row.proposal.get("guaranteed", 0))
    if quota.guaranteed <= keep:
        raise Conflict(
            "This quota has become smaller meanwhile: there is nothing left to give back.",
            current={"guaranteed": quota.guaranteed},
        )
    keep = max(keep, quota.serving)
    lend = min(quota.lend_limit, keep - quota.serving) if quota.lend_mode == LendMode.LIMITED else 0
    mode = LendMode.NONE if quota.lend_mode == LendMode.LIMITED and not lend else LendMode(quota.lend_mode)
    return {
        "guaranteed": keep,
        "borrow_mode": quota.borrow_mode,
        "borrow_limit": quota.borrow_limit,
        "valid_from": None,
        "valid_until": quota.valid.upper,
        "extras": Extras(lend_mode=mode, lend_limit=lend, serving=quota.serving),
    }


@transaction.atomic
def give_back(finding_id: int, *, actor: Actor, expected_version: int | None = None, reason: str = "") -> QuotaRequest:
    """Request the lower number that a finding proposes, as the person; the quota policy decides what it takes.

    Raises NotVisible, NotAllowed, Invalid, Conflict (closed, held no more, or a request is open for that quota).
    """
    # A request locks approvals and pools first: it is made before the finding is locked (lock order, design §2).
    user = person(actor)
    seen = Finding.objects.visible_to(user).select_related("flavour", "workspace").filter(pk=finding_id).first()
    if seen is None:
        raise NotVisible
    if seen.kind != FindingKind.HOARDED_QUOTA or seen.workspace_id is None or seen.flavour_id is None:
        raise Conflict("This finding is about no quota that could be given back.")
    if not may(user, DECIDE, seen):
        raise NotAllowed("This is for the team's leads, the unit's owner and platform admins.", rule=DECIDE)
    if seen.status not in findings.OPEN:
        raise Conflict("This finding is closed: nothing is left to give back.", current={"status": seen.status})
    quota = held_now(seen)
    if quota is None:
        raise Conflict("The workspace holds this quota no longer.", current={"status": seen.status})
    terms = terms_of(seen, quota)
    text = reason.strip() or (
        f"Given back: of {quota.guaranteed} guaranteed never more than {seen.evidence.get('peak', 0)} were in use "
        f"in the {len(seen.evidence.get('days', []))} days looked at."
    )
    request = quota_actions.request_quota(
        seen.workspace_id, seen.flavour_id, terms["guaranteed"], terms["borrow_mode"], terms["borrow_limit"],
        terms["valid_from"], terms["valid_until"], text, actor=actor, extras=terms["extras"],
    )  # fmt: skip
    row, _ = _open_one(finding_id, actor, expected_version)
    row.status, row.closed_at, row.request, row.decided_by = FindingStatus.ACTED, clock.now(), request, user
    row.bump("status", "closed_at", "request", "decided_by")
    findings.record(events.ACTED, row, actor=actor)
    return request
