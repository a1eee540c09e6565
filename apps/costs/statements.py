"""From quantities to statements. Pure: lines are rounded once, all together, against the pool's bill.

Per month: every line of the teams' and the platform's statements has an exact amount, quantity × rate ÷ 3,600,000. The
bill is their exact sum, rounded once. The lines are rounded down and the minor units left go to the largest remainders
(`tally.round_to_total`), so that Σ lines = Σ statements = bill, to the cent. Units' and cost centres' statements add up
the rounded amounts of their teams' statements; they are views and no part of the bill.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal, localcontext
from uuid import UUID

from apps.core.money import MILLISECONDS_PER_HOUR, CurrencyMismatch, Money
from apps.costs.choices import ChargeKind, LineSort, OwnerKind
from apps.costs.distribution import Owner, Quantity
from apps.costs.tally import round_to_total, total_of


@dataclass(frozen=True, slots=True)
class Price:
    """A rate as statements need it."""

    uid: UUID
    amount: Decimal
    currency: str


@dataclass(frozen=True, slots=True)
class Adjustment:
    """A correction (quantity at its own rate) or credit (a fixed amount) billed in this month."""

    owner: Owner | None
    sort: str
    description: str
    start: datetime
    end: datetime
    reference: UUID
    kind: str = ""
    cluster_id: int | None = None
    flavour_id: int | None = None
    gpu_model: str = ""
    rate_id: int | None = None
    quantity_ms: int = 0
    gpu_ms: int = 0
    fixed: Decimal | None = None


@dataclass(slots=True)
class Line:
    """A line of a statement. `exact` None: no price, so the cost is unknown; `amount` is 0 then and says nothing."""

    sort: str
    kind: str
    description: str
    start: datetime
    end: datetime
    cluster_id: int | None = None
    flavour_id: int | None = None
    gpu_model: str = ""
    rate_id: int | None = None
    hourly: Decimal | None = None
    quantity_ms: int = 0
    gpu_ms: int = 0
    exact: Decimal | None = None
    amount: Decimal = Decimal(0)
    method: str = ""
    ratio_ppm: int | None = None
    reference: UUID | None = None

    @property
    def unknown(self) -> bool:
        """Whether the line has a quantity without a price."""
        return self.exact is None

    @property
    def shared(self) -> bool:
        """Whether it is a share of common cost."""
        return self.sort == LineSort.DISTRIBUTED


@dataclass(slots=True)
class Built:
    """A statement as it would be frozen."""

    owner_kind: str
    owner: Owner | None
    currency: str
    lines: list[Line] = field(default_factory=list)
    number: str = ""

    @property
    def amount(self) -> Decimal:
        """The total: Σ of the rounded lines."""
        return sum((line.amount for line in self.lines), Decimal(0))

    @property
    def own_amount(self) -> Decimal:
        """The total without shares of common cost."""
        return sum((line.amount for line in self.lines if not line.shared), Decimal(0))

    @property
    def gpu_ms(self) -> int:
        """GPU time that the owner had allocated; on the platform's, all of its lines' GPU time."""
        return sum(
            line.gpu_ms
            for line in self.lines
            if line.sort == LineSort.CHARGE
            and (line.kind == ChargeKind.ALLOCATED or self.owner_kind == OwnerKind.PLATFORM)
        )

    @property
    def unpriced_ms(self) -> int:
        """Quantity of unknown cost."""
        return sum(line.quantity_ms for line in self.lines if line.unknown)


#: Order of lines: what they are, then of what kind.
_SORTS = [str(sort) for sort in LineSort]
_KINDS = ["", *(str(kind) for kind in ChargeKind)]


def line_order(line: Line) -> tuple[object, ...]:
    """Return what lines are ordered by: total, so that the same rows give the same bytes."""
    return (
        _SORTS.index(line.sort), _KINDS.index(line.kind), line.cluster_id or 0, line.flavour_id or 0, line.gpu_model,
        line.rate_id or 0, line.method, line.start, str(line.reference or ""),
    )  # fmt: skip


def exact_amount(quantity_ms: int, price: Price | None, currency: str) -> Decimal | None:
    """Return quantity × price ÷ 3,600,000 to 60 digits; None without a price. Raises CurrencyMismatch."""
    if price is None:
        return None
    if price.currency != currency:
        raise CurrencyMismatch(f"{price.currency} and {currency} cannot be mixed")
    with localcontext() as context:
        context.prec = 60
        return Decimal(quantity_ms) * price.amount / MILLISECONDS_PER_HOUR


def build(
    quantities: Iterable[Quantity],
    adjustments: Iterable[Adjustment],
    prices: Mapping[int, Price],
    *,
    currency: str,
    bounds: Mapping[date, tuple[datetime, datetime]] | None = None,
    describe: Mapping[tuple[str, str], str] | None = None,
    start: datetime,
    end: datetime,
) -> tuple[list[Built], Money]:
    """Return the statements of all owners (the platform's last) with rounded lines, and the pool's bill.

    `bounds`: the time that a billing day covers, for the lines' own dates; without it lines say `start` and `end`.
    `describe`: (sort, kind) → words of a line. Raises CurrencyMismatch for a price in another currency.
    """
    words = describe or {}
    days = bounds or {}
    found: dict[Owner | None, Built] = {None: Built(OwnerKind.PLATFORM, None, currency)}

    def statement(owner: Owner | None) -> Built:
        return found.setdefault(owner, Built(OwnerKind.TEAM, owner, currency))

    for row in quantities:
        if not row.quantity_ms and not row.gpu_ms:
            continue
        price = prices[row.rate_id] if row.rate_id is not None else None
        statement(row.owner).lines.append(
            Line(
                sort=row.sort,
                kind=row.kind,
                description=words.get((row.sort, row.kind), row.kind),
                start=days[row.first][0] if row.first in days else start,
                end=days[row.last][1] if row.last in days else end,
                cluster_id=row.cluster_id,
                flavour_id=row.flavour_id,
                gpu_model=row.gpu_model,
                rate_id=row.rate_id,
                hourly=price.amount if price else None,
                quantity_ms=row.quantity_ms,
                gpu_ms=row.gpu_ms,
                exact=exact_amount(row.quantity_ms, price, currency),
                method=row.method,
                ratio_ppm=row.ratio_ppm,
            )
        )
    for item in adjustments:
        price = prices[item.rate_id] if item.rate_id is not None else None
        statement(item.owner).lines.append(
            Line(
                sort=item.sort,
                kind=item.kind,
                description=item.description,
                start=item.start,
                end=item.end,
                cluster_id=item.cluster_id,
                flavour_id=item.flavour_id,
                gpu_model=item.gpu_model,
                rate_id=item.rate_id,
                hourly=price.amount if price else None,
                quantity_ms=item.quantity_ms,
                gpu_ms=item.gpu_ms,
                exact=item.fixed if item.fixed is not None else exact_amount(item.quantity_ms, price, currency),
                reference=item.reference,
            )
        )
    teams = sorted(owner for owner in found if owner is not None)
    built = [*(found[owner] for owner in teams), found[None]]
    for one in built:
        one.lines.sort(key=line_order)
    return built, _round(built, currency)


def _round(built: Sequence[Built], currency: str) -> Money:
    """Round all lines together; returns the bill."""
    lines = [line for one in built for line in one.lines]
    exact = [None if line.exact is None else Money(line.exact, currency) for line in lines]
    bill = (total_of(exact) or Money.zero(currency)).quantized()
    zero = Money.zero(currency).quantized().amount
    for line, amount in zip(lines, round_to_total(exact, bill), strict=True):
        line.amount = zero if amount is None else amount.amount
    return bill


_LETTERS = {OwnerKind.TEAM: "T", OwnerKind.UNIT: "U", OwnerKind.COST_CENTRE: "C", OwnerKind.PLATFORM: "P"}


def numbers(month: date, owner_kind: str, count: int, edition: int = 1) -> list[str]:
    """Return the numbers of a month's statements of one kind: 2026-09-T-0001 …; a month opened again appends -2, -3."""
    tail = "" if edition == 1 else f"-{edition}"
    return [f"{month:%Y-%m}-{_LETTERS[OwnerKind(owner_kind)]}-{index:04d}{tail}" for index in range(1, count + 1)]


__all__ = ["Adjustment", "Built", "Line", "Price", "build", "exact_amount", "line_order", "numbers"]
