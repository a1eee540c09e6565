"""Routes of enforcement: one workspace of Finance with a decision, one of a foreign tenant whom nobody sees."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from apps.deployments.models import Enforcement
from apps.quotas.models import Workspace
from tests.sweep.types import EVERYBODY, Route

_SEE = {"member_finance", "lead_finance", "vp", "compliance", "finance", "admin", "auditor"}
_SET = {"compliance", "admin"}


def build(world: SimpleNamespace) -> None:
    """A decision for each."""
    own = Workspace.objects.filter(team=world.company.finance_team).order_by("pk").first()
    foreign = Workspace.objects.filter(team=world.foreign_team).order_by("pk").first()
    assert own is not None
    assert foreign is not None
    world.enforced = own
    world.enforcement = Enforcement.objects.create(workspace=own, mode="audit", reason="A trial of Finance")
    secret = Enforcement.objects.create(workspace=foreign, mode="audit", reason="numbat trial")
    world.keep_secret(secret.uid, "numbat trial", sees={"vp_other"})
    world.keep_secret(world.enforcement.uid, "A trial of Finance", sees=_SEE)


def _w(world: Any) -> Mapping[str, Any]:
    return {"workspace_uid": world.enforced.uid}


def _u(world: Any) -> Mapping[str, Any]:
    return {"uid": world.enforcement.uid}


_API = frozenset({200, 400, 409, 428})
ROUTES: dict[str, Route] = {
    "deployments:enforcement-list": Route(allowed=EVERYBODY - {"expired"}),
    "deployments:enforcement-detail": Route(allowed=_SEE, kwargs=_w),
    "deployments:enforcement-set": Route(allowed=_SET, kwargs=_w),
    "deployments:enforcement-set#POST": Route(allowed=_SET, kwargs=_w, method="POST"),
    "api:enforcement-list": Route(allowed=EVERYBODY - {"expired"}),
    "api:enforcement-detail": Route(allowed=_SEE, kwargs=_u),
    "api:enforcement-decide": Route(allowed=_SET, kwargs=_u, method="POST", ok=_API),
}
