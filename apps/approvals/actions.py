"""One function per mutation: submit, decide, withdraw, retry, lapse, escalate (and publish_policy, in `policies`)."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.db import IntegrityError, transaction

from apps.accounts.models import User
from apps.approvals import (
    deciders,
    deciding,
    emergencies,
    engine,
    events,
    granting,
    notices,
    policies,
    ports,
    staging,
    standing,
)
from apps.approvals.choices import REQUEST_TRANSITIONS, RequestKind, RequestStatus, Verdict
from apps.approvals.deciding import REASON_LIMIT, REJECTION_REASON_LENGTH, current
from apps.approvals.models import ApprovalRequest, Decision, PolicyVersion, Stage
from apps.approvals.policies import publish_policy
from apps.approvals.policy_rules import FactValue, PolicyRules
from apps.core import clock
from apps.core.actor import Actor
from apps.core.canonical import digest
from apps.core.errors import Blocked, Conflict, Invalid, NotAllowed, NotVisible
from apps.core.permissions import may
from apps.teams.models import Team, Unit

EMERGENCY_REASON_LENGTH = 20
WITHDRAW_RULE = "Only the requester, or who leads the team or owns its unit, can withdraw this."
_POLICY_ACTOR = "approvals.policy"


@transaction.atomic
def submit(
    subject_type: str,
    subject_uid: uuid.UUID,
    *,
    actor: Actor,
    policy_slug: str,
    team_id: int | None,
    unit_id: int,
    supersedes: int | None = None,
    kind: str = RequestKind.NORMAL,
    reason: str = "",
) -> ApprovalRequest:
    """Open one pass of the policy's newest version over the subject's present bytes; it may end at once, by policy.

    `team_id` None: the platform itself receives it. `unit_id` is the paying unit; `supersedes` the id of the earlier
    approval request that this one corrects. `kind` "emergency" takes the policy's break-glass path instead of its
    stages, with a `reason`; no other kind can be asked for. May return a request that is in review, approved, or
    waiting for capacity. Raises Invalid where no policy is published for it (or it knows no emergencies), NotAllowed
    for an emergency without the permission, Conflict where another request for the subject is open, the team owes
    the review of an emergency, or (for another emergency) of one about the same. The subject's room has
    checked that `actor` may ask.
    """
    if actor.user_id is None:
        raise Invalid({"": "Only a person can ask for an approval."})
    version = _newest_version(policy_slug, subject_type)
    rules = deciders.rules_of(version)
    reason = _checked_kind(kind, reason, version, rules)
    asked_before = _supersede(supersedes, subject_type, actor) if supersedes is not None else set()
    if rules.counts_anything or any(rule.standard for rule in rules.automatic):
        # Before the facts are read: two submissions must not both see room below the limit.
        granting.take_turn("automatic", str(team_id or "platform"))
    if kind != RequestKind.EMERGENCY:
        emergencies.refuse_while_under_review(team_id)
    else:
        emergencies.refuse_second(subject_type, subject_uid, team_id)
    at = clock.now()
    subject = ports.get_subject(subject_type)
    facts = ports.gather_facts(ports.FactContext(subject_type, subject_uid, team_id, unit_id, at))
    outcome = _outcome(rules, facts, kind, version, team_id)
    rule = outcome.automatic
    side = set(subject.requester_side(subject_uid)) | asked_before | {actor.user_id}
    if isinstance(subject, ports.Authored):
        side |= set(deciders.separated(subject, subject_uid, rules))
    request = ApprovalRequest(
        subject_type=subject_type,
        subject_uid=subject_uid,
        subject_digest=digest(subject.canonical(subject_uid)),
        leaves=[{"cluster": e.cluster, "path": e.path, "digest": e.digest} for e in subject.leaves(subject_uid)],
        title=subject.title(subject_uid)[:300],
        policy_version=version,
        requester_id=actor.user_id,
        team=Team.objects.get(pk=team_id) if team_id is not None else None,
        unit=Unit.objects.get(pk=unit_id),
        facts=engine.dump_facts(facts),
        requester_side=sorted(side),
        queue=subject.queue(subject_uid)[:100] if isinstance(subject, ports.Queued) else "",
        automatic=rule is not None,
        automatic_rule=rule.name if rule else "",
        submitted_at=at,
        supersedes_id=supersedes,
        kind=RequestKind.STANDARD if rule is not None and rule.standard else RequestKind(kind),
        reason=reason,
    )
    if kind == RequestKind.EMERGENCY:
        asking = User.objects.filter(pk=actor.user_id, is_active=True).first()
        if not may(asking, emergencies.REQUEST_PERMISSION, request):
            raise NotAllowed("Only team leads and platform admins ask for an emergency.", rule="emergency")
    try:
        with transaction.atomic():
            request.save(force_insert=True)
    except IntegrityError as error:
        raise Conflict("A request for this is already open. Withdraw or correct that one.") from error
    if rule is not None:
        policy = Actor.system(_POLICY_ACTOR, actor.channel)
        notices.tell(events.REQUEST_SUBMITTED, request, [], actor=actor, note=f"Rule “{rule.name}” applies.")
        granting.attempt(request, actor=policy)
        return request
    if kind == RequestKind.EMERGENCY:
        told = notices.watchers(request)
        notices.tell(events.EMERGENCY_REQUESTED, request, told, actor=actor, note=f"Reason: {reason}", reason=reason)
    staging.open_stages(request, outcome)
    steps = staging.stages(request)
    case = deciders.case_of(request, steps, [], deciders.barred(request))
    staging.follow(request, steps, engine.evaluate(case, at), actor)
    staging.warn_if_undecidable(request, actor)
    return request


def _checked_kind(kind: str, reason: str, version: PolicyVersion, rules: PolicyRules) -> str:
    reason = reason.strip()
    if kind == RequestKind.NORMAL:
        return ""
    if kind != RequestKind.EMERGENCY:
        raise Invalid({"": "Ask for a normal request or an emergency: what is standard, the policy says."})
    if rules.emergency is None:
        raise Invalid({"": f"The policy “{version}” knows no emergencies: ask the normal way."})
    if len(reason) < EMERGENCY_REASON_LENGTH:
        raise Invalid({"reason": f"Say in at least {EMERGENCY_REASON_LENGTH} characters why it cannot wait."})
    if len(reason) > REASON_LIMIT:
        raise Invalid({"reason": f"Keep the reason below {REASON_LIMIT:,} characters."})
    return reason


def _outcome(
    rules: PolicyRules, facts: Mapping[str, FactValue], kind: str, version: PolicyVersion, team_id: int | None
) -> engine.Outcome:
    if kind == RequestKind.EMERGENCY and rules.emergency is not None:
        return engine.Outcome(None, (rules.emergency.stage(),))
    return engine.stages_for(rules, facts, standing.lost_rules(version.policy_id, team_id))


def _newest_version(policy_slug: str, subject_type: str) -> PolicyVersion:
    found = policies.newest(policy_slug)
    if found.policy.subject_type != subject_type:
        raise Invalid({"": f"The policy “{found.policy}” is not for this kind of request."})
    return found


def _supersede(request_id: int, subject_type: str, actor: Actor) -> set[int]:
    """Close the request that is corrected; return everybody who asked for it, or for what it corrected itself.

    Whoever asked first stays on the requester's side: a colleague's correction makes nobody free to decide their own.
    """
    earlier = ApprovalRequest.objects.locked(request_id)
    if earlier.subject_type != subject_type:
        raise Invalid({"": "A request can only correct one of its own kind."})
    people = set(Decision.objects.filter(request=earlier).values_list("actor_id", flat=True))
    for stage in staging.open_ones(staging.stages(earlier)):
        people |= set(staging.mail_for(earlier, stage))
    granting.conclude(earlier, "supersede", "Corrected by a later request.")
    notices.tell(events.REQUEST_SUPERSEDED, earlier, people, actor=actor)
    asked, row = {earlier.requester_id}, earlier
    while row.supersedes is not None:
        row = row.supersedes
        asked.add(row.requester_id)
    return asked


@transaction.atomic
def decide(
    request_id: int,
    verdict: str,
    reason: str,
    *,
    actor: Actor,
    expected_digest: str,
    on_behalf_of: int | None = None,
    expected_version: int | None = None,
    stage: int | None = None,
    auth: Mapping[str, str] | None = None,
) -> ApprovalRequest:
    """Say approve or reject, with a reason, on exactly the bytes of `expected_digest`.

    `on_behalf_of` is the id of somebody who delegated the role to the actor; `stage` the ordinal of the open stage
    that is meant (None: the first one whose role the seat holds); `auth` how the person proved who they are, texts
    by name: "session" (uid), "password_at" (ISO 8601, when the password was asked again), …

    Raises Invalid for a missing or short reason, NotVisible, NotAllowed naming the rule that excludes the person or
    that the password has to be asked again, and Conflict where request or subject moved on, the time is over, the
    wait is not, or something blocks an approval now.
    """
    reason = _checked(verdict, reason)
    request = ApprovalRequest.objects.locked(request_id, expected_version=expected_version)
    user = _person(actor, request)
    if request.status != RequestStatus.IN_REVIEW:
        REQUEST_TRANSITIONS.next(request.status, "reject")
        raise Conflict("The decisions are complete.", current=current(request))
    if not (expected_digest == request.subject_digest == granting.live_digest(request)):
        raise Conflict(
            "The change is not the one you were looking at: it was edited. Read it again.", current=current(request)
        )
    at = clock.now()
    stages = staging.stages(request)
    case = deciders.case_of(request, stages, Decision.objects.filter(request=request), deciders.barred(request))
    state = engine.evaluate(case, at)
    if state.standing is not engine.Standing.IN_REVIEW:
        raise Conflict(
            "The time to decide is over: this request has lapsed. It can be submitted again.", current=current(request)
        )
    seat = deciding.take_seat(
        request, stages, case, state, at, actor_id=user.pk, on_behalf_of=on_behalf_of, verdict=verdict, stage=stage
    )
    deciding.demand_fresh_sign_in(request, auth or {}, at)
    if verdict == Verdict.APPROVE:
        reasons = granting.blocked(request, at)
        if reasons:
            raise Blocked("It cannot be approved now: " + " ".join(reasons), current=current(request))
    decision = deciding.record(request, seat, verdict, reason, user, actor, on_behalf_of, at, auth or {})
    _follow(request, stages, engine.evaluate(deciding.with_word(case, decision, seat), at), reason, actor)
    return request


def _checked(verdict: str, reason: str) -> str:
    errors: dict[str, str] = {}
    reason = reason.strip()
    if verdict not in Verdict.values:
        errors["verdict"] = "Choose approve or reject."
    if not reason:
        errors["reason"] = "Give a reason: the requester reads it, and auditors do."
    elif verdict == Verdict.REJECT and len(reason) < REJECTION_REASON_LENGTH:
        errors["reason"] = (
            f"Say in at least {REJECTION_REASON_LENGTH} characters why, so that the requester knows what to change."
        )
    elif len(reason) > REASON_LIMIT:
        errors["reason"] = f"Keep the reason below {REASON_LIMIT:,} characters."
    if errors:
        raise Invalid(errors)
    return reason


def _person(actor: Actor, request: ApprovalRequest) -> User:
    """Return the acting person. Raises NotVisible where the request lies outside their scope."""
    user = User.objects.filter(pk=actor.user_id, is_active=True).first() if actor.user_id else None
    if not isinstance(user, User) or not ApprovalRequest.objects.visible_to(user).filter(pk=request.pk).exists():
        raise NotVisible
    return user


def _follow(request: ApprovalRequest, stages: list[Stage], state: engine.State, reason: str, actor: Actor) -> None:
    """Write down what the fold says now."""
    staging.follow(request, stages, state, actor)
    if state.standing is engine.Standing.REJECTED:
        granting.conclude(request, "reject", reason)
        told = [request.requester_id]
        notices.tell(events.REQUEST_REJECTED, request, told, actor=actor, note=f"Reason: {reason}", reason=reason)
    elif state.standing is engine.Standing.APPROVED:
        granting.attempt(request, actor=actor)


@transaction.atomic
def withdraw(request_id: int, reason: str, *, actor: Actor, expected_version: int | None = None) -> ApprovalRequest:
    """Take an open request back: the requester, or who may withdraw for the team.

    Raises Invalid without a reason, NotVisible, NotAllowed for others, Conflict where it has ended or moved on.
    """
    reason = reason.strip()
    if not reason:
        raise Invalid({"reason": "Say why it is withdrawn."})
    if len(reason) > REASON_LIMIT:
        raise Invalid({"reason": f"Keep the reason below {REASON_LIMIT:,} characters."})
    request = ApprovalRequest.objects.locked(request_id, expected_version=expected_version)
    if not actor.is_system:
        user = _person(actor, request)
        if not may_withdraw(user, request):
            raise NotAllowed(WITHDRAW_RULE, rule="requester or lead")
    REQUEST_TRANSITIONS.next(request.status, "withdraw")
    stages = staging.stages(request)
    told = {request.requester_id} | set(Decision.objects.filter(request=request).values_list("actor_id", flat=True))
    if request.status == RequestStatus.IN_REVIEW:
        for stage in staging.open_ones(stages):
            told |= set(staging.mail_for(request, stage))
    granting.conclude(request, "withdraw", reason)
    told -= {actor.user_id or 0}
    notices.tell(events.REQUEST_WITHDRAWN, request, told, actor=actor, note=f"Reason: {reason}", reason=reason)
    return request


def may_withdraw(user: Any, request: ApprovalRequest) -> bool:
    """Whether the person may take the request back."""
    return bool(user.pk == request.requester_id or may(user, "approvals.request.withdraw", request))


@transaction.atomic
def retry_waiting(request_id: int, *, actor: Actor) -> ApprovalRequest:
    """Try to grant a request that waits for capacity. Raises Conflict where it does not wait; stays waiting in vain."""
    request = ApprovalRequest.objects.locked(request_id)
    if request.status != RequestStatus.WAITING:
        raise Conflict("This request does not wait for capacity.", current=current(request))
    if not actor.is_system:
        user = _person(actor, request)
        if not may(user, "approvals.request.decide", request):
            raise NotAllowed(rule="who may decide")
    granting.attempt(request, actor=actor)
    return request


@transaction.atomic
def lapse(request_id: int, *, actor: Actor) -> bool:
    """Write down that the open stage's time is over; False where it is not (any more)."""
    request = ApprovalRequest.objects.select_for_update(of=("self",)).filter(pk=request_id).first()
    if request is None or request.status != RequestStatus.IN_REVIEW:
        return False
    if request.due_at is None or clock.now() < request.due_at:
        return False
    late = [s for s in staging.open_ones(staging.stages(request)) if s.due_at is not None and s.due_at <= clock.now()]
    names = ", ".join(f"“{stage.name}”" for stage in late)
    word = "Stage" if len(late) == 1 else "Stages"
    granting.conclude(request, "lapse", f"{word} {names} {'was' if len(late) == 1 else 'were'} not decided in time.")
    notices.tell(events.REQUEST_LAPSED, request, [request.requester_id], actor=actor, stage=late[0] if late else None)
    return True


@transaction.atomic
def escalate(stage_id: int, *, actor: Actor) -> bool:
    """Tell those a late stage escalates to, once; False where it is not due (any more).

    That they may decide needs no telling: `engine.holders` compares with the clock.
    """
    found = Stage.objects.filter(pk=stage_id).first()
    if found is None:
        return False
    request = ApprovalRequest.objects.locked(found.request_id)
    stage = Stage.objects.get(pk=stage_id)
    at = clock.now()
    if request.status != RequestStatus.IN_REVIEW or stage.completed_at is not None or stage.escalated_at is not None:
        return False
    if stage.opened_at is None or stage.escalate_hours is None or not stage.escalation_role:
        return False
    if at < stage.opened_at + timedelta(hours=stage.escalate_hours) or (
        stage.due_at is not None and at >= stage.due_at
    ):
        return False
    stage.escalated_at = at
    stage.save(update_fields=["escalated_at"])
    told = staging.mail_for_escalation(request, stage)
    notices.tell(events.REQUEST_ESCALATED, request, told, actor=actor, stage=stage)
    return True


__all__ = [
    "REASON_LIMIT", "REJECTION_REASON_LENGTH", "current", "decide", "escalate", "lapse", "may_withdraw",
    "publish_policy", "retry_waiting", "submit", "withdraw",
]  # fmt: skip
