"""Tables of rate cards and prices."""

from __future__ import annotations

from typing import Any

import django_filters
import django_tables2 as tables

from apps.clusters.models import Cluster
from apps.core.filters import CommonsFilterSet, SearchFilter
from apps.core.money import Money
from apps.core.tables import CommonsTable, StatusColumn, TimeColumn, UidLinkColumn
from apps.rates import capex
from apps.rates.choices import ProposalStatus
from apps.rates.models import CapexSchedule, RateCard, RateProposal, exact

STATES = {"in_force": "In force", "upcoming": "Upcoming", "past": "Past"}
TONES = {"in_force": "positive", "upcoming": "info", "past": "neutral"}


class CardTable(CommonsTable):
    """Rate cards, newest first."""

    name = UidLinkColumn("rates:card-detail", kwarg="card_uid", verbose_name="Rate card")
    cluster = tables.Column(accessor="cluster__name", verbose_name="Cluster")
    state = StatusColumn(labels=STATES, tones=TONES, orderable=False, verbose_name="State")
    starts = TimeColumn(verbose_name="In force from")
    flavours = tables.Column(verbose_name="Priced", attrs={"cell": {"class": "figure d-none d-md-table-cell"}})
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


PROPOSAL_TONES = {"proposed": "caution", "approved": "positive", "rejected": "critical", "withdrawn": "neutral"}


class ProposalTable(CommonsTable):
    """Proposed rate cards, newest first."""

    name = UidLinkColumn("rates:proposal-detail", kwarg="proposal_uid", verbose_name="Proposal")
    cluster = tables.Column(accessor="cluster__name", verbose_name="Cluster")
    status = StatusColumn(tones=PROPOSAL_TONES, verbose_name="State")
    valid_from = TimeColumn(verbose_name="To be in force from")
    proposed_by = tables.Column(verbose_name="Proposed by", attrs={"cell": {"class": "d-none d-md-table-cell"}})
    created_at = TimeColumn(verbose_name="Proposed", attrs={"cell": {"class": "text-nowrap d-none d-md-table-cell"}})
    decided_by = tables.Column(verbose_name="Decided by", attrs={"cell": {"class": "d-none d-md-table-cell"}})

    class Meta(CommonsTable.Meta):
        model = RateProposal
        fields = ("name", "cluster", "status", "valid_from", "proposed_by", "created_at", "decided_by")
        order_by = ("-created_at",)
        caption = "Proposed rate cards"


class ProposalFilter(CommonsFilterSet):
    """Search and state."""

    search = SearchFilter(columns=["name", "note"])
    status = django_filters.ChoiceFilter(choices=ProposalStatus.choices, label="State", empty_label="All")

    class Meta:
        model = RateProposal
        fields: list[str] = []


class CapexTable(CommonsTable):
    """What owned GPUs cost, newest first."""

    name = UidLinkColumn("rates:capex-detail", kwarg="capex_uid", verbose_name="Schedule")
    cluster = tables.Column(accessor="cluster__name", verbose_name="Cluster")
    flavour = tables.Column(accessor="flavour__name", verbose_name="Flavour")
    gpus = tables.Column(verbose_name="GPUs", attrs={"cell": {"class": "figure d-none d-md-table-cell"}})
    in_service_from = tables.Column(verbose_name="In service from", attrs={"cell": {"class": "text-nowrap"}})
    hourly = tables.Column(
        verbose_name="Per GPU-hour", empty_values=(), orderable=False, attrs={"cell": {"class": "figure"}}
    )

    class Meta(CommonsTable.Meta):
        model = CapexSchedule
        fields = ("name", "cluster", "flavour", "gpus", "in_service_from", "hourly")
        order_by = ("-in_service_from",)
        caption = "Owned GPUs"

    def render_hourly(self, record: CapexSchedule) -> str:
        """Work out the price."""
        return exact(Money(capex.hourly(record).price, record.currency))
