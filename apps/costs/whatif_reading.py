"""Reads what a what-if stands on: stored quantities within a person's scope, and the prices to try. Writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from django.conf import settings
from django.db.models import Max, Min, OuterRef, Q, Subquery, Sum
from django.urls import reverse

from apps.clusters.models import Cluster, Flavour
from apps.core import clock
from apps.core.errors import NotVisible
from apps.core.permissions import may
from apps.costs.choices import PAID, UNALLOCATED, ChargeKind
from apps.costs.models import Charge, DayCharge, PricedHour
from apps.costs.whatif import UNALLOCATED_KEY, Compared, Part, Quantity, compare, tried
from apps.costs.whatif_cuts import then_of_hour
from apps.costs.whatif_windows import HOUR, Piece, Timetable, TriedPrice, plan
from apps.metering import billing
from apps.rates import proposals
from apps.rates.choices import CapacityType, ServiceClass
from apps.rates.models import Rate, RateCard, RateProposal
from apps.rates.ports import Effect
from apps.rates.publishing import PriceLine, class_price
from apps.teams import scope
from apps.teams.models import Team, Unit

RUN = "costs.whatif.run"
_CHUNK = 5000
#: (amount, currency, (capacity type, service class)) of a rate.
_Price = tuple[Any, str, tuple[str, str]]


def stored() -> tuple[datetime, datetime] | None:
    """Return from when until when hours are stored and priced; None: there are none."""
    first = DayCharge.objects.aggregate(first=Min("day"))["first"]
    # The newest of each cluster, by its index.
    hours = PricedHour.objects.filter(cluster=OuterRef("pk")).order_by("-hour").values("hour")[:1]
    newest = Cluster.objects.annotate(newest=Subquery(hours)).aggregate(last=Max("newest"))["last"]
    return None if first is None or newest is None else (billing.day_start(first), newest + HOUR)


@dataclass(slots=True)
class Reader:
    """Reads stored quantities within a person's scope: rows are chosen by the team and unit on them, as of that time.

    Capacity that nobody had allocated is included for those who may ask for the whole installation. Raises NotVisible
    for a unit outside the scope.
    """

    user: Any
    unit: Unit | None = None
    everything: bool = field(init=False, default=False)
    inside: Q = field(init=False)
    _rates: dict[int, _Price] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Find out what is inside the scope."""
        scopes = scope.of(self.user)
        self.inside = scopes.row_filter(RUN, team="team_id", unit="unit_id")
        if self.unit is not None:
            if not scopes.holds(RUN, self.unit):
                raise NotVisible
            unit = self.unit
            self.inside = Q(unit_id__in=[one.pk for one in scopes.units_with(RUN) if unit.pk in one.path])
        else:
            self.everything = scopes.everywhere(RUN)

    def quantities(self, piece: Piece) -> Iterator[Quantity]:
        """Yield what is stored of a piece as it was charged, by team and unit, thing and price."""
        kinds = [*PAID, *UNALLOCATED] if self.everything else [*PAID]
        where = self.inside & Q(kind__in=[str(kind) for kind in kinds])
        if piece.clusters:
            where &= Q(cluster_id__in=piece.clusters)
        if piece.without:
            where &= ~Q(cluster_id__in=piece.without)
        if piece.days is not None:
            rows: Any = DayCharge.objects.filter(where, day__gte=piece.days[0], day__lt=piece.days[1])
        else:
            times = Q()
            for low, high in piece.hours or ([(piece.cut, piece.cut + HOUR)] if piece.cut else []):
                times |= Q(hour__gte=low, hour__lt=high)
            rows = Charge.objects.filter(where, times)
        rows = (
            rows.values_list(
                "team_id", "unit_id", "cluster_id", "kind", "flavour_id", "gpu_model", "capacity_type",
                "service_class", "rate_id",
            )
            .annotate(Sum("quantity_ms"), Sum("gpu_ms"))
            .order_by(
                "cluster_id", "kind", "flavour_id", "team_id", "unit_id", "gpu_model", "capacity_type", "service_class",
                "rate_id",
            )
        )  # fmt: skip
        for chunk in _chunks(rows.iterator(chunk_size=_CHUNK)):
            self._know(row[8] for row in chunk)
            for team, unit, cluster, kind, flavour, model, of_type, of_class, rate_id, quantity_ms, gpu_ms in chunk:
                price = self._rates.get(rate_id) if rate_id is not None else None
                hourly, currency, priced_for = price or (None, None, None)
                yield Quantity(
                    team, unit, cluster, kind, flavour, model, of_type, of_class, hourly, currency, priced_for,
                    int(quantity_ms), int(gpu_ms),
                )  # fmt: skip

    def _know(self, ids: Iterable[int | None]) -> None:
        missing = {pk for pk in ids if pk is not None} - self._rates.keys()
        if missing:
            rows = Rate.objects.filter(pk__in=missing)
            for pk, amount, currency, of_type, of_class in rows.values_list(
                "pk", "amount", "currency", "capacity_type", "service_class"
            ):
                self._rates[pk] = (amount, currency, (of_type, of_class))

    def parts(self, piece: Piece, prices: Timetable) -> Iterator[Part]:
        """Yield what a piece cost and would have cost."""
        if piece.cut is None:
            yield from tried(self.quantities(piece), piece.prices)
            return
        for one in self.quantities(piece):
            yield Part(one, None, False, then=False)
        for cluster in piece.clusters:
            yield from then_of_hour(cluster, piece.cut, prices, self.inside, everything=self.everything)


def _chunks(rows: Iterator[Any]) -> Iterator[list[Any]]:
    chunk: list[Any] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) >= _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


# ---------------------------------------------------------------- prices


def timetable(prices: Iterable[TriedPrice] = (), **values: Any) -> Timetable:
    """Return prices to try in the ledger's currency."""
    return Timetable(str(settings.COMMONS_CURRENCY), list(prices), **values)


def prices_of_cards(cards: Sequence[RateCard]) -> list[TriedPrice]:
    """Return the prices of published cards, each as long as it is valid (one query)."""
    rows = Rate.objects.filter(card__in=[card.pk for card in cards]).order_by("card_id", "pk")
    return [
        TriedPrice(
            (rate.cluster_id, rate.flavour_id, rate.resource), rate.capacity_type, rate.service_class, rate.amount,
            rate.valid.lower, rate.valid.upper, ("rate", rate.pk), f"card {rate.card_id}", 1,
        )
        for rate in rows
    ]  # fmt: skip


def prices_of_proposal(proposal: RateProposal) -> list[TriedPrice]:
    """Return proposed prices, valid as proposed: they go before those of cards."""
    return prices_of_lines(
        proposal.cluster_id, proposals.lines_of(proposal), f"proposal {proposal.pk}", proposal.valid_from,
        proposal.valid_until,
    )  # fmt: skip


def prices_of_lines(
    cluster_id: int,
    lines: Iterable[PriceLine],
    source: str = "typed",
    low: datetime | None = None,
    high: datetime | None = None,
) -> list[TriedPrice]:
    """Return the prices of proposed or typed lines, class prices included."""
    found = []
    for line in lines:
        of = (cluster_id, line.flavour_id, line.resource)
        classes = {"": line.amount, **{name: class_price(line.amount, one) for name, one in line.factors.items()}}
        for name, amount in classes.items():
            ident = (source, of, line.capacity_type, name)
            found.append(TriedPrice(of, line.capacity_type, name, amount, low, high, ident, source))
    return found


# ---------------------------------------------------------------- the answer


@dataclass(frozen=True, slots=True)
class NamedLine:
    """A line of a comparison with its name; `slug` of a team that has pages."""

    name: str
    slug: str
    line: Compared


@dataclass(frozen=True, slots=True)
class Group:
    """Lines by one thing: `by` as in files, `heading` as on the page."""

    by: str
    heading: str
    title: str
    lines: list[NamedLine]


@dataclass(frozen=True, slots=True)
class WhatIf:
    """What a page shows."""

    start: datetime
    end: datetime
    unit: Unit | None
    flat: bool
    total: Compared
    groups: list[Group]


def what_if(
    user: Any,
    prices: Timetable,
    start: datetime,
    end: datetime,
    unit: Unit | None = None,
    *,
    by_month: bool = False,
    standing: tuple[datetime, datetime] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> WhatIf:
    """Compare stored hours [start, end) with the tried prices within the person's scope.

    `standing`: what is stored, where that is known. `progress` is told after each piece how many of how many are done.
    Raises NotVisible for a unit outside the scope.
    """
    reader, standing = Reader(user, unit), standing or stored()
    # What is not stored need not be looked for.
    low, high = (max(start, standing[0]), min(end, standing[1])) if standing is not None else (start, start)
    pieces = plan(low, high, prices, by_month=by_month) if low < high else []

    def parts() -> Iterator[Part]:
        for done, piece in enumerate(pieces, 1):
            yield from reader.parts(piece, prices)
            progress(done, len(pieces))

    found = compare(parts(), prices.currency)
    clusters = {pk: (name, slug) for pk, name, slug in Cluster.objects.values_list("pk", "name", "slug")}
    groups = [
        Group("team", "Team", "By team", _named(found.teams, _names(found.teams, Team))),
        Group("unit", "Unit", "By unit", _named(found.units, _names(found.units, Unit))),
        Group("cluster", "Cluster", "By cluster", _named(found.clusters, clusters)),
        Group("price", "Of", "By what was used", _things(found.things, clusters)),
    ]
    return WhatIf(start, end, unit, prices.flat, found.total, groups)


_Names = dict[int, tuple[str, str]]


def _names(lines: list[Compared], model: Any) -> _Names:
    ids = [pk for line in lines if isinstance(pk := line.key[0], int)]
    return {pk: (name, slug) for pk, name, slug in model.objects.filter(pk__in=ids).values_list("pk", "name", "slug")}


def _named(lines: list[Compared], names: _Names) -> list[NamedLine]:
    found = []
    for line in lines:
        key = line.key[0]
        other = ("Unallocated capacity" if key == UNALLOCATED_KEY else "No owner known", "")
        name, slug = names.get(key, other) if isinstance(key, int) else other
        found.append(NamedLine(name, slug, line))
    return sorted(found, key=lambda row: (row.slug == "", row.name))


def _things(lines: list[Compared], clusters: _Names) -> list[NamedLine]:
    flavours = dict(Flavour.objects.values_list("pk", "name"))
    found = []
    for line in lines:
        cluster_id, flavour_id, resource, model, capacity_type, service_class = line.key
        what = str(ChargeKind(str(resource)).label) if resource else ""
        what = what or (flavours.get(flavour_id, "") if isinstance(flavour_id, int) else "") or f"{model or 'Unknown'}"
        words = [what]
        words += [str(CapacityType(str(capacity_type)).label)] if capacity_type in CapacityType.values else []
        words += [str(ServiceClass(str(service_class)).label)] if service_class in ServiceClass.values else []
        place = clusters.get(cluster_id, ("", ""))[0] if isinstance(cluster_id, int) else ""
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
    prices, reader = timetable(prices_of_proposal(proposal)), Reader(user)
    pieces = plan(*billing.month_bounds(month), prices)
    total = compare((part for piece in pieces for part in reader.parts(piece, prices)), prices.currency).total
    if not total.quantity_ms:
        return None
    url = f"{reverse('costs:whatif')}?proposal={proposal.uid}&from={month:%Y-%m}&to={month:%Y-%m}"
    return Effect(month, total.now, total.then, total.unknown, url)
