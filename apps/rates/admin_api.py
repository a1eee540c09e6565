"""Proposing prices and keeping purchase schedules through the API."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.clusters.models import Cluster, Flavour
from apps.core.api import CommonsViewSet
from apps.core.api_fields import key_of
from apps.core.errors import NotAllowed
from apps.core.permissions import INSTALLATION, may
from apps.rates import capex_actions, proposals
from apps.rates.actions import MANAGE
from apps.rates.models import CapexSchedule
from apps.rates.publishing import PriceLine


class PriceBody(serializers.Serializer[Any]):
    """One price: of a flavour or a resource, for a capacity type ("": every one), with factors of service classes."""

    flavour = serializers.SlugField(required=False, allow_null=True, default=None)
    resource = serializers.CharField(max_length=120, required=False, allow_blank=True, default="")
    capacity_type = serializers.CharField(max_length=20, required=False, allow_blank=True, default="")
    amount = serializers.DecimalField(max_digits=20, decimal_places=8, min_value=0, help_text="Per hour of one unit.")
    factors = serializers.DictField(
        child=serializers.DecimalField(max_digits=8, decimal_places=4), required=False, default=dict
    )


class RateProposalBody(serializers.Serializer[Any]):
    """A rate card to propose for a cluster."""

    name = serializers.CharField(max_length=200)
    cluster = serializers.SlugField()
    currency = serializers.CharField(max_length=3)
    valid_from = serializers.DateTimeField()
    valid_until = serializers.DateTimeField(required=False, allow_null=True, default=None)
    note = serializers.CharField(max_length=500, required=False, allow_blank=True, default="")
    prices = PriceBody(many=True, allow_empty=False)


class ProposingMixin(CommonsViewSet):
    """Proposing and taking back, added to the proposals' viewset."""

    admin_permissions: ClassVar[dict[str, str]] = {"create": MANAGE, "withdraw": MANAGE}

    @extend_schema(request=RateProposalBody)
    def create(self, request: Request) -> Response:
        """Propose prices; a second person publishes them."""
        data = self.read_input(RateProposalBody)
        cluster = key_of(Cluster.objects.visible_to(request.user), "cluster", slug=data["cluster"])
        lines = [
            PriceLine(
                key_of(Flavour.objects.all(), f"prices.{position}.flavour", slug=line["flavour"])
                if line["flavour"]
                else None,
                line["resource"], line["capacity_type"], line["amount"], line["factors"],
            )
            for position, line in enumerate(data["prices"])
        ]  # fmt: skip
        row = proposals.propose_card(
            data["name"], cluster, lines, data["currency"], data["valid_from"], actor=self.actor,
            valid_until=data["valid_until"], note=data["note"],
        )  # fmt: skip
        return self.made(row)

    @extend_schema(request=None)
    @action(detail=True, methods=["post"])
    def withdraw(self, request: Request, uid: str) -> Response:
        """Take back a proposal of one's own."""
        return self.perform(proposals.withdraw_proposal)


class CapexSerializer(serializers.ModelSerializer[CapexSchedule]):
    """What GPUs of a flavour cost to own, which prices are derived from."""

    cluster = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    flavour = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)

    class Meta:
        model = CapexSchedule
        fields = [
            "uid", "name", "cluster", "flavour", "gpus", "in_service_from", "life_months", "purchase", "residual",
            "power_watts", "pue_permille", "per_kwh", "operations_monthly", "sellable_permille", "currency",
            "created_at", "version",
        ]  # fmt: skip


class CapexBody(serializers.Serializer[Any]):
    """What GPUs of a flavour cost, in the ledger currency."""

    name = serializers.CharField(max_length=200)
    cluster = serializers.SlugField()
    flavour = serializers.SlugField()
    gpus = serializers.IntegerField(min_value=1, max_value=1_000_000)
    in_service_from = serializers.DateField()
    life_months = serializers.IntegerField(min_value=1, max_value=600)
    purchase = serializers.DecimalField(max_digits=20, decimal_places=2, min_value=0)
    residual = serializers.DecimalField(max_digits=20, decimal_places=2, min_value=0, default=Decimal(0))
    power_watts = serializers.IntegerField(min_value=0, max_value=100_000)
    pue_permille = serializers.IntegerField(min_value=1000, max_value=10_000, default=1000)
    per_kwh = serializers.DecimalField(max_digits=12, decimal_places=6, min_value=0)
    operations_monthly = serializers.DecimalField(max_digits=20, decimal_places=2, min_value=0, default=Decimal(0))
    sellable_permille = serializers.IntegerField(min_value=1, max_value=1000, default=1000)


class CapexViewSet(CommonsViewSet):
    """Purchase schedules, for those who read rates; entered by finance."""

    queryset = CapexSchedule.objects.select_related("cluster", "flavour")
    serializer_class = CapexSerializer
    filterset_fields = ["cluster__slug", "flavour__slug"]
    permission = "rates.card.view"

    @extend_schema(request=CapexBody, responses={201: CapexSerializer})
    def create(self, request: Request) -> Response:
        """Enter what GPUs cost."""
        if not may(request.user, MANAGE, INSTALLATION):
            raise NotAllowed(rule=MANAGE)
        data = self.read_input(CapexBody)
        cluster = key_of(Cluster.objects.visible_to(request.user), "cluster", slug=data.pop("cluster"))
        flavour = key_of(Flavour.objects.all(), "flavour", slug=data.pop("flavour"))
        return self.made(capex_actions.enter_schedule(data.pop("name"), cluster, flavour, actor=self.actor, **data))


routes: list[tuple[str, Any, str]] = [("capex-schedules", CapexViewSet, "capex-schedule")]
