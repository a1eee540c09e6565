"""Routes of the approvals room. `world.approval_request`: in review, Finance team, asked by its lead, VP to decide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.sweep.types import EVERYBODY, Route

_SEE = {"lead_finance", "vp", "compliance", "finance", "admin", "auditor"}


def _request(world: Any) -> Mapping[str, Any]:
    return {"request_uid": world.approval_request.uid}


def _uid(world: Any) -> Mapping[str, Any]:
    return {"uid": world.approval_request.uid}


def _policy(world: Any) -> Mapping[str, Any]:
    return {"slug": world.approval_request.policy_version.policy.slug}


def _version(world: Any) -> Mapping[str, Any]:
    return {**_policy(world), "number": world.approval_request.policy_version.number}


def _policy_uid(world: Any) -> Mapping[str, Any]:
    return {"uid": world.approval_request.policy_version.policy.uid}


ROUTES: dict[str, Route] = {
    "approvals:request-list": Route(allowed=EVERYBODY),
    "approvals:request-detail": Route(allowed=_SEE, kwargs=_request),
    "approvals:request-decide": Route(allowed={"vp"}, kwargs=_request, note="the unit owner's stage is open"),
    "approvals:request-withdraw": Route(allowed={"lead_finance", "vp"}, kwargs=_request),
    "approvals:request-retry": Route(
        allowed={"vp", "compliance", "finance", "admin"}, kwargs=_request, note="409: it does not wait for capacity"
    ),
    "approvals:policy-list": Route(allowed=EVERYBODY),
    "approvals:policy-create": Route(allowed={"admin"}),
    "approvals:policy-preview": Route(allowed=EVERYBODY, method="POST"),
    "approvals:policy-detail": Route(allowed=EVERYBODY, kwargs=_policy),
    "approvals:policy-publish": Route(allowed={"admin"}, kwargs=_policy),
    "approvals:policy-version": Route(allowed=EVERYBODY, kwargs=_version),
    "api:approval-request-list": Route(allowed=EVERYBODY),
    "api:approval-request-detail": Route(allowed=_SEE, kwargs=_uid),
    "api:approval-request-decide": Route(
        allowed={"vp"}, kwargs=_uid, method="POST", note="empty input: 400 where the permission is held",
    ),
    "api:approval-request-withdraw": Route(allowed={"lead_finance", "vp"}, kwargs=_uid, method="POST"),
    "api:policy-list": Route(allowed=EVERYBODY),
    "api:policy-detail": Route(allowed=EVERYBODY, kwargs=_policy_uid),
}  # fmt: skip
