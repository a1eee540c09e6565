"""Who sees periods, statements and what belongs to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from django.db.models import Q

from apps.core.permissions import may
from apps.core.querysets import ScopedQuerySet

if TYPE_CHECKING:
    from apps.costs.adjusting_models import Bill, Correction, Credit, CrossCheck, Dispute, UnitBilling
    from apps.costs.cross_check_models import CheckSetting
    from apps.costs.period_models import (
        DistributionPolicy,
        Period,
        ReopenRequest,
        Statement,
        StatementFile,
        StatementLine,
    )
    from apps.costs.running_models import RunningStatement


def _statements(user: Any) -> Q:
    from apps.teams import scope

    return scope.of(user).row_filter("costs.statement.view", team="team_id", unit="unit_id")


class PeriodQuerySet(ScopedQuerySet["Period"]):
    """Billing months: whoever reads statements may know how a month stands."""

    def visible_to(self, user: Any) -> Self:
        """Return all months to those who may view some statement."""
        return self.all() if may(user, "costs.statement.view") else self.none()


class DistributionQuerySet(ScopedQuerySet["DistributionPolicy"]):
    """Distribution policies are named on statements: whoever reads those may read these."""

    def visible_to(self, user: Any) -> Self:
        """Return all policies to those who may view some statement."""
        return self.all() if may(user, "costs.statement.view") else self.none()


class ReopenQuerySet(ScopedQuerySet["ReopenRequest"]):
    """Requests to open a month again concern the whole installation."""

    def visible_to(self, user: Any) -> Self:
        """Return all requests to those who read statements everywhere."""
        from apps.teams import scope

        return self.all() if scope.of(user).everywhere("costs.statement.view") else self.none()


class StatementQuerySet(ScopedQuerySet["Statement"]):
    """Statements by the team and unit on the row."""

    def visible_to(self, user: Any) -> Self:
        """Return the statements whose team or unit, as frozen, lies in the person's scope."""
        return self.filter(_statements(user))


class RunningQuerySet(ScopedQuerySet["RunningStatement"]):
    """Running statements by the team and unit on the row, as statements."""

    def visible_to(self, user: Any) -> Self:
        """Return those whose team or unit lies in the person's scope."""
        return self.filter(_statements(user))


class LineQuerySet(ScopedQuerySet["StatementLine"]):
    """Lines of statements."""

    def visible_to(self, user: Any) -> Self:
        """Return the lines of statements in the person's scope."""
        from apps.costs.period_models import Statement

        return self.filter(statement__in=Statement.objects.visible_to(user))


class FileQuerySet(ScopedQuerySet["StatementFile"]):
    """Files: of a statement as that; of a whole period for the installation's readers."""

    def visible_to(self, user: Any) -> Self:
        """Return the files of visible statements, and those of periods to who reads statements everywhere."""
        from apps.costs.period_models import Statement
        from apps.teams import scope

        if scope.of(user).everywhere("costs.statement.view"):
            return self.all()
        return self.filter(statement__in=Statement.objects.visible_to(user))


class CorrectionQuerySet(ScopedQuerySet["Correction"]):
    """Corrections by the team and unit on the row."""

    def visible_to(self, user: Any) -> Self:
        """Return the corrections whose team or unit lies in the person's scope."""
        return self.filter(_statements(user))


class CreditQuerySet(ScopedQuerySet["Credit"]):
    """Credits by team."""

    def visible_to(self, user: Any) -> Self:
        """Return the credits of teams in scope."""
        from apps.teams import scope

        return self.filter(scope.of(user).team_filter("costs.statement.view"))


class DisputeQuerySet(ScopedQuerySet["Dispute"]):
    """Disputes by team or unit."""

    def visible_to(self, user: Any) -> Self:
        """Return the disputes of teams and units in scope."""
        return self.filter(_statements(user))


class CrossCheckQuerySet(ScopedQuerySet["CrossCheck"]):
    """Comparisons with other systems concern a whole cluster."""

    def visible_to(self, user: Any) -> Self:
        """Return all comparisons to those who read statements everywhere."""
        from apps.teams import scope

        return self.all() if scope.of(user).everywhere("costs.statement.view") else self.none()


class CheckSettingQuerySet(ScopedQuerySet["CheckSetting"]):
    """How clusters are compared with other systems."""

    def visible_to(self, user: Any) -> Self:
        """Return all settings to those who read statements everywhere."""
        from apps.teams import scope

        return self.all() if scope.of(user).everywhere("costs.statement.view") else self.none()


class BillQuerySet(ScopedQuerySet["Bill"]):
    """Invoices concern a whole cluster."""

    def visible_to(self, user: Any) -> Self:
        """Return all bills to those who read statements everywhere."""
        from apps.teams import scope

        return self.all() if scope.of(user).everywhere("costs.statement.view") else self.none()


class UnitBillingQuerySet(ScopedQuerySet["UnitBilling"]):
    """How units are billed."""

    def visible_to(self, user: Any) -> Self:
        """Return the modes of units in which the person may view statements."""
        from apps.teams import scope

        units = [unit.pk for unit in scope.of(user).units_with("costs.statement.view")]
        everywhere = scope.of(user).everywhere("costs.statement.view")
        return self.all() if everywhere else self.filter(unit_id__in=units)
