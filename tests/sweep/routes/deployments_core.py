"""Routes of endpoints, releases and placement rules: finance serves a model; so does a foreign tenant, unseen."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from apps.catalogue.models import ModelVersion
from apps.core import clock
from apps.deployments.models import Endpoint, PlacementRule, Release, RolloutStep
from apps.quotas.models import Workspace
from tests.sweep.types import EVERYBODY, Route

_SEE = {"member_finance", "lead_finance", "vp", "compliance", "finance", "admin", "auditor"}
_LISTS = _SEE | {"lead_marketing", "vp_other"}
_ASK = {"lead_finance", "lead_marketing"}
_OPERATE = {"lead_finance", "admin"}
_TEAM = {"lead_finance"}
_SPEC = {
    "min_replicas": 1, "max_replicas": 1, "units_per_replica": 1, "cpu": 4, "memory_gib": 16, "tier": "hot",
    "autoscaling": None, "schedule": [], "ladder": [{"traffic": 10, "hours": 12}],
    "guard": {"error_rate": None, "latency_p95_ms": None, "window_minutes": 10}, "logger": False, "explainer": False,
    "expiry_action": "block_new",
}  # fmt: skip
_CHANGE: dict[str, Any] = {
    "before": None, "leaves": [], "states": {}, "mode": "none", "mode_reason": "", "canary": False, "terms": {},
    "name_bound": False, "emergency": False, "start_seconds": 20,
    "placement": {"cluster": "Atlas", "location": "", "jurisdiction": "", "ok": True, "rules": []},
    "feasibility": {"ok": True, "lines": []},
}  # fmt: skip


def _serves(workspace: Workspace, version: ModelVersion, name: str, requester: Any, flavour: Any) -> Endpoint:
    """An endpoint with a live release and one in review: rows only, actions have tests of their own."""
    endpoint = Endpoint.objects.create(workspace=workspace, name=name, model=version.model)
    common: dict[str, Any] = {
        "endpoint": endpoint, "model_version": version, "version_digest": version.digest, "flavour": flavour,
        "spec": _SPEC, "change": _CHANGE, "estimate": {}, "requester": requester, "reason": f"For {name}, this month.",
    }  # fmt: skip
    live = Release.objects.create(number=1, status="live", started_at=clock.now(), live_at=clock.now(), **common)
    Release.objects.create(number=2, status="in_review", **common)
    endpoint.current = live
    endpoint.save(update_fields=["current"])
    RolloutStep.objects.create(endpoint=endpoint, release=live, kind="started", at=clock.now(), reason=f"Began {name}.")
    return endpoint


def build(world: SimpleNamespace) -> None:
    """Finance's endpoint, a foreign one, a rule in force and one that ended."""
    own = Workspace.objects.filter(team=world.company.finance_team, archived_at__isnull=True).order_by("pk").first()
    foreign = Workspace.objects.filter(team=world.foreign_team).order_by("pk").first()
    assert own is not None
    assert foreign is not None
    world.deploy_workspace = own
    world.endpoint = _serves(own, world.sealed, "sweep-okapi", world.lead_finance, world.rates_flavour)
    hidden_version = ModelVersion.objects.filter(model__team=world.foreign_team, status="sealed").first()
    assert hidden_version is not None
    hidden = _serves(foreign, hidden_version, "sweep-numbat", world.foreign_lead, world.rates_flavour)
    world.release = Release.objects.get(endpoint=world.endpoint, status="in_review")
    world.placement_rule = PlacementRule.objects.create(
        data_class="health", location="on_premises", text="Health data stays on premises.",
        valid=DateTimeTZRange(clock.now() - timedelta(days=2), None, "[)"),
    )  # fmt: skip
    world.keep_secret(hidden.uid, hidden.name, sees={"vp_other"})
    world.keep_secret(world.endpoint.uid, world.endpoint.name, sees={"member_finance", "lead_finance", "vp"})


def _endpoint(world: Any) -> Mapping[str, Any]:
    return {"endpoint_uid": world.endpoint.uid}


def _release(world: Any) -> Mapping[str, Any]:
    return {"release_uid": world.release.uid}


def _rule(world: Any) -> Mapping[str, Any]:
    return {"rule_uid": world.placement_rule.uid}


def _of_endpoint(world: Any) -> Mapping[str, Any]:
    return {"uid": world.endpoint.uid}


def _of_release(world: Any) -> Mapping[str, Any]:
    return {"uid": world.release.uid}


def _form(world: Any) -> Mapping[str, Any]:
    return {
        "workspace": world.deploy_workspace.pk, "model_version": world.sealed.pk, "name": "sweep-okapi",
        "flavour": world.rates_flavour.pk, "units_per_replica": 1, "cpu": 4, "memory_gib": 16, "tier": "hot",
        "min_replicas": 1, "max_replicas": 1, "window_minutes": 10, "expiry_action": "block_new",
        "reason": "A sentence that says what it is for.",
    }  # fmt: skip


def _body(world: Any) -> Mapping[str, Any]:
    return {
        "workspace": world.deploy_workspace.uid, "name": "sweep-okapi", "model_version": world.sealed.uid,
        "flavour": world.rates_flavour.slug, "spec": _SPEC, "reason": "A sentence that says what it is for.",
    }  # fmt: skip


_428 = frozenset({428})
_ACTIONS = ("step", "promote", "hold", "resume", "roll-back", "stop", "start", "remove")
_API_ACTIONS = ("step", "promote", "hold", "resume", "roll-back", "stop", "start-again", "remove")
ROUTES: dict[str, Route] = {
    "deployments:endpoint-list": Route(allowed=_LISTS),
    "deployments:endpoint-detail": Route(allowed=_SEE, kwargs=_endpoint),
    **{f"deployments:endpoint-{name}": Route(allowed=_OPERATE, kwargs=_endpoint) for name in _ACTIONS},
    **{
        f"deployments:endpoint-{name}#POST": Route(allowed=_OPERATE, kwargs=_endpoint, method="POST")
        for name in _ACTIONS
    },
    "deployments:release-list": Route(allowed=_LISTS),
    "deployments:release-create": Route(allowed=_ASK),
    "deployments:release-create#POST": Route(allowed=_ASK, method="POST", data=_form),
    "deployments:release-estimate": Route(allowed=_ASK, method="POST", data=_form),
    "deployments:release-detail": Route(allowed=_SEE, kwargs=_release),
    "deployments:release-withdraw": Route(allowed=_TEAM, kwargs=_release),
    "deployments:release-withdraw#POST": Route(allowed=_TEAM, kwargs=_release, method="POST"),
    "deployments:rule-list": Route(allowed=EVERYBODY),
    "deployments:rule-add": Route(allowed={"compliance"}),
    "deployments:rule-add#POST": Route(allowed={"compliance"}, method="POST"),
    "deployments:rule-end": Route(allowed={"compliance"}, kwargs=_rule),
    "deployments:rule-end#POST": Route(allowed={"compliance"}, kwargs=_rule, method="POST"),
    "api:endpoint-list": Route(allowed=_LISTS),
    "api:endpoint-detail": Route(allowed=_SEE, kwargs=_of_endpoint),
    "api:endpoint-steps": Route(allowed=_SEE, kwargs=_of_endpoint),
    **{
        f"api:endpoint-{name}": Route(
            allowed=_OPERATE, kwargs=_of_endpoint, method="POST", ok=_428, note="nothing without If-Match"
        )
        for name in _API_ACTIONS
    },
    "api:release-list": Route(allowed=_LISTS),
    "api:release-list#POST": Route(allowed=_TEAM, method="POST", data=_body),
    "api:release-detail": Route(allowed=_SEE, kwargs=_of_release),
    "api:release-withdraw": Route(allowed=_TEAM, kwargs=_of_release, method="POST", ok=_428),
    "api:placement-rule-list": Route(allowed=EVERYBODY),
    "api:placement-rule-detail": Route(allowed=EVERYBODY, kwargs=lambda world: {"uid": world.placement_rule.uid}),
}
