"""Events of the rates room."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime

from apps.core.events import declare, private


@dataclass(frozen=True, slots=True)
class CardPublished:
    """A rate card was published. `prices`: what → price of one unit-hour as a decimal string, where what is a flavour's
    slug or a resource, with "/capacity type" and "+service class" where it is for one only."""

    card_uid: uuid.UUID
    cluster_uid: uuid.UUID
    valid_from: datetime
    currency: str
    prices: dict[str, str]
    superseded: list[str]
    imported: bool


@dataclass(frozen=True, slots=True)
class ProposalEvent:
    """A proposed rate card and where it stands; `digest` names the exact bytes, `card_uid` what was published."""

    proposal_uid: uuid.UUID
    cluster_uid: uuid.UUID
    digest: str
    status: str
    valid_from: datetime
    path: str
    name: str = private(default="")
    reason: str = private(default="")
    card_uid: uuid.UUID | None = None


@dataclass(frozen=True, slots=True)
class CapexEntered:
    """What owned GPUs cost was entered; `hourly` is the price it gives, as a decimal string."""

    schedule_uid: uuid.UUID
    cluster_uid: uuid.UUID
    flavour: str
    gpus: int
    hourly: str
    currency: str


def _start(p: ProposalEvent) -> str:
    # A payload that was loaded from storage holds text.
    return str(p.valid_from)[:16].replace("T", " ")


CARD_PUBLISHED = declare("rates.card.published", CardPublished, audience="auditors")
CAPEX_ENTERED = declare("rates.capex.entered", CapexEntered, audience="auditors")
PROPOSAL_SUBMITTED = declare(
    "rates.proposal.submitted",
    ProposalEvent,
    audience="those who may approve rate cards, but for the proposer",
    mail=True,
    headline=lambda p: f"For you to decide: prices “{p.name}”",
    body=lambda p: (
        f"They begin on {_start(p)} UTC and need a second person before then.\n"
        "Open the proposal to see what ends, what begins and what the last month would have cost."
    ),
    path=lambda p: p.path,
)
PROPOSAL_APPROVED = declare(
    "rates.proposal.approved",
    ProposalEvent,
    audience="the proposer",
    mail=True,
    headline=lambda p: f"Approved and published: prices “{p.name}”",
    body=lambda p: f"They are in force from {_start(p)} UTC.",
    path=lambda p: p.path,
)
PROPOSAL_REJECTED = declare(
    "rates.proposal.rejected",
    ProposalEvent,
    audience="the proposer",
    mail=True,
    headline=lambda p: f"Rejected: prices “{p.name}”",
    body=lambda p: f"{p.reason}\nYou can correct the prices and propose them anew.",
    path=lambda p: p.path,
)
PROPOSAL_WITHDRAWN = declare(
    "rates.proposal.withdrawn",
    ProposalEvent,
    audience="those it had waited for",
    headline=lambda p: f"Withdrawn: prices “{p.name}”",
    body=lambda p: "There is nothing left to decide.",
    path=lambda p: p.path,
)
