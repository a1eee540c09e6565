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


@dataclass(frozen=True, slots=True)
class PolicyPublished:
    """A new policy version."""

    policy: str
    name: str
    number: int
    digest: str
    path: str


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
