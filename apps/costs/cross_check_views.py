"""Pages of cross-checks: the days, one day with its causes, explaining it, and where the other system answers."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import django_filters
import django_tables2 as tables
from django import forms
from django.conf import settings
from django.urls import reverse

from apps.clusters.models import Cluster
from apps.core.errors import Conflict, NotAllowed, NotVisible
from apps.core.filters import CommonsFilterSet
from apps.core.forms import AmountField, CommonsForm, WholeNumberField
from apps.core.money import Money
from apps.core.pages import PageView
from apps.core.tables import AgeColumn, CommonsTable, MoneyColumn, UidLinkColumn
from apps.core.templatetags.commons import status_badge
from apps.core.views import ActionView, Crumb, DetailView, ListView
from apps.costs import cross_check_actions, cross_checks
from apps.costs import cross_check_causes as causes
from apps.costs.choices import CheckKind, CheckState
from apps.costs.cross_check_actions import remainder_of
from apps.costs.cross_check_events import CHECKS_EXPORTED
from apps.costs.models import CheckSetting, CrossCheck
from apps.costs.tables import MonthFilter
from apps.metering import billing
from apps.teams import scope
from portal.panels import nav

TONES = {CheckState.OPEN: "caution", CheckState.EXPLAINED: "info", CheckState.MATCHED: "positive"}

nav("Cross-checks", "costs:cross-check-list", icon="scale", order=70, permission="rates.card.view", group="Money")
nav("Bills", "costs:bill-list", icon="receipt", order=71, permission="rates.card.view", group="Money")


class ForReaders(PageView):
    """Base of pages about whole clusters' money: for those who read statements everywhere."""

    permission = "costs.statement.view"

    def check_permission(self) -> None:
        """Raise NotAllowed for who reads statements of some teams or units only."""
        if not scope.of(self.request.user).everywhere("costs.statement.view"):
            raise NotAllowed(
                "These are figures of whole clusters: for those who read statements everywhere.",
                rule="costs.statement.view",
            )


class ForFinance(PageView):
    """Base of pages that change comparisons and bills."""

    permission = "costs.bill.manage"

    def check_permission(self) -> None:
        """Raise NotAllowed for who is not finance of the whole installation."""
        if not may_manage(self.request.user):
            raise NotAllowed("Only finance of the whole installation does this.", rule="costs.bill.manage")


def may_manage(user: Any) -> bool:
    """Whether a person may explain differences, import bills and set endpoints."""
    return bool(scope.of(user).everywhere("costs.bill.manage"))


class CrossCheckTable(CommonsTable):
    """Days of clusters, newest first."""

    day = UidLinkColumn("costs:cross-check-detail", kwarg="check_uid")
    cluster = tables.Column()
    kind = tables.Column(verbose_name="Compared with", attrs={"cell": {"class": "d-none d-lg-table-cell"}})
    ours = MoneyColumn(attrs={"cell": {"class": "figure d-none d-md-table-cell"}})
    theirs = MoneyColumn(attrs={"cell": {"class": "figure d-none d-md-table-cell"}})
    difference = tables.Column(empty_values=(), orderable=False, attrs={"cell": {"class": "figure"}})
    remainder = tables.Column(
        empty_values=(), orderable=False, verbose_name="Without a known cause",
        attrs={"cell": {"class": "figure d-none d-md-table-cell"}},
    )  # fmt: skip
    state = tables.Column()
    explained_by = tables.Column(attrs={"cell": {"class": "d-none d-lg-table-cell"}})
    # On a day's own page, and in files.
    checked_at = AgeColumn(verbose_name="Checked", attrs={"cell": {"class": "d-none"}})

    class Meta(CommonsTable.Meta):
        model = CrossCheck
        fields = (
            "day", "cluster", "kind", "ours", "theirs", "difference", "remainder", "state", "explained_by",
            "checked_at",
        )  # fmt: skip
        order_by = ("-day", "cluster")
        caption = "Cross-checks"

    def value_difference(self, record: CrossCheck) -> Decimal | None:
        """Export ours − theirs."""
        return None if record.ours is None or record.theirs is None else record.ours - record.theirs

    def render_difference(self, record: CrossCheck) -> str:
        """Write ours − theirs."""
        return signed(self.value_difference(record), record.currency)

    def value_remainder(self, record: CrossCheck) -> Decimal | None:
        """Export what no known cause explains."""
        return remainder_of(record)

    def render_remainder(self, record: CrossCheck) -> str:
        """Write what no known cause explains."""
        return signed(remainder_of(record), record.currency)

    def render_state(self, record: CrossCheck) -> Any:
        """Draw the state as a badge."""
        return status_badge(record.state, record.get_state_display(), TONES[CheckState(record.state)])

    def value_state(self, record: CrossCheck) -> str:
        """Export the state in words."""
        return record.get_state_display()


def signed(value: Decimal | None, currency: str) -> str:
    """Write a difference with its sign; unknown where a side is."""
    if value is None:
        return "unknown"
    money = Money(value, currency).quantized()
    return f"+{money}" if money.amount > 0 else str(money)


class CrossCheckFilter(CommonsFilterSet):
    """Filter by state, cluster, month and what it is compared with."""

    state = django_filters.ChoiceFilter(choices=CheckState.choices, label="State")
    cluster = django_filters.ModelChoiceFilter(
        queryset=Cluster.objects.order_by("name", "pk"), to_field_name="slug", label="Cluster"
    )
    kind = django_filters.ChoiceFilter(choices=CheckKind.choices, label="Compared with")
    month = MonthFilter(label="Month (yyyy-mm)", method="by_month")

    class Meta:
        model = CrossCheck
        fields = ["state", "cluster", "kind"]

    def by_month(self, queryset: Any, name: str, value: str) -> Any:
        """Keep a month's days."""
        first = billing.parse_month(value)
        return queryset.filter(day__gte=first, day__lt=billing.following(first))


class CrossCheckList(ForReaders, ListView):
    """Our figures of clusters' days beside those of their cost tools and invoices."""

    title = "Cross-checks"
    queryset = CrossCheck.objects.select_related("cluster", "explained_by")
    table_class = CrossCheckTable
    filterset_class = CrossCheckFilter
    export_event = CHECKS_EXPORTED
    intro = (
        "What we charged on a cluster's day beside what OpenCost or Kubecost say, and beside invoices. Known causes "
        "are told apart; what is left beyond the tolerance is open until finance explains it."
    )
    empty_title = "Nothing to compare yet"
    empty_text = "Give a cluster's OpenCost or Kubecost under Endpoints, or import a bill."
    empty_icon = "scale"

    def get_page_actions(self) -> list[tuple[str, str]]:
        """Lead to the endpoints."""
        return [("Endpoints", reverse("costs:check-setting-list"))]


class CrossCheckDetail(ForReaders, DetailView):
    """A day of a cluster: both sides, the known causes, what is left, the explanation."""

    queryset = CrossCheck.objects.select_related("cluster", "explained_by")
    template_name = "costs/cross_check_detail.html"

    def get_title(self) -> str:
        """Name cluster and day."""
        return f"{self.object.cluster}: {self.object.day:%d %B %Y}"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [Crumb("Cross-checks", reverse("costs:cross-check-list"))]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the causes and what may be done."""
        row = self.object
        open_or_explained = row.state != CheckState.MATCHED
        return super().get_context(
            **sides(row),
            causes=[
                (causes.NAMES.get(cause["code"], cause["code"]), signed(Decimal(cause["amount"]), row.currency))
                for cause in row.causes
            ],
            zone=billing.zone_name(),
            setting=cross_checks.setting_for(row.cluster),
            may_explain=open_or_explained and may_manage(self.request.user),
            **extra,
        )


def sides(row: CrossCheck) -> dict[str, Any]:
    """Return what pages show of both sides of a comparison."""
    difference = None if row.ours is None or row.theirs is None else row.ours - row.theirs
    return {
        "ours": None if row.ours is None else Money(row.ours, row.currency).quantized(),
        "theirs": None if row.theirs is None else Money(row.theirs, row.currency).quantized(),
        "difference": signed(difference, row.currency),
        "remainder": signed(remainder_of(row), row.currency),
        "is_bill": row.kind == CheckKind.BILL,
        "tone": TONES[CheckState(row.state)],
    }


class ExplainForm(CommonsForm):
    """Why a difference is there."""

    reason = forms.CharField(
        label="Explanation",
        max_length=500,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="Auditors read it. It stays while neither figure moves.",
    )


class CrossCheckExplain(ForFinance, ActionView):
    """Say why a difference is there."""

    queryset = CrossCheck.objects.select_related("cluster")
    form_class = ExplainForm
    summary_template = "costs/cross_check_sides.html"
    submit_label = "Explain"
    success_message = "The difference is explained."

    def get_title(self) -> str:
        """Name cluster and day."""
        return f"Explain {self.object.cluster}, {self.object.day:%d %B %Y}"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the day."""
        return [
            Crumb("Cross-checks", reverse("costs:cross-check-list")),
            Crumb(f"{self.object.cluster}, {self.object.day:%Y-%m-%d}", check_url(self.object)),
        ]

    def check_state(self) -> None:
        """Raise Conflict where there is no difference."""
        if self.object.state == CheckState.MATCHED:
            raise Conflict("There is no difference beyond the tolerance to explain.")

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Show what is to be explained."""
        return super().get_context(**sides(self.object), **extra)

    def perform(self, form: Any) -> str:
        """Explain it."""
        row = cross_check_actions.explain(
            self.object.pk, form.cleaned_data["reason"], actor=self.actor, expected_version=self.expected_version
        )
        return check_url(row)


def check_url(row: CrossCheck) -> str:
    """Return the page of a comparison."""
    return reverse("costs:cross-check-detail", kwargs={"check_uid": row.uid})


class CheckSettingList(ForReaders):
    """Where each cluster's cost tool answers, and how much of a difference is none."""

    title = "Endpoints of cost tools"
    queryset = CheckSetting.objects.all()
    template_name = "costs/cross_check_settings.html"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [Crumb("Cross-checks", reverse("costs:cross-check-list"))]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add one row per cluster, at most 500."""
        known = {row.cluster_id: row for row in self.get_queryset()}
        checked = {cluster.pk for cluster in cross_checks.clusters_to_check()}
        clusters = list(Cluster.objects.order_by("name", "pk")[:500])
        rows = [
            (
                cluster,
                known.get(cluster.pk) or CheckSetting(cluster=cluster, currency=cross_checks.ledger()),
                cluster.pk in checked,
            )
            for cluster in clusters
        ]
        return super().get_context(rows=rows, may_set=may_manage(self.request.user), **extra)


class CheckSettingForm(CommonsForm):
    """Where a cluster's cost tool answers."""

    enabled = forms.BooleanField(required=False, label="Compare every ended day")
    url = forms.CharField(
        required=False,
        max_length=300,
        label="Address",
        help_text="Of OpenCost or Kubecost, for comparison only. Empty: the cluster's source of usage, where that is "
        "an allocation API.",
    )
    path = forms.CharField(
        max_length=100, label="Path", help_text="/allocation for OpenCost, /model/allocation for Kubecost."
    )
    token = forms.CharField(
        required=False,
        label="Bearer token",
        max_length=4000,
        widget=forms.PasswordInput(attrs={"autocomplete": "off"}),
        help_text="Stored encrypted, never shown. Empty: as it is.",
    )
    forget_token = forms.BooleanField(required=False, label="Forget the stored token")
    currency = forms.CharField(
        max_length=3, label="Currency", help_text="They name none themselves: what they are set to."
    )
    resolution_seconds = WholeNumberField(
        unit="s", label="Resolution", help_text="OpenCost samples pods every 300 s by default."
    )
    tolerance_permille = WholeNumberField(unit="‰", label="Tolerance, of our figure")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["tolerance_amount"] = AmountField(
            currency=settings.COMMONS_CURRENCY,
            label="Tolerance, as an amount",
            help_text="Whichever of the two is more. What is left after the known causes counts.",
        )


class CheckSettingEdit(ForFinance, ActionView):
    """Say where a cluster's cost tool answers, and how much of a difference is none."""

    queryset = Cluster.objects.all()
    lookup = "slug"
    form_class = CheckSettingForm
    submit_label = "Save"
    success_message = "Saved. Days are compared within the hour."

    def get_object(self) -> Any:
        """Return the cluster: whoever compares the installation's money knows all of them."""
        row = Cluster.objects.filter(slug=self.kwargs["cluster_slug"]).first()
        if row is None or not may_manage(self.request.user):
            raise NotVisible
        return row

    def get_title(self) -> str:
        """Name the cluster."""
        return f"Compare {self.object}"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the endpoints."""
        return [
            Crumb("Cross-checks", reverse("costs:cross-check-list")),
            Crumb("Endpoints of cost tools", reverse("costs:check-setting-list")),
        ]

    def get_initial(self) -> dict[str, Any]:
        """Show how it is set."""
        row = cross_checks.setting_for(self.object)
        names = ("enabled", "url", "path", "currency", "resolution_seconds", "tolerance_permille", "tolerance_amount")
        return {**{name: getattr(row, name) for name in names}, "version": row.version}

    def perform(self, form: Any) -> str:
        """Save it."""
        data = dict(form.cleaned_data)
        data.pop("version", None)
        forget, token = data.pop("forget_token"), data.pop("token")
        cross_check_actions.set_endpoint(
            self.object.pk,
            **data,
            token="" if forget else (token or None),
            actor=self.actor,
            expected_version=self.expected_version,
        )
        return reverse("costs:check-setting-list")
