"""Events of the insights room."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from apps.core.events import declare
from apps.core.exports import Exported
from apps.core.formats import datetime_utc


@dataclass(frozen=True, slots=True)
class FindingEvent:
    """Something happened to a finding. `amount` "": the cost is unknown."""

    finding: str
    kind: str
    key: str
    title: str
    gpu_ms: int
    amount: str = ""
    currency: str = ""
    status: str = ""
    request: str = ""
    until: datetime | None = None

    @property
    def path(self) -> str:
        """Where to look."""
        return f"/insights/findings/{self.finding}/"

    @property
    def cost(self) -> str:
        """What it cost, in words."""
        return f"{self.amount} {self.currency}" if self.amount else "an unknown amount"


@dataclass(frozen=True, slots=True)
class IdleEvent:
    """Something happened to an idle workload."""

    case: str
    workspace: str
    workload: str
    status: str
    gpus: int
    idle_since: datetime
    stop_at: datetime
    flavour: str = ""
    until: datetime | None = None
    saved_gpu_ms: int = 0
    detail: str = ""

    @property
    def path(self) -> str:
        """Where to answer."""
        return f"/insights/idle/{self.case}/"


def _when(at: datetime | str) -> str:
    """Write a moment of a payload, which is text once it was stored."""
    return datetime_utc(datetime.fromisoformat(at) if isinstance(at, str) else at)


_LEADS = "the leads of the team"
_ADMINS = "platform admins"

FOUND = declare(
    "insights.finding.found",
    FindingEvent,
    audience=_LEADS,
    mail=True,
    headline=lambda p: p.title,
    body=lambda p: f"It cost {p.cost} in the time looked at. The page has the evidence and a proposal.",
    path=lambda p: p.path,
)
CAPACITY_LOST = declare(
    "insights.capacity.lost",
    FindingEvent,
    audience=_ADMINS,
    mail=True,
    headline=lambda p: p.title,
    body=lambda p: "More is promised than the pool will have. The page says from when on, and by how much.",
    path=lambda p: p.path,
)
GONE = declare("insights.finding.gone", FindingEvent, audience=_LEADS)
SNOOZED = declare("insights.finding.snoozed", FindingEvent, audience=_LEADS)
REOPENED = declare("insights.finding.reopened", FindingEvent, audience=_LEADS)
DISMISSED = declare("insights.finding.dismissed", FindingEvent, audience=_LEADS)
ACTED = declare("insights.finding.acted", FindingEvent, audience=_LEADS)
REALISED = declare("insights.finding.realised", FindingEvent, audience=_LEADS)
FINDINGS_EXPORTED = declare("insights.findings.exported", Exported, audience="auditors")

IDLE_NOTICED = declare(
    "insights.idle.noticed",
    IdleEvent,
    audience=_LEADS,
    mail=True,
    headline=lambda p: f"Idle: {p.workload} holds {p.gpus} × {p.flavour or 'GPU'} and does nothing",
    body=lambda p: (
        f"It has been idle since {_when(p.idle_since)}. "
        + (
            p.detail
            or f"Without an answer it is stopped at {_when(p.stop_at)}; nothing is deleted, and it can be started "
            "again from the same page."
        )
    ),
    path=lambda p: p.path,
)
IDLE_KEPT = declare("insights.idle.kept", IdleEvent, audience=_LEADS)
IDLE_STOPPING = declare("insights.idle.stopping", IdleEvent, audience=_LEADS)
IDLE_STOPPED = declare("insights.idle.stopped", IdleEvent, audience=_LEADS)
IDLE_RESUMED = declare("insights.idle.resumed", IdleEvent, audience=_LEADS)
IDLE_ENDED = declare("insights.idle.ended", IdleEvent, audience=_LEADS)
WORKLOADS_EXPORTED = declare("insights.workloads.exported", Exported, audience="auditors")
IDLE_EXPORTED = declare("insights.idle.exported", Exported, audience="auditors")
