"""What the request page shows, made ready for its templates."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from apps.accounts.models import User
from apps.approvals import deciders, engine, notices, ports, selectors, wording
from apps.approvals.choices import RequestKind, RequestStatus, Verdict
from apps.approvals.granting import blocked
from apps.approvals.models import ApprovalRequest, Decision, EmergencyReview, Stage
from apps.approvals.selectors import Sight, explain, starving
from apps.core import formats
from apps.core.errors import Invalid

OWN_SEAT = "self"
_OPEN = (RequestStatus.IN_REVIEW, RequestStatus.WAITING)


def exact_change(request: ApprovalRequest) -> dict[str, Any]:
    """Return what the change's template sees: the subject's own summary, or the plain table of changes."""
    subject = ports.get_subject(request.subject_type)
    uid = request.subject_uid
    context: dict[str, Any] = {
        "approval_request": request,
        "changes": list(subject.diff(uid)),
        "subject_url": subject.url(uid),
        "subject_label": ports.label_of(request.subject_type),
        "change_template": subject.summary_template(uid) or "approvals/change.html",
    }
    if isinstance(subject, ports.Summarised):
        context.update(subject.summary_context(uid))
    return context


def alerts(seen: Sight) -> list[dict[str, Any]]:
    """Return what stands in the way or needs to be known first, as notices."""
    request = seen.request
    found: list[dict[str, Any]] = []
    if seen.lapsed:
        found.append(
            {
                "tone": "caution",
                "title": "The time to decide is over",
                "text": "This request has lapsed; it can be submitted again.",
            }
        )
    if request.kind == RequestKind.EMERGENCY:
        found.append(
            {
                "tone": "critical",
                "title": "Emergency",
                "text": f"The policy's usual stages are left out; a review follows. Reason given: {request.reason}",
            }
        )
    if request.status == RequestStatus.WAITING:
        found.append(
            {
                "tone": "caution",
                "title": "Approved, waiting",
                "text": f"{request.conclusion} The decisions stand; it is granted by itself, in order of submission.",
            }
        )
    if request.status in _OPEN and (reasons := blocked(request, seen.at)):
        found.append({"tone": "caution", "title": "It cannot be approved now", "items": reasons})
    if starved := starving(seen):
        names = ", ".join(f"“{stage.name}”" for stage in starved)
        found.append(
            {
                "tone": "critical",
                "title": "Too few people can decide",
                "text": f"Stage {names}: everybody with the role is excluded, or nobody holds it. "
                "Platform admins can appoint somebody; the request then goes on by itself.",
            }
        )
    # A dictionary answers a template that asks for `items` with its own method where it has no such key.
    return [{"items": [], **one} for one in found]


def timeline(seen: Sight) -> list[dict[str, Any]]:
    """Return what happened to the request and what is still to come, in order of time."""
    request = seen.request
    events: list[dict[str, Any]] = [
        {
            "title": "Submitted",
            "at": request.submitted_at,
            "by": str(request.requester),
            "tone": "info",
            "text": f"Under {request.policy_version}.",
        }
    ]
    if request.automatic:
        events[0]["text"] = f"Rule “{request.automatic_rule}” of {request.policy_version} asks nobody."
    for decision in seen.decisions:
        approves = decision.verdict == Verdict.APPROVE
        spoken = f" for {decision.on_behalf_of}" if decision.on_behalf_of else ""
        events.append(
            {
                "title": f"{'Approved' if approves else 'Rejected'} in stage “{decision.stage.name}”",
                "at": decision.decided_at,
                "by": f"{decision.actor}{spoken}, {decision.held}",
                "text": decision.reason,
                "tone": "positive" if approves else "critical",
            }
        )
    if request.status == RequestStatus.IN_REVIEW:
        lacking = (stage for stage in seen.stages if seen.state.completed[stage.ordinal] is None)
        events += [_pending(stage, seen) for stage in lacking]
    elif request.status == RequestStatus.WAITING:
        events.append({"title": "Granted", "pending": True, "text": request.conclusion})
    elif request.concluded_at is not None:
        tone = "positive" if request.status == RequestStatus.APPROVED else "neutral"
        text = "" if request.status == RequestStatus.REJECTED else request.conclusion
        title = "Approved" if request.status == RequestStatus.APPROVED else request.get_status_display()
        events.append({"title": title, "at": request.concluded_at, "text": text, "tone": tone})
    return events


def _pending(stage: Stage, seen: Sight) -> dict[str, Any]:
    needed = stage.quorum - len(seen.state.approvals(stage.ordinal))
    where = f"of {stage.unit}" if stage.unit else "of the whole installation"
    text = f"{needed} approval{'s' if needed != 1 else ''} needed from {deciders.role_label(stage.role)} {where}."
    if (until := seen.waits_until(stage)) is not None and stage.ordinal in seen.state.open:
        text += f" Approvals count from {formats.datetime_utc(until)}; a rejection counts at once."
    if stage.due_at is not None:
        text += f" Until {formats.datetime_utc(stage.due_at)}."
    return {"title": f"Stage “{stage.name}”", "pending": True, "text": text, "tone": "info"}


@dataclass(frozen=True, slots=True)
class Step:
    """A stage as the request page shows it: where it stands, and everything that moves it."""

    row: Stage
    status: str
    label: str
    tone: str
    approvals: int
    lines: list[str]


def steps(seen: Sight) -> list[Step]:
    """Return the stages with their groups, waits, escalations and fallbacks in words."""
    groups = [stage.group for stage in seen.stages]
    return [_step(stage, seen, parallel=bool(stage.group) and groups.count(stage.group) > 1) for stage in seen.stages]


def _step(stage: Stage, seen: Sight, *, parallel: bool) -> Step:
    now_open = seen.request.status == RequestStatus.IN_REVIEW and stage.ordinal in seen.state.open
    if seen.state.completed[stage.ordinal] is not None:
        status, label, tone = "complete", "Complete", "positive"
    elif now_open:
        status, label, tone = "open", "Open", "info"
    else:
        status, label, tone = "later", "Not reached", "neutral"
    where = stage.unit.name if stage.unit is not None else "the whole installation"
    lines = [f"{deciders.role_label(stage.role)} of {where}"]
    if parallel:
        lines.append(f"At the same time as the other stages of group {stage.group}")
    opened = seen.state.opened[stage.ordinal]
    if stage.wait_hours is not None:
        until = seen.waits_until(stage) if now_open else None
        hours = wording.hours_text(stage.wait_hours)
        lines.append(f"Approvals count from {formats.datetime_utc(until)}" if until else f"Wait of {hours}")
    if stage.due_at is not None and now_open:
        lines.append(f"Lapses {formats.datetime_utc(stage.due_at)}")
    elif stage.due_hours is not None and not now_open and status == "later":
        lines.append(f"Lapses {wording.hours_text(stage.due_hours)} after it opens")
    if stage.escalation_role and stage.escalate_hours is not None:
        role, hours = deciders.role_label(stage.escalation_role), wording.hours_text(stage.escalate_hours)
        if now_open and opened is not None:
            at = opened + timedelta(hours=stage.escalate_hours)
            said = "Escalated: also" if seen.at >= at else f"From {formats.datetime_utc(at)} also"
            lines.append(f"{said} {role} may decide")
        else:
            lines.append(f"After {hours} also {role} may decide")
    if stage.fallback_role:
        lines.append(f"{deciders.role_label(stage.fallback_role)} steps in where too few are free of conflicts")
    return Step(stage, status, label, tone, len(seen.state.approvals(stage.ordinal)), lines)


def seat_choices(seen: Sight, user: Any) -> list[tuple[str, str]]:
    """Return every seat a person could fill now, as (value, words): in whose name, and in which stage."""
    found = selectors.voices(seen, user)
    givers = User.objects.in_bulk({one.giver_id for one in found if one.giver_id is not None})
    choices = []
    for one in found:
        giver = givers[one.giver_id] if one.giver_id is not None else None
        for ordinal in one.stages:
            words = f"For {giver}, by delegation" if giver is not None else "For myself"
            value = f"{giver.uid if giver is not None else OWN_SEAT}.{ordinal}"
            choices.append((value, f"{words}, stage “{seen.stages[ordinal].name}”"))
    return choices


def seat_of(value: str, seen: Sight, user: Any) -> tuple[int | None, int | None]:
    """Return giver (key, None: oneself) and stage behind a seat's value. Raises Invalid for one that is not offered."""
    if not value:
        return None, None
    who, _, ordinal = value.partition(".")
    for one in selectors.voices(seen, user):
        uid = OWN_SEAT if one.giver_id is None else str(User.objects.values_list("uid", flat=True).get(pk=one.giver_id))
        if uid == who and ordinal.isdecimal() and int(ordinal) in one.stages:
            return one.giver_id, int(ordinal)
    raise Invalid({"seat": "You can no longer decide in that name. Read the page again."})


def auth_text(decision: Decision) -> str:
    """Return how somebody proved who they are, in words."""
    said: dict[str, Any] = decision.auth or {}
    parts = {"web": "in the portal", "api": "through the API"}.get(str(said.get("channel", "")), "")
    words = [f"Decided {parts}"] if parts else []
    if raw := said.get("password_at"):
        try:
            words.append(f"password given {formats.datetime_utc(datetime.fromisoformat(str(raw)), seconds=True)}")
        except ValueError:
            words.append("password given at an unknown time")
    return ", ".join(words)


def request_context(seen: Sight) -> dict[str, Any]:
    """Return everything the request page shows besides who looks at it."""
    request = seen.request
    return {
        **exact_change(request),
        "seen": seen,
        "alerts": alerts(seen),
        "timeline": timeline(seen),
        "facts": wording.facts_table(engine.load_facts(request.facts)),
        "seats": explain(request, seen),
        "stage": seen.open_stage,
        "cost": notices.signed_cost(request),
        "stages": seen.stages,
        "steps": steps(seen),
        "records": [(decision, auth_text(decision)) for decision in seen.decisions],
        "review": review_of(request),
    }


def review_of(request: ApprovalRequest) -> EmergencyReview | None:
    """Return the review that an emergency has opened, None for anything else."""
    if request.kind != RequestKind.EMERGENCY:
        return None
    return EmergencyReview.objects.filter(request=request).select_related("closed_by").first()
