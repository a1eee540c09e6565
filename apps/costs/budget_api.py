"""Budgets and their steps through the API: the same scope, the same action as the pages."""

from __future__ import annotations

from datetime import date
from typing import Any, ClassVar

import django_filters
from django_filters.rest_framework import FilterSet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.api import CommonsViewSet
from apps.core.errors import Invalid, NotVisible
from apps.costs import budget_actions, budget_figures
from apps.costs import budget_rules as rules
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


def _month(text: str) -> date:
    try:
        return billing.parse_month(text)
    except ValueError as error:
        raise Invalid({"month_from": "Write a month as yyyy-mm."}) from error


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
