"""What pages, the API and other rooms read of rates."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Case, CharField, Count, Exists, F, Min, OuterRef, Q, Value, When

from apps.core import clock
from apps.core.money import Money
from apps.core.permissions import INSTALLATION, may
from apps.rates.actions import APPROVE
from apps.rates.choices import ProposalStatus
from apps.rates.choosing import chosen
from apps.rates.models import Rate, RateCard, RateProposal
from apps.rates.pricing import HOURS_PER_MONTH, monthly
from apps.rates.querysets import ProposalQuerySet, RateCardQuerySet

IN_FORCE, UPCOMING, PAST = "in_force", "upcoming", "past"


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a change costs in a month. `amount` None: unknown, for `unknown_reason`; never zero for want of a rate."""

    amount: Money | None
    rate_uid: uuid.UUID | None
    hourly: Money | None = None
    units: int = 0
    hours_per_month: int = HOURS_PER_MONTH
    unknown_reason: str = ""

    @property
    def basis(self) -> str:
        """How the figure comes about, in words."""
        if self.hourly is None:
            return self.unknown_reason
        sign = "+" if self.units > 0 else ""
        how = "around the clock" if self.hours_per_month == HOURS_PER_MONTH else "in every window"
        return (
            f"{sign}{self.units} × {self.hours_per_month} h (a month) × "
            f"{self.hourly.amount.normalize():f} {self.hourly.currency} per hour, if used {how}"
        )


@dataclass(frozen=True, slots=True)
class PriceRow:
    """One published price with its state now."""

    rate: Rate
    state: str
    starts: datetime | None
    ends: datetime | None


def rate_at(
    cluster_id: int, flavour_id: int, at: datetime, *, capacity_type: str = "", service_class: str = ""
) -> Rate | None:
    """Return the rate that applies at `at` (`choosing`), or None where none does."""
    rates = Rate.objects.filter(cluster_id=cluster_id, flavour_id=flavour_id, valid__contains=at)
    return chosen(rates, capacity_type, service_class, at)


def rates_between(cluster_id: int, start: datetime, end: datetime) -> list[Rate]:
    """Return the rates of every flavour and resource of a cluster in force at any time in `[start, end)`.

    By flavour, resource, capacity type, class and start.
    """
    return list(
        Rate.objects.filter(cluster_id=cluster_id, valid__overlap=(start, end))
        .select_related("flavour", "card")
        .order_by("flavour_id", "resource", "capacity_type", "service_class", "valid", "pk")
    )


def first_prices(cluster_id: int) -> dict[str, datetime | None]:
    """Return since when each resource of a cluster has had prices (None: since ever); others are not charged for."""
    found: dict[str, datetime | None] = {}
    rows = Rate.objects.filter(cluster_id=cluster_id, flavour=None).values_list("resource", "valid")
    for resource, valid in rows:
        before = found.get(resource, valid.lower)
        found[resource] = None if before is None or valid.lower is None else min(before, valid.lower)
    return found


def monthly_estimate(cluster_id: int, flavour_id: int, delta_units: int, at: datetime) -> Estimate:
    """Return what `delta_units` more (or fewer) of a flavour cost in 730 hours at the rate in force at `at`."""
    rate = rate_at(cluster_id, flavour_id, at)
    if rate is None:
        return Estimate(
            None,
            None,
            units=delta_units,
            unknown_reason=f"Unknown: no rate is published for this flavour on {at:%d %b %Y %H:%M} UTC.",
        )
    return Estimate(monthly(delta_units, rate.hourly), rate.uid, rate.hourly, delta_units)


def state_of(rate: Rate, at: datetime) -> str:
    """Return whether a price is in force, upcoming or past at `at`."""
    if rate.valid.upper is not None and rate.valid.upper <= at:
        return PAST
    if rate.valid.lower is not None and rate.valid.lower > at:
        return UPCOMING
    return IN_FORCE


def _rows(rates: list[Rate], at: datetime) -> list[PriceRow]:
    return [PriceRow(rate, state_of(rate, at), rate.valid.lower, rate.valid.upper) for rate in rates]


#: Flavours first, by name; then resources; of each the price for every type and standard class first.
_ORDER = (F("flavour__name").asc(nulls_last=True), "resource", "capacity_type", "service_class")


def card_prices(card: RateCard, *, at: datetime | None = None) -> list[PriceRow]:
    """Return a card's prices, by flavour or resource and start."""
    rates = card.rates.select_related("flavour", "card").order_by(*_ORDER, "valid", "pk")
    return _rows(list(rates), at or clock.now())


def price_history(card: RateCard, *, at: datetime | None = None) -> list[PriceRow]:
    """Return every price ever published for the flavours and resources of a card on its cluster, newest first."""
    own = Q(flavour_id__in=card.rates.values("flavour_id")) | Q(
        flavour=None, resource__in=card.rates.filter(flavour=None).values("resource")
    )
    rates = Rate.objects.filter(own, cluster_id=card.cluster_id)
    return _rows(list(rates.select_related("flavour", "card").order_by(*_ORDER, "-valid", "pk")), at or clock.now())


def waiting_proposals(user: Any) -> ProposalQuerySet:
    """Return the proposals that this person may decide on now, oldest first; empty for everybody else."""
    if not may(user, APPROVE, INSTALLATION):
        return RateProposal.objects.none()
    rows = RateProposal.objects.visible_to(user).filter(status=ProposalStatus.PROPOSED).exclude(proposed_by=user)
    return rows.select_related("cluster", "proposed_by").order_by("created_at", "pk")


_RESOURCES = Q(rates__flavour=None)


def with_state(cards: RateCardQuerySet) -> RateCardQuerySet:
    """Annotate cards with `state` (in_force, upcoming, past), `starts` and the number of `flavours` and resources."""
    at = clock.now()
    own = Rate.objects.filter(card=OuterRef("pk"))
    return cards.annotate(
        starts=Min("rates__valid__startswith"),
        flavours=Count("rates__flavour", distinct=True) + Count("rates__resource", distinct=True, filter=_RESOURCES),
        state=Case(
            When(Exists(own.filter(valid__contains=at)), then=Value(IN_FORCE)),
            When(Exists(own.filter(valid__startswith__gt=at)), then=Value(UPCOMING)),
            default=Value(PAST),
            output_field=CharField(),
        ),
    )
