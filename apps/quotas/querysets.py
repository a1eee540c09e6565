"""Who sees workspaces, quotas and quota requests."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from django.db.models import Q

from apps.core import clock
from apps.core.querysets import ScopedQuerySet

if TYPE_CHECKING:
    from apps.quotas.models import ChangeRequest, NamespaceReading, Quota, QuotaRequest, Workspace


class WorkspaceQuerySet(ScopedQuerySet["Workspace"]):
    """Workspaces by team."""

    def visible_to(self, user: Any) -> Self:
        """Return the workspaces of visible teams."""
        from apps.teams import scope

        return self.filter(scope.of(user).team_filter("quotas.workspace.view"))


class QuotaQuerySet(ScopedQuerySet["Quota"]):
    """Quotas by their workspace's team."""

    def visible_to(self, user: Any) -> Self:
        """Return the quotas of visible teams."""
        from apps.teams import scope

        return self.filter(scope.of(user).team_filter("quotas.quota.view", field="workspace__team"))

    def in_force(self, at: datetime | None = None) -> Self:
        """Return the quotas valid at `at` (default: now)."""
        return self.filter(valid__contains=at or clock.now())


class QuotaRequestQuerySet(ScopedQuerySet["QuotaRequest"]):
    """Quota requests by their workspace's team."""

    def visible_to(self, user: Any) -> Self:
        """Return the requests of visible teams."""
        from apps.teams import scope

        return self.filter(scope.of(user).team_filter("quotas.request.view", field="workspace__team"))


class ChangeRequestQuerySet(ScopedQuerySet["ChangeRequest"]):
    """Change requests: a workspace's by its team; a cluster's own for those who may view clusters anywhere."""

    def visible_to(self, user: Any) -> Self:
        """Return the change requests of visible teams, and of clusters to those who run or audit them."""
        from apps.teams import scope

        scopes = scope.of(user)
        seen = Q(workspace__isnull=False) & scopes.team_filter("quotas.request.view", field="workspace__team")
        seen |= Q(receiver__isnull=False) & scopes.team_filter("quotas.request.view", field="receiver")
        if scopes.anywhere("clusters.cluster.view"):
            seen |= Q(workspace__isnull=True, receiver__isnull=True)
        return self.filter(seen)


class NamespaceReadingQuerySet(ScopedQuerySet["NamespaceReading"]):
    """Readings of namespaces that nobody has been given yet."""

    def visible_to(self, user: Any) -> Self:
        """Return all to those who make workspaces everywhere: what lives there may be anybody's."""
        from apps.teams import scope

        return self.all() if scope.of(user).everywhere("quotas.workspace.manage") else self.none()
