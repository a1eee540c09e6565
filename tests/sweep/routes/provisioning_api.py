"""Decisions about drift and stopped workloads through the API."""

from __future__ import annotations

from apps.provisioning.models import Drift
from tests.sweep.routes.provisioning import ROUTES as PAGES
from tests.sweep.twins import post, twin
from tests.sweep.types import Route

ROUTES: dict[str, Route] = {
    "api:drift-reapply": post(PAGES["provisioning:drift-reapply"], kwargs=lambda world: {"uid": _drift(world)}),
    "api:drift-ignore": post(PAGES["provisioning:drift-ignore"], kwargs=lambda world: {"uid": _drift(world)}),
    "api:drift-reopen": post(PAGES["provisioning:drift-reopen"], kwargs=lambda world: {"uid": _drift(world)}),
    "api:stop-order-list": twin(PAGES["provisioning:stop-list"]),
    "api:stop-order-detail": twin(PAGES["provisioning:stop-detail"], "stop"),
    "api:stop-order-undo": post(PAGES["provisioning:stop-undo"], "stop"),
}


def _drift(world: object) -> object:
    return Drift.objects.get(declaration=world.declaration).uid  # type: ignore[attr-defined]  # a namespace
