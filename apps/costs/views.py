"""Pages of the costs room: from a team's month down to the fact and its proof; charges; budgets."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any
from urllib.parse import urlencode

from django.db.models import OuterRef, Subquery
from django.http import HttpResponseBase
from django.urls import reverse

from apps.clusters.models import Cluster
from apps.core import clock, exports
from apps.core.charts import Series, hours, stacked_bars
from apps.core.errors import Invalid, NotVisible
from apps.core.hooks import record_export
from apps.core.middleware import after_read
from apps.core.money import Money
from apps.core.permissions import may
from apps.core.views import Crumb, ListView, PageView
from apps.costs import actions, budget_figures, charge_stream, selectors
from apps.costs.drill_pages import page_of, sensible
from apps.costs.drilldown import Downloadable, Table, day_rows, fact_rows, hour_rows, month_rows
from apps.costs.events import CHARGES_EXPORTED
from apps.costs.models import Charge, DayCharge
from apps.costs.overview import money_of
from apps.costs.tables import ChargeFilter, ChargeTable
from apps.metering import billing
from apps.metering.models import HourFact
from apps.metering.selectors import completeness
from apps.rates.models import Rate
from apps.teams.models import Team


class TeamList(PageView):
    """The teams in scope with month to date, budget and what is left."""

    title = "Costs"
    permission = "costs.charge.view"
    queryset = Team.objects.select_related("unit")
    template_name = "costs/team_list.html"

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add one line per team, at most 500."""
        month = billing.month_of(clock.now())
        teams = list(self.get_queryset().order_by("name", "pk")[:500])
        money = money_of([team.pk for team in teams], month)
        total = sum((money[team.pk].spent for team in teams), Money.zero(actions.ledger_currency()))
        return super().get_context(
            rows=[(team, money[team.pk]) for team in teams],
            total=total,
            month=f"{month:%Y-%m}",
            month_name=month,
            zone=billing.zone_name(),
            completeness=selectors.month_completeness(month, selectors.clusters_of(teams, month)),
            **extra,
        )


class TeamPage(Downloadable, PageView):
    """Base of a team's pages: seen by those who see the team, or rows of it from a time when it was in their unit."""

    permission = "costs.charge.view"
    queryset = DayCharge.objects.all()
    team: Team

    def prepare(self) -> None:
        """Load the team. Raises NotVisible."""
        slug = self.kwargs["team_slug"]
        user = self.request.user
        team = Team.objects.visible_to(user).filter(slug=slug).select_related("unit").first()
        if team is None:
            team = Team.objects.filter(slug=slug).select_related("unit").first()
            if team is None or not DayCharge.objects.visible_to(user).filter(team_id=team.pk).exists():
                raise NotVisible
        self.team = team

    def crumbs(self, month: date | None = None, day: date | None = None) -> list[Crumb]:
        """Return the way down to here."""
        found = [Crumb("Costs", reverse("costs:team-list"))]
        if month is not None:
            found.append(Crumb(f"{self.team} in {month:%B %Y}", month_url(self.team, month)))
        if day is not None:
            found.append(Crumb(f"{day:%d %B}", day_url(self.team, day)))
        return found


def month_url(team: Team, month: date) -> str:
    """Return the address of a team's month."""
    return reverse("costs:team-month", kwargs={"team_slug": team.slug, "month": f"{month:%Y-%m}"})


def day_url(team: Team, day: date) -> str:
    """Return the address of a team's day."""
    return reverse("costs:team-day", kwargs={"team_slug": team.slug, "day": day.isoformat()})


def day_of(text: str) -> date:
    """Return the day that an address names. Raises NotVisible for none, and for one at which calendars end."""
    try:
        return sensible(date.fromisoformat(text))
    except ValueError as error:
        raise NotVisible("There is no such day.") from error


def _sum(amounts: list[Money | None]) -> Money | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known[1:], known[0]) if known else None


class TeamMonth(TeamPage):
    """A team's month by day."""

    template_name = "costs/team_month.html"

    def get_title(self) -> str:
        """Return team and month."""
        return f"{self.team}: {self._month():%B %Y}"

    def _month(self) -> date:
        try:
            return billing.parse_month(self.kwargs["month"])
        except ValueError as error:
            raise NotVisible("There is no such month.") from error

    def table_of(self, context: dict[str, Any]) -> Table:
        """The days, as shown."""
        return month_rows(context)

    def breadcrumbs(self) -> list[Crumb]:
        """Back to all teams."""
        return self.crumbs()

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the days, the chart and the budget."""
        month = self._month()
        days = selectors.team_month_days(self.team, month, self.request.user)
        values = [hours(day.allocated_gpu_ms - day.idle_gpu_ms) for day in days]
        series = [
            Series("Used or unmeasured", values, self.team.colour, [day_url(self.team, day.day) for day in days]),
            Series("Idle", [hours(day.idle_gpu_ms) for day in days], "caution"),
        ]
        total = _sum([day.amount for day in days])
        budget = budget_figures.budget_of(("team", self.team.pk), month)
        standing = None if budget is None else budget_figures.standings([budget], month)[0]
        return super().get_context(
            team=self.team,
            month=month,
            previous_month=f"{billing.previous(month):%Y-%m}",
            next_month=f"{billing.following(month):%Y-%m}" if billing.following(month) <= clock.now().date() else "",
            zone=billing.zone_name(),
            days=[(day, day_url(self.team, day.day)) for day in days],
            figure=stacked_bars(
                [day.day for day in days], series, unit="GPU-hours", title="Allocated GPU-hours by day"
            ),
            total=total,
            allocated=sum(day.allocated_gpu_ms for day in days),
            idle=sum(day.idle_gpu_ms for day in days),
            unpriced=sum(day.unpriced_gpu_ms for day in days),
            resources=any(day.resource_amount is not None for day in days),
            budget=None if budget is None else budget.monthly,
            budget_url="" if budget is None else reverse("costs:budget-detail", kwargs={"budget_uid": budget.uid}),
            left=None if standing is None else standing.left,
            adjusted=standing is not None and bool(standing.billed.adjusted.amount),
            completeness=selectors.month_completeness(month, selectors.clusters_of([self.team], month)),
            may_set=may(self.request.user, "costs.budget.set", self.team),
            **extra,
        )


class TeamDay(TeamPage):
    """A team's day by workload."""

    template_name = "costs/team_day.html"
    htmx_template = "costs/team_day.html#list"

    def get_title(self) -> str:
        """Return team and day."""
        return f"{self.team}: {day_of(self.kwargs['day']):%d %B %Y}"

    def table_of(self, context: dict[str, Any]) -> Table:
        """The workloads, as shown."""
        return day_rows(context)

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the month."""
        return self.crumbs(day_of(self.kwargs["day"]).replace(day=1))

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the workloads, adding up to the day's line of the month."""
        day = day_of(self.kwargs["day"])
        line = next((d for d in selectors.team_month_days(self.team, day, self.request.user) if d.day == day), None)
        rows = selectors.day_workloads(self.team, day, self.request.user, total=line.amount if line else None)
        start, end = billing.day_bounds(day)
        pages = page_of(self.request, rows)
        return super().get_context(
            team=self.team,
            day=day,
            previous_url=day_url(self.team, day - timedelta(days=1)),
            next_url=day_url(self.team, day + timedelta(days=1)),
            zone=billing.zone_name(),
            line=line,
            rows=rows,
            pages=pages,
            completeness=completeness(selectors.clusters_of([self.team], day), start, end),
            **extra,
        )


class WorkloadDay(TeamPage):
    """One workload's hourly facts on a day."""

    template_name = "costs/workload_day.html"
    htmx_template = "costs/workload_day.html#list"

    def get_title(self) -> str:
        """Return the workload's name."""
        return str(self.request.GET.get("name", "")) or "Workload"

    def table_of(self, context: dict[str, Any]) -> Table:
        """The hourly facts, as shown."""
        return hour_rows(context)

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the day."""
        day = day_of(self.kwargs["day"])
        return self.crumbs(day.replace(day=1), day)

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the hours. Raises Invalid where the address names no workload, NotVisible where it has no facts."""
        day = day_of(self.kwargs["day"])
        name, namespace = self.request.GET.get("name", ""), self.request.GET.get("namespace", "")
        cluster = Cluster.objects.filter(slug=self.request.GET.get("cluster", "")).first()
        if not name or cluster is None:
            raise Invalid({"name": "The address names a workload by name, namespace and cluster."})
        workload: dict[str, Any] = {"workload_name": name, "cluster_id": cluster.pk, "namespace": namespace}
        figure = selectors.workload_figure(self.team, day, self.request.user, **workload)
        lines = selectors.workload_hours(self.team, day, self.request.user, total=figure, **workload)
        if not lines:
            raise NotVisible
        return super().get_context(
            team=self.team,
            day=day,
            cluster=cluster,
            namespace=namespace,
            zone=billing.zone_name(),
            lines=lines,
            pages=page_of(self.request, lines),
            total=_sum([line.amount for line in lines]),
            allocated=sum(line.fact.allocated_gpu_ms for line in lines),
            **extra,
        )


class FactDetail(Downloadable, PageView):
    """One hourly fact: quantities, charges, rates, and the source proof."""

    title = "Hourly fact"
    permission = "metering.fact.view"
    queryset = HourFact.objects.all()
    template_name = "costs/fact_detail.html"
    detail: selectors.FactDetail

    def prepare(self) -> None:
        """Load the fact. Raises NotVisible."""
        self.detail = selectors.fact_detail(self.kwargs["fact_uid"], self.request.user)

    def table_of(self, context: dict[str, Any]) -> Table:
        """The fact's charges with their rates and the source query."""
        return fact_rows(context)

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the team's day, where the team is there."""
        fact = self.detail.fact
        team = Team.objects.visible_to(self.request.user).filter(pk=fact.team_id).first() if fact.team_id else None
        if team is None:
            return [Crumb("Costs", reverse("costs:team-list"))]
        day = billing.day_of(fact.hour)
        workload = reverse("costs:workload-day", kwargs={"team_slug": team.slug, "day": day.isoformat()})
        cluster = Cluster.objects.get(pk=fact.cluster_id)
        query = {"cluster": cluster.slug, "namespace": fact.namespace, "name": fact.workload_name}
        return [
            Crumb("Costs", reverse("costs:team-list")),
            Crumb(f"{team} in {day:%B %Y}", month_url(team, day)),
            Crumb(f"{day:%d %B}", day_url(team, day)),
            Crumb(fact.workload_name, f"{workload}?{urlencode(query)}"),
        ]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add what the fact stands on."""
        fact = self.detail.fact
        spans = [
            (start, end, units)
            for start, end, units in zip(fact.spans[0::3], fact.spans[1::3], fact.spans[2::3], strict=True)
        ]
        return super().get_context(
            detail=self.detail,
            fact=fact,
            spans=[
                (fact.hour + timedelta(milliseconds=start), fact.hour + timedelta(milliseconds=end), units)
                for start, end, units in spans[:50]
            ],
            more_spans=max(0, len(spans) - 50),
            cluster=Cluster.objects.filter(pk=fact.cluster_id).first(),
            **extra,
        )


class ChargeList(ListView):
    """Charges of a month."""

    title = "Charges"
    permission = "costs.charge.view"
    table_class = ChargeTable
    filterset_class = ChargeFilter
    export_event = CHARGES_EXPORTED
    intro = "Quantity and rate of every charge of a month (the present one unless you choose another)."
    empty_title = "No charges in this month"
    empty_text = "Choose another month above."
    empty_icon = "receipt"

    @staticmethod
    def queryset() -> Any:
        """Charges with their rate."""
        rate = Rate.objects.filter(pk=OuterRef("rate_id"))
        return Charge.objects.annotate(
            rate_amount=Subquery(rate.values("amount")),
            rate_currency=Subquery(rate.values("currency")),
            cluster_slug=Subquery(Cluster.objects.filter(pk=OuterRef("cluster_id")).values("slug")),
        )

    def export(self, table: Any, kind: str) -> HttpResponseBase:
        """Stream CSV, which has no limit; how many rows there are is counted, and recorded, before the first leaves."""
        if kind != "csv":
            return super().export(table, kind)
        charges, name = table.data.data, self.get_export_name()
        query = self.request.GET.copy()
        query.pop("export", None)
        payload = exports.Exported(listing=name, format=kind, rows=charges.count(), query=query.urlencode())
        actor = self.actor
        after_read(self.request, lambda: record_export(self.export_event, payload, actor))
        header = [str(column.header) for column in table.columns]
        return exports.streamed_csv(name, header, lambda: charge_stream.rows(charges), user_id=self.request.user.pk)

    def get_filterset(self, queryset: Any) -> Any:
        """Filter always: the list keeps to one month."""
        data = self.request.GET.copy()
        data.setdefault("month", f"{billing.month_of(clock.now()):%Y-%m}")
        return ChargeFilter(data, queryset=queryset, request=self.request)
