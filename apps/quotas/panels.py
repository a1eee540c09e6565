"""What the quotas room adds to other rooms' pages, and its entries in the navigation."""

from __future__ import annotations

from typing import Any, cast

from django.http import HttpRequest
from django.urls import reverse

from apps.accounts.models import User
from apps.clusters.models import Pool
from apps.clusters.pool_views import pools_of
from apps.core.permissions import may
from apps.quotas import (
    adopt_views,
    baseline_views,
    drift_views,
    expiry_panels,
    guard_views,
    live_views,
    selectors,
    waiting_panels,
)
from apps.quotas.models import Workspace
from apps.teams import scope
from apps.teams.models import Team
from portal.panels import nav, panel

nav(
    "Workspaces", "quotas:workspace-list", icon="terminal-2", order=20, permission="quotas.workspace.view", group="Work"
)
nav("Quota requests", "quotas:request-list", icon="file-text", order=30, permission="quotas.request.view", group="Work")
nav(
    "Change requests",
    "quotas:change-list",
    icon="adjustments",
    order=35,
    permission="quotas.request.view",
    group="Work",
)
nav("Pools", "quotas:pool-list", icon="stack-2", order=40, permission="quotas.quota.view", group="Work")


#: So many workspaces of one's own are shown at home; the rest is in the list.
_AT_HOME = 12


@panel(page="home", order=15, permission="quotas.workspace.use")
def own_quotas(request: HttpRequest, obj: Any) -> dict[str, Any] | None:
    """What the person's own workspaces hold and use now."""
    user = cast("User", request.user)
    rows = (
        Workspace.objects.visible_to(user)
        .filter(scope.of(user).team_filter("quotas.workspace.use"), archived_at__isnull=True)
        .select_related("team", "cluster")
        .order_by("namespace", "cluster__name", "pk")
    )
    workspaces = list(rows[: _AT_HOME + 1])
    if not workspaces:
        return None
    return {
        "template": "quotas/panels/home.html",
        **live_views.table_context(workspaces[:_AT_HOME], may_use=True, show_workspace=True),
        "more": len(workspaces) > _AT_HOME,
        "may_ask": may(user, "quotas.request.create", None),
    }


@panel(page="team", order=10, permission="quotas.quota.view")
def team_quotas(request: HttpRequest, team: Team) -> dict[str, Any]:
    """What the team's workspaces hold and use now, and its open requests."""
    may_use = may(request.user, "quotas.workspace.use", team)
    return {
        "template": "quotas/panels/team.html",
        **live_views.table_context(selectors.workspaces_of(team), may_use=may_use, show_workspace=True),
        "requests": selectors.open_requests(team),
        "may_ask": may(request.user, "quotas.request.create", team),
        "request_url": reverse("quotas:request-create"),
        "team": team,
    }


@panel(page="pool", order=10, permission="clusters.pool.view")
def pool_ledger(request: HttpRequest, pool: Pool) -> dict[str, Any]:
    """What the pool can promise, has promised, and will have to, over the next 90 days."""
    from apps.quotas.pool_pages import pool_context

    return {"template": "quotas/panels/pool.html", "pool": pool, **pool_context(pool)}


@panel(page="cluster", order=20, permission="clusters.pool.view")
def cluster_pools(request: HttpRequest, cluster: Any) -> dict[str, Any] | None:
    """The pools of a cluster with committable, observed, promised, borrowed and used GPUs."""
    rows = selectors.pool_rows(pools=sorted(pools_of(cluster, request.user), key=lambda pool: pool.pk))
    if not rows:
        return None
    return {"template": "quotas/panels/cluster.html", "rows": [(row, row.shown()) for row in rows]}


__all__ = ["adopt_views", "baseline_views", "drift_views", "expiry_panels", "guard_views", "waiting_panels"]
