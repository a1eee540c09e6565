"""Pages of budgets: how they stand, one with its history, and the form for a team or a unit."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Any

import django_filters
import django_tables2 as tables
from django.http import HttpRequest
from django.urls import reverse

from apps.approvals import deciders
from apps.approvals.models import PolicyVersion
from apps.approvals.policy_reader import PolicyError
from apps.core import clock
from apps.core.filters import CommonsFilterSet
from apps.core.permissions import may
from apps.core.views import ActionView, Crumb, DetailView, ListView
from apps.costs import budget_actions, budget_parts, budget_steps
from apps.costs import budget_figures as figures
from apps.costs import budget_rules as rules
from apps.costs.budget_billed import Whose
from apps.costs.budget_figures import Standing
from apps.costs.budget_forms import BudgetForm, field_of
from apps.costs.budget_tables import StandingTable, at_least, bar, by_share, detail_url, forecast_words
from apps.costs.choices import Measure
from apps.costs.models import Budget, BudgetStep
from apps.costs.tables import MonthFilter
from apps.metering import billing
from apps.teams.models import Team, Unit
from portal.panels import panel


class BudgetFilter(CommonsFilterSet):
    """Filter budgets; without a month, the present one."""

    month = MonthFilter(label="Month (yyyy-mm)", method="as_it_is")
    whose = django_filters.ChoiceFilter(
        label="Whose", choices=[("team", "Teams"), ("unit", "Units")], method="by_owner"
    )

    class Meta:
        model = Budget
        fields: list[str] = []

    def as_it_is(self, queryset: Any, name: str, value: str) -> Any:
        """The month decides which budget of each owner is in force, which is no condition on rows."""
        return queryset

    def by_owner(self, queryset: Any, name: str, value: str) -> Any:
        """Keep teams' or units' budgets."""
        return queryset.filter(**{f"{value}__isnull": False})

    def chosen(self) -> date:
        """Return the month that is shown."""
        text = self.form.cleaned_data.get("month") if self.form.is_valid() else ""
        return billing.parse_month(text) if text else billing.month_of(clock.now())


class BudgetList(ListView):
    """Budgets in scope that are in force, and how they stand."""

    title = "Budgets"
    permission = "costs.budget.view"
    queryset = Budget.objects.all()
    table_class = StandingTable
    filterset_class = BudgetFilter
    template_name = "costs/budget_list.html"
    empty_title = "No budgets yet"
    empty_text = "Finance or the unit's owner sets them from a team's or a unit's page."
    empty_icon = "wallet"

    month: date

    def build(self) -> tuple[tables.Table, Any]:
        """Return the table of how budgets stand, and the filters."""
        filterset = BudgetFilter(self.request.GET or None, queryset=self.get_queryset(), request=self.request)
        self.month = filterset.chosen()
        rows = figures.standings(figures.in_force(self.month, filterset.qs), self.month)
        rows.sort(key=lambda row: (-by_share(row), str(row.budget.team or row.budget.unit), row.budget.pk))
        if "export" in self.request.GET:
            for low in range(0, len(rows), budget_steps.BATCH):
                figures.add_forecasts(rows[low : low + budget_steps.BATCH], self.month)
        table = StandingTable(data=rows)
        table.request = self.request
        if sort := self.request.GET.getlist(table.prefixed_order_by_field):
            table.order_by = sort
        return table, filterset

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Work out the forecasts of the rows on this page."""
        table = extra["table"]
        figures.add_forecasts([row.record for row in table.paginated_rows], self.month)
        return super().get_context(month=self.month, zone=billing.zone_name(), **extra)


def shown(row: Standing) -> list[dict[str, Any]]:
    """Return what a page shows of each limit of a budget."""
    found = []
    for measure, figure, limit in row.measures():
        guess = row.forecast_of(measure)
        share = figure / limit if limit else None
        found.append(
            {
                "label": Measure(measure).label,
                "figure": at_least(budget_steps.in_measure(figure, measure, row.budget.currency), row)
                if measure == Measure.MONEY
                else budget_steps.in_measure(figure, measure, row.budget.currency),
                "limit": budget_steps.in_measure(limit, measure, row.budget.currency),
                "bar": bar(share if limit or figure else Decimal(0), Measure(measure).label),
                "forecast": forecast_words(guess, measure, row),
                "beyond": guess is not None and guess.mid > limit,
                "mid": budget_steps.in_measure(guess.mid, measure, row.budget.currency) if guess else "",
                "basis": guess.basis if guess else "",
            }
        )
    return found


def step_rows(steps: list[BudgetStep]) -> list[dict[str, Any]]:
    """Return what a page shows of reached steps."""
    return [
        {
            "step": step,
            "label": rules.step_label(step.step),
            "measure": step.get_measure_display(),
            "figure": budget_steps.in_measure(step.figure, step.measure, step.budget.currency),
            "limit": budget_steps.in_measure(step.limit, step.measure, step.budget.currency),
            "at_least": step.basis.get("at_least") and step.measure == Measure.MONEY,
            "basis": step.basis.get("basis", ""),
            "actions": [{"label": rules.LABELS[entry["action"]], **entry} for entry in step.actions],
        }
        for step in steps
    ]


def planned(budget: Budget) -> list[tuple[str, str]]:
    """Return what is done at each step, in words."""
    return [
        (rules.step_label(step), ", ".join(rules.LABELS[name] for name in rules.actions_at(budget.actions, step)))
        for step in rules.STEPS
    ]


class BudgetDetail(DetailView):
    """How a budget stands, what is done at its steps, and which were reached."""

    permission = "costs.budget.view"
    queryset = Budget.objects.select_related("team__unit", "unit", "set_by")
    template_name = "costs/budget_detail.html"

    def get_title(self) -> str:
        """Return whose budget."""
        return f"Budget of {self.object.team or self.object.unit}"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the budgets."""
        return [Crumb("Budgets", reverse("costs:budget-list"))]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the standing of the month it counts for, the owner's budgets and steps."""
        budget = self.object
        own = {"team": budget.team} if budget.team is not None else {"unit": budget.unit}
        month = max(billing.month_of(clock.now()), budget.month_from)
        later = Budget.objects.filter(**own, month_from__gt=budget.month_from).order_by("month_from").first()
        if later is not None and later.month_from <= month:
            month = billing.previous(later.month_from)
        standing = figures.standing_of(budget, month)
        return super().get_context(
            month=month,
            zone=billing.zone_name(),
            limits=shown(standing),
            standing=standing,
            parts=budget_parts.parts_of(standing),
            credits=budget_parts.credit_lines(standing),
            planned=planned(budget),
            steps=step_rows(figures.steps_of([budget])),
            budgets=list(Budget.objects.filter(**own).select_related("set_by").order_by("-month_from")[:24]),
            later=later,
            set_url=set_url(budget.team or budget.unit) if may(self.request.user, "costs.budget.set", budget) else "",
            **extra,
        )


def set_url(owner: Team | Unit) -> str:
    """Return where an owner's budget is set."""
    if isinstance(owner, Team):
        return reverse("costs:budget-set", kwargs={"team_slug": owner.slug})
    return reverse("costs:unit-budget-set", kwargs={"unit_slug": owner.slug})


def policy_remark() -> str:
    """Say where the published policy for quota asks for nothing when a budget is exhausted; "" where it does."""
    version = PolicyVersion.objects.filter(policy__slug="quota").order_by("-number").first()
    if version is None:
        return "No policy for quota is published yet: nothing can be requested before a platform admin publishes one."
    try:
        policy = deciders.rules_of(version)
    except PolicyError:
        return "The published policy for quota cannot be read."
    asked = any(c.fact == "team.budget_exhausted" for stage in policy.stages for c in (*stage.when, *stage.unless))
    guards = {"team.budget_exhausted", "within_budget"}
    free = [rule.name for rule in policy.automatic if not guards & {c.fact for c in rule.when}]
    if free:
        return (
            f"The published policy for quota approves by itself under “{free[0]}” whatever the budget says: "
            "*require approval* changes nothing there."
        )
    if not asked and not policy.automatic:
        return (
            "The published policy for quota asks the same people whatever the budget says: *require approval* only "
            "tells them that it is exhausted."
        )
    return ""


class _BudgetSet(ActionView):
    """Set an owner's budget from a month on."""

    permission = "costs.budget.set"
    lookup = "slug"
    form_class = BudgetForm
    template_name = "costs/budget_set.html"
    submit_label = "Set the budget"
    success_message = "The budget is set."
    owner_kind = "team"

    def get_title(self) -> str:
        """Return whose budget."""
        return f"Budget of {self.object}"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the budgets."""
        return [Crumb("Budgets", reverse("costs:budget-list"))]

    def _owner(self) -> Whose:
        return (self.owner_kind, self.object.pk)

    def get_initial(self) -> dict[str, Any]:
        """Propose the budget in force, from this month on."""
        month = billing.month_of(clock.now())
        budget = figures.budget_of(self._owner(), month)
        actions: Mapping[str, Any] = budget.actions if budget is not None else {}
        return {
            "amount": budget.amount if budget else None,
            "gpu_hours": budget.gpu_hours if budget else None,
            "month_from": f"{month:%Y-%m}",
            "version": budget.version if budget is not None and budget.month_from == month else 0,
            **{field_of(step): list(rules.actions_at(actions, step)) for step in rules.STEPS},
        }

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the budgets so far, the month's figures, and what each action does."""
        month = billing.month_of(clock.now())
        own = Budget(team=self.object) if self.owner_kind == "team" else Budget(unit=self.object)
        (row,) = figures.standings([own], month)
        return super().get_context(
            budgets=list(self.object.budgets.select_related("set_by").order_by("-month_from")[:24]),
            row=row,
            below=self.owner_kind == "unit",
            explained=rules.ACTIONS,
            policy_remark=policy_remark(),
            **extra,
        )

    def perform(self, form: Any) -> str:
        """Set it. The version that was seen is this month's; another month is not compared."""
        data = form.cleaned_data
        same = data["month_from"] == billing.month_of(clock.now())
        kind, pk = self._owner()
        budget = budget_actions.set_limits(
            team_id=pk if kind == "team" else None,
            unit_id=pk if kind == "unit" else None,
            amount=data["amount"],
            gpu_hours=data["gpu_hours"],
            month_from=data["month_from"],
            actions=form.actions(),
            actor=self.actor,
            expected_version=self.expected_version if same else None,
        )
        return detail_url(budget)


class BudgetSet(_BudgetSet):
    """Set a team's budget."""

    queryset = Team.objects.select_related("unit")


class UnitBudgetSet(_BudgetSet):
    """Set the budget of a unit and everything below."""

    queryset = Unit.objects.all()
    owner_kind = "unit"


def budget_seen(request: HttpRequest, owner: Team | Unit, month: date) -> Budget | None:
    """Return an owner's budget for a month, read once a request: several panels of a page show it. None: none set."""
    asked = ("team" if isinstance(owner, Team) else "unit", owner.pk), month
    known: dict[object, Budget | None] | None = getattr(request, "_commons_budgets", None)
    if known is None:
        known = {}
        request._commons_budgets = known  # type: ignore[attr-defined]  # HttpRequest takes attributes; stubs do not know ours
    if asked not in known:
        known[asked] = figures.budget_of(*asked)
    return known[asked]


def standing_seen(request: HttpRequest, owner: Team | Unit, month: date) -> Standing | None:
    """Return how an owner's budget stands in a month, worked out once a request. None: none set."""
    budget = budget_seen(request, owner, month)
    if budget is None:
        return None
    known: dict[object, Standing] | None = getattr(request, "_commons_standings", None)
    if known is None:
        known = {}
        request._commons_standings = known  # type: ignore[attr-defined]  # as above
    if (budget.pk, month) not in known:
        known[budget.pk, month] = figures.standing_of(budget, month)
    return known[budget.pk, month]


def _panel(request: HttpRequest, owner: Team | Unit) -> dict[str, Any] | None:
    """Return the panel of an owner's budget; None where there is none and the person may set none."""
    month = billing.month_of(clock.now())
    budget = budget_seen(request, owner, month)
    may_set = may(request.user, "costs.budget.set", owner)
    if budget is None and not may_set:
        return None
    row = standing_seen(request, owner, month)
    return {
        "template": "costs/budget_panel.html",
        "budget": budget,
        "month": month,
        "limits": shown(row) if row is not None else [],
        "steps": step_rows(row.steps) if row is not None else [],
        "below": isinstance(owner, Unit),
        "set_url": set_url(owner) if may_set else "",
        "zone": billing.zone_name(),
    }


@panel(page="team", order=21, permission="costs.budget.view")
def team_budget(request: HttpRequest, team: Team) -> dict[str, Any] | None:
    """How the team's budget stands."""
    return _panel(request, team)


@panel(page="unit", order=21, permission="costs.budget.view")
def unit_budget(request: HttpRequest, unit: Unit) -> dict[str, Any] | None:
    """How the unit's budget stands."""
    return _panel(request, unit)
