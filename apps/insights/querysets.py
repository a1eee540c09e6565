"""Who sees findings and idle cases: the people of the team they are about, and those who read everything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from apps.core.querysets import ScopedQuerySet

if TYPE_CHECKING:
    from apps.insights.models import Finding, IdleCase


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
