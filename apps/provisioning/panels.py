"""The provisioning room in the navigation, and what it says on team and cluster pages."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from apps.clusters.models import Cluster
from apps.clusters.selectors import maintenance_on_page
from apps.core import clock
from apps.provisioning import selectors
from apps.provisioning.models import Declaration, Drift
from apps.provisioning.observer import FULL_SWEEP
from apps.teams.models import Team
from portal.panels import nav, panel

_SEE = "provisioning.run.view"
nav("Declarations", "provisioning:declaration-list", icon="file-text", order=50, permission=_SEE, group="Platform")
nav("Apply runs", "provisioning:run-list", icon="history", order=60, permission=_SEE, group="Platform")
nav("Stopped workloads", "provisioning:stop-list", icon="player-pause", order=75, permission=_SEE, group="Platform")
nav("Drift", "provisioning:drift-list", icon="git-compare", order=70, permission=_SEE, group="Platform")


def _open_drift(**where: Any) -> int:
    return Drift.objects.open().filter(**where).values("declaration_id").distinct().count()


@panel(page="team", order=60, permission="provisioning.declaration.view")
def team(request: HttpRequest, team: Team) -> dict[str, Any] | None:
    """What is being applied for a team, since when, why not yet; nothing where all is applied as declared."""
    waiting = selectors.unapplied(Declaration.objects.visible_to(request.user).filter(team=team))
    drifted = _open_drift(declaration__team=team)
    if not waiting and not drifted:
        return None
    return {"template": "provisioning/panels/team.html", "waiting": waiting, "drifted": drifted}


@panel(page="cluster", order=30, permission="provisioning.declaration.view")
def cluster(request: HttpRequest, cluster: Cluster) -> dict[str, Any] | None:
    """How current the portal's view of a cluster is, and what waits to be applied there."""
    ages = selectors.ages(cluster)
    rows = Declaration.objects.visible_to(request.user).filter(cluster=cluster)
    waiting = selectors.unapplied(rows, maintenance=maintenance_on_page(cluster)) if ages.waiting else []
    stale = ages.observed_at is not None and clock.now() - ages.observed_at > FULL_SWEEP
    return {
        "template": "provisioning/panels/cluster.html",
        "ages": ages,
        "stale": stale,
        "waiting": waiting,
        "drifted": ages.drifted,
        "total": ages.total,
    }
