"""Events of change requests; names are audit actions, outbox types and webhook types at once."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from apps.core.events import declare, private
from apps.core.exports import Exported


@dataclass(frozen=True, slots=True)
class ChangeEvent:
    """Something happened to a change request. `what` is the change in one line, without names of persons."""

    change_uid: uuid.UUID
    cluster: str
    workspace_uid: uuid.UUID | None
    kind: str
    what: str
    objects_changed: int
    removes_objects: int
    detail: str = private(default="")


@dataclass(frozen=True, slots=True)
class BaselineDue:
    """A cluster's baseline would be rendered differently now; nothing changes before it is requested and approved."""

    cluster_uid: uuid.UUID
    cluster: str
    differences: int
    workspaces: int


def _path(payload: ChangeEvent) -> str:
    return f"/quotas/changes/{payload.change_uid}/"


CHANGES_EXPORTED = declare("quotas.change.exported", Exported, audience="auditors")
CHANGE_SUBMITTED = declare(
    "quotas.change.submitted", ChangeEvent, audience="the team's other leads, or the other platform admins",
    path=_path, headline=lambda p: f"Change requested: {p.what}",
)  # fmt: skip
CHANGE_WITHDRAWN = declare("quotas.change.withdrawn", ChangeEvent, audience="auditors", path=_path)
# Who asked hears of these ends from the approvals room, which concluded them; here they are the request's own record.
CHANGE_REJECTED = declare("quotas.change.rejected", ChangeEvent, audience="auditors", path=_path)
CHANGE_LAPSED = declare("quotas.change.lapsed", ChangeEvent, audience="auditors", path=_path)
CHANGE_WAITING = declare("quotas.change.waiting", ChangeEvent, audience="auditors", path=_path)
CHANGE_GRANTED = declare(
    "quotas.change.granted", ChangeEvent, audience="the team's other leads, or the other platform admins", mail=True,
    path=_path, headline=lambda p: f"Granted: {p.what}", body=lambda p: p.detail,
)  # fmt: skip
CHANGE_APPLIED = declare(
    "quotas.change.applied", ChangeEvent, audience="the requester and the team's leads", mail=True,
    path=_path, headline=lambda p: f"Applied on the cluster: {p.what}",
    body=lambda p: "Every object of the change lives on the cluster as approved.",
)  # fmt: skip
BASELINE_DUE = declare(
    "quotas.baseline.due", BaselineDue, audience="platform admins",
    path=lambda p: f"/quotas/baselines/{p.cluster_uid}/",
    headline=lambda p: f"A new baseline is due on {p.cluster}",
    body=lambda p: "Nothing changes on the cluster before the new baseline is requested and approved.",
)  # fmt: skip
