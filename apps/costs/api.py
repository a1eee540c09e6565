"""Charges and budgets through the API: what the pages show, and the same action."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any, ClassVar

import django_filters
from django_filters.rest_framework import FilterSet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.api import CommonsViewSet
from apps.core.errors import Invalid, NotVisible
from apps.core.money import MILLISECONDS_PER_HOUR
from apps.core.paging import CursorPagination
from apps.costs import actions
from apps.costs.choices import ChargeKind
from apps.costs.models import Budget, Charge
from apps.costs.views import ChargeList
from apps.metering import billing
from apps.teams.models import Team


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


class BudgetSerializer(serializers.ModelSerializer[Budget]):
    """A team's budget from a month on."""

    team = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    set_by = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)

    class Meta:
        model = Budget
        fields = ["uid", "team", "month_from", "amount", "currency", "set_by", "created_at", "updated_at", "version"]


class BudgetInput(serializers.Serializer[Any]):
    """Set a team's budget."""

    team = serializers.SlugField()
    amount = serializers.DecimalField(max_digits=20, decimal_places=6)
    currency = serializers.CharField(max_length=3, required=False)
    month_from = serializers.CharField(max_length=7, help_text="yyyy-mm")


class BudgetViewSet(CommonsViewSet):
    """Budgets of the teams in scope; POST sets one."""

    queryset = Budget.objects.select_related("team", "set_by")
    serializer_class = BudgetSerializer
    permission = "costs.budget.view"
    permissions: ClassVar[dict[str, str]] = {"create": "costs.budget.set"}

    @extend_schema(request=BudgetInput, responses={201: BudgetSerializer})
    def create(self, request: Request) -> Response:
        """Set a team's budget from a month on."""
        data = self.read_input(BudgetInput)
        team = Team.objects.visible_to(request.user).filter(slug=data["team"]).first()
        if team is None:
            raise NotVisible
        budget = actions.set_budget(
            team.pk,
            data["amount"],
            _month(data["month_from"]),
            actor=self.actor,
            currency=data.get("currency", ""),
            expected_version=self.expected_version,
        )
        return self.answer(budget, status=201)


def _month(text: str) -> date:
    try:
        return billing.parse_month(text)
    except ValueError as error:
        raise Invalid({"month_from": "Write a month as yyyy-mm."}) from error


routes = [("charges", ChargeViewSet, "charge"), ("budgets", BudgetViewSet, "budget")]
