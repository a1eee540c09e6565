"""Who sees deployments: the people of the workspace's team and above, and those who read everything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from apps.core.querysets import ScopedQuerySet

if TYPE_CHECKING:
    from apps.deployments.models import (
        DriftReading,
        Endpoint,
        Enforcement,
        EnforcementNote,
        Objective,
        ObjectiveReading,
        PlacementRule,
        PlacementStatement,
        Release,
        RolloutStep,
        ServingInterval,
        ServingSample,
    )

VIEW = "deployments.endpoint.view"


class EndpointQuerySet(ScopedQuerySet["Endpoint"]):
    """Endpoints."""

    def visible_to(self, user: Any) -> Self:
        """Return the rows of workspaces whose team lies in the person's scope."""
        from apps.teams import scope

        return self.filter(scope.of(user).team_filter(VIEW, field="workspace__team"))


class ReleaseQuerySet(ScopedQuerySet["Release"]):
    """Releases."""

    def visible_to(self, user: Any) -> Self:
        """Return the rows of workspaces whose team lies in the person's scope."""
        from apps.teams import scope

        return self.filter(scope.of(user).team_filter(VIEW, field="endpoint__workspace__team"))


class RolloutStepQuerySet(ScopedQuerySet["RolloutStep"]):
    """Steps of rollouts."""

    def visible_to(self, user: Any) -> Self:
        """Return the rows of workspaces whose team lies in the person's scope."""
        from apps.teams import scope

        return self.filter(scope.of(user).team_filter(VIEW, field="endpoint__workspace__team"))


class ServingIntervalQuerySet(ScopedQuerySet["ServingInterval"]):
    """What ran where."""

    def visible_to(self, user: Any) -> Self:
        """Return the rows of workspaces whose team lies in the person's scope."""
        from apps.teams import scope

        return self.filter(scope.of(user).team_filter(VIEW, field="workspace__team"))


class ServingSampleQuerySet(ScopedQuerySet["ServingSample"]):
    """Samples."""

    def visible_to(self, user: Any) -> Self:
        """Return the rows of workspaces whose team lies in the person's scope."""
        from apps.teams import scope

        return self.filter(scope.of(user).team_filter(VIEW, field="endpoint__workspace__team"))


class ObjectiveQuerySet(ScopedQuerySet["Objective"]):
    """Objectives."""

    def visible_to(self, user: Any) -> Self:
        """Return the rows of workspaces whose team lies in the person's scope."""
        from apps.teams import scope

        return self.filter(scope.of(user).team_filter(VIEW, field="endpoint__workspace__team"))


class ObjectiveReadingQuerySet(ScopedQuerySet["ObjectiveReading"]):
    """Readings of objectives."""

    def visible_to(self, user: Any) -> Self:
        """Return the rows of workspaces whose team lies in the person's scope."""
        from apps.teams import scope

        return self.filter(scope.of(user).team_filter(VIEW, field="objective__endpoint__workspace__team"))


class DriftReadingQuerySet(ScopedQuerySet["DriftReading"]):
    """Drift readings."""

    def visible_to(self, user: Any) -> Self:
        """Return the rows of workspaces whose team lies in the person's scope."""
        from apps.teams import scope

        return self.filter(scope.of(user).team_filter(VIEW, field="endpoint__workspace__team"))


class EnforcementQuerySet(ScopedQuerySet["Enforcement"]):
    """Enforcement of workspaces."""

    def visible_to(self, user: Any) -> Self:
        """Return the rows of workspaces whose team lies in the person's scope."""
        from apps.teams import scope

        return self.filter(scope.of(user).team_filter(VIEW, field="workspace__team"))


class EnforcementNoteQuerySet(ScopedQuerySet["EnforcementNote"]):
    """Notes of enforcement."""

    def visible_to(self, user: Any) -> Self:
        """Return the rows of workspaces whose team lies in the person's scope."""
        from apps.teams import scope

        return self.filter(scope.of(user).team_filter(VIEW, field="workspace__team"))


class PlacementRuleQuerySet(ScopedQuerySet["PlacementRule"]):
    """Placement rules: everybody signed in may read the rules they are judged by."""

    def visible_to(self, user: Any) -> Self:
        """Return all to any active person."""
        signed_in = bool(getattr(user, "is_authenticated", False) and user.is_active)
        return self.all() if signed_in else self.none()


class PlacementStatementQuerySet(ScopedQuerySet["PlacementStatement"]):
    """Signed statements of placement, over all teams."""

    def visible_to(self, user: Any) -> Self:
        """Return all to those who may read placement everywhere."""
        from apps.teams import scope

        if not getattr(user, "is_authenticated", False):
            return self.none()
        return self.all() if scope.of(user).everywhere("deployments.placement.view") else self.none()
