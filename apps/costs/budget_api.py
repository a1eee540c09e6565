"""Budgets and their steps through the API: the same scope, the same action as the pages."""

from __future__ import annotations

from datetime import date
from typing import Any, ClassVar

import django_filters
from django_filters.rest_framework import FilterSet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core import clock
from apps.core.api import CommonsViewSet
from apps.core.errors import Invalid, NotVisible
from apps.costs import budget_actions, budget_figures, budget_parts
from apps.costs import budget_rules as rules
from apps.costs.budget_billed import PARTS
from apps.costs.models import Budget, BudgetStep
from apps.metering import billing
from apps.teams.models import Team, Unit


class BudgetSerializer(serializers.ModelSerializer[Budget]):
    """A team's or a unit's budget from a month on; `amount` or `gpu_hours` null: no such limit."""

    team = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True, allow_null=True)
    unit = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True, allow_null=True)
    set_by = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)

    class Meta:
        model = Budget
        fields = [
            "uid", "team", "unit", "month_from", "amount", "currency", "gpu_hours", "actions", "set_by", "created_at",
            "updated_at", "version",
        ]  # fmt: skip


class BudgetInput(serializers.Serializer[Any]):
    """Set a team's or a unit's budget. What is left out of `gpu_hours` and `actions` stays as it is."""

    team = serializers.SlugField(required=False)
    unit = serializers.SlugField(required=False)
    amount = serializers.DecimalField(max_digits=20, decimal_places=6, required=False, allow_null=True)
    gpu_hours = serializers.IntegerField(required=False, allow_null=True)
    currency = serializers.CharField(max_length=3, required=False)
    month_from = serializers.CharField(max_length=7, help_text="yyyy-mm")
    actions = serializers.DictField(
        child=serializers.ListField(child=serializers.ChoiceField(choices=rules.ACTION_NAMES)),
        required=False,
        help_text=f"Step ({', '.join(rules.STEPS)}) → what is done.",
    )


class ForecastSerializer(serializers.Serializer[Any]):
    """Where the month will end; `basis` says on what that stands."""

    low = serializers.DecimalField(max_digits=40, decimal_places=6)
    middle = serializers.DecimalField(max_digits=40, decimal_places=6, source="mid")
    high = serializers.DecimalField(max_digits=40, decimal_places=6)
    basis = serializers.CharField()


class PartSerializer(serializers.Serializer[Any]):
    """A part of what is billed, rounded so that the parts add up; `at_least`: some of it has no price."""

    part = serializers.ChoiceField(choices=PARTS, source="code")
    amount = serializers.DecimalField(max_digits=40, decimal_places=2, source="amount.amount")
    gpu_ms = serializers.IntegerField()
    at_least = serializers.BooleanField(source="unpriced")


class StandingSerializer(serializers.Serializer[Any]):
    """How a budget stands in a month: what is billed in it without shares of common cost, as on the budget's page."""

    budget = serializers.UUIDField(source="budget.uid")
    month = serializers.DateField()
    currency = serializers.CharField(source="budget.currency")
    spent = serializers.DecimalField(max_digits=40, decimal_places=2, source="spent_shown.amount")
    at_least = serializers.BooleanField(help_text="Part of it has no price: the money is at least this much.")
    left = serializers.DecimalField(max_digits=40, decimal_places=2, source="left_amount", allow_null=True)
    gpu_ms = serializers.IntegerField()
    parts = PartSerializer(many=True)
    money_forecast = ForecastSerializer(allow_null=True)
    gpu_hours_forecast = ForecastSerializer(allow_null=True, source="hours_forecast")
    step_reached = serializers.CharField(source="reached", help_text="The highest step passed now; empty: none.")


_MONTH = OpenApiParameter("month", str, description="yyyy-mm; left out: the present billing month.")


class BudgetViewSet(CommonsViewSet):
    """Budgets of the teams and units in scope; POST sets one."""

    queryset = Budget.objects.select_related("team", "unit", "set_by")
    serializer_class = BudgetSerializer
    permission = "costs.budget.view"
    permissions: ClassVar[dict[str, str]] = {"create": "costs.budget.set"}

    @extend_schema(request=BudgetInput, responses={201: BudgetSerializer})
    def create(self, request: Request) -> Response:
        """Set a team's or a unit's budget from a month on."""
        data = self.read_input(BudgetInput)
        if bool(data.get("team")) == bool(data.get("unit")):
            raise Invalid({"team": "Name a team or a unit."})
        owner: Team | Unit | None
        if data.get("team"):
            owner = Team.objects.visible_to(request.user).filter(slug=data["team"]).first()
        else:
            owner = Unit.objects.visible_to(request.user).filter(slug=data["unit"]).first()
        if owner is None:
            raise NotVisible
        month = _month(data["month_from"])
        is_team = isinstance(owner, Team)
        held = budget_figures.budget_of(("team" if is_team else "unit", owner.pk), month)
        budget = budget_actions.set_limits(
            team_id=owner.pk if is_team else None,
            unit_id=None if is_team else owner.pk,
            amount=data.get("amount", held.amount if held is not None else None),
            gpu_hours=data.get("gpu_hours", held.gpu_hours if held is not None else None),
            month_from=month,
            actions=data.get("actions"),
            actor=self.actor,
            currency=data.get("currency", ""),
            expected_version=self.expected_version,
        )
        return self.answer(budget, status=201)

    @extend_schema(parameters=[_MONTH], responses=StandingSerializer)
    @action(detail=True, methods=["get"], pagination_class=None, filter_backends=[])
    def standing(self, request: Request, uid: str) -> Response:
        """How the budget stands in a month, with the parts of what is billed and the forecast."""
        budget = self.get_object()
        text = request.query_params.get("month", "")
        month = _month(text, "month") if text else billing.month_of(clock.now())
        row = budget_figures.standing_of(budget, month)
        shown = {
            "budget": budget,
            "month": month,
            "spent_shown": row.spent.quantized(),
            "at_least": row.at_least,
            "left_amount": None if row.left is None else row.left.amount,
            "gpu_ms": row.gpu_ms,
            "parts": budget_parts.parts_of(row),
            "money_forecast": row.money_forecast,
            "hours_forecast": row.hours_forecast,
            "reached": row.reached,
        }
        return Response(StandingSerializer(shown).data)


def _month(text: str, field: str = "month_from") -> date:
    try:
        return billing.parse_month(text)
    except ValueError as error:
        raise Invalid({field: "Write a month as yyyy-mm."}) from error


class BudgetStepSerializer(serializers.ModelSerializer[BudgetStep]):
    """A step that was reached: once per owner and month, with what was done."""

    budget = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)

    class Meta:
        model = BudgetStep
        fields = ["uid", "budget", "month", "measure", "step", "figure", "limit", "basis", "actions", "reached_at"]


class BudgetStepFilter(FilterSet):
    """Filter steps."""

    month = django_filters.DateFilter()
    step = django_filters.ChoiceFilter(choices=[(step, step) for step in rules.STEPS])
    budget = django_filters.UUIDFilter(field_name="budget__uid")

    class Meta:
        model = BudgetStep
        fields: ClassVar[list[str]] = []


class BudgetStepViewSet(CommonsViewSet):
    """Steps of the budgets in scope that were reached."""

    queryset = BudgetStep.objects.select_related("budget")
    serializer_class = BudgetStepSerializer
    filterset_class = BudgetStepFilter
    permission = "costs.budget.view"
