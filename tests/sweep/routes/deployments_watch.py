"""Routes of watching: the endpoint of Finance with an objective and its drift, one of a foreign tenant nobody sees."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

from apps.core import clock
from apps.deployments.models import DriftReading, Endpoint, Objective
from tests.sweep.types import Route

_SEE = {"member_finance", "lead_finance", "vp", "compliance", "finance", "admin", "auditor"}
_SET = {"lead_finance"}
_POST = {"member_finance", "lead_finance"}


def build(world: SimpleNamespace) -> None:
    """An objective and a drift reading for each."""
    for team, name in ((world.company.finance_team, "eland_watched"), (world.foreign_team, "numbat_watched")):
        endpoint = Endpoint.objects.filter(workspace__team=team).order_by("pk").first()
        assert endpoint is not None
        objective = Objective.objects.create(endpoint=endpoint, kind="psi", feature=f"{name}_amount", target="0.2")
        DriftReading.objects.create(
            endpoint=endpoint, feature=f"{name}_amount", kind="psi", value=Decimal("0.1"), at=clock.now(), source=name
        )
        if team == world.company.finance_team:
            world.watched_endpoint, world.watched_objective = endpoint, objective
            world.keep_secret(objective.uid, f"{name}_amount", sees=_SEE)
        else:
            world.keep_secret(objective.uid, f"{name}_amount", sees={"vp_other"})


def _e(world: Any) -> Mapping[str, Any]:
    return {"endpoint_uid": world.watched_endpoint.uid}


def _o(world: Any) -> Mapping[str, Any]:
    return {"objective_uid": world.watched_objective.uid}


def _u(world: Any) -> Mapping[str, Any]:
    return {"uid": world.watched_objective.uid}


_API = frozenset({200, 201, 400, 409, 428})
ROUTES: dict[str, Route] = {
    "deployments:endpoint-live": Route(allowed=_SEE, kwargs=_e),
    "deployments:objective-list": Route(allowed=_SEE, kwargs=_e),
    "deployments:objective-add": Route(allowed=_SET, kwargs=_e),
    "deployments:objective-add#POST": Route(allowed=_SET, kwargs=_e, method="POST"),
    "deployments:objective-edit": Route(allowed=_SET, kwargs=_o),
    "deployments:objective-edit#POST": Route(allowed=_SET, kwargs=_o, method="POST"),
    "deployments:objective-archive": Route(allowed=_SET, kwargs=_o),
    "deployments:objective-archive#POST": Route(allowed=_SET, kwargs=_o, method="POST"),
    "api:objective-list": Route(allowed=_SEE | {"lead_marketing", "vp_other"}),
    "api:objective-list#POST": Route(allowed=_SET | {"lead_marketing"}, method="POST", ok=_API),
    "api:objective-detail": Route(allowed=_SEE, kwargs=_u),
    "api:objective-change": Route(allowed=_SET, kwargs=_u, method="POST", ok=_API),
    "api:objective-archive": Route(allowed=_SET, kwargs=_u, method="POST", ok=_API),
    "api:endpoint-drift": Route(allowed=_SEE, kwargs=_e),
    "api:endpoint-drift#POST": Route(allowed=_POST, kwargs=_e, method="POST", ok=_API),
}
