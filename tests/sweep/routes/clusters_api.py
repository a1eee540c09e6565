"""Administering clusters through the API."""

from __future__ import annotations

from tests.sweep.routes.clusters import PLATFORM
from tests.sweep.routes.clusters import ROUTES as PAGES
from tests.sweep.twins import post, twin
from tests.sweep.types import Route

ROUTES: dict[str, Route] = {
    "api:cluster-list#POST": post(PAGES["clusters:cluster-create"]),
    "api:cluster-detail#PATCH": twin(PAGES["clusters:cluster-edit"], "cluster", "PATCH"),
    "api:cluster-credentials": post(PAGES["clusters:cluster-credentials"], "cluster"),
    "api:cluster-kueue": post(PAGES["clusters:cluster-kueue"], "cluster"),
    "api:cluster-archive": post(PAGES["clusters:cluster-archive"], "cluster"),
    "api:cluster-restore": post(PAGES["clusters:cluster-restore"], "cluster"),
    "api:cluster-remove": post(PAGES["clusters:cluster-remove"], "cluster"),
    "api:maintenance-window-list": Route(allowed=PLATFORM),
    "api:maintenance-window-list#POST": post(PAGES["clusters:maintenance-create"]),
    "api:maintenance-window-detail": twin(PAGES["clusters:cluster-detail"], "maintenance"),
    "api:maintenance-window-cancel": post(PAGES["clusters:maintenance-cancel"], "maintenance"),
    "api:node-list": twin(PAGES["clusters:node-list"]),
    "api:node-detail": twin(PAGES["clusters:node-list"], kwargs=lambda world: {"uid": world.cluster.nodes.first().uid}),
    "api:pool-list#POST": post(PAGES["clusters:pool-create"]),
    "api:pool-detail#PATCH": twin(PAGES["clusters:pool-edit"], "pool", "PATCH"),
    "api:flavour-list#POST": post(PAGES["clusters:flavour-create"]),
}
