"""Billing months and statements through the API: read only; closing is done by people on pages."""

from __future__ import annotations

from typing import Any, ClassVar

import django_filters
from django_filters.rest_framework import FilterSet
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from apps.core.api import CommonsViewSet
from apps.core.errors import NotVisible
from apps.costs.choices import OwnerKind
from apps.costs.models import Period, Statement, StatementLine
from apps.costs.period_views import sees_all


class PeriodSerializer(serializers.ModelSerializer[Period]):
    """A billing month. `bill` is shown to who reads the statements of the whole installation, else null."""

    month = serializers.DateField(format="%Y-%m")
    distribution = serializers.IntegerField(source="distribution.number", read_only=True, default=None, allow_null=True)
    bill = serializers.SerializerMethodField()

    class Meta:
        model = Period
        fields = [
            "uid", "month", "start", "end", "status", "currency", "bill", "distribution", "digest", "closing_at",
            "closed_at", "reopened", "version",
        ]  # fmt: skip

    @extend_schema_field({"type": "string", "format": "decimal", "nullable": True})
    def get_bill(self, period: Period) -> str | None:
        """The pool's bill."""
        user = self.context["request"].user
        return str(period.bill) if period.bill is not None and sees_all(user) else None


class _Visible(CommonsViewSet):
    """Rows whose scope is all that decides who reads them: by team and unit as frozen, not as they are today."""

    permission = "costs.statement.view"
    queryset: Any = Period.objects.none()

    def get_object(self) -> Any:
        """Return the row. Raises NotVisible, whether it is missing or foreign."""
        row = self.filter_queryset(self.get_queryset()).filter(uid=self.kwargs["uid"]).first()
        if row is None:
            raise NotVisible
        return row


class PeriodViewSet(_Visible):
    """Billing months and where they stand."""

    queryset = Period.objects.select_related("distribution")
    serializer_class = PeriodSerializer


class LineSerializer(serializers.ModelSerializer[StatementLine]):
    """One line: quantity × price = exact cost (null: no price, unknown), rounded to `amount`."""

    rate = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    amount = serializers.SerializerMethodField()

    class Meta:
        model = StatementLine
        fields = [
            "ordinal", "sort", "kind", "description", "cluster_name", "flavour_name", "gpu_model", "rate", "hourly",
            "quantity_ms", "gpu_ms", "exact", "amount", "charge_start", "charge_end", "method", "ratio_ppm",
            "reference",
        ]  # fmt: skip

    @extend_schema_field({"type": "string", "format": "decimal", "nullable": True})
    def get_amount(self, line: StatementLine) -> str | None:
        """The rounded amount; null where it is unknown."""
        return None if line.exact is None else str(line.amount)


class StatementSerializer(serializers.ModelSerializer[Statement]):
    """A frozen statement."""

    month = serializers.DateField(source="period.month", format="%Y-%m", read_only=True)
    team = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    unit = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)

    class Meta:
        model = Statement
        fields = [
            "uid", "number", "month", "owner_kind", "team", "unit", "team_name", "unit_name", "cost_centre", "mode",
            "own_amount", "amount", "currency", "gpu_ms", "used_gpu_ms", "measured_gpu_ms", "unpriced_ms",
            "coverage_permille", "line_count", "digest", "issued_at", "superseded_at",
        ]  # fmt: skip


class StatementWithLines(StatementSerializer):
    """A statement with its lines, in their order."""

    lines = serializers.SerializerMethodField()

    class Meta(StatementSerializer.Meta):
        fields = [*StatementSerializer.Meta.fields, "lines"]

    @extend_schema_field(LineSerializer(many=True))
    def get_lines(self, statement: Statement) -> Any:
        """The lines."""
        return LineSerializer(statement.lines.select_related("rate").order_by("ordinal"), many=True).data


class StatementFilter(FilterSet):
    """Filter statements."""

    month = django_filters.DateFilter(field_name="period__month", input_formats=["%Y-%m"])
    owner_kind = django_filters.ChoiceFilter(choices=OwnerKind.choices)
    team = django_filters.CharFilter(field_name="team__slug")
    unit = django_filters.CharFilter(field_name="unit__slug")
    superseded = django_filters.BooleanFilter(field_name="superseded_at", lookup_expr="isnull", exclude=True)

    class Meta:
        model = Statement
        fields: ClassVar[list[str]] = []


class StatementViewSet(_Visible):
    """Statements of the teams and units in scope, by the team and unit on the row; one of them with its lines."""

    queryset = Statement.objects.select_related("period", "team", "unit")
    serializer_class = StatementSerializer
    filterset_class = StatementFilter

    def get_serializer_class(self) -> Any:
        """Give lines with a single statement only."""
        return StatementWithLines if self.action == "retrieve" else StatementSerializer


routes = [("periods", PeriodViewSet, "period"), ("statements", StatementViewSet, "statement")]
