"""Events of the provisioning room."""

from __future__ import annotations

from dataclasses import dataclass

from apps.core.events import declare


@dataclass(frozen=True, slots=True)
class DeclarationEvent:
    """Something happened to one generation of a declaration on one cluster."""

    declaration: str
    cluster: str
    title: str
    generation: int
    detail: str = ""
    error_class: str = ""

    @property
    def path(self) -> str:
        """Where to look."""
        return f"/provisioning/declarations/{self.declaration}/"


@dataclass(frozen=True, slots=True)
class RunAbandoned:
    """A worker went away in mid-apply; the next one completes what it began."""

    run: str
    declaration: str
    cluster: str
    generation: int


@dataclass(frozen=True, slots=True)
class DriftEvent:
    """Declared fields of an object live differently."""

    declaration: str
    cluster: str
    title: str
    object: str
    fields: list[str]
    managers: list[str]

    @property
    def path(self) -> str:
        """Where to look."""
        return f"/provisioning/declarations/{self.declaration}/"


_ADMINS = "platform admins"

DECLARED = declare("provisioning.declaration.declared", DeclarationEvent, audience=_ADMINS)
APPLIED = declare("provisioning.declaration.applied", DeclarationEvent, audience=_ADMINS)
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
