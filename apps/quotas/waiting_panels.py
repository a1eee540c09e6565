"""Panels about waiting: a pool's line, a team's places in lines."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from apps.clusters.models import Pool
from apps.quotas import queue_views, waitlist
from apps.quotas.models import Workspace
from apps.quotas.pool_pages import forget_time, time_of
from apps.teams.models import Team
from portal.panels import panel


@panel(page="pool", order=20, permission="clusters.pool.view")
def pool_line(request: HttpRequest, pool: Pool) -> dict[str, Any]:
    """Who waits for GPUs of the pool, in which order."""
    line = waitlist.for_pool(pool, request.user, read=lambda: time_of(pool))
    forget_time(pool)  # the calendar's panel stands before this one
    return {"template": "quotas/waitlist.html", "line": line}


@panel(page="team", order=11, permission="quotas.request.view")
def team_places(request: HttpRequest, team: Team) -> dict[str, Any] | None:
    """Where the team's approved requests stand in the lines of pools."""
    places = waitlist.of_team(team)
    return {"template": "quotas/waitlist_team.html", "places": places} if places else None


@panel(page="workspace", order=2, permission="quotas.workspace.view")
def workspace_queue(request: HttpRequest, workspace: Workspace) -> dict[str, Any] | None:
    """What the workspace's queue allows, what is taken, and what waits in it."""
    queue = queue_views.of_workspace(workspace)
    return {"template": "quotas/queue.html", "queue": queue, "workspace": workspace} if queue else None


@panel(page="pool", order=25, permission="clusters.pool.view")
def pool_imbalance(request: HttpRequest, pool: Pool) -> dict[str, Any] | None:
    """Who borrows in the pool while who waits within their own."""
    found = queue_views.imbalance(pool)
    return {"template": "quotas/queue_pairs.html", "found": found} if found else None


__all__ = ["pool_imbalance", "pool_line", "team_places", "workspace_queue"]
