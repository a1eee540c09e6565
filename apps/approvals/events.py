"""What the approvals room tells people and other systems. Payloads carry opaque ids, no names and no addresses."""

from __future__ import annotations

from dataclasses import dataclass

from apps.core.events import declare, private
from apps.core.exports import Exported


@dataclass(frozen=True, slots=True)
class RequestEvent:
    """A request and where it stands. `monthly_cost` is a text with currency ("+1,405.25 USD a month"), "" if unknown;
    `age` how long ago it was submitted, `due` until when the open stage can be decided ("" without a limit)."""

    request_uid: str
    subject_type: str
    subject_uid: str
    subject_digest: str
    path: str
    status: str
    policy: str
    title: str = private()
    monthly_cost: str = ""
    age: str = ""
    stage: str = ""
    due: str = ""
    note: str = private(default="")


@dataclass(frozen=True, slots=True)
class DecisionMade:
    """One decision: whose seat (uid), by which role, on which bytes under which policy."""

    request_uid: str
    decision_uid: str
    path: str
    stage: str
    verdict: str
    held: str
    seat_uid: str
    subject_digest: str
    policy_digest: str
    title: str = private()
    checklist_digest: str = ""
    at: str = ""


@dataclass(frozen=True, slots=True)
class PolicyPublished:
    """A new policy version."""

    policy: str
    name: str
    number: int
    digest: str
    path: str


@dataclass(frozen=True, slots=True)
class DelegationChanged:
    """Who may speak for whom, in which role, at or below which unit ("": wherever it is held), from when until when."""

    delegation_uid: str
    giver_uid: str
    delegate_uid: str
    role: str
    unit: str
    start: str
    end: str
    path: str
    giver_name: str = private(default="")
    delegate_name: str = private(default="")


@dataclass(frozen=True, slots=True)
class GrantEvent:
    """A grant that ends or has ended: of which request, when (UTC, in words), and how many days are left."""

    grant_uid: str
    request_uid: str
    subject_type: str
    subject_uid: str
    subject_digest: str
    path: str
    kind: str
    ends: str
    days: int
    title: str = private()
    note: str = private(default="")
    renewal_path: str = ""


@dataclass(frozen=True, slots=True)
class ReviewEvent:
    """The review after an emergency: of which request, until when, and what it found ("" while it is open)."""

    review_uid: str
    request_uid: str
    subject_type: str
    subject_uid: str
    path: str
    due: str
    outcome: str = ""
    title: str = private(default="")
    note: str = private(default="")


@dataclass(frozen=True, slots=True)
class StandardEvent:
    """A standard change whose status a team lost, or got back."""

    loss_uid: str
    policy: str
    rule: str
    team_uid: str
    request_uid: str
    path: str
    title: str = private(default="")
    note: str = private(default="")


def _cost(p: RequestEvent) -> str:
    return f" ({p.monthly_cost})" if p.monthly_cost else ""


def _lines(p: RequestEvent, *more: str) -> str:
    facts = [f"Monthly cost: {p.monthly_cost}." if p.monthly_cost else "", f"Rules: {p.policy}."]
    if p.age:
        facts.insert(0, f"Submitted {p.age}.")
    return "\n".join(line for line in (*more, *facts, p.note) if line)


REQUEST_SUBMITTED = declare(
    "approvals.request.submitted",
    RequestEvent,
    audience="those who can decide it now",
    mail=True,
    headline=lambda p: f"For you to decide: {p.title}{_cost(p)}",
    body=lambda p: _lines(
        p,
        f"Stage “{p.stage}” waits for a decision{' until ' + p.due if p.due else ''}." if p.stage else "",
        "Open the request to see the exact change. Nothing is decided by opening it.",
    ),
    path=lambda p: p.path,
)
REQUEST_APPROVED = declare(
    "approvals.request.approved",
    RequestEvent,
    audience="the requester",
    mail=True,
    headline=lambda p: f"Approved: {p.title}",
    body=lambda p: _lines(p, "It is now being put into force."),
    path=lambda p: p.path,
)
REQUEST_REJECTED = declare(
    "approvals.request.rejected",
    RequestEvent,
    audience="the requester",
    mail=True,
    headline=lambda p: f"Rejected: {p.title}",
    body=lambda p: _lines(p, "The reason stands on the request. You can correct it and submit again."),
    path=lambda p: p.path,
)
REQUEST_WITHDRAWN = declare(
    "approvals.request.withdrawn",
    RequestEvent,
    audience="the requester, and those it had waited for",
    mail=True,
    headline=lambda p: f"Withdrawn: {p.title}",
    body=lambda p: _lines(p, "There is nothing left to decide."),
    path=lambda p: p.path,
)
REQUEST_LAPSED = declare(
    "approvals.request.lapsed",
    RequestEvent,
    audience="the requester",
    mail=True,
    headline=lambda p: f"Lapsed without a decision: {p.title}",
    body=lambda p: _lines(p, f"Stage “{p.stage}” was not decided in time. You can submit it again."),
    path=lambda p: p.path,
)
REQUEST_SUPERSEDED = declare(
    "approvals.request.superseded",
    RequestEvent,
    audience="those who had decided it or could have",
    headline=lambda p: f"Corrected by a later request: {p.title}",
    body=lambda p: _lines(p, "Earlier decisions are void: they were made on other bytes."),
    path=lambda p: p.path,
)
REQUEST_WAITING = declare(
    "approvals.request.waiting",
    RequestEvent,
    audience="the requester, and those who approved it",
    mail=True,
    headline=lambda p: f"Approved, waiting for capacity: {p.title}",
    body=lambda p: _lines(p, "The decisions stand; it is granted by itself, in order, when there is room."),
    path=lambda p: p.path,
)
REQUEST_UNDECIDABLE = declare(
    "approvals.request.undecidable",
    RequestEvent,
    audience="platform admins",
    mail=True,
    headline=lambda p: f"Nobody can decide: {p.title}",
    body=lambda p: _lines(p, "Appoint somebody to the role; the request then goes on by itself."),
    path=lambda p: p.path,
)
DECISION_MADE = declare(
    "approvals.decision.made",
    DecisionMade,
    audience="the requester",
    headline=lambda p: f"{'Approved' if p.verdict == 'approve' else 'Rejected'} in stage “{p.stage}”: {p.title}",
    body=lambda p: f"Decided as {p.held}.",
    path=lambda p: p.path,
)
POLICY_PUBLISHED = declare(
    "approvals.policy.published",
    PolicyPublished,
    audience="platform admins",
    headline=lambda p: f"Policy “{p.name}” version {p.number} is in force",
    body=lambda p: "It applies to requests submitted from now on; open requests keep their version.",
    path=lambda p: p.path,
)
REQUESTS_EXPORTED = declare(
    "approvals.requests.exported",
    Exported,
    audience="nobody; the audit trail keeps it",
    headline=lambda p: f"The list of approval requests was exported ({p.rows} rows)",
)
REQUEST_ESCALATED = declare(
    "approvals.request.escalated",
    RequestEvent,
    audience="those who may now decide it as well",
    mail=True,
    headline=lambda p: f"Not decided in time, now also for you: {p.title}{_cost(p)}",
    body=lambda p: _lines(
        p,
        f"Stage “{p.stage}” has waited too long, so it is for you to decide, too{', until ' + p.due if p.due else ''}.",
    ),
    path=lambda p: p.path,
)
EMERGENCY_REQUESTED = declare(
    "approvals.emergency.requested",
    RequestEvent,
    audience="compliance and platform admins",
    mail=True,
    headline=lambda p: f"EMERGENCY requested: {p.title}{_cost(p)}",
    body=lambda p: _lines(p, "The usual stages are left out. A second person has to approve it; a review follows."),
    path=lambda p: p.path,
)
EMERGENCY_GRANTED = declare(
    "approvals.emergency.granted",
    RequestEvent,
    audience="compliance, platform admins and the requester",
    mail=True,
    headline=lambda p: f"EMERGENCY in force: {p.title}{_cost(p)}",
    body=lambda p: _lines(
        p, "It ends by itself. Until the review is closed the team's next normal request is refused."
    ),
    path=lambda p: p.path,
)
REVIEW_OVERDUE = declare(
    "approvals.review.overdue",
    ReviewEvent,
    audience="those who can close it, and platform admins",
    mail=True,
    headline=lambda p: f"Review after an emergency is overdue: {p.title}",
    body=lambda p: (
        f"It was due on {p.due}. The team's next normal request, whatever it is about, is refused until it is closed."
    ),
    path=lambda p: p.path,
)
REVIEW_CLOSED = declare(
    "approvals.review.closed",
    ReviewEvent,
    audience="who asked for and who approved the emergency, compliance and platform admins",
    mail=True,
    headline=lambda p: f"Emergency reviewed ({p.outcome.replace('_', ' ')}): {p.title}",
    body=lambda p: f"{p.note}\nNormal requests of the team are accepted again.".strip(),
    path=lambda p: p.path,
)
STANDARD_LOST = declare(
    "approvals.standard.lost",
    StandardEvent,
    audience="the requester, compliance and platform admins",
    mail=True,
    headline=lambda p: f"“{p.rule}” is no longer pre-approved for the team after a failure",
    body=lambda p: f"{p.title}: {p.note}\nSuch changes go through the usual stages until somebody restores the status.",
    path=lambda p: p.path,
)
STANDARD_RESTORED = declare(
    "approvals.standard.restored",
    StandardEvent,
    audience="the requester of the change that had failed, compliance and platform admins",
    mail=True,
    headline=lambda p: f"“{p.rule}” is pre-approved for the team again",
    body=lambda p: p.note,
    path=lambda p: p.path,
)
GRANT_ENDING = declare(
    "approvals.grant.ending",
    GrantEvent,
    audience="the requester, the team's leads, those who approved it; late and not taken up, those above them as well",
    mail=True,
    headline=lambda p: f"Approval ends in {p.days} day{'s' if p.days != 1 else ''}: {p.title}",
    body=lambda p: (
        f"It ends on {p.ends}. {p.note or 'Ask for it anew in time.'} After that what runs stays, and"
        " nothing new can be rolled out."
    ),
    path=lambda p: p.renewal_path or p.path,
)
GRANT_ENDED = declare(
    "approvals.grant.ended",
    GrantEvent,
    audience="the requester, the team's leads, and those who approved it",
    mail=True,
    headline=lambda p: f"Approval has ended: {p.title}",
    body=lambda p: f"It ended on {p.ends}. Nothing new can be rolled out on it.",
    path=lambda p: p.path,
)
GRANT_REVOKED = declare(
    "approvals.grant.revoked",
    GrantEvent,
    audience="the requester, the team's leads, those who approved it, compliance and platform admins",
    mail=True,
    headline=lambda p: f"Approval revoked: {p.title}",
    body=lambda p: f"{p.note}\nNothing new can be rolled out on it.".strip(),
    path=lambda p: p.path,
)
DELEGATION_CREATED = declare(
    "approvals.delegation.created",
    DelegationChanged,
    audience="the two people concerned",
    mail=True,
    headline=lambda p: f"{p.delegate_name} may decide for {p.giver_name} from {p.start} to {p.end}",
    body=lambda p: "It cannot be passed on, and whoever is kept from a decision is kept from it this way, too.",
    path=lambda p: p.path,
)
DELEGATION_REVOKED = declare(
    "approvals.delegation.revoked",
    DelegationChanged,
    audience="the two people concerned",
    mail=True,
    headline=lambda p: f"{p.delegate_name} no longer decides for {p.giver_name}",
    body=lambda p: "What was decided stands.",
    path=lambda p: p.path,
)
