"""Events of the quotas room; names are audit actions, outbox types and webhook types at once."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime

from apps.core.events import declare, private


@dataclass(frozen=True, slots=True)
class WorkspaceCreated:
    """An admin gave a team a place on a cluster; nothing is on the cluster yet."""

    workspace_uid: uuid.UUID
    cluster_uid: uuid.UUID
    team_uid: uuid.UUID
    environment: str
    namespace: str
    data_classes: list[str]


@dataclass(frozen=True, slots=True)
class RequestEvent:
    """Something happened to a quota request. `what` is the request in one line, without names of persons."""

    request_uid: uuid.UUID
    workspace_uid: uuid.UUID
    flavour: str
    what: str
    guaranteed: int
    borrow_mode: str
    borrow_limit: int
    valid_from: datetime
    valid_until: datetime | None
    detail: str = private(default="")


@dataclass(frozen=True, slots=True)
class QuotaRolled:
    """A dated quota began or ended: the workspace's GPU limits were declared anew, as approved."""

    workspace_uid: uuid.UUID
    limits: dict[str, int]
    what: str


@dataclass(frozen=True, slots=True)
class QuotaExpiring:
    """A quota ends soon and less shows below it."""

    workspace_uid: uuid.UUID
    team_slug: str
    what: str
    ends_at: datetime
    days: int
    quota_uid: uuid.UUID | None = None
    renewal_uid: uuid.UUID | None = None
    renewal: str = ""
    then: str = ""


@dataclass(frozen=True, slots=True)
class WorkspaceRung:
    """A workspace moved on the expiry ladder: down by a rung, or back to the ground."""

    workspace_uid: uuid.UUID
    team_slug: str
    what: str
    rung: str
    text: str
    next_rung: str
    next_at: datetime | None


@dataclass(frozen=True, slots=True)
class WorkspaceDrain:
    """A person asked to stop what holds GPUs in a workspace that uses more than it may."""

    workspace_uid: uuid.UUID
    team_slug: str
    what: str
    used: int


_RUNGS = {
    "none": "Runs again",
    "stopped_admitting": "Admits nothing new",
    "drained": "Is being drained",
    "archived": "Archived",
}


def _request_path(payload: RequestEvent) -> str:
    return f"/quotas/requests/{payload.request_uid}/"


REQUEST_SUBMITTED = declare(
    "quotas.request.submitted", RequestEvent, audience="auditors", path=_request_path,
    headline=lambda p: f"Quota requested: {p.what}",
)  # fmt: skip
REQUEST_WITHDRAWN = declare("quotas.request.withdrawn", RequestEvent, audience="auditors", path=_request_path)
REQUEST_SUPERSEDED = declare("quotas.request.superseded", RequestEvent, audience="auditors", path=_request_path)
# Who asked hears of these ends from the approvals room, which concluded them; here they are the request's own record.
REQUEST_REJECTED = declare("quotas.request.rejected", RequestEvent, audience="auditors", path=_request_path)
REQUEST_LAPSED = declare("quotas.request.lapsed", RequestEvent, audience="auditors", path=_request_path)
REQUEST_WAITING = declare("quotas.request.waiting", RequestEvent, audience="auditors", path=_request_path)
REQUEST_GRANTED = declare(
    "quotas.request.granted", RequestEvent, audience="the team's other leads", mail=True,
    path=_request_path,
    headline=lambda p: f"Granted: {p.what}", body=lambda p: p.detail,
)  # fmt: skip
REQUEST_APPLIED = declare(
    "quotas.request.applied", RequestEvent, audience="the requester and the team's leads", mail=True,
    path=_request_path,
    headline=lambda p: f"Applied on the cluster: {p.what}",
    body=lambda p: "The quota is on the cluster and can be used. The request's page leads to ready-made manifests.",
)  # fmt: skip
REQUEST_EXPIRED = declare(
    "quotas.request.expired", RequestEvent, audience="the team's leads", mail=True, path=_request_path,
    headline=lambda p: f"No further windows: {p.what}", body=lambda p: p.detail,
)  # fmt: skip
WORKSPACE_RUNG = declare(
    "quotas.workspace.rung", WorkspaceRung, audience="the team's leads", mail=True,
    path=lambda p: f"/quotas/workspaces/{p.workspace_uid}/",
    headline=lambda p: f"{_RUNGS[p.rung]}: {p.what}", body=lambda p: p.text,
)  # fmt: skip
WORKSPACE_DRAIN = declare(
    "quotas.workspace.drain_asked", WorkspaceDrain, audience="the team's other leads", mail=True,
    path=lambda p: f"/quotas/workspaces/{p.workspace_uid}/",
    headline=lambda p: f"Being drained: {p.what}",
    body=lambda p: "What holds GPUs there is being stopped; nothing is deleted, and every stop can be undone.",
)  # fmt: skip
WORKSPACE_CREATED = declare("quotas.workspace.created", WorkspaceCreated, audience="auditors")
QUOTA_ROLLED = declare("quotas.quota.rolled", QuotaRolled, audience="auditors")
QUOTA_EXPIRING = declare(
    "quotas.quota.expiring", QuotaExpiring, audience="the team's leads", mail=True,
    path=lambda p: (
        f"/quotas/requests/{p.renewal_uid}/" if p.renewal_uid
        else f"/quotas/requests/new/?renews={p.quota_uid}" if p.quota_uid
        else f"/quotas/workspaces/{p.workspace_uid}/"
    ),
    headline=lambda p: f"Ends in {p.days} day{'s' if p.days != 1 else ''}: {p.what}",
    body=lambda p: " ".join(filter(None, [
        p.renewal or "Request a renewal before the end if you still need it: until it is decided, nobody else is "
        "promised these GPUs. The quota itself ends on time.",
        p.then or "The end itself stops nothing that runs.",
    ])),
)  # fmt: skip
