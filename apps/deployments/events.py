"""Events of endpoints, releases, rollouts and placement rules."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from apps.core.events import declare, private


@dataclass(frozen=True, slots=True)
class ReleaseEvent:
    """Something happened to a release. `what` is it in one line, without names of persons."""

    release_uid: uuid.UUID
    endpoint_uid: uuid.UUID
    workspace_uid: uuid.UUID
    cluster: str
    version_digest: str
    number: int
    what: str = private()
    detail: str = private(default="")


@dataclass(frozen=True, slots=True)
class RolloutEvent:
    """A step of a rollout. `kind` as in the log of steps; `traffic` is the candidate's share after it, per cent."""

    endpoint_uid: uuid.UUID
    release_uid: uuid.UUID
    workspace_uid: uuid.UUID
    cluster: str
    version_digest: str
    kind: str
    traffic: int
    automatic: bool
    what: str = private()
    model_grant_uid: uuid.UUID | None = None
    release_grant_uid: uuid.UUID | None = None
    detail: str = private(default="")


@dataclass(frozen=True, slots=True)
class RuleEvent:
    """A placement rule was added or ended."""

    rule_uid: uuid.UUID
    data_class: str
    what: str = private()


def _release_path(p: ReleaseEvent) -> str:
    return f"/deployments/releases/{p.release_uid}/"


def _endpoint_path(p: RolloutEvent) -> str:
    return f"/deployments/endpoints/{p.endpoint_uid}/"


_LEADS = "the requester and the team's leads"

RELEASE_SUBMITTED = declare("deployments.release.submitted", ReleaseEvent, audience="auditors", path=_release_path)
RELEASE_WITHDRAWN = declare("deployments.release.withdrawn", ReleaseEvent, audience="auditors", path=_release_path)
RELEASE_SUPERSEDED = declare("deployments.release.superseded", ReleaseEvent, audience="auditors", path=_release_path)
RELEASE_REJECTED = declare("deployments.release.rejected", ReleaseEvent, audience="auditors", path=_release_path)
RELEASE_LAPSED = declare("deployments.release.lapsed", ReleaseEvent, audience="auditors", path=_release_path)
RELEASE_WAITING = declare("deployments.release.waiting", ReleaseEvent, audience="auditors", path=_release_path)
RELEASE_GRANTED = declare(
    "deployments.release.granted", ReleaseEvent, audience="the team's other leads", mail=True,
    headline=lambda p: f"Approved, being put on the cluster: {p.what}", body=lambda p: p.detail, path=_release_path,
)  # fmt: skip
ROLLOUT_STEPPED = declare(
    "deployments.rollout.stepped", RolloutEvent, audience=_LEADS,
    headline=lambda p: p.what, body=lambda p: p.detail, path=_endpoint_path,
)  # fmt: skip
ROLLOUT_ROLLED_BACK = declare(
    "deployments.rollout.rolled_back", RolloutEvent, audience=_LEADS, mail=True,
    headline=lambda p: p.what, body=lambda p: p.detail, path=_endpoint_path,
)  # fmt: skip
ROLLOUT_STUCK = declare(
    "deployments.rollout.stuck", RolloutEvent, audience=_LEADS, mail=True,
    headline=lambda p: p.what, body=lambda p: p.detail, path=_endpoint_path,
)  # fmt: skip
GRANT_ENDED = declare(
    "deployments.grant.ended", RolloutEvent, audience=_LEADS, mail=True,
    headline=lambda p: p.what, body=lambda p: p.detail, path=_endpoint_path,
)  # fmt: skip
RULE_ADDED = declare("deployments.rule.added", RuleEvent, audience="auditors")
RULE_ENDED = declare("deployments.rule.ended", RuleEvent, audience="auditors")
