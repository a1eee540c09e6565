"""Tables of rate cards and prices."""

from __future__ import annotations

from typing import Any

import django_filters
import django_tables2 as tables

from apps.clusters.models import Cluster
from apps.core.filters import CommonsFilterSet, SearchFilter
from apps.core.tables import CommonsTable, StatusColumn, TimeColumn, UidLinkColumn
from apps.rates.models import RateCard

STATES = {"in_force": "In force", "upcoming": "Upcoming", "past": "Past"}
TONES = {"in_force": "positive", "upcoming": "info", "past": "neutral"}


class CardTable(CommonsTable):
    """Rate cards, newest first."""

    name = UidLinkColumn("rates:card-detail", kwarg="card_uid", verbose_name="Rate card")
    cluster = tables.Column(accessor="cluster__name", verbose_name="Cluster")
    state = StatusColumn(labels=STATES, tones=TONES, orderable=False, verbose_name="State")
    starts = TimeColumn(verbose_name="In force from")
    flavours = tables.Column(verbose_name="Flavours", attrs={"cell": {"class": "figure d-none d-md-table-cell"}})
    created_at = TimeColumn(verbose_name="Published", attrs={"cell": {"class": "text-nowrap d-none d-md-table-cell"}})

    class Meta(CommonsTable.Meta):
        model = RateCard
        fields = ("name", "cluster", "state", "starts", "flavours", "created_at")
        order_by = ("-starts",)
        caption = "Rate cards"


class CardFilter(CommonsFilterSet):
    """Search and cluster."""

    search = SearchFilter(columns=["name", "note"])
    cluster = django_filters.ModelChoiceFilter(queryset=Cluster.objects.none(), label="Cluster", empty_label="All")

    class Meta:
        model = RateCard
        fields: list[str] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Everybody may read what is charged, so the names of clusters that have prices are no secret.
        self.filters["cluster"].queryset = Cluster.objects.filter(rate_cards__isnull=False).distinct().order_by("name")
