"""The table of budgets, and how figures, shares and forecasts are written."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import django_tables2 as tables
from django.urls import reverse
from django.utils.html import format_html

from apps.core import formats
from apps.core.money import Money
from apps.core.tables import CommonsTable, MoneyColumn, QuantityColumn
from apps.costs import budget_rules as rules
from apps.costs import budget_steps
from apps.costs.budget_figures import Standing
from apps.costs.choices import Measure
from apps.costs.forecasting import Forecast
from apps.costs.models import Budget

_PER_MILLE = 1000
_EXPORTED = {"cell": {"class": "d-none"}}


def tone_of(share: Decimal | None) -> str:
    """Return how a used share of a limit is drawn."""
    if share is None or share >= 1:
        return "critical"
    return "caution" if share >= Decimal("0.8") else "positive"


def bar(share: Decimal | None, label: str) -> Any:
    """Draw a used share: a bar that is full at the limit, and the per cent beside it."""
    # Credits may be more than the rest: the bar is empty then, and the per cent says so.
    text = "over" if share is None else formats.percent(share, places=0)
    value = _PER_MILLE if share is None else max(0, min(_PER_MILLE, int(share * _PER_MILLE)))
    return format_html(
        '<progress class="meter meter-{}" value="{}" max="{}" aria-label="{}"></progress>'
        '<span class="figure">{}</span>',
        tone_of(share), value, _PER_MILLE, label, text,
    )  # fmt: skip


class StandingTable(CommonsTable):
    """Budgets in force, the fullest first."""

    owner = tables.Column(accessor="budget", verbose_name="Whose", orderable=False)
    # Said below the name; columns of their own in files.
    kind = tables.Column(accessor="budget__team_id", verbose_name="Kind", empty_values=(), attrs=_EXPORTED)
    unit = tables.Column(accessor="budget", verbose_name="Unit", orderable=False, attrs=_EXPORTED)
    share = tables.Column(verbose_name="Used", empty_values=())
    spent = MoneyColumn(verbose_name="So far", order_by="spent__amount")
    amount = MoneyColumn(accessor="budget__monthly", verbose_name="Budget a month", orderable=False)
    gpu_ms = QuantityColumn(verbose_name="GPU-hours so far", attrs={"cell": {"class": "d-none d-md-table-cell"}})
    gpu_hours = QuantityColumn(
        accessor="budget__gpu_hours", unit=None, verbose_name="GPU-hours a month", orderable=False,
        attrs={"cell": {"class": "d-none d-md-table-cell"}},
    )  # fmt: skip
    forecast = tables.Column(
        accessor="money_forecast", verbose_name="Forecast", orderable=False, empty_values=(),
        attrs={"cell": {"class": "figure d-none d-lg-table-cell"}},
    )  # fmt: skip
    reached = tables.Column(verbose_name="Step reached", orderable=False, empty_values=("",))
    month_from = tables.DateColumn(
        accessor="budget__month_from", verbose_name="From month", format="Y-m", orderable=False, attrs=_EXPORTED
    )

    class Meta(CommonsTable.Meta):
        caption = "Budgets"

    def render_owner(self, value: Budget) -> Any:
        """Link to the budget, and say whose it is."""
        below = f"Team of {value.team.unit}" if value.team is not None else "Unit and below"
        return format_html(
            '<a href="{}">{}</a><div class="text-secondary">{}</div>',
            detail_url(value),
            value.team or value.unit,
            below,
        )

    def value_owner(self, value: Budget) -> str:
        """Export the name."""
        return str(value.team or value.unit)

    def render_kind(self, record: Standing) -> str:
        """Say whether it is a team's or a unit's."""
        return "Team" if record.budget.team_id is not None else "Unit and below"

    def render_unit(self, value: Budget) -> str:
        """Name the unit."""
        return str(value.team.unit if value.team is not None else value.unit)

    def render_share(self, record: Standing) -> Any:
        """Draw the bar."""
        return bar(record.share, f"Used by {record.budget.team or record.budget.unit}")

    def value_share(self, record: Standing) -> Decimal | None:
        """Export the share of the limit, 1 = all of it."""
        return None if record.share is None else record.share.quantize(Decimal("0.0001"))

    def order_share(self, queryset: list[Standing], is_descending: bool) -> tuple[list[Standing], bool]:
        """Sort by share; what exceeds a limit of zero comes above all."""
        return sorted(queryset, key=by_share, reverse=is_descending), True

    def render_spent(self, value: Money, record: Standing) -> str:
        """Write the figure, or that it is at least that much."""
        return at_least(str(value.quantized()), record)

    def render_forecast(self, record: Standing) -> str:
        """Write the range where the month will end."""
        return range_words(record)

    def value_forecast(self, record: Standing) -> str:
        """Export the range."""
        return range_words(record)

    def render_reached(self, value: str) -> str:
        """Write the step."""
        return rules.step_label(value)


def by_share(row: Standing) -> Decimal:
    """Return what a row is sorted by."""
    return Decimal("Infinity") if row.share is None else row.share


def at_least(text: str, row: Standing) -> str:
    """Say where a figure leaves out what has no price."""
    return f"at least {text}" if row.at_least else text


def range_words(row: Standing) -> str:
    """Write the forecast of the measure that the budget limits, money first."""
    if row.budget.amount is not None:
        guess, measure = row.money_forecast, Measure.MONEY
    else:
        guess, measure = row.hours_forecast, Measure.GPU_HOURS
    return forecast_words(guess, measure, row)


def forecast_words(guess: Forecast | None, measure: str, row: Standing) -> str:
    """Write a forecast as a range, or that there is too little to say."""
    if guess is None:
        return "too few days yet"
    low, high = (budget_steps.in_measure(value, measure, row.budget.currency) for value in (guess.low, guess.high))
    return at_least(low if guess.is_exact or low == high else f"{low} to {high}", row)


def detail_url(budget: Budget) -> str:
    """Return the page of a budget."""
    return reverse("costs:budget-detail", kwargs={"budget_uid": budget.uid})
