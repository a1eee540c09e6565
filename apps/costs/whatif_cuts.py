"""Hours inside which a tried price begins or ends: split from the facts at the second, as the ledger splits them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Q

from apps.clusters.models import Flavour
from apps.costs.choices import UNALLOCATED, ChargeKind
from apps.costs.pricing import NOT_SOLD, Cut, Cuts, Key, split_quantity
from apps.costs.whatif import Part, Quantity
from apps.costs.whatif_windows import HOUR, Timetable
from apps.metering.engine import HOUR_MS
from apps.metering.models import CapacityLine, HourFact, ResourceFact
from apps.metering.sources.base import ms
from apps.rates.models import Rate
from apps.rates.selectors import first_prices, rates_between

_CHUNK = 5000


def then_of_hour(cluster_id: int, hour: datetime, prices: Timetable, inside: Q, *, everything: bool) -> Iterator[Part]:
    """Yield what a cluster's hour would have cost then, from its facts; `everything`: unallocated capacity, too.

    What the ledger did not charge (a resource before its first price) is left out here as there.
    """
    found = rates_between(cluster_id, hour, hour + HOUR)
    splitter = _Splitter(hour, prices, found, Cuts(found, first_prices(cluster_id)))
    at = Q(cluster_id=cluster_id, hour=hour) & inside
    facts = HourFact.objects.filter(at).values_list(
        "team_id", "unit_id", "flavour_id", "gpu_model", "capacity_type", "service_class", "spans",
        "allocated_unit_ms", "allocated_gpu_ms",
    )  # fmt: skip
    for team, unit, flavour, model, of_type, of_class, spans, units, gpu in facts.iterator(chunk_size=_CHUNK):
        whose = ChargeKind.UNATTRIBUTED if team is None else ChargeKind.ALLOCATED
        one = _bare(team, unit, cluster_id, whose, flavour, model, of_type, of_class)
        yield from splitter.parts(one, (flavour, "", of_type, of_class), spans, units, gpu)
    resources = ResourceFact.objects.filter(at).values_list(
        "team_id", "unit_id", "resource", "capacity_type", "service_class", "quantity_ms"
    )
    for team, unit, resource, of_type, of_class, quantity in resources.iterator(chunk_size=_CHUNK):
        one = _bare(team, unit, cluster_id, resource, None, "", of_type, of_class)
        yield from splitter.parts(one, (None, resource, of_type, of_class), (), quantity, 0)
    if everything:
        shares = {
            pk: (top, bottom) for pk, top, bottom in Flavour.objects.values_list("pk", "numerator", "denominator")
        }
        lines = CapacityLine.objects.filter(at, kind__in=[str(kind) for kind in UNALLOCATED]).values_list(
            "team_id", "unit_id", "kind", "flavour_id", "gpu_model", "gpu_ms"
        )
        for team, unit, kind, flavour, model, gpu in lines.iterator(chunk_size=_CHUNK):
            top, bottom = shares.get(flavour or 0, (1, 1))
            one = _bare(team, unit, cluster_id, kind, flavour, model, "", "")
            yield from splitter.parts(one, (flavour, "", "", ""), (), gpu * bottom // top, gpu)


def _bare(
    team: int | None, unit: int | None, cluster: int, kind: str, flavour: int | None, model: str, of_type: str,
    of_class: str,
) -> Quantity:  # fmt: skip
    return Quantity(team, unit, cluster, str(kind), flavour, model, of_type, of_class, None, None, None, 0, 0)


class _Splitter:
    """Splits quantities of one cluster's hour by what they would cost then; each kind of thing is cut once."""

    def __init__(self, hour: datetime, prices: Timetable, rates: Iterable[Rate], ledger: Cuts) -> None:
        self._hour, self._prices, self._ledger = hour, prices, ledger
        self._rates: Mapping[int, Rate] = {rate.pk: rate for rate in rates}
        self._found: dict[tuple[Key, str], tuple[list[Cut], list[Part]]] = {}
        inside = prices.edges(hour, hour + HOUR)
        self._edges = {ms(edge) - ms(hour) for edges in inside.values() for edge in edges}

    def parts(self, one: Quantity, key: Key, spans: Any, units: int, gpu: int) -> Iterator[Part]:
        """Yield the pieces of a quantity: on the side of then alone."""
        if (key, one.kind) not in self._found:
            self._found[key, one.kind] = self._cut(one, key)
        cuts, kinds = self._found[key, one.kind]
        for index, quantity, physical in split_quantity(spans, units, gpu, cuts):
            if index is None or index == NOT_SOLD:
                continue
            like = kinds[index]
            priced = _with(one, like.quantity, quantity, physical)
            yield Part(priced, like.hourly, like.listed, now=False)

    def _cut(self, one: Quantity, key: Key) -> tuple[list[Cut], list[Part]]:
        """Return the pieces of the hour and what each costs; neighbours at the same price are one piece."""
        ledger = self._ledger.of(ms(self._hour), key)
        edges = sorted({0, HOUR_MS, *self._edges, *(cut.start for cut in ledger)})
        cuts: list[Cut] = []
        kinds: list[Part] = []
        last: object = object()
        for low, high in itertools.pairwise(edges):
            rate_id = next(cut.rate_id for cut in ledger if cut.start <= low and high <= cut.end)
            priced = _with(one, self._charged(one, rate_id), 0, 0)
            tried = self._prices.at(self._hour + timedelta(milliseconds=low))
            match = tried.match(priced)
            value: object = ("charged", rate_id) if match is None else ("tried", tried.idents[priced.of, match], match)
            if rate_id == NOT_SOLD:
                value = ("charged", NOT_SOLD)
            if cuts and value == last:
                cuts[-1] = Cut(cuts[-1].start, high, cuts[-1].rate_id)
                continue
            last = value
            kinds.append(Part(priced, *tried.price(priced), now=False))
            cuts.append(Cut(low, high, NOT_SOLD if rate_id == NOT_SOLD else len(kinds) - 1))
        return cuts, kinds

    def _charged(self, one: Quantity, rate_id: int | None) -> Quantity:
        """Return a quantity of the price that it is charged at."""
        rate = self._rates.get(rate_id) if rate_id is not None else None
        if rate is None:
            return one
        return Quantity(
            one.team_id, one.unit_id, one.cluster_id, one.kind, one.flavour_id, one.gpu_model, one.capacity_type,
            one.service_class, rate.amount, rate.currency, (rate.capacity_type, rate.service_class), 0, 0,
        )  # fmt: skip


def _with(one: Quantity, like: Quantity, quantity_ms: int, gpu_ms: int) -> Quantity:
    """Return `one` of this size at the price that `like` is charged at."""
    return Quantity(
        one.team_id, one.unit_id, one.cluster_id, one.kind, one.flavour_id, one.gpu_model, one.capacity_type,
        one.service_class, like.hourly, like.currency, like.priced_for, quantity_ms, gpu_ms,
    )  # fmt: skip


__all__ = ["then_of_hour"]
