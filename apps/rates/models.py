"""Rate cards: dated prices, never edited once in use (design invariant 9)."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import DateTimeRangeField, RangeOperators
from django.db import models
from django.db.models import Q

from apps.clusters.models import Cluster, Flavour
from apps.core.models import IntRange, Row, VersionedRow
from apps.core.money import Money
from apps.rates.querysets import RateCardQuerySet, RateQuerySet


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
    """The price of one hour of one unit of a flavour on a cluster, valid in time; superseded, never edited."""

    card = models.ForeignKey(RateCard, models.PROTECT, related_name="rates")
    cluster = models.ForeignKey(Cluster, models.PROTECT, related_name="+")
    flavour = models.ForeignKey(Flavour, models.PROTECT, related_name="rates")
    amount = models.DecimalField(max_digits=20, decimal_places=8, help_text="Per hour of one unit of the flavour.")
    currency = models.CharField(max_length=3)
    valid = DateTimeRangeField()

    objects = RateQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(amount__gte=0), name="rate_not_negative"),
            ExclusionConstraint(
                name="rate_no_overlap",
                expressions=[
                    (IntRange("cluster"), RangeOperators.OVERLAPS),
                    (IntRange("flavour"), RangeOperators.OVERLAPS),
                    ("valid", RangeOperators.OVERLAPS),
                ],
            ),
        ]

    @property
    def hourly(self) -> Money:
        """The price of one hour."""
        return Money(self.amount, self.currency)

    @property
    def exact(self) -> str:
        """The price with all its decimals, at least two: "3.85 USD"; a price is never shown rounded."""
        return exact(self.hourly)
