"""The price of a GPU-hour of owned GPUs: pure, exact, step by step.

Formula (cost.md E9; straight-line depreciation, every cost spread over the hours that are expected to be sold):

    depreciation = (purchase − residual) ÷ (life months × 730 h × GPUs × sellable share)
    energy       = power in kW × PUE × price per kWh ÷ sellable share
    operations   = operations a month ÷ (730 h × GPUs × sellable share)
    price        = depreciation + energy + operations

E9 divides depreciation alone by the sellable share. A GPU in service draws power and is looked after in the hours
that nobody buys, too, so that a price that is to earn back all three divides all three; at a share of 1 the two agree.
A month has 730 hours (365 × 24 ÷ 12), as everywhere in estimates.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import Protocol

from apps.rates.pricing import HOURS_PER_MONTH

#: Decimal places of a published price.
_PRICE = Decimal("0.00000001")


class ScheduleLike(Protocol):
    """What the computation needs; `CapexSchedule` fits."""

    @property
    def gpus(self) -> int: ...
    @property
    def life_months(self) -> int: ...
    @property
    def purchase(self) -> Decimal: ...
    @property
    def residual(self) -> Decimal: ...
    @property
    def power_watts(self) -> int: ...
    @property
    def pue_permille(self) -> int: ...
    @property
    def per_kwh(self) -> Decimal: ...
    @property
    def operations_monthly(self) -> Decimal: ...
    @property
    def sellable_permille(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the computation: what, how it is worked out, and what it comes to per GPU-hour."""

    label: str
    working: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Computation:
    """The steps, their exact sum (to 60 digits) and the sum as a price, rounded half-even to eight decimal places."""

    steps: tuple[Step, ...]
    exact: Decimal
    price: Decimal


def hourly(schedule: ScheduleLike) -> Computation:
    """Return the price of a GPU-hour with every step. Raises ValueError for inputs that `problems` names."""
    if found := problems(schedule):
        raise ValueError("; ".join(found.values()))
    with localcontext() as context:
        context.prec = 60
        share = Decimal(schedule.sellable_permille) / 1000
        pue = Decimal(schedule.pue_permille) / 1000
        kilowatts = Decimal(schedule.power_watts) / 1000
        month = HOURS_PER_MONTH * schedule.gpus * share
        depreciation = (schedule.purchase - schedule.residual) / (schedule.life_months * month)
        energy = kilowatts * pue * schedule.per_kwh / share
        operations = schedule.operations_monthly / month
        exact = depreciation + energy + operations
        steps = (
            Step(
                "Depreciation",
                f"({_text(schedule.purchase)} − {_text(schedule.residual)}) ÷ ({schedule.life_months} months ×"
                f" {HOURS_PER_MONTH} h × {schedule.gpus} GPUs × {_text(share)})",
                depreciation,
            ),
            Step(
                "Energy",
                f"{_text(kilowatts)} kW × {_text(pue)} × {_text(schedule.per_kwh)} per kWh ÷ {_text(share)}",
                energy,
            ),
            Step(
                "Operations",
                f"{_text(schedule.operations_monthly)} a month ÷ ({HOURS_PER_MONTH} h × {schedule.gpus} GPUs ×"
                f" {_text(share)})",
                operations,
            ),
        )
        return Computation(steps, exact, exact.quantize(_PRICE, ROUND_HALF_EVEN))


def problems(schedule: ScheduleLike) -> dict[str, str]:
    """Return field → message for what cannot be."""
    found: dict[str, str] = {}
    if schedule.gpus < 1:
        found["gpus"] = "Give at least one GPU."
    if schedule.life_months < 1:
        found["life_months"] = "Give a life of at least one month."
    if schedule.purchase < 0:
        found["purchase"] = "A purchase price cannot be negative."
    if schedule.residual < 0 or schedule.residual > schedule.purchase:
        found["residual"] = "The residual value lies between zero and the purchase price."
    if schedule.power_watts < 0:
        found["power_watts"] = "Power cannot be negative."
    if schedule.pue_permille < 1000:
        found["pue"] = "A PUE is at least 1: a facility draws no less than what stands in it."
    if schedule.per_kwh < 0:
        found["per_kwh"] = "A price cannot be negative."
    if schedule.operations_monthly < 0:
        found["operations_monthly"] = "Operations cannot cost less than nothing."
    if not 0 < schedule.sellable_permille <= 1000:
        found["sellable_percent"] = "The sellable share lies above 0 and at most at 100 per cent."
    return found


def _text(value: Decimal) -> str:
    return f"{value.normalize():,f}"
