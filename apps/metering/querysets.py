"""Who sees sources, runs, hours, facts and proofs."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from apps.core import clock
from apps.core.querysets import ScopedQuerySet

if TYPE_CHECKING:
    from apps.metering.models import (
        CapacityLine,
        DayUsage,
        HourFact,
        HourStatus,
        IngestRun,
        NamespaceOwner,
        ResourceFact,
        ResourceRule,
        Source,
        SourceCheck,
        SourceProof,
        SourceWaiver,
        UsageInterval,
        WorkspaceClass,
    )


def _may_see_runs(user: Any) -> bool:
    from apps.teams import scope

    return scope.of(user).everywhere("metering.run.view")


class SourceQuerySet(ScopedQuerySet["Source"]):
    """Sources."""

    def visible_to(self, user: Any) -> Self:
        """Return all sources to those who may view ingest runs."""
        return self.all() if _may_see_runs(user) else self.none()

    def in_force(self, at: datetime | None = None) -> Self:
        """Return the sources of record at `at` (default: now)."""
        return self.filter(valid__contains=at or clock.now())


class RunQuerySet(ScopedQuerySet["IngestRun"]):
    """Ingest runs."""

    def visible_to(self, user: Any) -> Self:
        """Return all runs to those who may view them for the installation."""
        return self.all() if _may_see_runs(user) else self.none()


class HourStatusQuerySet(ScopedQuerySet["HourStatus"]):
    """Completeness by cluster and hour."""

    def visible_to(self, user: Any) -> Self:
        """Return all hours to those who may view runs (reports show completeness through selectors)."""
        return self.all() if _may_see_runs(user) else self.none()


class HourFactQuerySet(ScopedQuerySet["HourFact"]):
    """Facts by the team and unit on the row."""

    def visible_to(self, user: Any) -> Self:
        """Return the facts whose team or unit, as of that hour, lies in the person's scope."""
        from apps.teams import scope

        return self.filter(scope.of(user).row_filter("metering.fact.view", team="team_id", unit="unit_id"))


class DayUsageQuerySet(ScopedQuerySet["DayUsage"]):
    """Daily usage by the team and unit on the row."""

    def visible_to(self, user: Any) -> Self:
        """Return the rows whose team or unit, as of that day, lies in the person's scope."""
        from apps.teams import scope

        return self.filter(scope.of(user).row_filter("metering.fact.view", team="team_id", unit="unit_id"))


class CapacityLineQuerySet(ScopedQuerySet["CapacityLine"]):
    """Capacity lines: of owners in scope; all to those who may see runs."""

    def visible_to(self, user: Any) -> Self:
        """Return the lines of the person's teams, and everything to those who may view ingest runs."""
        from apps.teams import scope

        if _may_see_runs(user):
            return self.all()
        owned = scope.of(user).row_filter("metering.fact.view", team="team_id", unit="unit_id")
        return self.filter(owned, team_id__isnull=False)


class ProofQuerySet(ScopedQuerySet["SourceProof"]):
    """Source proofs hold a whole cluster's readings: shown only as an excerpt beside a visible fact, or to admins."""

    def visible_to(self, user: Any) -> Self:
        """Return all proofs to those who may view ingest runs."""
        return self.all() if _may_see_runs(user) else self.none()


class IntervalQuerySet(ScopedQuerySet["UsageInterval"]):
    """Imported intervals."""

    def visible_to(self, user: Any) -> Self:
        """Return all intervals to those who may view ingest runs."""
        return self.all() if _may_see_runs(user) else self.none()


class ResourceFactQuerySet(ScopedQuerySet["ResourceFact"]):
    """Facts of CPU, memory, storage and egress by the team and unit on the row."""

    def visible_to(self, user: Any) -> Self:
        """Return the facts whose team or unit, as of that hour, lies in the person's scope."""
        from apps.teams import scope

        return self.filter(scope.of(user).row_filter("metering.fact.view", team="team_id", unit="unit_id"))


class CheckQuerySet(ScopedQuerySet["SourceCheck"]):
    """Self-tests of sources."""

    def visible_to(self, user: Any) -> Self:
        """Return all self-tests to those who may view ingest runs."""
        return self.all() if _may_see_runs(user) else self.none()


class WaiverQuerySet(ScopedQuerySet["SourceWaiver"]):
    """Waivers of sources."""

    def visible_to(self, user: Any) -> Self:
        """Return all waivers to those who may view ingest runs."""
        return self.all() if _may_see_runs(user) else self.none()

    def standing(self, at: datetime | None = None) -> Self:
        """Return the waivers that count at `at` (default: now)."""
        return self.filter(valid__contains=at or clock.now(), revoked_at__isnull=True)


class RuleQuerySet(ScopedQuerySet["ResourceRule"]):
    """The table of resources: everybody signed in may know how shares of a GPU are counted."""

    def visible_to(self, user: Any) -> Self:
        """Return all rules to any active person."""
        return self.all() if getattr(user, "is_authenticated", False) and user.is_active else self.none()


class NamespaceOwnerQuerySet(ScopedQuerySet["NamespaceOwner"]):
    """Claimed namespaces."""

    def visible_to(self, user: Any) -> Self:
        """Return the claims of teams in the person's scope."""
        from apps.teams import scope

        return self.filter(scope.of(user).team_filter("metering.fact.view"))


class WorkspaceClassQuerySet(ScopedQuerySet["WorkspaceClass"]):
    """Service classes of workspaces."""

    def visible_to(self, user: Any) -> Self:
        """Return the classes of workspaces whose team lies in the person's scope."""
        from apps.teams import scope

        return self.filter(scope.of(user).team_filter("metering.fact.view", field="workspace__team"))
