"""What stored months would have cost at other prices: pure. Nothing is written anywhere.

A list of prices is tried as if it had been published on top of what is in force: it replaces the standard price of the
same flavour or resource and capacity type together with the class prices made from it; a price of a more exact
capacity type that the list says nothing of stays. What the list leaves alone stays at what it was charged at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, localcontext

from apps.core.money import Money
from apps.costs.choices import RESOURCES, UNALLOCATED
from apps.costs.tally import Tally, round_to_total, total_of
from apps.rates.choosing import keys

#: What a price is of: (cluster id, flavour id or None, resource).
Of = tuple[int, int | None, str]


@dataclass(frozen=True, slots=True)
class Quantity:
    """Stored quantity of one team, of one thing at one price; `hourly` None: it has no price, its cost is unknown."""

    team_id: int | None
    cluster_id: int
    kind: str
    flavour_id: int | None
    gpu_model: str
    capacity_type: str
    service_class: str
    hourly: Decimal | None
    currency: str | None
    priced_for: tuple[str, str] | None
    quantity_ms: int
    gpu_ms: int

    @property
    def of(self) -> Of:
        """What it is a quantity of."""
        resource = self.kind if self.kind in RESOURCES else ""
        return (self.cluster_id, None if resource else self.flavour_id, resource)


@dataclass(slots=True)
class TriedPrices:
    """Prices to try: of what → (capacity type, service class) → price of an hour. `scale`: on all that stays else."""

    currency: str
    table: dict[Of, dict[tuple[str, str], Decimal]] = field(default_factory=dict)
    scale: Decimal = Decimal(1)

    def add(self, of: Of, capacity_type: str, service_class: str, amount: Decimal) -> None:
        """Add one price."""
        self.table.setdefault(of, {})[(capacity_type, service_class)] = amount

    def price(self, quantity: Quantity) -> tuple[Decimal | None, bool]:
        """Return the price of an hour then, and whether the list (or the scale) is what says so."""
        own = self.table.get(quantity.of, {})
        order = keys(quantity.capacity_type, quantity.service_class)
        found = next((key for key in order if key in own), None)
        if found is not None and not self._stays(quantity, own, order.index(found), order):
            return own[found], True
        if quantity.hourly is None:
            return None, False
        with localcontext() as context:
            context.prec = 60
            return quantity.hourly * self.scale, self.scale != 1

    @staticmethod
    def _stays(
        quantity: Quantity, own: Mapping[tuple[str, str], Decimal], rank: int, order: Sequence[tuple[str, str]]
    ) -> bool:
        """Whether what is charged now is more exact than the list's price, and the list does not replace it."""
        now = quantity.priced_for
        if now is None or now not in order or (now[0], "") in own:
            return False
        return order.index(now) < rank


@dataclass(frozen=True, slots=True)
class Compared:
    """Now beside then. `now`/`then` None: nothing of it has a price; `unknown`: part of it has none, now or then.

    `kept`: part of it is not in the tried list and stays at what it cost.
    """

    key: tuple[object, ...]
    now: Money | None
    then: Money | None
    unknown: bool
    kept: bool
    quantity_ms: int
    gpu_ms: int

    @property
    def change(self) -> Money | None:
        """Then less now; None where either is unknown, wholly or in part: it would mislead."""
        return None if self.now is None or self.then is None or self.unknown else self.then - self.now


@dataclass(slots=True)
class _Pair:
    now: Tally
    then: Tally
    kept: bool = False
    quantity_ms: int = 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """The whole: total, per team, and per thing that has a price."""

    total: Compared
    teams: list[Compared]
    things: list[Compared]


#: Stands for capacity that nobody had allocated, beside the teams.
UNALLOCATED_KEY = "unallocated"


def compare(quantities: Iterable[Quantity], prices: TriedPrices) -> Comparison:
    """Work out now and then. Lines are rounded by largest remainder to the rounded total of their side.

    Raises CurrencyMismatch where a stored price is in another currency than the tried ones.
    """
    whole = _Pair(Tally(prices.currency), Tally(prices.currency))
    teams: dict[tuple[object, ...], _Pair] = {}
    things: dict[tuple[object, ...], _Pair] = {}
    for one in quantities:
        hourly, listed = prices.price(one)
        team: tuple[object, ...] = (UNALLOCATED_KEY,) if one.kind in UNALLOCATED else (one.team_id,)
        thing = (*one.of, one.gpu_model, one.capacity_type, one.service_class)
        for pair in (
            whole,
            teams.setdefault(team, _Pair(Tally(prices.currency), Tally(prices.currency))),
            things.setdefault(thing, _Pair(Tally(prices.currency), Tally(prices.currency))),
        ):
            pair.now.add(one.quantity_ms, one.gpu_ms, one.hourly, one.currency)
            pair.then.add(one.quantity_ms, one.gpu_ms, hourly, prices.currency)
            pair.kept = pair.kept or not listed
            pair.quantity_ms += one.quantity_ms
    total = Compared(
        (), _rounded(whole.now), _rounded(whole.then), _unknown(whole), whole.kept, whole.quantity_ms, whole.now.gpu_ms
    )
    return Comparison(total, _lines(teams), _lines(things))


def _lines(pairs: Mapping[tuple[object, ...], _Pair]) -> list[Compared]:
    now = round_to_total([pair.now.amount for pair in pairs.values()], None)
    then = round_to_total([pair.then.amount for pair in pairs.values()], None)
    return [
        Compared(key, before, after, _unknown(pair), pair.kept, pair.quantity_ms, pair.now.gpu_ms)
        for (key, pair), before, after in zip(pairs.items(), now, then, strict=True)
    ]


def _unknown(pair: _Pair) -> bool:
    return bool(pair.now.unpriced_ms or pair.then.unpriced_ms)


def _rounded(tally: Tally) -> Money | None:
    amount = total_of([tally.amount])
    return None if amount is None else amount.quantized()
