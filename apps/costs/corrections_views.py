"""Pages of corrections: what was billed late, why, and the late rows behind it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

import django_filters
import django_tables2 as tables
from django.db import connection
from django.db.models import DecimalField, ExpressionWrapper, F, QuerySet
from django.db.models.functions import Cast
from django.urls import reverse

from apps.core.filters import CommonsFilterSet
from apps.core.money import MILLISECONDS_PER_HOUR, Money
from apps.core.tables import CommonsTable, QuantityColumn, UidLinkColumn
from apps.core.views import Crumb, DetailView, ListView
from apps.costs import corrections_books
from apps.costs.adjusting_events import CORRECTIONS_EXPORTED
from apps.costs.choices import ChargeKind
from apps.costs.models import Correction
from apps.costs.tables import MonthFilter, UnitFilter
from apps.metering import billing

_WIDE = {"cell": {"class": "d-none d-md-table-cell"}}
_CENTS = Decimal("0.01")
_ONE_LINE = {"cell": {"class": "text-nowrap d-none d-md-table-cell"}}
_SHOWN = Decimal("0.000001")
_EXACT = DecimalField(max_digits=40, decimal_places=16)


def priced() -> QuerySet[Correction]:
    """Return corrections with their exact amount (`exact`; NULL: no price, unknown)."""
    product = Cast(F("quantity_ms"), _EXACT) * F("rate__amount") / Decimal(MILLISECONDS_PER_HOUR)
    exact = ExpressionWrapper(product, output_field=_EXACT)
    return Correction.objects.select_related("period", "corrects", "cluster", "rate").annotate(exact=exact)


class CorrectionTable(CommonsTable):
    """Corrections: original hour, cause, quantity, price, amount."""

    hour = UidLinkColumn("costs:correction-detail", kwarg="correction_uid", verbose_name="Original hour")
    period = tables.Column(accessor="period__month", verbose_name="Billed in", attrs=_ONE_LINE)
    corrects = tables.Column(accessor="corrects__month", verbose_name="Of month", attrs=_WIDE)
    team_name = tables.Column(verbose_name="Team", empty_values=())
    kind = tables.Column(attrs=_WIDE)
    cluster = tables.Column(accessor="cluster__name", verbose_name="Cluster", attrs=_WIDE)
    gpu_ms = QuantityColumn(verbose_name="GPU-hours", attrs=_WIDE)
    price = tables.Column(accessor="rate__amount", verbose_name="Price per hour", attrs=_WIDE)
    exact = tables.Column(verbose_name="Amount, exact", attrs={"cell": {"class": "figure"}})
    reason = tables.Column(verbose_name="Cause", attrs={"cell": {"class": "d-none d-lg-table-cell"}})

    class Meta(CommonsTable.Meta):
        model = Correction
        fields = ("hour", "period", "corrects", "team_name", "kind", "cluster", "gpu_ms", "price", "exact", "reason")
        order_by = ("-hour",)
        caption = "Corrections"

    def render_hour(self, value: datetime, record: Any, column: UidLinkColumn) -> Any:
        """Write the hour as a link to the correction."""
        return column.render(f"{value:%Y-%m-%d %H:%M} UTC", record)

    def value_hour(self, value: datetime) -> datetime:
        """Export the moment."""
        return value

    def render_reason(self, value: str, record: Any) -> str:
        """Write the cause without the hour that it begins with: that is a column of its own."""
        words = value.removeprefix(f"{record.hour:%Y-%m-%d %H:%M} UTC ")
        return words[:1].upper() + words[1:]

    def render_period(self, value: Any) -> str:
        """Write the month."""
        return f"{value:%Y-%m}"

    render_corrects = render_period

    def render_team_name(self, value: str) -> str:
        """Name the team; what nobody owns is the platform's."""
        return value or "Platform"

    def render_price(self, value: Decimal) -> str:
        """Write the price without zeros at its end, but with cents."""
        return f"{value.normalize():f}" if value != value.quantize(_CENTS) else f"{value:.2f}"

    def render_exact(self, value: Decimal, record: Any) -> str:
        """Write the amount with what lies below the cent: rounding is a matter of whole statements, not of rows."""
        places = max(2, -int(Decimal(value.quantize(_SHOWN).normalize().as_tuple().exponent)))
        return f"{value:,.{places}f} {record.rate.currency}"

    def value_exact(self, value: Decimal | None) -> Decimal | None:
        """Export six decimals."""
        return None if value is None else Decimal(value.quantize(Decimal("0.000001")))


class CorrectionFilter(CommonsFilterSet):
    """Filter corrections."""

    period = MonthFilter(label="Billed in (yyyy-mm)", method="by_month")
    corrects = MonthFilter(label="Of month (yyyy-mm)", method="by_month")
    team = django_filters.CharFilter(field_name="team_name", lookup_expr="iexact", label="Team", max_length=200)
    unit = UnitFilter("unit_id")
    kind = django_filters.ChoiceFilter(choices=ChargeKind.choices, label="Kind")

    class Meta:
        model = Correction
        fields = ["kind"]

    def by_month(self, queryset: Any, name: str, value: str) -> Any:
        """Keep a month."""
        return queryset.filter(**{f"{name}__month": billing.parse_month(value)})


class CorrectionList(ListView):
    """Corrections in scope."""

    title = "Corrections"
    intro = (
        "What arrived after a month was closed: billed in an open month, at the original hour and its own price. The"
        " closed month never changes."
    )
    permission = "costs.statement.view"
    queryset = staticmethod(priced)
    table_class = CorrectionTable
    filterset_class = CorrectionFilter
    export_event = CORRECTIONS_EXPORTED
    empty_title = "No corrections"
    empty_text = "Nothing arrived after its month was closed."
    empty_icon = "receipt"


class CorrectionDetail(DetailView):
    """One correction with everything late of its hour, beside what was billed."""

    title = "Correction"
    permission = "costs.statement.view"
    queryset = staticmethod(priced)
    template_name = "costs/correction_detail.html"
    url_kwarg = "correction_uid"

    def scope_object(self) -> Any:
        """What nobody owns hangs on no team: `visible_to` has decided who sees it."""
        return self.object if self.object.team_id is not None else None

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the month's corrections."""
        url = f"{reverse('costs:correction-list')}?period={self.object.period}"
        return [Crumb("Corrections", url)]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the late facts of the owner, and all corrections of the same hour and owner."""
        row: Correction = self.object
        exact: Decimal | None = self.object.exact
        hour = [row.hour]
        same = self.get_queryset().filter(cluster_id=row.cluster_id, hour=row.hour, team_id=row.team_id)
        return super().get_context(
            row=row,
            amount=None if exact is None else Money(exact, self.object.rate.currency),
            facts=late_facts(row),
            same=list(same.order_by("pk")[:200]),
            billed_ms=sum(
                entry.gpu_ms
                for entry in corrections_books.charged_entries(row.cluster_id, hour).get(row.hour, [])
                if (entry.key.team_id, entry.key.kind) == (row.team_id, row.kind)
            ),
            **extra,
        )


def late_facts(row: Correction, limit: int = 500) -> list[Mapping[str, Any]]:
    """Return the late facts, capacity lines and resources that a correction stands on: of its hour, reading and owner.

    One statement for the three tables of late rows.
    """
    owner = "x.team_id IS NOT DISTINCT FROM %(team)s"
    where = f"x.cluster_id = %(cluster)s AND x.hour = %(hour)s AND x.revision = %(revision)s AND {owner}"
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT x.uid, x.workload_name, x.namespace, x.flavour_name, x.allocated_unit_ms, x.allocated_gpu_ms"  # noqa: S608 (own constants)
            f" FROM metering_latefact x WHERE {where} AND %(kind)s IN ('allocated', 'unattributed')"
            " UNION ALL SELECT x.uid, x.kind, '', x.gpu_model, x.gpu_ms, x.gpu_ms"
            f" FROM metering_lateline x WHERE {where} AND x.kind = %(kind)s"
            " UNION ALL SELECT x.uid, x.workload_name, x.namespace, x.resource, x.quantity_ms, 0"
            f" FROM metering_lateresource x WHERE {where} AND x.resource = %(kind)s ORDER BY 2, 3, 1 LIMIT %(limit)s",
            {
                "cluster": row.cluster_id, "hour": row.hour, "revision": row.hour_revision, "team": row.team_id,
                "kind": row.kind, "limit": limit,
            },
        )  # fmt: skip
        columns = ("uid", "name", "namespace", "what", "quantity_ms", "gpu_ms")
        return [dict(zip(columns, values, strict=True)) for values in cursor.fetchall()]
