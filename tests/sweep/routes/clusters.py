"""Routes of the clusters room. `world.cluster`, `world.flavour`, `world.pool`: fifty A100 on a cluster nobody calls."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from apps.clusters import actions
from apps.clusters.models import Node
from apps.core import clock
from apps.core.actor import Actor
from tests.sweep.types import EVERYBODY, Route

ADMINS = {"admin"}
PLATFORM = {"admin", "auditor"}
POOLS = {"admin", "auditor", "finance"}


def build(world: SimpleNamespace) -> None:
    """A cluster with a node and a pool; its address and token are nobody's business."""
    system = Actor.system("sweep")
    world.cluster = actions.register_cluster(
        "Sweep cluster", slug="sweep", api_url="https://192.0.2.10:6443", token="sweep-token", actor=system
    )
    world.flavour = actions.create_flavour("A100 80 GB", slug="a100", gpu_model="A100", actor=system)
    Node.objects.create(
        cluster=world.cluster, name="node-1", gpu_model="A100", physical_gpus=50, observed_at=clock.now()
    )
    world.pool = actions.create_pool(world.cluster.pk, "A100", actor=system, flavour_ids=[world.flavour.pk])
    actions.set_committable(world.pool.pk, 50, clock.now() - timedelta(days=30), actor=system, imported=True)
    day = clock.now() + timedelta(days=7)
    world.maintenance = actions.schedule_maintenance(
        world.cluster.pk, day, day + timedelta(hours=2), "Rack move", actor=system
    )
    world.keep_secret("192.0.2.10")
    for name in ("compliance", "finance"):
        world.secrets[name].append("192.0.2.10")
    for name in world.people:
        world.secrets[name].append("sweep-token")


def _cluster(world: Any) -> Mapping[str, Any]:
    return {"slug": world.cluster.slug}


def _window(world: Any) -> Mapping[str, Any]:
    return {"window_uid": world.maintenance.uid}


def _pool(world: Any) -> Mapping[str, Any]:
    return {"pool_uid": world.pool.uid}


ROUTES: dict[str, Route] = {
    "clusters:cluster-list": Route(allowed=PLATFORM),
    "clusters:cluster-list#csv": Route(allowed=PLATFORM, query="?export=csv"),
    "clusters:cluster-create": Route(allowed=ADMINS),
    "clusters:cluster-create#POST": Route(allowed=ADMINS, method="POST"),
    "clusters:cluster-detail": Route(allowed=PLATFORM, kwargs=_cluster),
    "clusters:cluster-credentials": Route(allowed=ADMINS, kwargs=_cluster),
    "clusters:cluster-credentials#POST": Route(allowed=ADMINS, kwargs=_cluster, method="POST"),
    "clusters:cluster-pause": Route(allowed=ADMINS, kwargs=_cluster),
    "clusters:cluster-pause#POST": Route(allowed=ADMINS, kwargs=_cluster, method="POST"),
    "clusters:cluster-resume": Route(allowed=ADMINS, kwargs=_cluster, note="409: it is not paused"),
    "clusters:cluster-remove": Route(allowed=ADMINS, kwargs=_cluster, note="409 where it has a history"),
    "clusters:cluster-remove#POST": Route(allowed=ADMINS, kwargs=_cluster, method="POST"),
    "clusters:cluster-archive": Route(allowed=ADMINS, kwargs=_cluster, note="409 while workspaces are there"),
    "clusters:cluster-archive#POST": Route(allowed=ADMINS, kwargs=_cluster, method="POST"),
    "clusters:cluster-restore": Route(allowed=ADMINS, kwargs=_cluster, note="409: it is not archived"),
    "clusters:cluster-needs": Route(allowed=PLATFORM),
    "clusters:cluster-needs#yaml": Route(allowed=PLATFORM, query="?chosen=1&namespace=a&account=b&download=1"),
    "clusters:cluster-check": Route(allowed=ADMINS, kwargs=_cluster),
    "clusters:cluster-check#POST": Route(allowed=ADMINS, kwargs=_cluster, method="POST"),
    "clusters:cluster-edit": Route(allowed=ADMINS, kwargs=_cluster),
    "clusters:cluster-edit#POST": Route(allowed=ADMINS, kwargs=_cluster, method="POST"),
    "clusters:cluster-kueue": Route(allowed=ADMINS, kwargs=_cluster),
    "clusters:cluster-kueue#POST": Route(allowed=ADMINS, kwargs=_cluster, method="POST"),
    "clusters:maintenance-create": Route(allowed=ADMINS, kwargs=_cluster),
    "clusters:maintenance-create#POST": Route(allowed=ADMINS, kwargs=_cluster, method="POST"),
    "clusters:maintenance-cancel": Route(allowed=ADMINS, kwargs=_window),
    "clusters:pool-list": Route(allowed=POOLS),
    "clusters:pool-list#csv": Route(allowed=POOLS, query="?export=csv"),
    "clusters:pool-create": Route(allowed=ADMINS),
    "clusters:pool-create#POST": Route(allowed=ADMINS, method="POST"),
    "clusters:pool-detail": Route(allowed=POOLS, kwargs=_pool),
    "clusters:pool-capacity": Route(allowed=ADMINS, kwargs=_pool),
    "clusters:pool-capacity#POST": Route(allowed=ADMINS, kwargs=_pool, method="POST"),
    "clusters:pool-edit": Route(allowed=ADMINS, kwargs=_pool),
    "clusters:pool-edit#POST": Route(allowed=ADMINS, kwargs=_pool, method="POST"),
    "clusters:proposals": Route(allowed=ADMINS, kwargs=_cluster),
    "clusters:proposals#POST": Route(allowed=ADMINS, kwargs=_cluster, method="POST"),
    "clusters:node-list": Route(allowed=PLATFORM),
    "clusters:node-list#csv": Route(allowed=PLATFORM, query="?export=csv"),
    "clusters:flavour-list": Route(allowed=EVERYBODY),
    "clusters:flavour-create": Route(allowed=ADMINS),
    "clusters:flavour-create#POST": Route(allowed=ADMINS, method="POST"),
    "api:cluster-list": Route(allowed=PLATFORM),
    "api:cluster-detail": Route(allowed=PLATFORM, kwargs=lambda world: {"uid": world.cluster.uid}),
    "api:cluster-pause": Route(allowed=ADMINS, kwargs=lambda world: {"uid": world.cluster.uid}, method="POST"),
    "api:cluster-resume": Route(allowed=ADMINS, kwargs=lambda world: {"uid": world.cluster.uid}, method="POST"),
    "api:cluster-check": Route(allowed=ADMINS, kwargs=lambda world: {"uid": world.cluster.uid}, method="POST"),
    "api:pool-list": Route(allowed=POOLS),
    "api:pool-detail": Route(allowed=POOLS, kwargs=lambda world: {"uid": world.pool.uid}),
    "api:pool-set-committable": Route(allowed=ADMINS, kwargs=lambda world: {"uid": world.pool.uid}, method="POST"),
    "api:flavour-list": Route(allowed=EVERYBODY),
    "api:flavour-detail": Route(allowed=EVERYBODY, kwargs=lambda world: {"uid": world.flavour.uid}),
}
