"""Who sees findings and idle cases: the people of the team they are about, and those who read everything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from apps.core.querysets import ScopedQuerySet

if TYPE_CHECKING:
    from apps.insights.models import Finding, IdleCase
    from apps.insights.report_models import ReportFile, ReportSent, WorkloadMonth


class FindingQuerySet(ScopedQuerySet["Finding"]):
    """Findings by team."""

    def visible_to(self, user: Any) -> Self:
        """Return the findings of visible teams; one without a team is the platform's."""
        from apps.teams import scope

        return self.filter(scope.of(user).team_filter("insights.finding.view"))


class IdleCaseQuerySet(ScopedQuerySet["IdleCase"]):
    """Idle cases by team."""

    def visible_to(self, user: Any) -> Self:
        """Return the idle cases of visible teams."""
        from apps.teams import scope

        return self.filter(scope.of(user).team_filter("insights.finding.view"))


class WorkloadMonthQuerySet(ScopedQuerySet["WorkloadMonth"]):
    """Workloads by the team and unit on the row."""

    def visible_to(self, user: Any) -> Self:
        """Return the rows whose team or unit, as of that month, lies in the person's scope."""
        from apps.teams import scope

        return self.filter(scope.of(user).row_filter("costs.charge.view", team="team_id", unit="unit_id"))


class ReportFileQuerySet(ScopedQuerySet["ReportFile"]):
    """Reports by unit."""

    def visible_to(self, user: Any) -> Self:
        """Return the reports of units whose report the person may read."""
        from apps.teams import scope

        return self.filter(scope.of(user).unit_filter("reports.monthly.view", field="unit"))


class ReportSentQuerySet(ScopedQuerySet["ReportSent"]):
    """Reports that were mailed, by unit."""

    def visible_to(self, user: Any) -> Self:
        """Return those of units whose report the person may read."""
        from apps.teams import scope

        return self.filter(scope.of(user).unit_filter("reports.monthly.view", field="unit"))
