"""Events of registries: what admins set up, what was imported, what a registry changed, when one fails."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from apps.core.events import declare, private
from apps.core.exports import Exported


@dataclass(frozen=True, slots=True)
class RegistryEvent:
    """A registry as it stands; credentials and secrets never."""

    registry_uid: uuid.UUID
    slug: str
    kind: str
    enabled: bool
    changed: list[str] = field(default_factory=list)
    base_url: str = private(default="")
    name: str = private(default="")
    why: str = private(default="")
    path: str = ""


@dataclass(frozen=True, slots=True)
class RegistryFindingEvent:
    """Something a registry did, or that a person took note of it. What it says is foreign text."""

    registry_uid: uuid.UUID
    finding_uid: uuid.UUID
    kind: str
    words: str = private(default="")
    model_name: str = private(default="")
    before: str = private(default="")
    after: str = private(default="")
    note: str = private(default="")
    path: str = ""


@dataclass(frozen=True, slots=True)
class RegistryModelEvent:
    """A registered model was given an owner."""

    registry_uid: uuid.UUID
    entry_uid: uuid.UUID
    model_uid: uuid.UUID
    name: str = private(default="")


REGISTRY_ADDED = declare("catalogue.registry.added", RegistryEvent, audience="auditors")
REGISTRY_EDITED = declare("catalogue.registry.edited", RegistryEvent, audience="auditors")
REGISTRY_ENABLED = declare("catalogue.registry.enabled", RegistryEvent, audience="auditors")
REGISTRY_DISABLED = declare("catalogue.registry.disabled", RegistryEvent, audience="auditors")
REGISTRY_FAILING = declare(
    "catalogue.registry.failing",
    RegistryEvent,
    audience="platform admins",
    headline=lambda p: f"Registry {p.name} cannot be read",
    body=lambda p: f"{p.why}\nIt is tried again by itself; nothing that was imported is touched.",
    path=lambda p: p.path,
)
REGISTRY_HEALED = declare("catalogue.registry.healed", RegistryEvent, audience="auditors")
REGISTRY_FINDING = declare(
    "catalogue.registry.changed",
    RegistryFindingEvent,
    audience="leads of the owning team, platform admins",
    headline=lambda p: f"{p.words}: {p.model_name}",
    body=lambda p: f"Before: {p.before or '(nothing)'}\nNow: {p.after or '(nothing)'}\nNothing here changed by itself.",
    path=lambda p: p.path,
)
FINDING_ACKNOWLEDGED = declare("catalogue.registry.acknowledged", RegistryFindingEvent, audience="auditors")
MODEL_ASSIGNED = declare("catalogue.registry.assigned", RegistryModelEvent, audience="auditors")
FINDINGS_EXPORTED = declare("catalogue.findings.exported", Exported, audience="auditors")
ENTRIES_EXPORTED = declare("catalogue.entries.exported", Exported, audience="auditors")
