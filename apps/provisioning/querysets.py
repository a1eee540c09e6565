"""Who sees declarations, plans and runs: the owner team's people and those who run the platform."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from django.db.models import Q

from apps.core import clock
from apps.core.querysets import ScopedQuerySet

if TYPE_CHECKING:
    from apps.provisioning.models import (
        ApplyRun,
        Declaration,
        DeclaredObject,
        Drift,
        Observation,
        Plan,
        QueueEntry,
        QueueWait,
        StopOrder,
    )


def _owned(user: Any, field: str) -> Q:
    from apps.teams import scope

    scopes = scope.of(user)
    if scopes.everywhere("provisioning.declaration.view"):
        return Q()
    # A declaration without a team is a cluster's baseline: platform only.
    return scopes.team_filter("provisioning.declaration.view", field=field)


class DeclarationQuerySet(ScopedQuerySet["Declaration"]):
    """Declarations."""

    def visible_to(self, user: Any) -> Self:
        """Return the declarations of visible teams."""
        return self.filter(_owned(user, "team"))


class DeclaredObjectQuerySet(ScopedQuerySet["DeclaredObject"]):
    """Declared objects."""

    def visible_to(self, user: Any) -> Self:
        """Return the objects of visible declarations."""
        return self.filter(_owned(user, "declaration__team"))


class PlanQuerySet(ScopedQuerySet["Plan"]):
    """Plans."""

    def visible_to(self, user: Any) -> Self:
        """Return the plans of visible teams."""
        return self.filter(_owned(user, "team"))


class ApplyRunQuerySet(ScopedQuerySet["ApplyRun"]):
    """Apply runs."""

    def visible_to(self, user: Any) -> Self:
        """Return the runs of visible declarations."""
        return self.filter(_owned(user, "declaration__team"))


class ObservationQuerySet(ScopedQuerySet["Observation"]):
    """Observed objects."""

    def visible_to(self, user: Any) -> Self:
        """Return the observations of visible declarations."""
        return self.filter(_owned(user, "declaration__team"))


class DriftQuerySet(ScopedQuerySet["Drift"]):
    """Drift findings."""

    def open(self) -> Self:
        """Return what lives differently now and nobody decided to leave for a while."""
        at = clock.now()
        return self.filter(Q(ignored_until__isnull=True) | Q(ignored_until__lte=at), resolved_at__isnull=True)

    def ignored(self) -> Self:
        """Return what lives differently and is left alone for now."""
        return self.filter(resolved_at__isnull=True, ignored_until__gt=clock.now())

    def visible_to(self, user: Any) -> Self:
        """Return the drift of visible declarations."""
        return self.filter(_owned(user, "declaration__team"))


class StopOrderQuerySet(ScopedQuerySet["StopOrder"]):
    """Orders to stop a workload."""

    def visible_to(self, user: Any) -> Self:
        """Return the orders of visible teams."""
        return self.filter(_owned(user, "team"))


class QueueEntryQuerySet(ScopedQuerySet["QueueEntry"]):
    """Waiting workloads. A namespace is a tenant's: the rooms above open single rows by their workspace."""

    def visible_to(self, user: Any) -> Self:
        """Return the entries to those who may view declarations everywhere; tenants read theirs by workspace."""
        from apps.teams import scope

        return self.all() if scope.of(user).everywhere("provisioning.declaration.view") else self.none()


class QueueWaitQuerySet(ScopedQuerySet["QueueWait"]):
    """History of waiting times."""

    def visible_to(self, user: Any) -> Self:
        """Return the history to those who may view declarations everywhere."""
        from apps.teams import scope

        return self.all() if scope.of(user).everywhere("provisioning.declaration.view") else self.none()
