"""One word on a request: the seat it takes, whether the person is who they say, the row it leaves. For `actions`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from apps.accounts.models import User
from apps.approvals import deciders, engine, events, notices, ports
from apps.approvals.choices import Verdict
from apps.approvals.models import ApprovalRequest, Decision, Stage
from apps.audit import actions as audit
from apps.core import formats, outbox
from apps.core.actor import Actor
from apps.core.errors import Conflict, NotAllowed
from apps.teams.models import Unit

REJECTION_REASON_LENGTH = 10
REASON_LIMIT = 4000
#: "password_at" may lie so far ahead of this machine's clock.
_SKEW = timedelta(minutes=1)
PASSWORD_AT = "password_at"  # noqa: S105 (a key's name)


@dataclass(frozen=True, slots=True)
class Seat:
    """The seat a word takes: in which stage, by which role, and where that is held."""

    stage: Stage
    role: str
    held: deciders.Held


def take_seat(
    request: ApprovalRequest,
    stages: list[Stage],
    case: engine.Case,
    state: engine.State,
    at: datetime,
    *,
    actor_id: int,
    on_behalf_of: int | None,
    verdict: str,
    stage: int | None,
) -> Seat:
    """Return the seat that this word takes. Raises NotAllowed with the rule, Conflict while approvals have to wait."""
    roster = deciders.Roster()
    seat = actor_id if on_behalf_of is None else on_behalf_of
    wanted = {*state.open, *([state.seats[seat][0]] if seat in state.seats else [])}
    panels = deciders.panels_of((s for s in stages if s.ordinal in wanted), roster)
    standing_in = deciders.delegations(request, at, to=actor_id) if on_behalf_of is not None else []
    ordinal = engine.stage_of(case, state, seat, panels, at) if stage is None else stage

    def rule(said: str) -> str:
        return engine.why_not(
            case,
            actor=actor_id,
            on_behalf_of=on_behalf_of,
            panels=panels,
            at=at,
            verdict=said,
            delegations=standing_in,
            stage=ordinal,
        )

    if why := rule(verdict):
        if verdict == Verdict.APPROVE and _waits(case, state, ordinal, at) and not rule(Verdict.REJECT):
            raise Conflict(why, current=current(request))
        raise NotAllowed(f"You cannot decide this: {why}", rule=why)
    row = stages[ordinal]
    role = engine.holders(case, state, ordinal, panels[ordinal], at)[seat]
    return Seat(row, role, deciders.held_through(row, role, seat, roster))


def _waits(case: engine.Case, state: engine.State, ordinal: int, at: datetime) -> bool:
    until = engine.wait_until(case, state, ordinal) if 0 <= ordinal < len(case.stages) else None
    return until is not None and at < until


def demand_fresh_sign_in(request: ApprovalRequest, auth: Mapping[str, str], at: datetime) -> None:
    """Refuse where the pinned policy wants the password asked again and it was not, or too long ago.

    Raises NotAllowed with the rule "reauthenticate".
    """
    minutes = deciders.rules_of(request.policy_version).reauthenticate_minutes
    if minutes is None:
        return
    try:
        asked = datetime.fromisoformat(auth.get(PASSWORD_AT, ""))
    except ValueError:
        asked = None
    fresh = asked is not None and asked.tzinfo is not None and at - timedelta(minutes=minutes) <= asked <= at + _SKEW
    if not fresh:
        raise NotAllowed(
            f"This policy wants your password again before a decision (at most {minutes} minutes ago).",
            rule="reauthenticate",
        )


def current(request: ApprovalRequest) -> dict[str, Any]:
    """Return the present state, for a person whose form is stale."""
    return {
        "status": str(request.status),
        "version": request.version,
        "digest": request.subject_digest,
        "stage": request.current_stage + 1,
    }


def record(
    request: ApprovalRequest,
    seat: Seat,
    verdict: str,
    reason: str,
    user: User,
    actor: Actor,
    on_behalf_of: int | None,
    at: datetime,
    auth: Mapping[str, str],
) -> Decision:
    """Write the decision down with all that was true at its moment, in the trail, and tell the requester."""
    context = ports.FactContext(request.subject_type, request.subject_uid, request.team_id, request.unit_id, at)
    subject = ports.get_subject(request.subject_type)
    where = Unit.objects.get(pk=seat.held.unit_id).name if seat.held.unit_id is not None else "the whole installation"
    decision = Decision.objects.create(
        request=request,
        stage=seat.stage,
        actor=user,
        on_behalf_of_id=on_behalf_of,
        verdict=verdict,
        reason=reason,
        subject_digest=request.subject_digest,
        policy_digest=request.policy_version.digest,
        facts=engine.dump_facts(ports.gather_facts(context)),
        held=f"{deciders.role_label(seat.role)} of {where}",
        decided_at=at,
        checklist_digest=(subject.checklist_digest(request.subject_uid) if isinstance(subject, ports.Checked) else ""),
        auth={"channel": str(actor.channel), **auth},
    )
    spoken_for = decision.on_behalf_of or decision.actor
    said = events.DecisionMade(
        request_uid=str(request.uid),
        decision_uid=str(decision.uid),
        title=request.title,
        path=notices.path_of(request),
        stage=seat.stage.name,
        verdict=verdict,
        held=decision.held,
        seat_uid=str(spoken_for.uid),
        subject_digest=decision.subject_digest,
        policy_digest=decision.policy_digest,
        checklist_digest=decision.checklist_digest,
        at=formats.datetime_utc(at),
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
    told = {request.requester_id, *([on_behalf_of] if on_behalf_of is not None else [])}
    outbox.publish(events.DECISION_MADE, said, recipients=sorted(told), subject_uid=request.uid)
    return decision


def with_word(case: engine.Case, d: Decision, seat: Seat) -> engine.Case:
    """Return the case with the decision's word in its log."""
    word = engine.Word(
        seat.stage.ordinal, d.actor_id, d.on_behalf_of_id, d.verdict, d.subject_digest, d.policy_digest, d.decided_at
    )
    return case.with_word(word)
