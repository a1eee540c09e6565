"""Who sees clusters, pools and flavours.

Clusters and pools carry no tenant data: names, capacity and health are visible to every signed-in person who may see
a quota anywhere (design invariant 10 allows pool aggregates); management pages ask for their own permissions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from apps.core.querysets import ScopedQuerySet

if TYPE_CHECKING:
    from apps.clusters.models import (
        Cluster,
        ClusterCheck,
        ClusterPlace,
        Flavour,
        MaintenanceWindow,
        Node,
        Pool,
        PoolCapacity,
    )


class ClusterQuerySet(ScopedQuerySet["Cluster"]):
    """Clusters."""

    def visible_to(self, user: Any) -> Self:
        """Return all clusters to those who may view clusters for the installation."""
        from apps.teams import scope

        return self.all() if scope.of(user).everywhere("clusters.cluster.view") else self.none()


class FlavourQuerySet(ScopedQuerySet["Flavour"]):
    """Flavours: what can be asked for; open to everybody signed in."""

    def visible_to(self, user: Any) -> Self:
        """Return all flavours to any active person."""
        return self.all() if getattr(user, "is_authenticated", False) and user.is_active else self.none()


class PoolQuerySet(ScopedQuerySet["Pool"]):
    """Pools."""

    def visible_to(self, user: Any) -> Self:
        """Return all pools to those who may view pools anywhere; the quotas room opens single aggregates to tenants."""
        from apps.teams import scope

        return self.all() if scope.of(user).anywhere("clusters.pool.view") else self.none()


class PoolCapacityQuerySet(ScopedQuerySet["PoolCapacity"]):
    """Dated capacity of pools."""

    def visible_to(self, user: Any) -> Self:
        """Return the capacity rows of visible pools."""
        from apps.teams import scope

        return self.all() if scope.of(user).anywhere("clusters.pool.view") else self.none()


class NodeQuerySet(ScopedQuerySet["Node"]):
    """Inventory of nodes."""

    def visible_to(self, user: Any) -> Self:
        """Return nodes to those who may view clusters for the installation."""
        from apps.teams import scope

        return self.all() if scope.of(user).everywhere("clusters.cluster.view") else self.none()


class ClusterCheckQuerySet(ScopedQuerySet["ClusterCheck"]):
    """Checks of clusters."""

    def visible_to(self, user: Any) -> Self:
        """Return checks to those who may view clusters for the installation."""
        from apps.teams import scope

        return self.all() if scope.of(user).everywhere("clusters.cluster.view") else self.none()


class ClusterPlaceQuerySet(ScopedQuerySet["ClusterPlace"]):
    """Where clusters stood."""

    def visible_to(self, user: Any) -> Self:
        """Return them to those who may view clusters for the installation."""
        from apps.teams import scope

        return self.all() if scope.of(user).everywhere("clusters.cluster.view") else self.none()


class MaintenanceWindowQuerySet(ScopedQuerySet["MaintenanceWindow"]):
    """Maintenance windows."""

    def visible_to(self, user: Any) -> Self:
        """Return windows to those who may view clusters for the installation."""
        from apps.teams import scope

        return self.all() if scope.of(user).everywhere("clusters.cluster.view") else self.none()
