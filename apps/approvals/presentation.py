"""What the request page shows, made ready for its templates."""

from __future__ import annotations

from typing import Any

from apps.approvals import deciders, engine, notices, ports, wording
from apps.approvals.choices import RequestStatus, Verdict
from apps.approvals.granting import blocked
from apps.approvals.models import ApprovalRequest, Stage
from apps.approvals.selectors import Sight, explain, starving
from apps.core import formats

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
    if stage.due_at is not None:
        text += f" Until {formats.datetime_utc(stage.due_at)}."
    return {"title": f"Stage “{stage.name}”", "pending": True, "text": text, "tone": "info"}


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
    }
