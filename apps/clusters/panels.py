"""The clusters room in the navigation and on its own pages."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from apps.clusters import pool_inventory
from apps.clusters.capacity import MANAGE as MANAGE_POOLS
from apps.clusters.models import Cluster
from apps.clusters.pool_views import pools_of
from apps.core.permissions import may
from portal.panels import nav, panel

nav("Clusters", "clusters:cluster-list", icon="server", order=10, permission="clusters.cluster.view", group="Platform")
nav("Pool capacity", "clusters:pool-list", icon="stack-2", order=20, permission="clusters.pool.view", group="Platform")
nav("Flavours", "clusters:flavour-list", icon="cpu", order=30, group="Platform")


@panel(page="cluster", order=10, permission="clusters.pool.view")
def pools(request: HttpRequest, cluster: Cluster) -> dict[str, Any] | None:
    """The pools of a cluster."""
    rows = pools_of(cluster, request.user)
    return {"template": "clusters/panels/pools.html", "rows": rows}


@panel(page="cluster", order=15, permission="clusters.cluster.view")
def inventory(request: HttpRequest, cluster: Cluster) -> dict[str, Any] | None:
    """What the nodes of a cluster carry, per GPU model and CPU class."""
    found = pool_inventory.of_cluster(cluster)
    return {
        "template": "clusters/panels/inventory.html",
        "cluster": cluster,
        "models": found.models,
        "cores": found.cores,
        "unknown": found.unknown,
        "drained": found.drained,
        "may_propose": may(request.user, MANAGE_POOLS, None),
    }
