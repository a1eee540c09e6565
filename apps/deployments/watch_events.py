"""Events of watching: objectives set, breached, held again; drift posted."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from apps.core.events import declare, private


@dataclass(frozen=True, slots=True)
class ObjectiveEvent:
    """An objective was set, changed, archived, began to be breached or holds again."""

    objective_uid: uuid.UUID
    endpoint_uid: uuid.UUID
    workspace_uid: uuid.UUID
    kind: str
    target: str
    action: str
    what: str = private()
    value: str = ""
    detail: str = private(default="")


@dataclass(frozen=True, slots=True)
class DriftEvent:
    """Drift readings were posted for an endpoint."""

    endpoint_uid: uuid.UUID
    readings: int
    source: str = private()


def _path(p: ObjectiveEvent) -> str:
    return f"/deployments/endpoints/{p.endpoint_uid}/objectives/"


OBJECTIVE_SET = declare("deployments.objective.set", ObjectiveEvent, audience="auditors", path=_path)
OBJECTIVE_CHANGED = declare("deployments.objective.changed", ObjectiveEvent, audience="auditors", path=_path)
OBJECTIVE_ARCHIVED = declare("deployments.objective.archived", ObjectiveEvent, audience="auditors", path=_path)
OBJECTIVE_BREACHED = declare(
    "deployments.objective.breached", ObjectiveEvent, audience="the team's leads", mail=True,
    headline=lambda p: p.what, body=lambda p: p.detail, path=_path,
)  # fmt: skip
OBJECTIVE_MET = declare(
    "deployments.objective.met", ObjectiveEvent, audience="the team's leads",
    headline=lambda p: p.what, body=lambda p: p.detail, path=_path,
)  # fmt: skip
DRIFT_POSTED = declare("deployments.drift.posted", DriftEvent, audience="auditors")
