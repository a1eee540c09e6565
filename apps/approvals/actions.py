"""One function per mutation: submit, decide, withdraw, retry, lapse (and publish_policy, in `policies`)."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from django.db import IntegrityError, transaction

from apps.accounts.models import User
from apps.approvals import deciders, engine, events, granting, notices, ports, staging
from apps.approvals.choices import REQUEST_TRANSITIONS, RequestStatus, Verdict
from apps.approvals.models import ApprovalRequest, Decision, PolicyVersion, Stage
from apps.approvals.policies import publish_policy
from apps.audit import actions as audit
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.canonical import digest
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.permissions import may
from apps.teams.models import Team, Unit

REJECTION_REASON_LENGTH = 10
REASON_LIMIT = 4000
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
) -> ApprovalRequest:
    """Open one pass of the policy's newest version over the subject's present bytes; it may end at once, by policy.

    `team_id` None: the platform itself receives it. `unit_id` is the paying unit; `supersedes` the id of the earlier
    approval request that this one corrects. May return a request that is in review, approved, or waiting for capacity.
    Raises Invalid where no policy is published for it, Conflict where another request for the subject is open. The
    subject's room has checked that `actor` may ask.
    """
    if actor.user_id is None:
        raise Invalid({"": "Only a person can ask for an approval."})
    version = _newest_version(policy_slug, subject_type)
    rules = deciders.rules_of(version)
    if supersedes is not None:
        _supersede(supersedes, subject_type, actor)
    if rules.counts_anything:
        # Before the facts are read: two submissions must not both see room below the limit.
        granting.take_turn("automatic", str(team_id or "platform"))
    at = clock.now()
    subject = ports.get_subject(subject_type)
    context = ports.FactContext(subject_type, subject_uid, team_id, unit_id, at)
    facts = ports.gather_facts(context)
    outcome = engine.stages_for(rules, facts)
    rule = outcome.automatic
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
        requester_side=sorted(subject.requester_side(subject_uid) | {actor.user_id}),
        queue=subject.queue(subject_uid)[:100] if isinstance(subject, ports.Queued) else "",
        automatic=rule is not None,
        automatic_rule=rule.name if rule else "",
        submitted_at=at,
        supersedes_id=supersedes,
    )
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
    staging.open_stages(request, outcome)
    staging.open_stage(request, 0, at, actor)
    staging.warn_if_undecidable(request, actor)
    return request


def _newest_version(policy_slug: str, subject_type: str) -> PolicyVersion:
    found = PolicyVersion.objects.select_related("policy").filter(policy__slug=policy_slug).order_by("-number").first()
    if found is None:
        raise Invalid({"": "No policy is published for this yet. A platform admin has to publish one first."})
    if found.policy.subject_type != subject_type:
        raise Invalid({"": f"The policy “{found.policy}” is not for this kind of request."})
    return found


def _supersede(request_id: int, subject_type: str, actor: Actor) -> None:
    earlier = ApprovalRequest.objects.locked(request_id)
    if earlier.subject_type != subject_type:
        raise Invalid({"": "A request can only correct one of its own kind."})
    stage = staging.stages(earlier)[earlier.current_stage : earlier.current_stage + 1]
    people = set(Decision.objects.filter(request=earlier).values_list("actor_id", flat=True))
    people |= set(staging.mail_for(earlier, stage[0])) if stage else set()
    granting.conclude(earlier, "supersede", "Corrected by a later request.")
    notices.tell(events.REQUEST_SUPERSEDED, earlier, people, actor=actor)


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
) -> ApprovalRequest:
    """Say approve or reject, with a reason, on exactly the bytes of `expected_digest`.

    Raises Invalid for a missing or short reason, NotVisible, NotAllowed naming the rule that excludes the person, and
    Conflict where request or subject moved on, the time is over, or something blocks an approval now.
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
    case = deciders.case_of(request, stages, Decision.objects.filter(request=request), deciders.excluded(request))
    state = engine.evaluate(case, at)
    if state.standing is not engine.Standing.IN_REVIEW:
        raise Conflict(
            "The time to decide is over: this request has lapsed. It can be submitted again.", current=current(request)
        )
    seat = on_behalf_of if on_behalf_of is not None else user.pk
    stage = stages[engine.stage_of(state, seat)]
    held = deciders.holders(stage.role, stage.unit_id)
    rule = engine.why_not(case, actor=user.pk, on_behalf_of=on_behalf_of, holders=held.keys(), at=at, verdict=verdict)
    if rule:
        raise NotAllowed(f"You cannot decide this: {rule}", rule=rule)
    if verdict == Verdict.APPROVE:
        reasons = list(ports.get_subject(request.subject_type).blockers(request.subject_uid, at))
        if reasons:
            raise Conflict("It cannot be approved now: " + " ".join(reasons), current=current(request))
    decision = _record(request, stage, verdict, reason, user, actor, on_behalf_of, held[seat], at)
    _follow(request, stages, engine.evaluate(_with(case, decision, stage), at), state.stage, reason, actor, at)
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


def current(request: ApprovalRequest) -> dict[str, Any]:
    """Return the present state, for a person whose form is stale."""
    return {
        "status": str(request.status),
        "version": request.version,
        "digest": request.subject_digest,
        "stage": request.current_stage + 1,
    }


def _record(
    request: ApprovalRequest,
    stage: Stage,
    verdict: str,
    reason: str,
    user: User,
    actor: Actor,
    on_behalf_of: int | None,
    held: deciders.Held,
    at: datetime,
) -> Decision:
    context = ports.FactContext(request.subject_type, request.subject_uid, request.team_id, request.unit_id, at)
    where = Unit.objects.get(pk=held.unit_id).name if held.unit_id is not None else "the whole installation"
    decision = Decision.objects.create(
        request=request,
        stage=stage,
        actor=user,
        on_behalf_of_id=on_behalf_of,
        verdict=verdict,
        reason=reason,
        subject_digest=request.subject_digest,
        policy_digest=request.policy_version.digest,
        facts=engine.dump_facts(ports.gather_facts(context)),
        held=f"{deciders.role_label(stage.role)} of {where}",
        decided_at=at,
    )
    seat = decision.on_behalf_of or decision.actor
    said = events.DecisionMade(
        request_uid=str(request.uid),
        decision_uid=str(decision.uid),
        title=request.title,
        path=notices.path_of(request),
        stage=stage.name,
        verdict=verdict,
        held=decision.held,
        seat_uid=str(seat.uid),
        subject_digest=decision.subject_digest,
        policy_digest=decision.policy_digest,
    )
    audit.record(
        events.DECISION_MADE,
        said,
        actor=actor,
        subject_type="approvals.request",
        subject_uid=request.uid,
        team_uid=request.team.uid if request.team is not None else None,
        after_digest=request.subject_digest,
        reason=reason,
    )
    outbox.publish(events.DECISION_MADE, said, recipients=[request.requester_id], subject_uid=request.uid)
    return decision


def _with(case: engine.Case, d: Decision, stage: Stage) -> engine.Case:
    word = engine.Word(
        stage.ordinal, d.actor_id, d.on_behalf_of_id, d.verdict, d.subject_digest, d.policy_digest, d.decided_at
    )
    return case.with_word(word)


def _follow(
    request: ApprovalRequest,
    stages: list[Stage],
    state: engine.State,
    stage_before: int,
    reason: str,
    actor: Actor,
    at: datetime,
) -> None:
    """Write down what the fold says now."""
    for stage in stages[stage_before : state.stage]:
        stage.completed_at = at
        stage.save(update_fields=["completed_at"])
    if state.standing is engine.Standing.REJECTED:
        granting.conclude(request, "reject", reason)
        told = [request.requester_id]
        notices.tell(events.REQUEST_REJECTED, request, told, actor=actor, note=f"Reason: {reason}", reason=reason)
    elif state.standing is engine.Standing.APPROVED:
        granting.attempt(request, actor=actor)
    elif state.stage > stage_before:
        staging.open_stage(request, state.stage, at, actor)
    else:
        # The row moves with every word: whoever has an older page open must look again.
        request.bump()


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
    if request.status == RequestStatus.IN_REVIEW and stages:
        told |= set(staging.mail_for(request, stages[request.current_stage]))
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
    stage = staging.stages(request)[request.current_stage]
    granting.conclude(request, "lapse", f"Stage “{stage.name}” was not decided in time.")
    notices.tell(events.REQUEST_LAPSED, request, [request.requester_id], actor=actor, stage=stage)
    return True


__all__ = ["current", "decide", "lapse", "may_withdraw", "publish_policy", "retry_waiting", "submit", "withdraw"]
