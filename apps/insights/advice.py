"""What could be saved, from what ran: idle work of a workspace, work that is larger than it needs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Protocol

from apps.core.money import MILLISECONDS_PER_HOUR, Money
from apps.insights.idle_use import MIN_COVERAGE_PERMILLE, known_as
from apps.quotas.idle_policy import IdlePolicy

#: Below so many GPU-hours nothing is said: a person's time costs more.
MIN_SAVABLE_MS = 10 * MILLISECONDS_PER_HOUR
#: A size must leave so much room above what was seen (per mille).
ROOM_PERMILLE = 100
#: Fewer hours than this tell nothing about the size that a workload needs.
MIN_HOURS = 24


class Ran(Protocol):
    """What advice reads of a workload (`workloads.Workload`, `WorkloadMonth`)."""

    @property
    def workspace_id(self) -> int | None: ...
    @property
    def namespace(self) -> str: ...
    @property
    def workload_kind(self) -> str: ...
    @property
    def workload_name(self) -> str: ...
    @property
    def purpose(self) -> str: ...
    @property
    def environment(self) -> str: ...
    @property
    def hours(self) -> int: ...
    @property
    def allocated_gpu_ms(self) -> int: ...
    @property
    def allocated_unit_ms(self) -> int: ...
    @property
    def covered_gpu_ms(self) -> int: ...
    @property
    def idle_gpu_ms(self) -> int: ...
    @property
    def savable_gpu_ms(self) -> int: ...
    @property
    def currency(self) -> str: ...
    @property
    def product(self) -> Decimal: ...
    @property
    def savable_product(self) -> Decimal: ...
    @property
    def unpriced_ms(self) -> int: ...
    @property
    def most_memory_mib(self) -> int | None: ...
    @property
    def use_p95_permille(self) -> int | None: ...


@dataclass(slots=True)
class IdleWork:
    """Idle work of one workspace. Products are Σ quantity × hourly price, unrounded."""

    workspace_id: int
    allocated_gpu_ms: int = 0
    covered_gpu_ms: int = 0
    idle_gpu_ms: int = 0
    savable_gpu_ms: int = 0
    product: Decimal = Decimal(0)
    idle_product: Decimal = Decimal(0)
    savable_product: Decimal = Decimal(0)
    currency: str = ""
    unpriced: bool = False
    purposes: set[str] = field(default_factory=set)
    workloads: list[Any] = field(default_factory=list)

    @property
    def coverage_permille(self) -> int:
        """The part of what the workspace held whose use is known."""
        return self.covered_gpu_ms * 1000 // self.allocated_gpu_ms if self.allocated_gpu_ms else 0

    @property
    def idle_share(self) -> Decimal:
        """The part of the cost that idle hours are; of GPU time where nothing has a price."""
        if self.product:
            return self.idle_product / self.product
        return Decimal(self.idle_gpu_ms) / self.allocated_gpu_ms if self.allocated_gpu_ms else Decimal(0)

    @property
    def amount(self) -> Money | None:
        """What the workspace cost; None: unknown, in part or all."""
        return self._money(self.product)

    @property
    def saving(self) -> Money | None:
        """What stopping would have saved in the time looked at; None: unknown."""
        return self._money(self.savable_product)

    def _money(self, product: Decimal) -> Money | None:
        return Money(product / MILLISECONDS_PER_HOUR, self.currency) if self.currency and not self.unpriced else None

    @property
    def what(self) -> str:
        """What lies idle, in a word."""
        if len(self.purposes) == 1 and (purpose := next(iter(self.purposes))):
            return f"idle {purpose}" if purpose.endswith(("s", "ing")) else f"idle {purpose}s"
        return "idle workloads"


def idle_work(ran: Iterable[Ran], policy: IdlePolicy) -> list[IdleWork]:
    """Return the workspaces in which stopping idle work saves something, most first; what the policy spares stays."""
    found: dict[int, IdleWork] = {}
    for one in ran:
        if one.workspace_id is None:
            continue
        place = found.setdefault(one.workspace_id, IdleWork(one.workspace_id))
        place.allocated_gpu_ms += one.allocated_gpu_ms
        place.covered_gpu_ms += one.covered_gpu_ms
        place.product += one.product
        place.currency = place.currency or one.currency
        place.unpriced = place.unpriced or one.unpriced_ms > 0
        kind, _ = known_as(one.workload_kind or "", one.workload_name)
        if policy.spares(kind, one.environment):
            continue
        place.idle_gpu_ms += one.idle_gpu_ms
        if one.allocated_gpu_ms:
            place.idle_product += one.product * one.idle_gpu_ms / one.allocated_gpu_ms
        if one.savable_gpu_ms:
            place.savable_gpu_ms += one.savable_gpu_ms
            place.savable_product += one.savable_product
            place.purposes.add(one.purpose)
            place.workloads.append(one)
    kept = [place for place in found.values() if place.savable_gpu_ms >= MIN_SAVABLE_MS]
    for place in kept:
        place.workloads.sort(key=lambda one: (-one.savable_product, -one.savable_gpu_ms, one.workload_name))
    return sorted(kept, key=lambda place: (-place.savable_product, -place.savable_gpu_ms, place.workspace_id))


def about(amount: Money) -> str:
    """Write an amount with three significant digits, as sentences do: "11,600 USD"."""
    value = amount.amount
    if not value:
        return f"0 {amount.currency}"
    step = Decimal(1).scaleb(max(value.adjusted() - 2, 0))
    rounded = (value / step).quantize(Decimal(1), ROUND_HALF_EVEN) * step
    return f"{int(rounded):,} {amount.currency}"


def sentence(name: str, work: IdleWork, hours: int, *, monthly: Money | None, whole: Money | None = None) -> str:
    """Say what lies idle and what to do: "Research: 33,264 USD; 35 % from idle experiments: shutting down …"."""
    cost = whole or work.amount
    share = (work.idle_share * 100).quantize(Decimal(1), ROUND_HALF_EVEN)
    head = f"{name}: {int(cost.amount.quantize(Decimal(1), ROUND_HALF_EVEN)):,} {cost.currency}" if cost else name
    saves = (
        f"saves about {about(monthly)} a month"
        if monthly is not None
        else f"gives back {work.savable_gpu_ms // MILLISECONDS_PER_HOUR:,} GPU-hours"
    )
    return f"{head}; {share} % from {work.what}: shutting down after {hours} idle hours {saves}"


@dataclass(frozen=True, slots=True)
class Size:
    """A share of a GPU that a cluster offers: `numerator/denominator` of a device, with its memory."""

    flavour_id: int
    name: str
    gpu_model: str
    numerator: int
    denominator: int
    memory_mib: int


@dataclass(frozen=True, slots=True)
class Fit:
    """A smaller size that would have done. `keep_units` of `units` whole GPUs, or (size) one MIG share of one GPU."""

    workload: Any
    units: int
    keep_units: int
    size: Size | None
    saving_product: Decimal

    @property
    def share(self) -> Decimal:
        """The part of what is held that would stay."""
        if self.size is not None:
            return Decimal(self.size.numerator) / self.size.denominator
        return Decimal(self.keep_units) / self.units

    @property
    def saved_gpu_ms(self) -> int:
        """GPU time that the smaller size would not have held."""
        return int(self.workload.allocated_gpu_ms * (1 - self.share))


def fit(one: Ran, gpu_model: str, whole: bool, sizes: Sequence[Size]) -> Fit | None:
    """Return the smallest size that a workload would have fitted, None where none is smaller or too little is known.

    `whole`: its flavour is an exclusive GPU. Fewer GPUs: the use of 95 % of the hours, with a tenth of room, fits on
    fewer of the k. A MIG profile of the same model: that use fits in its share and the most memory ever held fits in
    its memory. Saving: (1 − w) × rate × hours, which is (1 − w) × what was charged.
    """
    if not whole or one.hours < MIN_HOURS or one.use_p95_permille is None:
        return None
    if one.covered_gpu_ms * 1000 < MIN_COVERAGE_PERMILLE * one.allocated_gpu_ms:
        return None
    if one.idle_gpu_ms * 2 > one.allocated_gpu_ms:
        return None  # idle rather than large: another proposal
    units = -(-one.allocated_unit_ms // (one.hours * MILLISECONDS_PER_HOUR))
    needed = one.use_p95_permille * (1000 + ROOM_PERMILLE) * units
    if units > 1:
        keep = max(1, -(-needed // 1_000_000))
        if keep >= units:
            return None
        return Fit(one, units, keep, None, one.product * (units - keep) / units)
    if one.most_memory_mib is None:
        return None
    memory = one.most_memory_mib * (1000 + ROOM_PERMILLE)
    fitting = [
        size
        for size in sizes
        if size.gpu_model == gpu_model
        and size.numerator < size.denominator
        and needed * size.denominator <= 1_000_000 * size.numerator
        and memory <= 1000 * size.memory_mib
    ]
    if not fitting:
        return None
    best = min(fitting, key=lambda size: (size.numerator / size.denominator, size.memory_mib, size.flavour_id))
    return Fit(one, 1, 1, best, one.product * (best.denominator - best.numerator) / best.denominator)
