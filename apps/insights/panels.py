"""Findings and idle work in the navigation, at home, and on teams', units' and workspaces' pages."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from apps.core.permissions import may
from apps.insights import idle, selectors
from apps.insights.idle_views import SAVED_RULE
from apps.insights.models import IdleCase
from apps.insights.tables import IDLE_TONES
from apps.quotas.models import Workspace
from apps.teams.models import Team, Unit
from portal.panels import nav, panel

nav("Findings", "insights:finding-list", icon="search", order=50, permission="insights.finding.view", group="Work")
nav(
    "Idle workloads", "insights:idle-list", icon="hourglass", order=55, permission="insights.finding.view", group="Work"
)
nav(
    "Workloads by month", "insights:workload-list", icon="list", order=15, permission="costs.charge.view", group="Money"
)
_SHOWN = 5


@panel(page="home", order=30, permission="insights.finding.decide")
def home(request: HttpRequest, obj: Any) -> dict[str, Any] | None:
    """What lies idle in the person's teams, in sum, and the workloads that are about to be stopped."""
    return _findings(
        request, selectors.open_findings(request.user), selectors.open_cases(request.user, status="noticed")
    )


@panel(page="team", order=40, permission="insights.finding.view")
def team(request: HttpRequest, team: Team) -> dict[str, Any] | None:
    """What lies idle in the team."""
    return _findings(
        request, selectors.open_findings(request.user, team=team), selectors.open_cases(request.user, team=team)
    )


@panel(page="unit", order=40, permission="insights.finding.view")
def unit(request: HttpRequest, unit: Unit) -> dict[str, Any] | None:
    """What lies idle in the unit's teams, in sum."""
    where = {"team__unit__path__contains": [unit.pk]}
    return _findings(request, selectors.open_findings(request.user, **where), [])


def _findings(request: HttpRequest, findings: list[Any], cases: list[IdleCase]) -> dict[str, Any] | None:
    if not findings and not cases:
        return None
    return {
        "template": "insights/panels/findings.html",
        "summary": selectors.summary(findings),
        "rows": [(row, selectors.cost_of(row)) for row in findings[:_SHOWN]],
        "more": max(0, len(findings) - _SHOWN),
        "cases": cases[:_SHOWN],
        "tones": IDLE_TONES,
    }


@panel(page="workspace", order=60, permission="insights.finding.view")
def workspace(request: HttpRequest, workspace: Workspace) -> dict[str, Any]:
    """The approved idle policy, what is idle now, and what stopping saved."""
    cases = list(
        IdleCase.objects.filter(workspace=workspace)
        .select_related("team", "workspace__cluster", "flavour")
        .order_by("-noticed_at", "-pk")[:50]
    )
    shown = [case for case in cases if case.status in idle.OPEN]
    return {
        "template": "insights/panels/workspace.html",
        "workspace": workspace,
        "policy": idle.words(workspace.idle_policy),
        "cases": shown[:_SHOWN],
        "tones": IDLE_TONES,
        "saved": selectors.saved_by(cases) if any(case.stopped_at for case in cases) else None,
        "saved_rule": SAVED_RULE,
        "may_change": workspace.archived_at is None and may(request.user, "quotas.change.create", workspace),
    }
