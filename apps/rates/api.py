"""Rate cards through the API: read only."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from apps.core import clock
from apps.core.api import CommonsViewSet
from apps.rates import selectors
from apps.rates.models import Rate, RateCard


class RateSerializer(serializers.ModelSerializer[Rate]):
    """One price of one unit-hour."""

    flavour = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    amount = serializers.DecimalField(max_digits=20, decimal_places=8, help_text="Per hour of one unit.")
    valid_from = serializers.DateTimeField(source="valid.lower")
    valid_until = serializers.DateTimeField(source="valid.upper", allow_null=True)
    state = serializers.SerializerMethodField()

    class Meta:
        model = Rate
        fields = ["uid", "flavour", "amount", "currency", "valid_from", "valid_until", "state"]

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


routes = [("rate-cards", RateCardViewSet, "rate-card")]
