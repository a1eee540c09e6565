"""Events of enforcement."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from apps.core.events import declare, private


@dataclass(frozen=True, slots=True)
class EnforcementDecided:
    """Somebody decided what the cluster does in a workspace with models that nobody approved."""

    workspace_uid: uuid.UUID
    namespace: str
    cluster: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class EntriesDeclared:
    """What the cluster takes in a workspace changed: `entries` usable grants, one digest over all of them."""

    workspace_uid: uuid.UUID
    namespace: str
    cluster: str
    entries: int
    digest: str


@dataclass(frozen=True, slots=True)
class ExpiryOverdue:
    """An approval ended, and the cluster has not taken that in yet, or pods that it covered still serve."""

    workspace_uid: uuid.UUID
    namespace: str
    cluster: str
    what: str = private()


def _path(p: EnforcementDecided | EntriesDeclared | ExpiryOverdue) -> str:
    return f"/deployments/enforcement/{p.workspace_uid}/"


ENFORCEMENT_DECIDED = declare(
    "deployments.enforcement.decided", EnforcementDecided, audience="the team's leads",
    headline=lambda p: f"Unapproved models in {p.namespace} on {p.cluster}: {p.after}, by decision", path=_path,
)  # fmt: skip
ENTRIES_DECLARED = declare("deployments.enforcement.declared", EntriesDeclared, audience="auditors", path=_path)
EXPIRY_OVERDUE = declare(
    "deployments.enforcement.overdue", ExpiryOverdue, audience="the team's leads", mail=True,
    headline=lambda p: p.what, path=_path,
)  # fmt: skip
