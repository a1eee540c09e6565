"""Charges and budgets through the API: what the pages show, and the same action."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, ClassVar

import django_filters
from django_filters.rest_framework import FilterSet
from rest_framework import serializers

from apps.core.api import CommonsViewSet
from apps.core.money import MILLISECONDS_PER_HOUR
from apps.core.paging import CursorPagination
from apps.costs import adjusting_api, books_api, period_api
from apps.costs.budget_api import BudgetStepViewSet, BudgetViewSet
from apps.costs.choices import ChargeKind
from apps.costs.models import Charge
from apps.costs.views import ChargeList


class ChargeSerializer(serializers.ModelSerializer[Charge]):
    """One charge. `cost` is quantity × rate to six decimals; null where no rate was in force: unknown, not zero."""

    rate_amount = serializers.DecimalField(max_digits=20, decimal_places=8, read_only=True, allow_null=True)
    currency = serializers.CharField(source="rate_currency", read_only=True, allow_null=True)
    cost = serializers.SerializerMethodField()

    class Meta:
        model = Charge
        fields = [
            "uid", "hour", "kind", "team_name", "unit_name", "cost_centre", "gpu_model", "quantity_ms", "gpu_ms",
            "environment", "capacity_type", "service_class", "rate_amount", "currency", "cost", "fact_uid", "revision",
        ]  # fmt: skip

    def get_cost(self, charge: Any) -> str | None:
        """The exact cost."""
        if charge.rate_amount is None:
            return None
        exact = Decimal(charge.quantity_ms) * charge.rate_amount / MILLISECONDS_PER_HOUR
        return str(exact.quantize(Decimal("0.000001")))


class ChargeFilter(FilterSet):
    """Filter charges."""

    since = django_filters.IsoDateTimeFilter(field_name="hour", lookup_expr="gte")
    until = django_filters.IsoDateTimeFilter(field_name="hour", lookup_expr="lt")
    kind = django_filters.ChoiceFilter(choices=ChargeKind.choices)
    team_name = django_filters.CharFilter()

    class Meta:
        model = Charge
        fields: ClassVar[list[str]] = []


class HourPagination(CursorPagination):
    """Newest hours first."""

    ordering: Any = ("-hour", "uid")


class ChargeViewSet(CommonsViewSet):
    """Charges of the teams and units in scope, by the team and unit on the row."""

    queryset = Charge.objects.all()
    serializer_class = ChargeSerializer
    filterset_class = ChargeFilter
    pagination_class = HourPagination
    permission = "costs.charge.view"

    def get_base_queryset(self) -> Any:
        """Charges with their rate."""
        return ChargeList.queryset()


routes = [
    ("charges", ChargeViewSet, "charge"),
    ("budgets", BudgetViewSet, "budget"),
    ("budget-steps", BudgetStepViewSet, "budget-step"),
    *period_api.routes,
    *adjusting_api.routes,
    *books_api.routes,
]
