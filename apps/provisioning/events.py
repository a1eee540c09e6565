"""Events of the provisioning room."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from apps.core.events import declare


class _OfDeclaration:
    """What is told of a declaration leads to its page."""

    __slots__ = ()
    declaration: str

    @property
    def path(self) -> str:
        """Where to look."""
        return f"/provisioning/declarations/{self.declaration}/"


@dataclass(frozen=True, slots=True)
class DeclarationEvent(_OfDeclaration):
    """Something happened to one generation of a declaration on one cluster."""

    declaration: str
    cluster: str
    title: str
    generation: int
    detail: str = ""
    error_class: str = ""


@dataclass(frozen=True, slots=True)
class Reconciled:
    """Declarations ("uid generation") that an earlier run had applied live so still: nothing was sent."""

    cluster: str
    count: int
    declarations: list[str]


@dataclass(frozen=True, slots=True)
class RunAbandoned:
    """A worker went away in mid-apply; the next one completes what it began."""

    run: str
    declaration: str
    cluster: str
    generation: int


@dataclass(frozen=True, slots=True)
class DriftEvent(_OfDeclaration):
    """Declared fields of an object live differently."""

    declaration: str
    cluster: str
    title: str
    object: str
    fields: list[str]
    managers: list[str]


@dataclass(frozen=True, slots=True)
class DriftDecided(_OfDeclaration):
    """Somebody decided about a drift, or the time for which it was left alone is over."""

    drift: str
    declaration: str
    cluster: str
    object: str
    field: str
    until: datetime | None = None


_ADMINS = "platform admins"

DECLARED = declare("provisioning.declaration.declared", DeclarationEvent, audience=_ADMINS)
APPLIED = declare("provisioning.declaration.applied", DeclarationEvent, audience=_ADMINS)
RECONCILED = declare("provisioning.cluster.reconciled", Reconciled, audience=_ADMINS)
FAILING = declare("provisioning.declaration.failing", DeclarationEvent, audience=_ADMINS)
STOPPED = declare(
    "provisioning.declaration.stopped",
    DeclarationEvent,
    audience=_ADMINS,
    mail=True,
    headline=lambda p: f"{p.title} on {p.cluster} is not applied: it needs you",
    body=lambda p: p.detail,
    path=lambda p: p.path,
)
RETRIED = declare("provisioning.declaration.retried", DeclarationEvent, audience=_ADMINS)
DRIFTED = declare(
    "provisioning.declaration.drifted",
    DriftEvent,
    audience=_ADMINS,
    headline=lambda p: f"{p.object} on {p.cluster} no longer lives as declared",
    body=lambda p: f"Changed: {', '.join(p.fields)}; by {', '.join(p.managers) or 'an unknown manager'}.",
    path=lambda p: p.path,
)
RUN_ABANDONED = declare("provisioning.run.abandoned", RunAbandoned, audience=_ADMINS)


@dataclass(frozen=True, slots=True)
class StopEvent:
    """Something happened to an order to stop one workload. `detail` says what the cluster answered, or why not."""

    order: str
    cluster: str
    kind: str
    namespace: str
    name: str
    cause: str
    cause_uid: str = ""
    detail: str = ""

    @property
    def path(self) -> str:
        """Where to look."""
        return f"/provisioning/stops/{self.order}/"

    @property
    def what(self) -> str:
        """The workload in words."""
        return f"{self.kind} {self.name} in {self.namespace} on {self.cluster}"

    @property
    def why(self) -> str:
        """The cause in words."""
        return "it was idle" if self.cause == "idle" else "its workspace's quota has ended"


_LEADS = "the leads of the team"

STOP_ORDERED = declare("provisioning.stop.ordered", StopEvent, audience=_LEADS)
STOP_DONE = declare(
    "provisioning.stop.done",
    StopEvent,
    audience=_LEADS,
    mail=True,
    headline=lambda p: f"Stopped: {p.what}",
    body=lambda p: f"The portal stopped it because {p.why}. Nothing was deleted; the page says how to start it again.",
    path=lambda p: p.path,
)
STOP_UNDO_ASKED = declare("provisioning.stop.undo_asked", StopEvent, audience=_LEADS)
STOP_UNDONE = declare(
    "provisioning.stop.undone",
    StopEvent,
    audience=_LEADS,
    headline=lambda p: f"Started again: {p.what}",
    body=lambda p: p.detail,
    path=lambda p: p.path,
)
STOP_ENDED = declare("provisioning.stop.ended", StopEvent, audience=_LEADS)
STOP_REFUSED = declare(
    "provisioning.stop.refused",
    StopEvent,
    audience=_LEADS,
    mail=True,
    headline=lambda p: f"Could not be stopped: {p.what}",
    body=lambda p: p.detail,
    path=lambda p: p.path,
)
DRIFT_REAPPLIED = declare("provisioning.drift.reapplied", DriftDecided, audience=_ADMINS)
DRIFT_IGNORED = declare("provisioning.drift.ignored", DriftDecided, audience=_ADMINS)
DRIFT_ADOPTION = declare("provisioning.drift.adoption_requested", DriftDecided, audience=_ADMINS)
DRIFT_REOPENED = declare(
    "provisioning.drift.reopened",
    DriftDecided,
    audience=_ADMINS,
    headline=lambda p: f"{p.object} on {p.cluster} still lives differently",
    body=lambda p: f"The time for which {p.field or 'it'} was left alone is over: decide what becomes of it.",
    path=lambda p: p.path,
)
