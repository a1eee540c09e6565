"""Endpoints and releases in the navigation and on the pages of teams, workspaces and versions."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.urls import reverse

from apps.catalogue import selectors as versions
from apps.catalogue.choices import VersionStatus
from apps.catalogue.models import ModelVersion
from apps.core.permissions import may
from apps.deployments import selectors
from apps.deployments.choices import ON_CLUSTER
from apps.deployments.forms import may_deploy_to
from apps.deployments.models import Release
from apps.quotas.models import Workspace
from apps.teams.models import Team
from portal.panels import nav, panel

nav(
    "Endpoints", "deployments:endpoint-list", icon="server", order=40, permission="deployments.endpoint.view",
    group="Models",
)  # fmt: skip
nav(
    "Releases", "deployments:release-list", icon="list", order=45, permission="deployments.endpoint.view",
    group="Models",
)  # fmt: skip
nav(
    "Placement rules", "deployments:rule-list", icon="shield-check", order=80, permission="approvals.policy.view",
    group="Models",
)  # fmt: skip
#: So many endpoints stand on a team's page; the rest is in the list.
_SHOWN = 12


@panel(page="team", order=40, permission="deployments.endpoint.view")
def team_endpoints(request: HttpRequest, team: Team) -> dict[str, Any] | None:
    """What the team serves."""
    rows = selectors.endpoints_of(team.pk, request.user, limit=_SHOWN)
    may_release = may(request.user, "deployments.release.create", team)
    if not rows and not may_release:
        return None
    more = len(rows) > _SHOWN
    return {
        "template": "deployments/panels/endpoints.html",
        "endpoints": rows[:_SHOWN],
        "more_url": f"{reverse('deployments:endpoint-list')}?team={team.pk}" if more else "",
        "create_url": reverse("deployments:release-create") if may_release else "",
    }


@panel(page="workspace", order=30, permission="deployments.endpoint.view")
def workspace_endpoints(request: HttpRequest, workspace: Workspace) -> dict[str, Any] | None:
    """What serves in the workspace."""
    rows = selectors.endpoints_in(workspace.pk, request.user)
    may_release = may(request.user, "deployments.release.create", workspace) and workspace.archived_at is None
    if not rows and not may_release:
        return None
    create = f"{reverse('deployments:release-create')}?workspace={workspace.uid}"
    return {
        "template": "deployments/panels/endpoints.html",
        "endpoints": rows,
        "create_url": create if may_release else "",
    }


@panel(page="model_version", order=40, permission="catalogue.model.view")
def version_releases(request: HttpRequest, version: ModelVersion) -> dict[str, Any] | None:
    """Where the version serves, and the way to deploy it where an approval lets it."""
    if version.status != VersionStatus.SEALED:
        return None
    rows = (
        Release.objects.visible_to(request.user)
        .filter(model_version=version, status__in=ON_CLUSTER)
        .select_related("endpoint__workspace__cluster")
        .defer("change", "spec")
        .order_by("endpoint__name", "pk")
    )
    may_release = may(request.user, "deployments.release.create", None) and may_deploy_to(request.user).exists()
    usable = may_release and bool(versions.usable_among([version.digest]))
    create = f"{reverse('deployments:release-create')}?version={version.uid}"
    return {
        "template": "deployments/panels/version.html",
        "releases": list(rows[:_SHOWN]),
        "create_url": create if usable else "",
        "not_approved": may_release and not usable,
    }
