"""Events of corrections, credits, disputes, re-opening, billing modes and files."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from apps.core.events import declare
from apps.core.exports import Exported

CENT = Decimal("0.01")
_FINANCE = "finance"
_BOTH = "the team's leads and finance"


@dataclass(frozen=True, slots=True)
class CorrectionsWritten:
    """Late facts of a closed month became corrections in an open one."""

    month: str
    billed_in: str
    cluster: str
    hours: int
    rows: int
    amount: str
    currency: str
    unpriced: int = 0


@dataclass(frozen=True, slots=True)
class CreditEvent:
    """Something happened to a credit. `payer` is set where it is money from another team."""

    credit: str
    team: str
    statement: str
    amount: str
    currency: str
    payer: str = ""
    billed_in: str = ""
    reason: str = ""

    @property
    def path(self) -> str:
        """Where to look."""
        return f"/costs/credits/{self.credit}/"


@dataclass(frozen=True, slots=True)
class DisputeEvent:
    """Something happened to a dispute."""

    dispute: str
    statement: str
    owner: str
    line: int | None = None
    status: str = "open"
    comment: str = ""

    @property
    def path(self) -> str:
        """Where to answer."""
        return f"/costs/disputes/{self.dispute}/"


@dataclass(frozen=True, slots=True)
class ReopenEvent:
    """Something happened to the request to open a closed month again."""

    request: str
    month: str
    status: str
    bill: str = ""
    digest: str = ""
    statements: int = 0
    reason: str = ""

    @property
    def path(self) -> str:
        """Where to decide."""
        return f"/costs/reopenings/{self.request}/"


@dataclass(frozen=True, slots=True)
class BillingModeSet:
    """How a unit is billed from a month on."""

    unit: str
    month_from: str
    mode: str
    account: str


@dataclass(frozen=True, slots=True)
class AccountSet:
    """Where the platform's side of the journal is posted."""

    purpose: str
    account: str
    cost_centre: str
    before: str = ""


@dataclass(frozen=True, slots=True)
class FileEvent:
    """A file of a closed month or statement was asked for, made, or taken."""

    file: str
    kind: str
    name: str
    month: str
    sha256: str = ""
    size: int = 0
    error: str = ""

    @property
    def path(self) -> str:
        """The page of the month's files."""
        return f"/costs/periods/{self.month}/files/"


CORRECTIONS_WRITTEN = declare(
    "costs.corrections.written",
    CorrectionsWritten,
    audience=_FINANCE,
    headline=lambda p: f"Late facts of {p.month} on {p.cluster}: {p.amount} {p.currency} billed in {p.billed_in}",
    body=lambda p: f"{p.rows} corrections of {p.hours} hours. The closed month stays as it is.",
    path=lambda p: f"/costs/corrections/?period={p.billed_in}",
)
CORRECTIONS_EXPORTED = declare("costs.corrections.exported", Exported, audience="auditors")

CREDIT_PROPOSED = declare(
    "costs.credit.proposed",
    CreditEvent,
    audience="those who may approve it",
    mail=True,
    headline=lambda p: f"A credit of {p.amount} {p.currency} for {p.team} waits for a second person",
    body=lambda p: f"It is about statement {p.statement}.",
    path=lambda p: p.path,
)
CREDIT_APPROVED = declare(
    "costs.credit.approved",
    CreditEvent,
    audience="the team's leads",
    mail=True,
    headline=lambda p: f"Credit of {p.amount} {p.currency} for {p.team}, billed in {p.billed_in}",
    body=lambda p: f"It is about statement {p.statement}.",
    path=lambda p: p.path,
)
CREDIT_REJECTED = declare(
    "costs.credit.rejected",
    CreditEvent,
    audience="its proposer",
    mail=True,
    headline=lambda p: f"The credit of {p.amount} {p.currency} for {p.team} was rejected",
    path=lambda p: p.path,
)
CREDIT_WITHDRAWN = declare("costs.credit.withdrawn", CreditEvent, audience=_FINANCE)
CREDITS_EXPORTED = declare("costs.credits.exported", Exported, audience="auditors")

DISPUTE_OPENED = declare(
    "costs.dispute.opened",
    DisputeEvent,
    audience=_FINANCE,
    mail=True,
    headline=lambda p: f"{p.owner} objects to statement {p.statement}",
    body=lambda p: "The whole statement is disputed." if p.line is None else f"Line {p.line} is disputed.",
    path=lambda p: p.path,
)
DISPUTE_COMMENTED = declare(
    "costs.dispute.commented",
    DisputeEvent,
    audience=_BOTH,
    mail=True,
    headline=lambda p: f"A comment on the dispute of statement {p.statement}",
    path=lambda p: p.path,
)
DISPUTE_SETTLED = declare(
    "costs.dispute.settled",
    DisputeEvent,
    audience=_BOTH,
    mail=True,
    headline=lambda p: f"The dispute of statement {p.statement} was {p.status}",
    path=lambda p: p.path,
)
DISPUTE_WITHDRAWN = declare(
    "costs.dispute.withdrawn",
    DisputeEvent,
    audience=_FINANCE,
    headline=lambda p: f"{p.owner} no longer objects to statement {p.statement}",
    path=lambda p: p.path,
)
DISPUTES_EXPORTED = declare("costs.disputes.exported", Exported, audience="auditors")

REOPEN_REQUESTED = declare(
    "costs.reopening.requested",
    ReopenEvent,
    audience="those who may agree",
    mail=True,
    headline=lambda p: f"Somebody asks to open the closed month {p.month} again",
    body=lambda p: f"Its bill is {p.bill}. A second person decides.",
    path=lambda p: p.path,
)
REOPEN_APPROVED = declare(
    "costs.reopening.approved",
    ReopenEvent,
    audience="finance and auditors",
    mail=True,
    headline=lambda p: f"The closed month {p.month} was opened again",
    body=lambda p: f"{p.statements} statements are superseded; the bill was {p.bill}.",
    path=lambda p: p.path,
)
REOPEN_REJECTED = declare(
    "costs.reopening.rejected",
    ReopenEvent,
    audience="who asked",
    mail=True,
    headline=lambda p: f"The closed month {p.month} stays closed",
    path=lambda p: p.path,
)
REOPEN_WITHDRAWN = declare("costs.reopening.withdrawn", ReopenEvent, audience=_FINANCE)
REOPENINGS_EXPORTED = declare("costs.reopenings.exported", Exported, audience="auditors")

BILLING_MODE_SET = declare(
    "costs.billing_mode.set",
    BillingModeSet,
    audience="the unit's owners",
    mail=True,
    headline=lambda p: f"{p.unit}: {p.mode} from {p.month_from}",
    path=lambda p: "/costs/billing/",
)
BILLING_MODES_EXPORTED = declare("costs.billing_modes.exported", Exported, audience="auditors")
ACCOUNT_SET = declare("costs.journal_account.set", AccountSet, audience="auditors")

FILE_ASKED = declare("costs.file.asked", FileEvent, audience="auditors")
FILE_MADE = declare(
    "costs.file.made",
    FileEvent,
    audience="who asked for it",
    headline=lambda p: f"{p.name} is ready",
    path=lambda p: p.path,
)
FILE_FAILED = declare(
    "costs.file.failed",
    FileEvent,
    audience="who asked for it",
    headline=lambda p: f"{p.name} could not be made",
    body=lambda p: p.error,
    path=lambda p: p.path,
)
FILE_TAKEN = declare("costs.file.taken", FileEvent, audience="auditors")
FILES_EXPORTED = declare("costs.files.exported", Exported, audience="auditors")
