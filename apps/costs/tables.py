"""Tables and filters of the costs room."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import django_filters
import django_tables2 as tables
from django import forms
from django.urls import reverse
from django.utils.html import format_html

from apps.clusters.models import Cluster
from apps.core import clock
from apps.core.filters import CommonsFilterSet
from apps.core.money import MILLISECONDS_PER_HOUR
from apps.core.tables import CommonsTable, QuantityColumn, TimeColumn, UidLinkColumn
from apps.costs.choices import HELD, RESOURCES, ChargeKind
from apps.costs.drill_pages import hour_text
from apps.costs.models import Charge
from apps.metering import billing
from apps.rates.models import Rate
from apps.teams.models import Unit


class ChargeTable(CommonsTable):
    """Charges: quantity and rate; the cost is worked out per row, exact to six decimals."""

    hour = TimeColumn()
    kind = tables.Column()
    team_name = tables.Column(verbose_name="Team")
    unit_name = tables.Column(verbose_name="Unit", attrs={"cell": {"class": "d-none d-lg-table-cell"}})
    cost_centre = tables.Column(attrs={"cell": {"class": "d-none d-lg-table-cell"}})
    gpu_model = tables.Column(verbose_name="GPU model", attrs={"cell": {"class": "d-none d-md-table-cell"}})
    gpu_ms = QuantityColumn(verbose_name="GPU-hours")
    quantity_ms = QuantityColumn(verbose_name="Flavour-hours", attrs={"cell": {"class": "d-none d-md-table-cell"}})
    rate_amount = tables.Column(verbose_name="Rate per hour", attrs={"cell": {"class": "figure"}}, orderable=False)
    cost = tables.Column(
        empty_values=(), verbose_name="Cost, exact", orderable=False, attrs={"cell": {"class": "figure"}}
    )
    currency = tables.Column(accessor="rate_currency", orderable=False)
    fact_uid = UidLinkColumn(
        "costs:fact-detail", kwarg="fact_uid", lookup="fact_uid", verbose_name="Fact", orderable=False
    )

    class Meta(CommonsTable.Meta):
        model = Charge
        fields = (
            "hour", "kind", "team_name", "unit_name", "cost_centre", "gpu_model", "quantity_ms", "gpu_ms",
            "rate_amount", "cost", "currency", "fact_uid",
        )  # fmt: skip
        order_by = ("-hour",)
        caption = "Charges"

    def render_rate_amount(self, value: Decimal) -> str:
        """Write the rate without trailing zeros."""
        return f"{value.normalize():f}"

    def value_rate_amount(self, value: Decimal | None) -> Decimal | None:
        """Export the rate as a number."""
        return value

    def render_cost(self, record: Any) -> str:
        """Write the exact cost, or that it is unknown."""
        cost = self.value_cost(record)
        return "unknown" if cost is None else f"{cost:,}"

    def value_cost(self, record: Any) -> Decimal | None:
        """Export the exact cost to six decimals; nothing where no rate was in force."""
        if record.rate_amount is None:
            return None
        exact = Decimal(record.quantity_ms) * record.rate_amount / MILLISECONDS_PER_HOUR
        return Decimal(exact.quantize(Decimal("0.000001")))

    def render_fact_uid(self, value: Any, record: Any, column: UidLinkColumn) -> Any:
        """Link to the fact, or to the capacity lines of the hour."""
        if record.kind in HELD:
            return column.render("open", record)
        if record.kind in RESOURCES:
            url = reverse("costs:resource-fact", kwargs={"hour": hour_text(record.hour), "fact_uid": value})
        else:
            place = {"cluster_slug": record.cluster_slug, "hour": hour_text(record.hour)}
            url = f"{reverse('costs:capacity-hour', kwargs=place)}?{urlencode({'model': record.gpu_model})}"
        return format_html('<a href="{}">open</a>', url)

    def value_fact_uid(self, value: Any) -> str:
        """Export the key of the fact or capacity line."""
        return str(value or "")


class MonthFilter(django_filters.CharFilter):
    """A month, written yyyy-mm."""

    field_class = forms.RegexField

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            regex=r"^[12]\d{3}-(0[1-9]|1[0-2])$",
            error_messages={"invalid": "Write a month as yyyy-mm, for example 2026-11."},
            widget=forms.TextInput(attrs={"type": "month"}),
            **kwargs,
        )


class UnitFilter(django_filters.CharFilter):
    """A unit by its name in addresses: rows that were at or below it in their hour. An unknown one has none."""

    def __init__(self, field: str, **kwargs: Any) -> None:
        self.path_field = field
        super().__init__(label="At or below unit", max_length=100, **kwargs)

    def filter(self, qs: Any, value: str) -> Any:
        """Keep the rows whose unit has the named one in its path."""
        if not value:
            return qs
        return qs.filter(**{f"{self.path_field}__in": Unit.objects.filter(path__overlap=_units_named(value))})


def _units_named(slug: str) -> list[int]:
    return list(Unit.objects.filter(slug=slug).values_list("pk", flat=True))


class ChargeFilter(CommonsFilterSet):
    """Filter charges; without a month, the present one."""

    month = MonthFilter(label="Month (yyyy-mm)", method="by_month")
    team = django_filters.CharFilter(field_name="team_name", lookup_expr="iexact", label="Team", max_length=200)
    unit = UnitFilter("unit_id")
    kind = django_filters.ChoiceFilter(choices=ChargeKind.choices, label="Kind")
    cluster = django_filters.CharFilter(label="Cluster", method="by_cluster", max_length=100)
    rate = django_filters.UUIDFilter(label="Rate", method="by_rate", widget=forms.HiddenInput())
    unpriced = django_filters.BooleanFilter(field_name="rate_id", lookup_expr="isnull", label="Without a rate")

    class Meta:
        model = Charge
        fields = ["kind"]

    def by_month(self, queryset: Any, name: str, value: str) -> Any:
        """Keep a billing month."""
        start, end = billing.month_bounds(billing.parse_month(value))
        return queryset.filter(hour__gte=start, hour__lt=end)

    def by_cluster(self, queryset: Any, name: str, value: str) -> Any:
        """Keep the charges of the cluster with this slug."""
        return queryset.filter(cluster_id__in=Cluster.objects.filter(slug=value).values("pk"))

    def by_rate(self, queryset: Any, name: str, value: Any) -> Any:
        """Keep the charges at one rate: what a statement's line adds up."""
        return queryset.filter(rate_id__in=Rate.objects.filter(uid=value).values("pk"))

    def filter_queryset(self, queryset: Any) -> Any:
        """Keep one month always: a charge list without an end is of no use."""
        if self.form.is_valid() and not self.form.cleaned_data.get("month"):
            start, end = billing.month_bounds(billing.month_of(clock.now()))
            queryset = queryset.filter(hour__gte=start, hour__lt=end)
        return super().filter_queryset(queryset)
