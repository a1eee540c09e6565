"""Events of a request: their payload and who receives them."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from django.conf import settings
from django.urls import reverse

from apps.accounts.models import User
from apps.approvals import deciders, ports
from apps.approvals.engine import load_facts
from apps.approvals.events import GrantEvent, RequestEvent
from apps.approvals.models import ApprovalRequest, Decision, Grant, Stage
from apps.core import clock, formats, outbox
from apps.core.actor import Actor
from apps.core.events import EventType
from apps.core.money import Money
from apps.teams import scope
from apps.teams.choices import Role


def cost_text(request: ApprovalRequest) -> str:
    """Return the change of the monthly cost with sign and currency, "" where it is unknown."""
    signed = signed_cost(request)
    return f"{signed} a month" if signed else ""


def signed_cost(request: ApprovalRequest) -> str:
    """Return the change of the monthly cost as "+1,405.25 USD", "" where it is unknown."""
    amount = monthly_cost(request)
    return "" if amount is None else f"{'+' if amount.amount > 0 else ''}{formats.money(amount)}"


def monthly_cost(request: ApprovalRequest) -> Money | None:
    """Return the change of the monthly cost as of submission, None where it is unknown."""
    value = load_facts(request.facts).get(ports.MONTHLY_COST)
    if value is None or isinstance(value, str):
        return None
    return Money(Decimal(value), settings.COMMONS_CURRENCY)


def path_of(request: ApprovalRequest) -> str:
    """Return the path of the request's page."""
    return reverse("approvals:request-detail", kwargs={"request_uid": request.uid})


def payload(request: ApprovalRequest, stage: Stage | None = None, note: str = "") -> RequestEvent:
    """Return what events say about the request as it stands."""
    return RequestEvent(
        request_uid=str(request.uid),
        subject_type=request.subject_type,
        subject_uid=str(request.subject_uid),
        subject_digest=request.subject_digest,
        title=request.title,
        path=path_of(request),
        status=str(request.status),
        policy=str(request.policy_version),
        monthly_cost=cost_text(request),
        age=formats.age(request.submitted_at),
        stage=stage.name if stage else "",
        due=formats.datetime_utc(stage.due_at) if stage and stage.due_at else "",
        note=note,
    )


def tell(
    event: EventType,
    request: ApprovalRequest,
    recipients: Iterable[int],
    *,
    actor: Actor,
    stage: Stage | None = None,
    note: str = "",
    reason: str = "",
) -> None:
    """Record the event in the audit trail and queue it for `recipients`, in the caller's transaction."""
    from apps.audit import actions as audit

    said = payload(request, stage, note)
    audit.record(
        event,
        said,
        actor=actor,
        subject_type="approvals.request",
        subject_uid=request.uid,
        team_uid=request.team.uid if request.team is not None else None,
        after_digest=request.subject_digest,
        reason=reason,
    )
    people = set(recipients)
    if people:
        outbox.publish(event, said, recipients=people, subject_uid=request.uid)


def tell_of_grant(
    event: EventType,
    grant: Grant,
    recipients: Iterable[int],
    *,
    actor: Actor,
    note: str = "",
    reason: str = "",
    renewal_path: str = "",
) -> None:
    """Record an event of a grant in the audit trail and queue it for `recipients`, in the caller's transaction."""
    from apps.audit import actions as audit

    request = grant.request
    ends = grant.revoked_at or grant.expires_at
    left = (grant.expires_at - clock.now()).total_seconds() if grant.expires_at is not None else 0
    said = GrantEvent(
        grant_uid=str(grant.uid),
        request_uid=str(request.uid),
        subject_type=request.subject_type,
        subject_uid=str(request.subject_uid),
        subject_digest=grant.subject_digest,
        path=path_of(request),
        kind=str(grant.kind),
        ends=formats.datetime_utc(ends) if ends is not None else "",
        days=max(0, -(-int(left) // 86_400)),
        title=request.title,
        note=note,
        renewal_path=renewal_path,
    )
    audit.record(
        event,
        said,
        actor=actor,
        subject_type="approvals.grant",
        subject_uid=grant.uid,
        team_uid=request.team.uid if request.team is not None else None,
        after_digest=grant.subject_digest,
        reason=reason,
    )
    people = set(recipients)
    if people:
        outbox.publish(event, said, recipients=people, subject_uid=grant.uid)


def person(actor: Actor) -> User | None:
    """Return the active person behind an action, None for the portal itself and for who is not active any more."""
    return User.objects.filter(pk=actor.user_id, is_active=True).first() if actor.user_id is not None else None


def watchers(request: ApprovalRequest) -> set[int]:
    """Return who hears of everything out of the ordinary: compliance over the paying unit, and platform admins."""
    return {*deciders.holders(Role.COMPLIANCE, request.unit_id), *deciders.holders(Role.PLATFORM_ADMIN, None)}


def concerned(request: ApprovalRequest) -> set[int]:
    """Return the requester, the receiving team's leads, and those who decided."""
    leads = scope.holders_of_role(Role.TEAM_LEAD, team_id=request.team_id) if request.team_id is not None else []
    decided = Decision.objects.filter(request=request).values_list("actor_id", flat=True)
    return {request.requester_id, *leads, *decided}
