"""Events of months and distribution policies."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from apps.core.events import declare, private
from apps.core.exports import Exported


@dataclass(frozen=True, slots=True)
class PeriodMade:
    """The portal made the period of a billing month, open, when something first fell into it."""

    month: str
    currency: str


@dataclass(frozen=True, slots=True)
class PeriodEvent:
    """Something happened to a billing month."""

    period_uid: uuid.UUID
    month: str
    bill: str = ""
    currency: str = ""
    statements: int = 0
    digest: str = ""
    policy: int = 0
    waivers: int = 0

    @property
    def path(self) -> str:
        """The month's page."""
        return f"/costs/periods/{self.month}/"


@dataclass(frozen=True, slots=True)
class PeriodWaived:
    """What the close of a month would wait for was waived by name."""

    period_uid: uuid.UUID
    month: str
    kind: str
    cluster: str
    hours: str
    subject: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class StatementIssued:
    """A month was closed: somebody's statement stands."""

    statement_uid: uuid.UUID
    number: str
    month: str
    owner: str
    amount: str
    currency: str
    mode: str

    @property
    def path(self) -> str:
        """The statement's page."""
        return f"/costs/statements/{self.statement_uid}/"


@dataclass(frozen=True, slots=True)
class PolicyEvent:
    """Something happened to a version of the distribution policy."""

    policy_uid: uuid.UUID
    number: int
    name: str
    month_from: str
    rules: dict[str, str]
    why: str = private(default="")

    @property
    def path(self) -> str:
        """The version's page."""
        return f"/costs/distribution/{self.policy_uid}/"


_FINANCE = "finance"
CLOSING_STARTED = declare(
    "costs.period.closing",
    PeriodEvent,
    audience=_FINANCE,
    mail=True,
    headline=lambda p: f"{p.month} is closing",
    body=lambda p: "The month's checklist says what is still open before its statements can be frozen.",
    path=lambda p: p.path,
)
CLOSE_CONFIRMED = declare("costs.period.confirmed", PeriodEvent, audience="auditors")
PREVIEW_ASKED = declare("costs.period.preview_asked", PeriodEvent, audience="auditors")
BACK_TO_OPEN = declare(
    "costs.period.resumed",
    PeriodEvent,
    audience=_FINANCE,
    headline=lambda p: f"{p.month} is open again: it was not closed",
    path=lambda p: p.path,
)
CLOSED = declare(
    "costs.period.closed",
    PeriodEvent,
    audience="finance and auditors",
    mail=True,
    headline=lambda p: f"{p.month} is closed: {p.bill} {p.currency} on {p.statements} statements",
    body=lambda p: f"Digest of the month: {p.digest}. Late data of it becomes corrections in an open month.",
    path=lambda p: p.path,
)
BLOCKED = declare(
    "costs.period.blocked",
    PeriodEvent,
    audience="who confirmed it",
    mail=True,
    headline=lambda p: f"{p.month} could not be closed",
    body=lambda p: "The month's page says why; nothing was frozen.",
    path=lambda p: p.path,
)
PERIOD_MADE = declare("costs.period.made", PeriodMade, audience="auditors")
WAIVED = declare("costs.period.waived", PeriodWaived, audience="auditors")
STATEMENT_ISSUED = declare(
    "costs.statement.issued",
    StatementIssued,
    audience="the team's leads, or the unit's owners",
    mail=True,
    headline=lambda p: f"Statement {p.number} of {p.owner}: {p.amount} {p.currency}",
    body=lambda p: f"{p.month} is closed. Mode: {p.mode}. What looks wrong can be disputed from the statement.",
    path=lambda p: p.path,
)
POLICY_PROPOSED = declare(
    "costs.distribution.proposed",
    PolicyEvent,
    audience="those who may approve it",
    mail=True,
    headline=lambda p: f"Distribution policy version {p.number} from {p.month_from} waits for a second person",
    body=lambda p: f"{p.name}. Its page shows what it would have done to the last month's statements.",
    path=lambda p: p.path,
)
POLICY_APPROVED = declare(
    "costs.distribution.approved",
    PolicyEvent,
    audience="its proposer",
    mail=True,
    headline=lambda p: f"Distribution policy version {p.number} counts from {p.month_from}",
    path=lambda p: p.path,
)
POLICY_REJECTED = declare(
    "costs.distribution.rejected",
    PolicyEvent,
    audience="its proposer",
    mail=True,
    headline=lambda p: f"Distribution policy version {p.number} was rejected",
    path=lambda p: p.path,
)
POLICY_WITHDRAWN = declare("costs.distribution.withdrawn", PolicyEvent, audience="auditors")
PERIODS_EXPORTED = declare("costs.periods.exported", Exported, audience="auditors")
STATEMENTS_EXPORTED = declare("costs.statements.exported", Exported, audience="auditors")
LINES_EXPORTED = declare("costs.statement_lines.exported", Exported, audience="auditors")
POLICIES_EXPORTED = declare("costs.distributions.exported", Exported, audience="auditors")
