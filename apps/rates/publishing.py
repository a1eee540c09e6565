"""What publishing a list of prices does: checks, the plan of what ends and begins, and writing it down.

The one inner step behind an import and an approved proposal. Prices of service classes hang on their base price: they
begin, run and end with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal, localcontext

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from apps import audit
from apps.clusters.models import Cluster, Flavour
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid
from apps.core.money import Money
from apps.rates import events
from apps.rates.choices import CapacityType, Resource, ServiceClass
from apps.rates.models import Rate, RateCard, exact

#: Digits the amount column keeps before and after the point; decimal places of a factor and its largest value.
WHOLE_DIGITS, PLACES = 12, 8
FACTOR_PLACES, MAX_FACTOR = 4, Decimal(1000)
#: What a price is for: (flavour id or None, resource, capacity type).
LineKey = tuple[int | None, str, str]


@dataclass(frozen=True, slots=True)
class PriceLine:
    """One price to publish: of a flavour or a resource, for a capacity type ("": every one), with class factors."""

    flavour_id: int | None
    resource: str
    capacity_type: str
    amount: Decimal
    factors: Mapping[str, Decimal] = field(default_factory=dict)
    capex: str = ""

    @property
    def key(self) -> LineKey:
        """What it is for."""
        return (self.flavour_id, self.resource, self.capacity_type)

    @property
    def field(self) -> str:
        """The name of its field in forms and messages."""
        name = f"price_{self.flavour_id or self.resource}"
        return f"{name}_{self.capacity_type}" if self.capacity_type else name


@dataclass(frozen=True, slots=True)
class Begins:
    """A price that begins: of the standard (`service_class` "") or of a class, made with `factor`."""

    service_class: str
    factor: Decimal | None
    amount: Decimal


@dataclass(slots=True)
class Change:
    """What one line does: the prices that end (base first, then classes), those that begin, and until when."""

    line: PriceLine
    label: str
    begins: list[Begins]
    ends: list[Rate]
    until: datetime | None
    following: Rate | None
    currency: str

    @property
    def before(self) -> Rate | None:
        """The standard price that ends."""
        return next((rate for rate in self.ends if not rate.service_class), None)

    @property
    def rows(self) -> list[ChangeRow]:
        """Old beside new, per service class; a class that gets no new price falls back to the standard."""
        old = {rate.service_class: rate for rate in self.ends}
        new = {one.service_class: one for one in self.begins}
        return [ChangeRow(self, name, old.get(name), new.get(name)) for name in dict.fromkeys([*new, *old])]


@dataclass(frozen=True, slots=True)
class ChangeRow:
    """One price, old beside new."""

    change: Change
    service_class: str
    before: Rate | None
    after: Begins | None

    @property
    def label(self) -> str:
        """What it is for, in words."""
        if not self.service_class:
            return self.change.label
        return f"{self.change.label}, {ServiceClass(self.service_class).label}"

    @property
    def exact(self) -> str:
        """The new price with all its decimals; "": none, the standard applies."""
        return exact(Money(self.after.amount, self.change.currency)) if self.after else ""

    @property
    def percent(self) -> Decimal | None:
        """By how much it changes, in per cent to one place; None where there is nothing to compare."""
        if self.before is None or self.after is None or not self.before.amount:
            return None
        return ((self.after.amount / self.before.amount - 1) * 100).quantize(Decimal("0.1"))


def label_of(line: PriceLine, flavours: Mapping[int, Flavour]) -> str:
    """Return what a line is for, in words."""
    flavour = flavours.get(line.flavour_id) if line.flavour_id is not None else None
    what = str(flavour) if flavour is not None else str(Resource(line.resource).label)
    return f"{what}, {CapacityType(line.capacity_type).label.lower()}" if line.capacity_type else what


def flavours_of(cluster: Cluster) -> dict[int, Flavour]:
    """Return the flavours that a cluster offers, by id, in order of name."""
    found = Flavour.objects.filter(pools__cluster=cluster).distinct().order_by("name", "pk")
    return {flavour.pk: flavour for flavour in found}


def check_times(
    valid_from: datetime, valid_until: datetime | None, *, imported: bool
) -> tuple[datetime, datetime | None]:
    """Return the times cut to whole seconds. Raises Invalid for a start in the past or an end before the start."""
    starts = valid_from.replace(microsecond=0)
    until = valid_until.replace(microsecond=0) if valid_until else None
    if until is not None and until <= starts:
        raise Invalid({"valid_until": "The end must lie after the start."})
    if not imported and starts < clock.now().replace(microsecond=0):
        raise Invalid(
            {"valid_from": "The start lies in the past: a price that was in force never changes. Choose now or later."}
        )
    return starts, until


def check_name(name: str, currency: str) -> str:
    """Return the stripped name. Raises Invalid for none, or for another currency than the ledger's."""
    if not name.strip():
        raise Invalid({"name": "Give the rate card a name."})
    if currency != settings.COMMONS_CURRENCY:
        raise Invalid(
            {"currency": f"The ledger is kept in {settings.COMMONS_CURRENCY}; prices in {currency} cannot be mixed in."}
        )
    return name.strip()


def check_lines(cluster: Cluster, lines: Sequence[PriceLine], flavours: Mapping[int, Flavour]) -> None:
    """Raise Invalid per line (`price_…`, `factor_…`) or for the list as a whole."""
    errors: dict[str, str] = {}
    seen: set[LineKey] = set()
    for line in lines:
        if problem := _problem(cluster, line, flavours, seen):
            errors[line.field] = problem
        else:
            errors.update(_factor_problems(line))
        seen.add(line.key)
    if not lines:
        errors[""] = "Enter a price for at least one flavour or resource."
    if errors:
        raise Invalid(errors)


def _problem(cluster: Cluster, line: PriceLine, flavours: Mapping[int, Flavour], seen: set[LineKey]) -> str:
    exponent = line.amount.as_tuple().exponent
    if line.flavour_id is not None and line.flavour_id not in flavours:
        return f"{cluster} does not offer this flavour."
    if line.flavour_id is None and line.resource not in Resource.values:
        return "Prices are of a flavour or of CPU, memory, storage or egress."
    if line.capacity_type and line.capacity_type not in CapacityType.values:
        return "Capacity types are on demand, reserved and spot."
    if line.key in seen:
        return "This price is given twice."
    if not isinstance(exponent, int):
        return "Enter a number."
    if line.amount < 0:
        return "A price cannot be negative."
    if -exponent > PLACES:
        return f"At most {PLACES} decimal places."
    return "This price is too large." if line.amount >= 10**WHOLE_DIGITS else ""


def _factor_problems(line: PriceLine) -> dict[str, str]:
    """A class price is base × factor: written down exactly or not at all."""
    found: dict[str, str] = {}
    for name, factor in line.factors.items():
        if name not in ServiceClass.values:
            found[f"factor_{name}"] = "There is no such service class."
        elif not factor.is_finite() or not 0 < factor < MAX_FACTOR or _places(factor) > FACTOR_PLACES:
            found[f"factor_{name}"] = f"Give a factor above 0 with at most {FACTOR_PLACES} decimal places, such as 1.2."
        else:
            price = class_price(line.amount, factor)
            if _places(price) > PLACES:
                found[f"factor_{name}"] = (
                    f"{line.amount.normalize():f} × {factor.normalize():f} has more than {PLACES} decimal places: a"
                    " price is never rounded. Choose a shorter price or factor."
                )
            elif price >= 10**WHOLE_DIGITS:
                found[f"factor_{name}"] = "The class's price would be too large."
    return found


def class_price(amount: Decimal, factor: Decimal) -> Decimal:
    """Return base × factor, exact."""
    with localcontext() as context:
        context.prec = 60
        return amount * factor


def _places(value: Decimal) -> int:
    exponent = value.normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def plan(
    cluster: Cluster,
    lines: Sequence[PriceLine],
    starts: datetime,
    until: datetime | None,
    *,
    currency: str,
    flavours: Mapping[int, Flavour],
    imported: bool = False,
    lock: bool = False,
) -> list[Change]:
    """Return what publishing would end and begin, in the lines' order; writes nothing.

    Raises Invalid where a price begins at that very moment already, where an import would touch or outrank a published
    price, and where a capacity type has a price but there is none for every type.
    """
    rates = Rate.objects.filter(cluster=cluster).select_related("card").order_by("valid", "pk")
    if lock:
        rates = rates.select_for_update(of=("self",))
    by_key: dict[LineKey, list[Rate]] = {}
    for rate in rates:
        by_key.setdefault((rate.flavour_id, rate.resource, rate.capacity_type), []).append(rate)
    general = {line.key for line in lines if not line.capacity_type}
    found: list[Change] = []
    for line in lines:
        label = label_of(line, flavours)
        own = by_key.get(line.key, [])
        base = [rate for rate in own if not rate.service_class]
        ending = _superseded(base, label, starts, imported=imported)
        following = min(
            (rate for rate in base if rate.valid.lower is not None and rate.valid.lower > starts),
            key=lambda rate: rate.valid.lower,
            default=None,
        )
        ends = min([one for one in (until, following.valid.lower if following else None) if one], default=None)
        every = (line.flavour_id, line.resource, "")
        if line.capacity_type and every not in general:
            _beside_general(line, by_key.get(every, []), label, starts, ends, imported=imported)
        begins = [Begins("", None, line.amount)]
        begins += [Begins(name, factor, class_price(line.amount, factor)) for name, factor in line.factors.items()]
        closing = [ending] if ending else []
        if ending:
            closing += [rate for rate in own if rate.base_id == ending.pk]
        found.append(Change(line, label, begins, closing, ends, following, currency))
    return found


def _superseded(rates: Iterable[Rate], label: str, at: datetime, *, imported: bool) -> Rate | None:
    """Return the price in force at `at` that has to end there. Raises Invalid where that is not allowed."""
    for rate in rates:
        lower, upper = rate.valid.lower, rate.valid.upper
        if upper is not None and upper <= at:
            continue
        if lower == at:
            raise Invalid(
                {"valid_from": f"{label} already has a price from then on ({rate.card}). Choose another time."}
            )
        if lower is None or lower < at:
            if imported:
                raise Invalid({"valid_from": f"{label} has a published price at this time: an import only fills gaps."})
            return rate
    return None


def _beside_general(
    line: PriceLine, general: Iterable[Rate], label: str, starts: datetime, ends: datetime | None, *, imported: bool
) -> None:
    """Raise Invalid where a price of one capacity type would stand alone, or outrank one in force in the past."""
    running = [
        rate for rate in general if not rate.service_class and (rate.valid.upper is None or rate.valid.upper > starts)
    ]
    if imported and any(ends is None or rate.valid.lower is None or rate.valid.lower < ends for rate in running):
        raise Invalid(
            {"valid_from": f"{label}: a price for every capacity type is published then: an import only fills gaps."}
        )
    if not any(rate.valid.lower is None or rate.valid.lower <= starts for rate in running):
        raise Invalid(
            {line.field: "Give a price for every capacity type, too: capacity that nobody holds has no type."}
        )


def write_card(
    cluster: Cluster,
    name: str,
    changes: Sequence[Change],
    currency: str,
    starts: datetime,
    *,
    actor: Actor,
    note: str = "",
    imported: bool = False,
    flavours: Mapping[int, Flavour],
) -> RateCard:
    """Write a planned card down, in the caller's transaction that holds the cluster's lock, and record it.

    Raises Conflict where the database finds another price for the same time.
    """
    card = RateCard.objects.create(name=name, cluster=cluster, note=note.strip(), created_by_id=actor.user_id)
    superseded: list[str] = []
    prices: dict[str, str] = {}
    try:
        with transaction.atomic():
            for change in changes:
                for rate in change.ends:
                    rate.valid = DateTimeTZRange(rate.valid.lower, starts, "[)")
                    rate.save(update_fields=["valid"])
                    superseded.append(str(rate.uid))
                base: Rate | None = None
                for one in change.begins:
                    rate = Rate.objects.create(
                        card=card,
                        cluster=cluster,
                        flavour_id=change.line.flavour_id,
                        resource=change.line.resource,
                        capacity_type=change.line.capacity_type,
                        service_class=one.service_class,
                        base=base if one.service_class else None,
                        factor=one.factor,
                        currency=currency,
                        amount=one.amount,
                        valid=DateTimeTZRange(starts, change.until, "[)"),
                    )
                    base = base or rate
                    prices[event_key(change.line, one.service_class, flavours)] = str(one.amount)
    except IntegrityError as error:
        raise Conflict(
            "Another price for the same time was published meanwhile. Look at the rate cards again."
        ) from error
    audit.record(
        events.CARD_PUBLISHED,
        events.CardPublished(
            card_uid=card.uid,
            cluster_uid=cluster.uid,
            valid_from=starts,
            currency=currency,
            prices=prices,
            superseded=superseded,
            imported=imported,
        ),
        actor=actor,
        subject_type="rates.card",
        subject_uid=card.uid,
    )
    return card


def event_key(line: PriceLine, service_class: str, flavours: Mapping[int, Flavour]) -> str:
    """Return how events name a price: "a100-80gb", "a100-80gb/spot", "cpu", "a100-80gb+compliance"."""
    flavour = flavours.get(line.flavour_id) if line.flavour_id is not None else None
    name = flavour.slug if flavour is not None else line.resource
    name = f"{name}/{line.capacity_type}" if line.capacity_type else name
    return f"{name}+{service_class}" if service_class else name
