"""Pages of statements: the list, and one with its lines."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import django_filters
import django_tables2 as tables
from django.urls import reverse
from django.utils.html import format_html

from apps.clusters.models import Cluster
from apps.core import clock
from apps.core.errors import NotVisible
from apps.core.filters import CommonsFilterSet
from apps.core.money import Money
from apps.core.permissions import may
from apps.core.tables import CommonsTable, MoneyColumn, QuantityColumn, TimeColumn, UidLinkColumn
from apps.core.views import Crumb, ListView
from apps.costs import statement_digests
from apps.costs.choices import UNALLOCATED, BillingMode, ChargeKind, LineSort, OwnerKind
from apps.costs.models import RunningStatement, Statement, StatementLine
from apps.costs.period_events import LINES_EXPORTED, STATEMENTS_EXPORTED
from apps.costs.period_views import VIEW, period_url
from apps.costs.tables import MonthFilter
from apps.costs.views import month_url
from apps.metering import billing
from apps.rates.models import Rate
from apps.teams.models import Team, Unit


class StatementFilter(CommonsFilterSet):
    """Filter statements."""

    month = MonthFilter(label="Month (yyyy-mm)", method="by_month")
    owner_kind = django_filters.ChoiceFilter(choices=OwnerKind.choices, label="For")
    unit = django_filters.ModelChoiceFilter(
        queryset=Unit.objects.order_by("name"), to_field_name="slug", label="Unit and below", method="by_unit"
    )
    mode = django_filters.ChoiceFilter(choices=BillingMode.choices, label="Mode")
    superseded = django_filters.BooleanFilter(
        field_name="superseded_at", lookup_expr="isnull", exclude=True, label="Superseded"
    )

    class Meta:
        model = Statement
        fields = ["owner_kind", "mode"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        user = self.request.user if self.request is not None else None
        self.filters["unit"].queryset = Unit.objects.visible_to(user).order_by("name")

    def by_month(self, queryset: Any, name: str, value: str) -> Any:
        """Keep a billing month."""
        return queryset.filter(period__month=billing.parse_month(value))

    def by_unit(self, queryset: Any, name: str, value: Unit) -> Any:
        """Keep the statements of a unit and of everything that was below it."""
        return queryset.filter(unit_path__contains=[value.pk])


class StatementTable(CommonsTable):
    """Statements, newest month first."""

    number = UidLinkColumn("costs:statement-detail", kwarg="statement_uid", attrs={"cell": {"class": "text-nowrap"}})
    period = tables.Column(verbose_name="Month", order_by="period__month")
    owner_kind = tables.Column(verbose_name="For")
    owner_name = tables.Column(verbose_name="Owner", order_by=("team_name", "unit_name", "cost_centre"))
    unit_name = tables.Column(verbose_name="Unit", attrs={"cell": {"class": "d-none d-lg-table-cell"}})
    cost_centre = tables.Column(attrs={"cell": {"class": "d-none d-md-table-cell"}})
    mode = tables.Column(attrs={"cell": {"class": "d-none d-lg-table-cell"}})
    gpu_ms = QuantityColumn(verbose_name="GPU-hours", attrs={"cell": {"class": "d-none d-md-table-cell"}})
    own_amount = MoneyColumn(verbose_name="Without shares")
    amount = MoneyColumn(verbose_name="Total")
    superseded_at = TimeColumn(verbose_name="Superseded", attrs={"cell": {"class": "d-none d-lg-table-cell"}})

    class Meta(CommonsTable.Meta):
        model = Statement
        fields = (
            "number", "period", "owner_kind", "owner_name", "unit_name", "cost_centre", "mode", "gpu_ms", "own_amount",
            "amount", "superseded_at",
        )  # fmt: skip
        order_by = ("-period", "number")
        caption = "Statements"

    def render_mode(self, record: Statement) -> str:
        """Write the mode in one word."""
        return str(BillingMode(record.mode).label).partition(":")[0]


class StatementList(ListView):
    """Statements in scope."""

    title = "Statements"
    permission = VIEW
    queryset = Statement.objects.select_related("period")
    table_class = StatementTable
    filterset_class = StatementFilter
    export_event = STATEMENTS_EXPORTED
    intro = "What each team, unit and cost centre was charged for a closed month. A statement never changes."
    empty_title = "No statements yet"
    empty_text = "They are frozen when finance closes a month. Until then the month's page shows running statements."
    empty_icon = "receipt"

    def get_page_actions(self) -> list[tuple[str, str]]:
        """Lead to the statements of the month that runs."""
        return [("Running month", reverse("costs:running-list", kwargs={"month": _this_month()}))]


def _this_month() -> str:
    return f"{billing.month_of(clock.now()):%Y-%m}"


_Shown = Statement | RunningStatement


class LineTable(CommonsTable):
    """Lines of a statement: quantity × price = exact cost, rounded with all other lines against the pool's bill."""

    ordinal = QuantityColumn(unit=None, verbose_name="No.")
    description = tables.Column()
    cluster_name = tables.Column(verbose_name="Cluster")
    flavour_name = tables.Column(verbose_name="Flavour", attrs={"cell": {"class": "d-none d-md-table-cell"}})
    charge_start = TimeColumn(verbose_name="From", attrs={"cell": {"class": "d-none d-xl-table-cell"}})
    charge_end = TimeColumn(verbose_name="Until", attrs={"cell": {"class": "d-none d-xl-table-cell"}})
    quantity_ms = QuantityColumn(verbose_name="Unit-hours")
    hourly = tables.Column(verbose_name="Price", attrs={"cell": {"class": "figure"}})
    exact = tables.Column(
        verbose_name="Exact", empty_values=(), attrs={"cell": {"class": "figure d-none d-lg-table-cell"}}
    )
    ratio_ppm = tables.Column(verbose_name="Share", attrs={"cell": {"class": "figure d-none d-lg-table-cell"}})
    method = tables.Column(verbose_name="Method", attrs={"cell": {"class": "d-none d-xl-table-cell"}})
    amount = tables.Column(empty_values=(), attrs={"cell": {"class": "figure"}})

    class Meta(CommonsTable.Meta):
        model = StatementLine
        fields = (
            "ordinal", "description", "cluster_name", "flavour_name", "charge_start", "charge_end", "quantity_ms",
            "hourly", "amount", "exact", "ratio_ppm", "method",
        )  # fmt: skip
        # The amount before its working: on a narrow screen what scrolls away is the working.
        sequence = fields
        order_by = ("ordinal",)
        caption = "Lines"

    def __init__(self, *args: Any, statement: _Shown, links: Links, **kwargs: Any) -> None:
        self.statement, self.links = statement, links
        super().__init__(*args, **kwargs)

    def render_description(self, record: StatementLine) -> Any:
        """Lead to what is behind the line."""
        url = behind(self.statement, record, self.links)
        return format_html('<a href="{}">{}</a>', url, record.description) if url else record.description

    def value_description(self, record: StatementLine) -> str:
        """Export the words."""
        return record.description

    def render_hourly(self, value: Decimal) -> str:
        """Write the price with all its decimals."""
        return f"{value.normalize():f} {self.statement.currency}"

    def value_hourly(self, value: Decimal | None) -> Decimal | None:
        """Export the price as a number."""
        return value

    def render_exact(self, record: StatementLine) -> str:
        """Write the exact cost, or that it is unknown."""
        return "unknown" if record.exact is None else f"{record.exact.normalize():,f} {self.statement.currency}"

    def value_exact(self, record: StatementLine) -> Decimal | None:
        """Export the exact cost to twelve decimals."""
        return record.exact

    def render_ratio_ppm(self, value: int) -> str:
        """Write the share of the whole in per cent."""
        return f"{Decimal(value) / 10_000:.4f} %"

    def value_ratio_ppm(self, value: int | None) -> int | None:
        """Export the share in parts per million."""
        return value

    def render_amount(self, record: StatementLine) -> str:
        """Write the rounded amount, or that it is unknown."""
        return "unknown" if record.exact is None else str(Money(record.amount, self.statement.currency))

    def value_amount(self, record: StatementLine) -> Decimal | None:
        """Export the rounded amount; nothing where it is unknown."""
        return None if record.exact is None else record.amount


@dataclass(frozen=True, slots=True)
class Links:
    """What the links of a statement's lines are made of: pages by reference, slugs of clusters, uids of rates."""

    pages: dict[Any, str] = field(default_factory=dict)
    clusters: dict[int, str] = field(default_factory=dict)
    rates: dict[int, uuid.UUID] = field(default_factory=dict)


def behind(statement: _Shown, line: StatementLine, links: Links) -> str:
    """Return the page of what a line is made of: its charges, a common cost, the team's statement, or nothing."""
    if line.reference is not None:
        return links.pages.get(line.reference, "")
    month = f"{statement.period.month:%Y-%m}"
    if line.sort == LineSort.TEAM:
        # A running statement is no row that stays: it is named by its number, which the line begins with.
        number = line.description.partition(" ")[0]
        return reverse("costs:running-detail", kwargs={"month": month, "number": number})
    if line.sort == LineSort.DISTRIBUTED and line.kind in UNALLOCATED and line.kind != ChargeKind.RESERVED_UNUSED:
        address = reverse("costs:unallocated-month", kwargs={"month": month})
        return f"{address}?{urlencode({'kind': line.kind})}"
    if line.sort != LineSort.CHARGE and line.kind != ChargeKind.RESERVED_UNUSED:
        return ""
    query = {"month": month, "kind": line.kind}
    if statement.owner_kind == OwnerKind.TEAM:
        query["team"] = statement.team_name
    if slug := links.clusters.get(line.cluster_id or 0):
        query["cluster"] = slug
    if line.rate_id is None:
        query["unpriced"] = "true"
    elif rate := links.rates.get(line.rate_id):
        query["rate"] = str(rate)
    return f"{reverse('costs:charge-list')}?{urlencode(query)}"


def links_of(lines: Sequence[StatementLine]) -> Links:
    """Return where these lines lead: statements, corrections, credits, bills, clusters and rates. Two queries."""
    pages = {
        LineSort.TEAM: ("costs:statement-detail", "statement_uid"),
        LineSort.CORRECTION: ("costs:correction-detail", "correction_uid"),
        LineSort.CREDIT: ("costs:credit-detail", "credit_uid"),
    }
    found = Links()
    for line in lines:
        if line.reference is None:
            continue
        if line.sort in pages:
            name, key = pages[LineSort(line.sort)]
            found.pages[line.reference] = reverse(name, kwargs={key: line.reference})
        elif line.sort == LineSort.ROUNDING:
            found.pages[line.reference] = reverse("costs:bill-list")
    clusters = {line.cluster_id for line in lines if line.cluster_id is not None}
    rates = {line.rate_id for line in lines if line.rate_id is not None}
    found.clusters.update(Cluster.objects.filter(pk__in=clusters).values_list("pk", "slug"))
    found.rates.update(Rate.objects.filter(pk__in=rates).values_list("pk", "uid"))
    return found


class StatementDetail(ListView):
    """A statement: header, totals with and without shares of common cost, and its lines."""

    permission = VIEW
    table_class = LineTable
    template_name = "costs/statement_detail.html"
    export_event = LINES_EXPORTED
    statement: Statement

    def prepare(self) -> None:
        """Load the statement. Raises NotVisible."""
        rows = Statement.objects.visible_to(self.request.user).select_related("period__distribution", "team")
        found = rows.filter(uid=self.kwargs["statement_uid"]).first()
        if found is None:
            raise NotVisible
        self.statement = found

    @property
    def shares(self) -> bool:
        """Whether shares of common cost are shown."""
        return self.request.GET.get("shares", "1") != "0"

    def get_base_queryset(self) -> Any:
        """The statement's lines."""
        rows = StatementLine.objects.filter(statement=self.statement)
        return rows if self.shares else rows.exclude(sort=LineSort.DISTRIBUTED)

    def get_table_kwargs(self) -> dict[str, Any]:
        """Give the table what its links need."""
        summed = self.statement.owner_kind in (OwnerKind.UNIT, OwnerKind.COST_CENTRE)
        columns = ("sort", "reference", "cluster_id", "rate_id", "statement_id")
        links = links_of(list(self.get_base_queryset().only(*columns)))
        hidden = ("quantity_ms", "hourly", "ratio_ppm", "method", "cluster_name", "flavour_name") if summed else ()
        return {"statement": self.statement, "links": links, "exclude": hidden}

    def get_title(self) -> str:
        """Return number and owner."""
        return f"{self.statement.number}: {self.statement.owner_name}"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the month."""
        period = self.statement.period
        return [
            Crumb("Statements", reverse("costs:statement-list")),
            Crumb(f"{period.month:%B %Y}", period_url(period)),
        ]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the header, and whether the digest is that of the rows."""
        row = self.statement
        teams = Team.objects.visible_to(self.request.user)
        team = teams.filter(pk=row.team_id).first() if row.team_id is not None else None
        return super().get_context(
            statement=row,
            period=row.period,
            zone=billing.zone_name(),
            shares=self.shares,
            common=row.total - row.own,
            # What the platform keeps is mostly time that nobody had allocated.
            gpu_label="GPU time" if row.owner_kind == OwnerKind.PLATFORM else "Allocated",
            intact=statement_digests.digest_from_rows(row) == row.digest,
            days_url=month_url(team, row.period.month) if team else "",
            charges_url=_charges_url(row),
            may_dispute=row.superseded_at is None
            and row.owner_kind in (OwnerKind.TEAM, OwnerKind.UNIT)
            and may(self.request.user, "costs.statement.dispute", row),
            may_credit=row.superseded_at is None
            and row.owner_kind == OwnerKind.TEAM
            and may(self.request.user, "costs.credit.create", row),
            **extra,
        )


def _charges_url(row: Statement) -> str:
    query = {"month": f"{row.period.month:%Y-%m}"}
    if row.owner_kind == OwnerKind.TEAM:
        query["team"] = row.team_name
    return f"{reverse('costs:charge-list')}?{urlencode(query)}"


__all__ = ["Links", "StatementDetail", "StatementList", "behind", "links_of"]
