"""Reads what a what-if stands on: stored quantities within a person's scope, and the prices to try. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any

from django.conf import settings
from django.db.models import Q, Sum
from django.urls import reverse

from apps.clusters.models import Cluster, Flavour
from apps.core import clock
from apps.core.errors import NotVisible
from apps.core.permissions import may
from apps.costs.choices import PAID, UNALLOCATED, ChargeKind
from apps.costs.models import DayCharge
from apps.costs.whatif import UNALLOCATED_KEY, Compared, Comparison, Quantity, TriedPrices, compare
from apps.metering import billing
from apps.rates import proposals
from apps.rates.choices import CapacityType, ServiceClass
from apps.rates.models import Rate, RateCard, RateProposal
from apps.rates.ports import Effect
from apps.rates.publishing import PriceLine, class_price
from apps.teams import scope
from apps.teams.models import Team, Unit

RUN = "costs.whatif.run"
#: Months that one what-if takes at most.
MAX_MONTHS = 36


def quantities(user: Any, first: date, last: date, unit: Unit | None = None) -> list[Quantity]:
    """Return the stored quantities of the billing months `first` to `last`, within the person's scope (one query).

    Rows are chosen by the team and unit on them, as of that day. Capacity that nobody had allocated is included for
    those who may ask for the whole installation. Raises NotVisible for a unit outside the scope.
    """
    scopes = scope.of(user)
    inside = scopes.row_filter(RUN, team="team_id", unit="unit_id")
    kinds = [str(kind) for kind in PAID]
    if unit is not None:
        if not scopes.holds(RUN, unit):
            raise NotVisible
        inside = Q(unit_id__in=[one.pk for one in scopes.units_with(RUN) if unit.pk in one.path])
    elif scopes.everywhere(RUN):
        kinds += [str(kind) for kind in UNALLOCATED]
    rows = (
        DayCharge.objects.filter(inside, day__gte=first, day__lt=billing.following(last), kind__in=kinds)
        .values_list(
            "team_id", "cluster_id", "kind", "flavour_id", "gpu_model", "capacity_type", "service_class",
            "rate__amount", "rate__currency", "rate__capacity_type", "rate__service_class",
        )
        .annotate(Sum("quantity_ms"), Sum("gpu_ms"))
        .order_by("cluster_id", "kind", "flavour_id", "team_id", "capacity_type", "service_class", "rate__amount")
    )  # fmt: skip
    return [
        Quantity(
            team_id=team,
            cluster_id=cluster,
            kind=kind,
            flavour_id=flavour,
            gpu_model=model,
            capacity_type=capacity_type,
            service_class=service_class,
            hourly=hourly,
            currency=currency,
            priced_for=None if hourly is None else (str(of_type), str(of_class)),
            quantity_ms=int(quantity_ms),
            gpu_ms=int(gpu_ms),
        )
        for (
            team, cluster, kind, flavour, model, capacity_type, service_class, hourly, currency, of_type, of_class,
            quantity_ms, gpu_ms,
        ) in rows
    ]  # fmt: skip


def prices_of_card(card: RateCard) -> TriedPrices:
    """Return a published card's prices."""
    found = TriedPrices(str(settings.COMMONS_CURRENCY))
    for rate in Rate.objects.filter(card=card):
        found.add(
            (rate.cluster_id, rate.flavour_id, rate.resource), rate.capacity_type, rate.service_class, rate.amount
        )
    return found


def prices_of_lines(cluster_id: int, lines: Iterable[PriceLine]) -> TriedPrices:
    """Return the prices of proposed or typed lines, class prices included."""
    found = TriedPrices(str(settings.COMMONS_CURRENCY))
    for line in lines:
        of = (cluster_id, line.flavour_id, line.resource)
        found.add(of, line.capacity_type, "", line.amount)
        for name, factor in line.factors.items():
            found.add(of, line.capacity_type, name, class_price(line.amount, factor))
    return found


@dataclass(frozen=True, slots=True)
class NamedLine:
    """A line of a comparison with its name; `slug` of a team that has pages."""

    name: str
    slug: str
    line: Compared


@dataclass(frozen=True, slots=True)
class WhatIf:
    """What a page shows."""

    first: date
    last: date
    unit: Unit | None
    comparison: Comparison
    teams: list[NamedLine]
    things: list[NamedLine]


def what_if(user: Any, prices: TriedPrices, first: date, last: date, unit: Unit | None = None) -> WhatIf:
    """Compare stored months with the tried prices within the person's scope: four queries, whatever the number."""
    found = compare(quantities(user, first, last, unit), prices)
    names = _team_names(found.teams)
    teams = [NamedLine(*names.get(_id(line), _nobody(line)), line) for line in found.teams]
    teams.sort(key=lambda row: (row.slug == "", row.name))
    return WhatIf(first, last, unit, found, teams, _things(found.things))


def _id(line: Compared) -> int:
    team = line.key[0]
    return team if isinstance(team, int) else 0


def _nobody(line: Compared) -> tuple[str, str]:
    return ("Unallocated capacity", "") if line.key[0] == UNALLOCATED_KEY else ("No owner known", "")


def _team_names(lines: list[Compared]) -> dict[int, tuple[str, str]]:
    ids = [pk for line in lines if (pk := _id(line))]
    rows = Team.objects.filter(pk__in=ids).values_list("pk", "name", "slug")
    return {pk: (name, slug) for pk, name, slug in rows}


def _things(lines: list[Compared]) -> list[NamedLine]:
    clusters = dict(Cluster.objects.values_list("pk", "name"))
    flavours = dict(Flavour.objects.values_list("pk", "name"))
    found = []
    for line in lines:
        cluster_id, flavour_id, resource, model, capacity_type, service_class = line.key
        what = str(ChargeKind(str(resource)).label) if resource else ""
        what = what or (flavours.get(flavour_id, "") if isinstance(flavour_id, int) else "") or f"{model or 'Unknown'}"
        words = [what]
        words += [str(CapacityType(str(capacity_type)).label)] if capacity_type in CapacityType.values else []
        words += [str(ServiceClass(str(service_class)).label)] if service_class in ServiceClass.values else []
        place = clusters.get(cluster_id, "") if isinstance(cluster_id, int) else ""
        found.append(NamedLine(f"{', '.join(words)} on {place}" if place else ", ".join(words), "", line))
    return sorted(found, key=lambda row: row.name)


def last_full_month() -> date:
    """Return the newest billing month that is over."""
    return billing.previous(billing.month_of(clock.now()))


def effect_of(proposal: RateProposal, user: Any) -> Effect | None:
    """Return what the last full month would have cost at proposed prices; None for those who may not ask."""
    if not may(user, RUN, None):
        return None
    month = last_full_month()
    total = compare(
        quantities(user, month, month), prices_of_lines(proposal.cluster_id, proposals.lines_of(proposal))
    ).total
    if not total.quantity_ms:
        return None
    url = f"{reverse('costs:whatif')}?proposal={proposal.uid}&from={month:%Y-%m}&to={month:%Y-%m}"
    return Effect(month, total.now, total.then, total.unknown, url)
