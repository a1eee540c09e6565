"""Home per role, team and unit overviews, the monthly report: composition only, figures come from their rooms."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.urls import reverse

from apps.core.errors import NotVisible
from apps.core.hooks import record_export
from apps.core.middleware import after_read
from apps.core.pages import Crumb, DetailView, PageView
from apps.core.permissions import may
from apps.reports import cells, events, export, months, selectors
from apps.reports.folding import fold
from apps.teams import scope
from apps.teams.choices import Role
from apps.teams.models import Team, Unit
from portal.panels import panels_for


class HomeView(PageView):
    """What is this person's to know and to do: the panels of every role they hold."""

    title = "Home"
    template_name = "reports/home.html"
    scope_free = "composed of panels, each of which scopes its own rows"

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the panels and the person's teams and units."""
        user = self.request.user
        scopes = scope.of(user)
        roles = [Role(role).label for role in Role.values if role in scopes.roles()]
        teams, units = selectors.own_teams(user), selectors.own_units(user)
        return super().get_context(
            panels=panels_for("home", self.request, None),
            teams=teams,
            units=units,
            rows=selectors.home_rows(teams, units) if teams or units else [],
            reader_of=selectors.report_units(user)[:1] if not teams and not units else [],
            month=months.this_month(),
            role_names=roles,
            **extra,
        )


class TeamView(DetailView):
    """A team's workspaces, quota, cost, what runs and what is asked for."""

    queryset = Team.objects.select_related("unit")
    lookup = "slug"
    permission = "teams.team.view"
    template_name = "reports/team.html"

    def breadcrumbs(self) -> list[Crumb]:
        """Lead to the unit where the person may see it."""
        unit = self.object.unit
        if may(self.request.user, "teams.unit.view", unit):
            return [Crumb(unit.name, reverse("reports:unit", kwargs={"unit_slug": unit.slug}))]
        return [Crumb(unit.name)]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the rooms' panels."""
        return super().get_context(
            panels=panels_for("team", self.request, self.object),
            may_request=may(self.request.user, "quotas.request.create", self.object),
            **extra,
        )


class UnitView(DetailView):
    """A unit: its teams with cost and budget, and what waits."""

    queryset = Unit.objects.select_related("parent")
    lookup = "slug"
    permission = "teams.unit.view"
    template_name = "reports/unit.html"

    def breadcrumbs(self) -> list[Crumb]:
        """Lead to the parent unit where the person may see it."""
        parent = self.object.parent
        if parent is not None and may(self.request.user, "teams.unit.view", parent):
            return [Crumb(parent.name, reverse("reports:unit", kwargs={"unit_slug": parent.slug}))]
        return []

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the teams below with their month to date, and the rooms' panels."""
        return super().get_context(
            rows=selectors.unit_rows(self.object),
            panels=panels_for("unit", self.request, self.object),
            may_report=may(self.request.user, "reports.monthly.view", self.object),
            month=months.this_month(),
            **extra,
        )


class LatestReportView(PageView):
    """Leads to the report of the latest completed month, of the person's highest unit or of the one in the URL."""

    title = "Monthly report"
    template_name = "reports/no_report.html"
    permission = "reports.monthly.view"
    queryset = Unit.objects.all()

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Redirect to the report, or say that there is no unit to report on. Raises NotVisible for a foreign unit."""
        units = selectors.report_units(request.user)
        if slug := kwargs.get("unit_slug"):
            units = [unit for unit in units if unit.slug == slug]
            if not units:
                raise NotVisible
        if not units:
            return self.page()
        month = months.latest_completed().strftime("%Y-%m")
        return HttpResponseRedirect(reverse("reports:monthly", kwargs={"unit_slug": units[0].slug, "month": month}))


class ReportPage(DetailView):
    """Base of what shows one unit's month: the unit out of the person's subtree, the month out of the address."""

    queryset = Unit.objects.all()
    lookup = "slug"
    permission = "reports.monthly.view"

    def get_title(self) -> str:
        """Name the unit and the month."""
        return f"{self.object.name}: {self.month:%B %Y}"

    def breadcrumbs(self) -> list[Crumb]:
        """Lead to the unit."""
        return [
            Crumb(self.object.name, reverse("reports:unit", kwargs={"unit_slug": self.object.slug})),
            Crumb("Monthly report", reverse("reports:monthly-unit", kwargs={"unit_slug": self.object.slug})),
        ]

    def get_object(self) -> Unit:
        """Return the unit out of the person's subtree, which the report needs anyway. Raises NotVisible."""
        visible = scope.of(self.request.user).units_with("teams.unit.view")
        unit = next((one for one in visible if one.slug == self.get_lookup_value()), None)
        if unit is None:
            raise NotVisible
        return unit

    def prepare(self) -> None:
        """Load the unit and read the month. Raises NotVisible for a month that is none."""
        super().prepare()
        self.month = months.parse(self.kwargs["month"])


class MonthlyReportView(ReportPage):
    """One unit's month: cost and use per team, change, what was left unallocated, by day; as page and as CSV."""

    template_name = "reports/monthly.html"

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Show the report, or give it as CSV (recorded in the audit trail)."""
        report = selectors.monthly_report(self.object, self.month, request.user)
        every = "all" in request.GET
        shown = fold(report, every=every)
        extras = selectors.report_extras(self.object, report, shown, request.user)
        if request.GET.get("export") == "csv":
            payload = events.ReportExported(
                unit_uid=self.object.uid, unit_slug=self.object.slug, month=f"{self.month:%Y-%m}", format="csv"
            )
            actor = self.actor
            after_read(request, lambda: record_export(events.REPORT_EXPORTED, payload, actor))
            return export.csv_response(self.object, report)
        if extras.closed:  # Folded again: a closed month's lines are what its statements say.
            shown = fold(report, every=every)
        platform = request.GET.get("platform") != "0"
        explained = selectors.explained(report, shown)
        context = selectors.report_context(self.object, self.month, report, request.user)
        columns = cells.Columns(context["resources"], extras.closed, platform)
        return self.page(
            report=report,
            shown=shown,
            extras=extras,
            explained=explained,
            platform=platform,
            so_far_hint=selectors.so_far_hint(extras),
            team_cells=cells.team_rows(shown.lines, context["month_text"], columns),
            effect_cells=cells.effect_rows(explained.teams) if explained else "",
            day_cells=cells.day_rows(context["day_rows"]),
            **context,
        )
