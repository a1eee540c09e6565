"""Rate cards and proposals through the API: what the pages show, decided by the same actions."""

from __future__ import annotations

from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core import clock
from apps.core.api import CommonsViewSet
from apps.rates import admin_api, proposals, selectors
from apps.rates.actions import APPROVE
from apps.rates.admin_api import ProposingMixin
from apps.rates.models import Rate, RateCard, RateProposal


class RateSerializer(serializers.ModelSerializer[Rate]):
    """One price of one unit-hour: of a flavour or (flavour null) a resource.

    An empty capacity type: every one; an empty class: standard. `factor`: what the base price of a class price was
    multiplied with.
    """

    flavour = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True, allow_null=True)
    amount = serializers.DecimalField(max_digits=20, decimal_places=8, help_text="Per hour of one unit.")
    valid_from = serializers.DateTimeField(source="valid.lower")
    valid_until = serializers.DateTimeField(source="valid.upper", allow_null=True)
    state = serializers.SerializerMethodField()

    class Meta:
        model = Rate
        fields = [
            "uid", "flavour", "resource", "capacity_type", "service_class", "factor", "amount", "currency",
            "valid_from", "valid_until", "state",
        ]  # fmt: skip

    def get_state(self, rate: Rate) -> str:
        """Whether it is in force, upcoming or past."""
        return selectors.state_of(rate, clock.now())


class RateCardSerializer(serializers.ModelSerializer[RateCard]):
    """A rate card with its prices."""

    cluster = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    rates = RateSerializer(many=True, read_only=True)

    class Meta:
        model = RateCard
        fields = ["uid", "name", "cluster", "note", "created_at", "version", "rates"]


class RateCardViewSet(CommonsViewSet):
    """Rate cards, newest first."""

    queryset = RateCard.objects.select_related("cluster").prefetch_related("rates__flavour")
    serializer_class = RateCardSerializer
    filterset_fields = {"cluster__slug": ["exact"]}


class ProposalSerializer(serializers.ModelSerializer[RateProposal]):
    """A proposed rate card. Approving takes the `digest` that was read."""

    cluster = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    proposed_by = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    decided_by = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True, allow_null=True)
    card = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True, allow_null=True)
    prices = serializers.ListField(child=serializers.DictField(), read_only=True)

    class Meta:
        model = RateProposal
        fields = [
            "uid", "name", "cluster", "currency", "valid_from", "valid_until", "note", "prices", "digest", "status",
            "proposed_by", "decided_by", "decided_at", "reason", "card", "created_at", "version",
        ]  # fmt: skip


class ApproveInput(serializers.Serializer[Any]):
    """Approve exactly these bytes."""

    digest = serializers.CharField(max_length=64)


class RejectInput(serializers.Serializer[Any]):
    """Reject with a reason."""

    reason = serializers.CharField(max_length=proposals.MAX_REASON)


class RateProposalViewSet(ProposingMixin, CommonsViewSet):
    """Proposed rate cards, newest first; a second person approves or rejects."""

    queryset = RateProposal.objects.select_related("cluster", "proposed_by", "decided_by", "card")
    serializer_class = ProposalSerializer
    permission = "rates.card.view"
    permissions: ClassVar[dict[str, str]] = {
        "approve": APPROVE, "reject": APPROVE, **ProposingMixin.admin_permissions,
    }  # fmt: skip
    filterset_fields = {"cluster__slug": ["exact"], "status": ["exact"]}

    @extend_schema(request=ApproveInput, responses=ProposalSerializer)
    @action(detail=True, methods=["post"])
    def approve(self, request: Request, uid: Any = None) -> Response:
        """Publish exactly the bytes of the digest."""
        row = self.get_object()
        data = self.read_input(ApproveInput)
        done = proposals.approve_proposal(
            row.pk, actor=self.actor, expected_digest=data["digest"], expected_version=self.expected_version
        )
        return self.answer(done)

    @extend_schema(request=RejectInput, responses=ProposalSerializer)
    @action(detail=True, methods=["post"])
    def reject(self, request: Request, uid: Any = None) -> Response:
        """Reject with a reason."""
        row = self.get_object()
        data = self.read_input(RejectInput)
        done = proposals.reject_proposal(
            row.pk, data["reason"], actor=self.actor, expected_version=self.expected_version
        )
        return self.answer(done)


routes = [
    ("rate-cards", RateCardViewSet, "rate-card"),
    ("rate-proposals", RateProposalViewSet, "rate-proposal"),
    *admin_api.routes,
]
