"""Routes of the provisioning room: the Finance team's declaration, its run, plan and drift, and a foreign one."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from apps.core import clock
from apps.provisioning import actions
from apps.provisioning.choices import DeclarationStatus, RunOutcome
from apps.provisioning.models import ApplyRun, Drift, StopOrder
from tests.cluster.fixtures import declare, workspace
from tests.sweep.types import EVERYBODY, Route

#: Who holds some role: every list is open to them, each sees the own part.
SOMEBODY = EVERYBODY - {"expired"}
FINANCE = {"member_finance", "lead_finance", "vp", "compliance", "finance", "admin", "auditor"}
PLATFORM = {"admin", "auditor"}


def _stop(world: SimpleNamespace, team: Any, namespace: str, name: str) -> StopOrder:
    return StopOrder.objects.create(
        cluster=world.cluster, team=team, kind="Job", namespace=namespace, name=name, cause="idle",
        requested_at=clock.now(), status="stopped", stopped_at=clock.now(),
        before={"kind": "Job", "name": name, "uid": "u"},
    )  # fmt: skip


def build(world: SimpleNamespace) -> None:
    """One stopped declaration of the Finance team with run, drift and plan; one of the foreign team."""
    world.declaration = declare(
        world.cluster, workspace("okapi-production"), title="Okapi production", team_id=world.finance_team.pk
    )
    world.declaration.status, world.declaration.last_error = DeclarationStatus.STOPPED, "ResourceQuota okapi: held"
    world.declaration.save(update_fields=["status", "last_error"])
    world.apply_run = ApplyRun.objects.create(
        declaration=world.declaration, generation=1, outcome=RunOutcome.STOPPED, lease_token=uuid.uuid4(),
        started_at=clock.now(), finished_at=clock.now(), error="ResourceQuota okapi: held",
        results=[{"verb": "apply", "kind": "ResourceQuota", "namespace": "okapi", "name": "q", "status": 409, "ms": 3,
                  "warnings": ["deprecated"], "error": "conflict"}],
    )  # fmt: skip
    Drift.objects.create(
        declaration=world.declaration, kind="ResourceQuota", namespace="okapi-production", name="gpu-quota",
        field="spec.hard.pods", declared="50", live="99", manager="kubectl-edit", found_at=clock.now(),
    )  # fmt: skip
    world.server_plan = actions.request_plan(
        world.cluster.pk, "workspace", world.declaration.owner_uid, uuid.uuid4(), world.finance_team.pk,
        workspace("okapi-production", 12),
    )  # fmt: skip
    world.stop = _stop(world, world.finance_team, "okapi-production", "okapi-sleeper")
    _stop(world, world.foreign_team, "quagga-ns", "quagga-stopped")
    world.keep_secret("okapi-sleeper", sees={"member_finance", "lead_finance", "vp"})
    world.keep_secret("quagga-stopped", sees={"vp_other"})
    foreign = declare(world.cluster, workspace("quagga-ns"), title="Quagga production", team_id=world.foreign_team.pk)
    world.keep_secret("Okapi production", "okapi-production", sees={"member_finance", "lead_finance", "vp"})
    world.keep_secret("Quagga production", "quagga-ns", foreign.uid, sees={"vp_other"})


def _declaration(world: Any) -> Mapping[str, Any]:
    return {"declaration_uid": world.declaration.uid}


def _stopped(world: Any) -> Mapping[str, Any]:
    return {"stop_uid": world.stop.uid}


def _plan(world: Any) -> Mapping[str, Any]:
    return {"plan_uid": world.server_plan.uid}


def _drift(world: Any) -> Mapping[str, Any]:
    return {"drift_uid": Drift.objects.get(declaration=world.declaration).uid}


def _uid(name: str) -> Any:
    return lambda world: {"uid": getattr(world, name).uid}


ROUTES: dict[str, Route] = {
    "provisioning:declaration-list": Route(allowed=SOMEBODY),
    "provisioning:declaration-list#csv": Route(allowed=SOMEBODY, query="?export=csv"),
    "provisioning:declaration-detail": Route(allowed=FINANCE, kwargs=_declaration),
    "provisioning:declaration-retry": Route(allowed={"admin"}, kwargs=_declaration),
    "provisioning:declaration-retry#POST": Route(allowed={"admin"}, kwargs=_declaration, method="POST"),
    "provisioning:stop-list": Route(allowed=SOMEBODY),
    "provisioning:stop-detail": Route(allowed=FINANCE, kwargs=_stopped),
    "provisioning:stop-undo": Route(allowed={"lead_finance", "vp", "admin"}, kwargs=_stopped),
    "provisioning:stop-undo#POST": Route(allowed={"lead_finance", "vp", "admin"}, kwargs=_stopped, method="POST"),
    "provisioning:run-list": Route(allowed=PLATFORM),
    "provisioning:run-list#csv": Route(allowed=PLATFORM, query="?export=csv"),
    "provisioning:run-detail": Route(allowed=PLATFORM, kwargs=lambda world: {"run_uid": world.apply_run.uid}),
    "provisioning:drift-list": Route(allowed=SOMEBODY),
    "provisioning:drift-list#csv": Route(allowed=SOMEBODY, query="?export=csv"),
    "provisioning:drift-reapply": Route(allowed={"admin"}, kwargs=_drift),
    "provisioning:drift-reapply#POST": Route(allowed={"admin"}, kwargs=_drift, method="POST"),
    "provisioning:drift-ignore": Route(allowed={"admin"}, kwargs=_drift),
    "provisioning:drift-ignore#POST": Route(allowed={"admin"}, kwargs=_drift, method="POST"),
    "provisioning:drift-reopen": Route(allowed={"admin"}, kwargs=_drift, note="409: it is open"),
    "provisioning:plan-detail": Route(allowed=FINANCE, kwargs=_plan),
    "provisioning:plan-remake": Route(allowed={"admin"}, kwargs=_plan, note="409: it did not fail"),
    "api:declaration-list": Route(allowed=SOMEBODY),
    "api:declaration-detail": Route(allowed=FINANCE, kwargs=_uid("declaration")),
    "api:declaration-retry": Route(allowed={"admin"}, kwargs=_uid("declaration"), method="POST"),
    "api:apply-run-list": Route(allowed=PLATFORM),
    "api:apply-run-detail": Route(allowed=PLATFORM, kwargs=_uid("apply_run")),
    "api:plan-list": Route(allowed=SOMEBODY),
    "api:plan-detail": Route(allowed=FINANCE, kwargs=_uid("server_plan")),
    "api:plan-remake": Route(allowed={"admin"}, kwargs=_uid("server_plan"), method="POST"),
    "api:drift-list": Route(allowed=SOMEBODY),
    "api:drift-detail": Route(
        allowed=FINANCE, kwargs=lambda world: {"uid": Drift.objects.get(declaration=world.declaration).uid}
    ),
}
