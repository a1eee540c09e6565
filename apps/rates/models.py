"""Rate cards: dated prices, never edited once in use (design invariant 9)."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import DateTimeRangeField, RangeOperators
from django.db import models
from django.db.models import Q

from apps.clusters.models import Cluster, Flavour
from apps.core.models import IntRange, Row, TextRange, VersionedRow
from apps.core.money import Money
from apps.rates.choices import CapacityType, ProposalStatus, Resource, ServiceClass
from apps.rates.querysets import CapexQuerySet, ProposalQuerySet, RateCardQuerySet, RateQuerySet


def exact(money: Money) -> str:
    """Write a price with all its decimals, at least two."""
    places = -int(money.amount.normalize().as_tuple().exponent)
    return f"{money.amount:,.{max(2, places)}f} {money.currency}"


class RateCard(VersionedRow):
    """A named list of prices for one cluster, as published by finance."""

    name = models.CharField(max_length=200)
    cluster = models.ForeignKey(Cluster, models.PROTECT, related_name="rate_cards")
    note = models.CharField(max_length=500, blank=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")

    objects = RateCardQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name


class Rate(Row):
    """The price of one hour of one unit of a flavour on a cluster, valid in time; superseded, never edited.

    Instead of a flavour it may price another resource (CPU, memory, storage, egress). `capacity_type` "": for every
    type that has no price of its own. A price of a service class is its own row, made from `base` times `factor`, so
    that whatever is charged names exactly one price.
    """

    card = models.ForeignKey(RateCard, models.PROTECT, related_name="rates")
    cluster = models.ForeignKey(Cluster, models.PROTECT, related_name="+")
    flavour = models.ForeignKey(Flavour, models.PROTECT, null=True, related_name="rates")
    resource = models.CharField(max_length=20, choices=Resource.choices, blank=True, default="")
    capacity_type = models.CharField(max_length=20, choices=CapacityType.choices, blank=True, default="")
    service_class = models.CharField(max_length=20, choices=ServiceClass.choices, blank=True, default="")
    base = models.ForeignKey("self", models.PROTECT, null=True, related_name="derived")
    factor = models.DecimalField(max_digits=8, decimal_places=4, null=True)
    amount = models.DecimalField(max_digits=20, decimal_places=8, help_text="Per hour of one unit of the flavour.")
    currency = models.CharField(max_length=3)
    valid = DateTimeRangeField()

    objects = RateQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(amount__gte=0), name="rate_not_negative"),
            models.CheckConstraint(
                condition=Q(flavour__isnull=False, resource="") | Q(flavour__isnull=True) & ~Q(resource=""),
                name="rate_flavour_or_resource",
            ),
            models.CheckConstraint(
                condition=Q(base__isnull=True, factor__isnull=True, service_class="")
                | Q(base__isnull=False, factor__gt=0) & ~Q(service_class=""),
                name="rate_class_is_derived",
            ),
            ExclusionConstraint(
                name="rate_no_overlap",
                expressions=[
                    (IntRange("cluster"), RangeOperators.OVERLAPS),
                    (IntRange("flavour"), RangeOperators.OVERLAPS),
                    (TextRange("capacity_type"), RangeOperators.OVERLAPS),
                    (TextRange("service_class"), RangeOperators.OVERLAPS),
                    ("valid", RangeOperators.OVERLAPS),
                ],
                condition=Q(flavour__isnull=False),
            ),
            ExclusionConstraint(
                name="rate_resource_no_overlap",
                expressions=[
                    (IntRange("cluster"), RangeOperators.OVERLAPS),
                    (TextRange("resource"), RangeOperators.OVERLAPS),
                    (TextRange("capacity_type"), RangeOperators.OVERLAPS),
                    (TextRange("service_class"), RangeOperators.OVERLAPS),
                    ("valid", RangeOperators.OVERLAPS),
                ],
                condition=Q(flavour__isnull=True),
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["cluster", "resource"], name="rate_resource", condition=Q(flavour__isnull=True))
        ]

    @property
    def hourly(self) -> Money:
        """The price of one hour."""
        return Money(self.amount, self.currency)

    @property
    def what(self) -> str:
        """What it is the price of: "A100 80 GB", "CPU core-hour, spot, compliance"."""
        name = str(self.flavour) if self.flavour_id else str(Resource(self.resource).label)
        return ", ".join([name, *self.details])

    @property
    def details(self) -> list[str]:
        """Capacity type and service class in words, where it is for one only."""
        found = [str(CapacityType(self.capacity_type).label)] if self.capacity_type else []
        return [*found, str(ServiceClass(self.service_class).label)] if self.service_class else found

    @property
    def exact(self) -> str:
        """The price with all its decimals, at least two: "3.85 USD"; a price is never shown rounded."""
        return exact(self.hourly)


class CapexSchedule(VersionedRow):
    """What owned GPUs cost: purchase, life, residual, power, operations; gives a price per GPU-hour (cost.md E9)."""

    name = models.CharField(max_length=200)
    cluster = models.ForeignKey(Cluster, models.PROTECT, related_name="capex_schedules")
    flavour = models.ForeignKey(Flavour, models.PROTECT, related_name="+", help_text="The whole-GPU flavour.")
    gpus = models.PositiveIntegerField()
    in_service_from = models.DateField()
    life_months = models.PositiveIntegerField()
    purchase = models.DecimalField(max_digits=20, decimal_places=2, help_text="For all GPUs, with their nodes.")
    residual = models.DecimalField(max_digits=20, decimal_places=2, default=0)
    power_watts = models.PositiveIntegerField(help_text="Per GPU, with its share of the node.")
    pue_permille = models.PositiveIntegerField(default=1000, help_text="Facility power ÷ IT power, per mille.")
    per_kwh = models.DecimalField(max_digits=12, decimal_places=6)
    operations_monthly = models.DecimalField(max_digits=20, decimal_places=2, default=0)
    sellable_permille = models.PositiveIntegerField(default=1000, help_text="Share of hours expected to be sold.")
    currency = models.CharField(max_length=3)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")

    objects = CapexQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name


class RateProposal(VersionedRow):
    """A rate card as one person proposes it; it is published when a second person approves exactly these bytes."""

    name = models.CharField(max_length=200)
    cluster = models.ForeignKey(Cluster, models.PROTECT, related_name="rate_proposals")
    currency = models.CharField(max_length=3)
    valid_from = models.DateTimeField()
    valid_until = models.DateTimeField(null=True)
    note = models.CharField(max_length=500, blank=True)
    prices: models.JSONField = models.JSONField(
        help_text="List of {flavour|resource, capacity_type, amount, factors: {service_class: factor}, capex}."
    )
    digest = models.CharField(max_length=64, help_text="SHA-256 of what is approved, canonical JSON.")
    status = models.CharField(max_length=20, choices=ProposalStatus.choices, default=ProposalStatus.PROPOSED)
    proposed_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    decided_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    decided_at = models.DateTimeField(null=True)
    reason = models.CharField(max_length=500, blank=True)
    card = models.OneToOneField(RateCard, models.PROTECT, null=True, related_name="proposal")

    objects = ProposalQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(decided_by__isnull=True)
                | ~Q(decided_by=models.F("proposed_by"))
                | Q(status=ProposalStatus.WITHDRAWN),
                name="rate_proposal_second_person",
            )
        ]
        indexes: ClassVar = [models.Index(fields=["status", "-created_at"], name="rate_proposal_waiting")]

    def __str__(self) -> str:
        return self.name
