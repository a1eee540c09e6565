"""What stored hours would have cost at other prices: pure. Nothing is written anywhere.

A list of prices is tried as if it had been published on top of what is in force: it replaces the standard price of the
same flavour or resource and capacity type together with the class prices made from it; a price of a more exact
capacity type that the list says nothing of stays. What the list leaves alone stays at what it was charged at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal

from apps.core.money import Money
from apps.costs.choices import RESOURCES, UNALLOCATED
from apps.costs.tally import EXACT, Tally, round_to_total, total_of
from apps.rates.choosing import keys

#: What a price is of: (cluster id, flavour id or None, resource).
Of = tuple[int, int | None, str]


@dataclass(frozen=True, slots=True)
class Quantity:
    """Stored quantity of one team, of one thing at one price; `hourly` None: it has no price, its cost is unknown."""

    team_id: int | None
    unit_id: int | None
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
    """Prices to try: of what → (capacity type, service class) → price of an hour. `scale`: on all that stays else.

    `idents` tells prices of the same amount apart, as two rates in a row may be: of what, key → whatever names it.
    """

    currency: str
    table: dict[Of, dict[tuple[str, str], Decimal]] = field(default_factory=dict)
    scale: Decimal = Decimal(1)
    idents: dict[tuple[Of, tuple[str, str]], object] = field(default_factory=dict)

    def add(self, of: Of, capacity_type: str, service_class: str, amount: Decimal, ident: object = None) -> None:
        """Add one price."""
        self.table.setdefault(of, {})[(capacity_type, service_class)] = amount
        self.idents[of, (capacity_type, service_class)] = ident

    def match(self, quantity: Quantity) -> tuple[str, str] | None:
        """Return the key of the list's price that applies; None: the list says nothing of it."""
        own = self.table.get(quantity.of, {})
        order = keys(quantity.capacity_type, quantity.service_class)
        found = next((key for key in order if key in own), None)
        return None if found is None or self._stays(quantity, own, order.index(found), order) else found

    def price(self, quantity: Quantity) -> tuple[Decimal | None, bool]:
        """Return the price of an hour then, and whether the list (or the scale) is what says so."""
        found = self.match(quantity)
        if found is not None:
            return self.table[quantity.of][found], True
        if quantity.hourly is None:
            return None, False
        return EXACT.multiply(quantity.hourly, self.scale), self.scale != 1

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
class Part:
    """A quantity on both sides, or on one: where a price begins within an hour, then is split otherwise than now.

    `hourly` is the price then; `listed`: the tried list says so.
    """

    quantity: Quantity
    hourly: Decimal | None
    listed: bool
    now: bool = True
    then: bool = True


def tried(quantities: Iterable[Quantity], prices: TriedPrices) -> Iterator[Part]:
    """Yield quantities with what they would cost at the prices."""
    for one in quantities:
        yield Part(one, *prices.price(one))


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

    @property
    def change_percent(self) -> Decimal | None:
        """The change in per cent of now, to a tenth; None where it is unknown, or nothing was paid before."""
        change = self.change
        if change is None or self.now is None or not self.now.amount:
            return None
        ratio = EXACT.divide(change.amount * 100, self.now.amount)
        return ratio.quantize(Decimal("0.1"), ROUND_HALF_EVEN)


@dataclass(slots=True)
class _Pair:
    now: Tally
    then: Tally
    kept: bool = False
    quantity_ms: int = 0

    def add(self, part: Part, currency: str) -> None:
        one = part.quantity
        if part.now:
            self.now.add(one.quantity_ms, one.gpu_ms, one.hourly, one.currency)
            self.quantity_ms += one.quantity_ms
        if part.then:
            self.then.add(one.quantity_ms, one.gpu_ms, part.hourly, currency)
            self.kept = self.kept or not part.listed


@dataclass(frozen=True, slots=True)
class Comparison:
    """The whole: total, per team, unit and cluster, and per thing that has a price."""

    total: Compared
    teams: list[Compared]
    units: list[Compared]
    clusters: list[Compared]
    things: list[Compared]


#: Stands for capacity that nobody had allocated, beside the teams and units.
UNALLOCATED_KEY = "unallocated"


def _keys(one: Quantity) -> tuple[tuple[object, ...], ...]:
    """Return what a quantity is counted under: team, unit, cluster, thing."""
    nobody: tuple[object, ...] | None = (UNALLOCATED_KEY,) if one.kind in UNALLOCATED else None
    thing = (*one.of, one.gpu_model, one.capacity_type, one.service_class)
    return nobody or (one.team_id,), nobody or (one.unit_id,), (one.cluster_id,), thing


def compare(parts: Iterable[Part], currency: str) -> Comparison:
    """Work out now and then. Lines are rounded by largest remainder to the rounded total of their side.

    Parts are taken one by one: what is kept is as much as there are lines. Raises CurrencyMismatch where a stored price
    is in another currency than the tried ones.
    """
    whole = _Pair(Tally(currency), Tally(currency))
    groups: tuple[dict[tuple[object, ...], _Pair], ...] = ({}, {}, {}, {})
    for part in parts:
        whole.add(part, currency)
        for group, key in zip(groups, _keys(part.quantity), strict=True):
            pair = group.get(key)
            if pair is None:
                pair = group[key] = _Pair(Tally(currency), Tally(currency))
            pair.add(part, currency)
    total = Compared(
        (), _rounded(whole.now), _rounded(whole.then), _unknown(whole), whole.kept, whole.quantity_ms, whole.now.gpu_ms
    )
    return Comparison(total, *(_lines(group) for group in groups))


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
