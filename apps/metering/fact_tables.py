"""Tables and filters of rules, claims, namespaces without an owner, and capacity lines."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import django_filters
import django_tables2 as tables
from django import forms
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from apps.clusters.models import Cluster
from apps.core import clock, formats
from apps.core.filters import CommonsFilterSet, SearchFilter
from apps.core.tables import ActionsColumn, CommonsTable, MoneyColumn, QuantityColumn, StatusColumn, TimeColumn
from apps.core.templatetags import commons
from apps.metering.capacity_report import CapacityRow
from apps.metering.models import CapacityLine, NamespaceOwner, ResourceRule


class PermilleColumn(QuantityColumn):
    """Samples present of those expected; exported per mille."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(unit=None, **kwargs)

    def render(self, value: Any) -> str:
        """Write per cent."""
        return str(commons.permille(value))


class RuleTable(CommonsTable):
    """The table of resources."""

    resource = tables.Column()
    gpu_model = tables.Column(verbose_name="GPU model", empty_values=(None,))
    share = tables.Column(verbose_name="A unit is", accessor="numerator", order_by=("numerator", "denominator"))
    state = StatusColumn(
        accessor="pk", verbose_name="State", orderable=False, tones={}, labels=lambda record: rule_state(record)[1]
    )
    valid_from = TimeColumn(accessor="valid__lower", verbose_name="From", order_by="valid")
    valid_until = TimeColumn(accessor="valid__upper", verbose_name="Until", orderable=False)
    note = tables.Column(attrs={"cell": {"class": "d-none d-lg-table-cell"}})
    set_by = tables.Column(verbose_name="Set by", attrs={"cell": {"class": "d-none d-md-table-cell"}})
    actions = ActionsColumn(template_name="metering/rules_actions.html")

    class Meta(CommonsTable.Meta):
        model = ResourceRule
        fields = ("resource", "gpu_model", "share", "state", "valid_from", "valid_until", "note", "set_by", "actions")
        order_by = ("resource", "gpu_model", "-valid_from")
        caption = "Resources and what a unit of them is of a GPU"

    def render_gpu_model(self, value: str) -> str:
        """Name the model, or every one."""
        return value or "every model"

    def render_share(self, record: ResourceRule) -> str:
        """Write the share as a fraction of a GPU."""
        return (
            "1 GPU" if record.numerator == record.denominator else f"{record.numerator}/{record.denominator} of a GPU"
        )

    def value_share(self, record: ResourceRule) -> str:
        """Export the fraction."""
        return f"{record.numerator}/{record.denominator}"

    def render_state(self, record: ResourceRule) -> SafeString:
        """Draw the state."""
        state, label, tone = rule_state(record)
        return commons.status_badge(state, label, tone)

    def render_set_by(self, value: Any) -> str:
        """Name who set it; the first table came with the portal."""
        return str(value)


def rule_state(rule: ResourceRule) -> tuple[str, str, str]:
    """Return (state, label, tone) of a rule now."""
    now = clock.now()
    if rule.valid.lower is not None and rule.valid.lower > now:
        return "planned", "Begins later", "info"
    if rule.valid.upper is not None and rule.valid.upper <= now:
        return "ended", "Ended", "neutral"
    return "in_force", "In force", "positive"


class RuleFilter(CommonsFilterSet):
    """Filter rules."""

    search = SearchFilter(columns=["resource", "gpu_model", "note"])
    state = django_filters.ChoiceFilter(
        label="State", choices=[("now", "In force"), ("all", "Ended, too")], method="by_state", empty_label=None
    )

    class Meta:
        model = ResourceRule
        fields: list[str] = []

    def by_state(self, queryset: Any, name: str, value: str) -> Any:
        """Keep what is in force."""
        return queryset.filter(valid__contains=clock.now()) if value == "now" else queryset


class UnownedTable(CommonsTable):
    """Namespaces without an owner."""

    namespace = tables.Column()
    cluster = tables.Column()
    workloads = QuantityColumn(unit=None)
    gpu_ms = QuantityColumn(verbose_name="GPU-hours")
    cost = MoneyColumn(verbose_name="Cost", orderable=False)
    unpriced_gpu_ms = QuantityColumn(verbose_name="of it without a rate, GPU-hours")
    coverage_permille = PermilleColumn(verbose_name="Samples present")
    first_hour = TimeColumn(verbose_name="From")
    last_hour = TimeColumn(verbose_name="Last hour")
    actions = ActionsColumn(template_name="metering/namespaces_actions.html")

    class Meta(CommonsTable.Meta):
        order_by = ("-gpu_ms",)
        caption = "Namespaces without an owner"


class ClaimTable(CommonsTable):
    """Claimed namespaces."""

    namespace = tables.Column()
    cluster = tables.Column(accessor="cluster__name", verbose_name="Cluster")
    team = tables.Column(accessor="team__name", verbose_name="Team")
    environment = tables.Column()
    valid_from = TimeColumn(accessor="valid__lower", verbose_name="From", order_by="valid")
    valid_until = TimeColumn(accessor="valid__upper", verbose_name="Until", orderable=False)
    moving = tables.Column(accessor="pending_from", verbose_name="Past hours", empty_values=())
    reason = tables.Column(attrs={"cell": {"class": "d-none d-lg-table-cell"}})
    claimed_by = tables.Column(verbose_name="Claimed by", attrs={"cell": {"class": "d-none d-md-table-cell"}})
    actions = ActionsColumn(template_name="metering/claims_actions.html")

    class Meta(CommonsTable.Meta):
        model = NamespaceOwner
        fields = (
            "namespace", "cluster", "team", "environment", "valid_from", "valid_until", "moving", "reason",
            "claimed_by", "actions",
        )  # fmt: skip
        order_by = ("namespace", "cluster")
        caption = "Claimed namespaces"

    def render_moving(self, record: NamespaceOwner) -> str:
        """Say how far the hours of open months have been moved."""
        return self.value_moving(record)

    def value_moving(self, record: NamespaceOwner) -> str:
        """The same, exported."""
        if record.pending_from is None:
            return "moved"
        return f"being moved, up to {formats.datetime_utc(record.pending_from)}"


class ClaimFilter(CommonsFilterSet):
    """Filter claims."""

    search = SearchFilter(columns=["namespace", "team__name", "reason"])
    cluster = django_filters.ModelChoiceFilter(
        queryset=Cluster.objects.order_by("name"), to_field_name="slug", label="Cluster"
    )

    class Meta:
        model = NamespaceOwner
        fields = ["cluster"]


class CapacityTable(CommonsTable):
    """Capacity lines in integer GPU-milliseconds."""

    at = tables.Column(verbose_name="Time", attrs={"cell": {"class": "text-nowrap"}})
    cluster = tables.Column()
    gpu_model = tables.Column(verbose_name="GPU model", attrs={"cell": {"class": "text-nowrap"}})
    attributed = QuantityColumn(unit=None, verbose_name="Allocated to teams, GPU-ms")
    unattributed = QuantityColumn(unit=None, verbose_name="No owner known, GPU-ms")
    reserved_unused = QuantityColumn(unit=None, verbose_name="Reserved but unused, GPU-ms")
    unsold = QuantityColumn(unit=None, verbose_name="Unsold, GPU-ms")
    stranded = QuantityColumn(unit=None, verbose_name="Stranded, GPU-ms")
    maintenance = QuantityColumn(unit=None, verbose_name="Maintenance, GPU-ms")
    total = QuantityColumn(unit=None, verbose_name="Sum, GPU-ms")
    physical = QuantityColumn(unit=None, verbose_name="Physical, GPU-ms")
    difference = QuantityColumn(unit=None, verbose_name="Difference, GPU-ms")
    coverage_permille = PermilleColumn(verbose_name="Samples present")
    contradictions = tables.Column(verbose_name="Contradictions", empty_values=(None,))

    class Meta(CommonsTable.Meta):
        caption = "Capacity lines by cluster, GPU model and time"

    def render_at(self, value: Any, record: CapacityRow) -> Any:
        """Write the hour, leading to its lines with rates and source, or the billing day, leading to its hours."""
        if hasattr(value, "hour"):
            place = {"cluster_slug": record.cluster_slug, "hour": f"{value:%Y-%m-%dT%H}"}
            url = f"{reverse('costs:capacity-hour', kwargs=place)}?{urlencode({'model': record.gpu_model})}"
            return format_html('<a href="{}">{}</a>', url, formats.datetime_utc(value))
        day = value.isoformat()
        query = {"cluster": record.cluster_slug, "gpu_model": record.gpu_model, "grain": "hour"}
        query |= {"since": day, "until": day}
        return format_html('<a href="?{}">{}</a>', urlencode(query), formats.day(value))

    def value_at(self, value: Any) -> Any:
        """Export the moment or day."""
        return value

    def render_contradictions(self, value: str) -> Any:
        """Say that there is none, or which."""
        return value or format_html('<span class="text-secondary">{}</span>', "none")

    def value_contradictions(self, value: str) -> str:
        """Export the words."""
        return value


class CapacityFilter(CommonsFilterSet):
    """What to show of the capacity lines; the page reads the form, the lines are grouped in SQL."""

    cluster = django_filters.ModelChoiceFilter(
        queryset=Cluster.objects.order_by("name"), to_field_name="slug", label="Cluster"
    )
    gpu_model = django_filters.CharFilter(label="GPU model", max_length=120)
    grain = django_filters.ChoiceFilter(
        label="By", choices=[("day", "Day"), ("hour", "Hour")], empty_label=None, method="as_it_is"
    )
    since = django_filters.DateFilter(label="From", method="as_it_is", widget=forms.DateInput(attrs={"type": "date"}))
    until = django_filters.DateFilter(label="Until", method="as_it_is", widget=forms.DateInput(attrs={"type": "date"}))

    class Meta:
        model = CapacityLine
        fields: list[str] = []

    def as_it_is(self, queryset: Any, name: str, value: Any) -> Any:
        """Leave the rows to the page's own query."""
        return queryset
