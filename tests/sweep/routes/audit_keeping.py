"""Routes of the keeping of the trail, and histories of some rows of other rooms."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping
from datetime import date
from typing import Any

from apps.audit import keeping
from apps.audit.models import RetentionProposal
from apps.core.actor import Actor
from tests.sweep.routes import approvals, catalogue_core, deployments_core, quotas
from tests.sweep.types import Route

_SEE = {"auditor", "admin", "compliance"}


def build(world: Any) -> None:
    """A hold with a foreign name, and a proposal that waits (nothing is old enough to be proposed by the action)."""
    world.hold = keeping.place_hold("Quagga matter", actor=Actor.of(world.compliance))
    world.purge = RetentionProposal.objects.create(month=date(2001, 2, 1), events=3, proposed_by=uuid.uuid4())
    # The narrow token carries the permission to see holds, and nothing else.
    world.keep_secret("Quagga matter", world.hold.uid, world.purge.uid, sees={"token_narrow"})
    world.secrets["finance"] += ["Quagga matter", str(world.purge.uid)]


def _hold(world: Any) -> Mapping[str, Any]:
    return {"hold_uid": world.hold.uid}


def _proposal(world: Any) -> Mapping[str, Any]:
    return {"proposal_uid": world.purge.uid}


def _hold_uid(world: Any) -> Mapping[str, Any]:
    return {"uid": world.hold.uid}


def _proposal_uid(world: Any) -> Mapping[str, Any]:
    return {"uid": world.purge.uid}


def _person(world: Any) -> Mapping[str, Any]:
    return {"user_uid": world.member_finance.uid}


ROUTES: dict[str, Route] = {
    "audit:retention": Route(allowed=_SEE),
    "audit:purge-propose": Route(allowed={"admin"}),
    "audit:purge-propose#POST": Route(allowed={"admin"}, method="POST"),
    "audit:purge-approve": Route(allowed={"compliance"}, kwargs=_proposal),
    "audit:purge-approve#POST": Route(allowed={"compliance"}, kwargs=_proposal, method="POST"),
    "audit:purge-reject": Route(allowed={"compliance"}, kwargs=_proposal),
    "audit:purge-reject#POST": Route(allowed={"compliance"}, kwargs=_proposal, method="POST"),
    "audit:purge-withdraw": Route(allowed={"admin"}, kwargs=_proposal),
    "audit:purge-withdraw#POST": Route(allowed={"admin"}, kwargs=_proposal, method="POST"),
    "audit:hold-place": Route(allowed={"compliance"}),
    "audit:hold-place#POST": Route(allowed={"compliance"}, method="POST"),
    "audit:hold-release": Route(allowed={"compliance"}, kwargs=_hold),
    "audit:hold-release#POST": Route(allowed={"compliance"}, kwargs=_hold, method="POST"),
    "audit:reconciliation": Route(allowed={"auditor"}),
    "api:legal-hold-list": Route(allowed=_SEE),
    "api:legal-hold-list#POST": Route(allowed={"compliance"}, method="POST", data=lambda world: {"matter": "Case 7"}),
    "api:legal-hold-detail": Route(allowed=_SEE, kwargs=_hold_uid),
    "api:legal-hold-release": Route(allowed={"compliance"}, kwargs=_hold_uid, method="POST"),
    "api:retention-proposal-list": Route(allowed=_SEE),
    "api:retention-proposal-list#POST": Route(allowed={"admin"}, method="POST"),
    "api:retention-proposal-months": Route(allowed=_SEE),
    "api:retention-proposal-detail": Route(allowed=_SEE, kwargs=_proposal_uid),
    "api:retention-proposal-approve": Route(allowed={"compliance"}, kwargs=_proposal_uid, method="POST"),
    "api:retention-proposal-reject": Route(allowed={"compliance"}, kwargs=_proposal_uid, method="POST"),
    "api:retention-proposal-withdraw": Route(allowed={"admin"}, kwargs=_proposal_uid, method="POST"),
    "accounts:user-detail#history": Route(allowed={"admin", "auditor"}, kwargs=_person, query="?history"),
}

#: Whoever opens the page opens its history, and reads nothing foreign there.
for _rooms, _name in (
    (approvals, "approvals:request-detail"),
    (catalogue_core, "catalogue:model-detail"),
    (deployments_core, "deployments:release-detail"),
    (quotas, "quotas:request-detail"),
    (quotas, "quotas:pool-detail"),
):
    ROUTES[f"{_name}#history"] = dataclasses.replace(_rooms.ROUTES[_name], query="?history")
