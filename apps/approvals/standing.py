"""Pre-approved standard changes: a failure takes the status from the team, until somebody restores it with a reason."""

from __future__ import annotations

import uuid

from django.db import transaction

from apps.approvals import deciders, events, notices
from apps.approvals.choices import RequestKind
from apps.approvals.models import ApprovalRequest, StandardLoss
from apps.approvals.turns import take_turn
from apps.audit import actions as audit
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.events import EventType
from apps.core.permissions import may

RESTORE_PERMISSION = "approvals.standard.restore"
REASON_LENGTH = 10
REASON_LIMIT = 500


def lost_rules(policy_id: int, team_id: int | None) -> frozenset[str]:
    """Return the names of the policy's standard changes that count no more for a team (None: the platform)."""
    rows = StandardLoss.objects.in_force().for_team(team_id).filter(policy_id=policy_id)
    return frozenset(rows.values_list("rule", flat=True))


@transaction.atomic
def report_failure(approval_request_uid: uuid.UUID, why: str, *, actor: Actor | None = None) -> StandardLoss | None:
    """Note that a change failed; if a standard rule had let it through, the team loses that rule.

    Called by the room that saw the failure (a rollback, a failed load). Returns the loss (the standing one, where the
    team had lost the rule already), or None for a change that people had decided. Raises LookupError for an unknown
    request.
    """
    request = ApprovalRequest.objects.select_related("policy_version__policy").filter(uid=approval_request_uid).first()
    if request is None:
        raise LookupError(f"no approval request {approval_request_uid}")
    if request.kind != RequestKind.STANDARD:
        return None
    actor = actor or Actor.system("approvals.standing")
    policy = request.policy_version.policy
    # Submissions of the team take the same turn: the next one already sees the loss.
    take_turn("automatic", str(request.team_id or "platform"))
    held = StandardLoss.objects.in_force().for_team(request.team_id).filter(policy=policy, rule=request.automatic_rule)
    if (standing := held.first()) is not None:
        return standing
    why = " ".join(why.split())[:REASON_LIMIT] or "The change failed."
    loss = StandardLoss.objects.create(
        policy=policy,
        rule=request.automatic_rule,
        team_id=request.team_id,
        request=request,
        why=why,
        lost_at=clock.now(),
    )
    _tell(events.STANDARD_LOST, loss, notices.concerned(request) | notices.watchers(request), actor, why)
    return loss


@transaction.atomic
def restore(loss_uid: uuid.UUID, reason: str, *, actor: Actor, expected_version: int | None = None) -> StandardLoss:
    """Give a team its standard change back, with a reason.

    Raises Invalid for a short reason, NotVisible, NotAllowed without the permission or for who is on the failed
    change's own side, Conflict where it is restored already or moved on.
    """
    reason = reason.strip()
    if len(reason) < REASON_LENGTH:
        raise Invalid({"reason": f"Say in at least {REASON_LENGTH} characters what makes it safe again."})
    if len(reason) > REASON_LIMIT:
        raise Invalid({"reason": f"Keep the reason below {REASON_LIMIT} characters."})
    found = StandardLoss.objects.filter(uid=loss_uid).first()
    user = notices.person(actor)
    if found is None or user is None or not StandardLoss.objects.visible_to(user).filter(pk=found.pk).exists():
        raise NotVisible
    loss = StandardLoss.objects.locked(found.pk, expected_version=expected_version)
    if rule := why_not_restore(user, loss):
        raise NotAllowed(rule, rule=RESTORE_PERMISSION)
    if loss.restored_at is not None:
        raise Conflict("This standard change is restored already.", current={"version": loss.version})
    loss.restored_at, loss.restored_by, loss.restored_reason = clock.now(), user, reason
    loss.bump("restored_at", "restored_by", "restored_reason")
    people = notices.concerned(loss.request) | notices.watchers(loss.request)
    _tell(events.STANDARD_RESTORED, loss, people - {user.pk}, actor, reason)
    return loss


def why_not_restore(user: object, loss: StandardLoss) -> str:
    """Return why a person cannot give the standard change back, "" where they can."""
    if not may(user, RESTORE_PERMISSION, loss.request):
        return "Only compliance and platform admins restore a standard change."
    if getattr(user, "pk", None) in deciders.excluded(loss.request):
        return "Belongs to the side of the change that failed: somebody else has to restore it."
    return ""


def _tell(event: EventType, loss: StandardLoss, people: set[int], actor: Actor, note: str) -> None:
    request = loss.request
    said = events.StandardEvent(
        loss_uid=str(loss.uid),
        policy=loss.policy.slug,
        rule=loss.rule,
        team_uid=str(request.team.uid) if request.team is not None else "",
        request_uid=str(request.uid),
        path=notices.path_of(request),
        title=request.title,
        note=note,
    )
    audit.record(
        event,
        said,
        actor=actor,
        subject_type="approvals.standard",
        subject_uid=loss.uid,
        team_uid=request.team.uid if request.team is not None else None,
        reason=note,
    )
    if people:
        outbox.publish(event, said, recipients=people, subject_uid=loss.uid)
