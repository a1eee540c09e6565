"""What a month report is made of: lines of teams, unallocated capacity, days. Values only."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from functools import cached_property
from typing import Any, Protocol

from apps.core.money import MILLISECONDS_PER_HOUR, Money
from apps.costs.choices import ChargeKind
from apps.costs.explaining import Effects, Item, ItemKey, explain
from apps.costs.tally import share, total_of
from apps.metering.selectors import Completeness
from apps.teams.models import Unit


@dataclass(slots=True)  # Not frozen: made by the thousand, and a frozen one takes four times as long to make.
class TeamLine:
    """One team's month. `amount` None: nothing of it has a rate; `unpriced_gpu_ms` > 0: part of the cost is unknown.

    `amount`, `share`, `previous` and `change` are what the team pays: GPU time and resources. Idle is GPU time alone.
    `used_gpu_ms` None: nothing was measured; it stands on `coverage_permille` of the allocated time. Of a closed month
    `frozen` is what the team's statement says, with corrections and credits, and `shared` its part of common costs.
    """

    team_id: int | None
    team_uid: uuid.UUID | None
    slug: str
    name: str
    unit_name: str
    colour: int
    allocated_gpu_ms: int
    used_gpu_ms: int | None
    idle_gpu_ms: int
    coverage_permille: int
    amount: Money | None
    unpriced_gpu_ms: int
    share: Decimal | None
    previous: Money | None
    idle_amount: Money | None
    #: The part of `amount` that is CPU, memory, storage and egress; None: none charged, or unknown.
    resource_amount: Money | None = None
    #: Part of the resources has no price.
    resources_unpriced: bool = False
    frozen: Money | None = None
    shared: Money | None = None
    statement: str = ""
    statement_uid: uuid.UUID | None = None
    #: How many teams the line adds up; 0: it is one team's own.
    together: int = 0

    @property
    def gpu_amount(self) -> Money | None:
        """The part of `amount` that is GPU time."""
        return less(self.amount, self.resource_amount)

    @property
    def cost(self) -> Money | None:
        """What the month cost: as frozen where it is closed."""
        return self.amount if self.frozen is None else self.frozen

    @property
    def change(self) -> Money | None:
        """Metered cost against the month before; None where either is unknown."""
        return None if self.amount is None or self.previous is None else self.amount - self.previous

    @property
    def idle_share(self) -> Decimal | None:
        """Idle of allocated, as a ratio."""
        return share(self.idle_gpu_ms, self.allocated_gpu_ms)

    @property
    def used_amount(self) -> Money | None:
        """The part of the GPU cost that measured use stands for; None where nothing was measured."""
        return part_of(self.gpu_amount, self.used_gpu_ms, self.allocated_gpu_ms)

    @property
    def per_used_hour(self) -> Money | None:
        """GPU cost of the measured time per used GPU-hour; None where nothing was measured or used."""
        return per_used_hour(self.gpu_amount, self.allocated_gpu_ms, self.used_gpu_ms, self.coverage_permille)


def less(whole: Money | None, part: Money | None) -> Money | None:
    """Return the rest of an amount; unknown where the whole is."""
    return whole if whole is None or part is None else whole - part


def part_of(amount: Money | None, part: int | None, whole: int) -> Money | None:
    """Return amount × part ÷ whole, rounded; None where one of them is unknown or nothing."""
    if amount is None or part is None or not whole:
        return None
    return Money(amount.amount * part / whole, amount.currency).quantized()


def per_hour(amount: Money | None, gpu_ms: int | None) -> Money | None:
    """Return what a GPU-hour cost, exact to 28 digits; None where it is unknown or there was none."""
    if amount is None or not gpu_ms:
        return None
    return Money(amount.amount * MILLISECONDS_PER_HOUR / gpu_ms, amount.currency)


def per_used_hour(amount: Money | None, allocated: int, used: int | None, coverage_permille: int) -> Money | None:
    """Return the cost of the measured time per GPU-hour used in it; time that was not measured counts on neither side.

    Use is what was seen, hence its cost is the cost of the time that was looked at: amount × coverage ÷ used.
    """
    if amount is None or not used or not allocated or not coverage_permille:
        return None
    measured = Money(amount.amount * coverage_permille / 1000, amount.currency)
    return per_hour(measured, used)


@dataclass(slots=True)  # See `TeamLine`.
class UnallocatedLine:
    """Capacity that nobody had allocated: reserved but unused by owner, unsold, stranded, maintenance."""

    kind: str
    owner: str
    team_id: int | None
    gpu_ms: int
    amount: Money | None
    unpriced_gpu_ms: int
    #: How the pages of unallocated capacity name the owner (`spare_drill`); "": the kind has none, or several.
    address: str = ""

    @property
    def label(self) -> str:
        """The line in words."""
        text = str(ChargeKind(self.kind).label)
        return f"{text}: {self.owner}" if self.owner else text


@dataclass(frozen=True, slots=True)
class DayCell:
    """A team's day in the chart; `team_id` None: all other teams together."""

    day: date
    team_id: int | None
    gpu_ms: int
    amount: Money | None


@dataclass(frozen=True, slots=True)
class DaySum:
    """All of a day, other resources too. `amount` None: part of it has no rate, so that its cost is unknown."""

    day: date
    gpu_ms: int
    amount: Money | None


Pair = tuple[dict[ItemKey, Item], dict[ItemKey, Item]]


class ItemSource(Protocol):
    """Where the items of teams come from: a query of its own, or a value within another (`report_figures`)."""

    def __call__(self, team_ids: Collection[int | None]) -> dict[int | None, Pair]: ...

    def value(self, team_ids: Collection[int | None]) -> tuple[str, dict[str, Any]]: ...

    def parse(self, team_ids: Collection[int | None], rows: list[dict[str, Any]]) -> dict[int | None, Pair]: ...


@dataclass
class MonthReport:
    """A billing month of the teams a person may see. Sums over the lines are made once: ask when the lines stand."""

    month: date
    start: datetime
    end: datetime
    zone: str
    currency: str
    unit: Unit | None
    lines: list[TeamLine] = field(default_factory=list)
    unallocated: list[UnallocatedLine] = field(default_factory=list)
    by_day: list[DayCell] = field(default_factory=list)
    #: Whole days, those of three months before, too: what forecasts and comparisons stand on.
    days: list[DaySum] = field(default_factory=list)
    completeness: Completeness = field(default_factory=Completeness)
    total: Money | None = None
    previous_total: Money | None = None
    unallocated_total: Money | None = None
    previous_unpriced: bool = False
    frozen_total: Money | None = None
    shared_total: Money | None = None
    statement: str = ""
    statement_uid: uuid.UUID | None = None
    #: What the costs of the month before and of this month are made of, for explaining the change: of the whole, and
    #: by team as far as read.
    whole: Pair = field(default_factory=lambda: ({}, {}))
    items: dict[int | None, Pair] = field(default_factory=dict)
    read_items: ItemSource | None = None

    @cached_property
    def allocated_gpu_ms(self) -> int:
        """Σ allocated."""
        return sum(line.allocated_gpu_ms for line in self.lines)

    @cached_property
    def used_gpu_ms(self) -> int | None:
        """Σ used, where measured."""
        known = [line.used_gpu_ms for line in self.lines if line.used_gpu_ms is not None]
        return sum(known) if known else None

    @cached_property
    def idle_gpu_ms(self) -> int:
        """Σ idle."""
        return sum(line.idle_gpu_ms for line in self.lines)

    @cached_property
    def coverage_permille(self) -> int:
        """The measured part of the allocated time."""
        whole = self.allocated_gpu_ms
        return sum(line.coverage_permille * line.allocated_gpu_ms for line in self.lines) // whole if whole else 0

    @cached_property
    def unallocated_gpu_ms(self) -> int:
        """Σ of capacity that nobody had allocated."""
        return sum(line.gpu_ms for line in self.unallocated)

    @cached_property
    def unpriced_gpu_ms(self) -> int:
        """Allocated GPU time without a rate: its cost is unknown."""
        return sum(line.unpriced_gpu_ms for line in self.lines)

    @cached_property
    def resource_total(self) -> Money | None:
        """The part of the total that is CPU, memory, storage and egress; None: none was charged."""
        return add_up(line.resource_amount for line in self.lines)

    @property
    def gpu_total(self) -> Money | None:
        """The part of the total that is GPU time."""
        return less(self.total, self.resource_total)

    @cached_property
    def resources_unpriced(self) -> bool:
        """Whether part of the resources has no price."""
        return any(line.resources_unpriced for line in self.lines)

    @property
    def cost(self) -> Money | None:
        """What the month cost: as frozen where it is closed."""
        return self.total if self.frozen_total is None else self.frozen_total

    @property
    def change(self) -> Money | None:
        """Metered cost against the month before."""
        return None if self.total is None or self.previous_total is None else self.total - self.previous_total

    @cached_property
    def idle_amount(self) -> Money | None:
        """What idle GPU time cost, where known."""
        return add_up(line.idle_amount for line in self.lines)

    @cached_property
    def used_amount(self) -> Money | None:
        """The part of the GPU cost that measured use stands for, team by team."""
        return add_up(line.used_amount for line in self.lines)

    @property
    def per_allocated_hour(self) -> Money | None:
        """GPU cost per allocated GPU-hour that has a rate."""
        return per_hour(self.gpu_total, self.allocated_gpu_ms - self.unpriced_gpu_ms)

    @property
    def per_used_hour(self) -> Money | None:
        """GPU cost of the measured time per used GPU-hour."""
        return per_used_hour(self.gpu_total, self.allocated_gpu_ms, self.used_gpu_ms, self.coverage_permille)

    @property
    def empty(self) -> bool:
        """Whether nothing at all was metered."""
        return not self.lines and not self.unallocated

    def effects(self) -> Effects | None:
        """Return why the whole changed; None where either month is unknown."""
        if self.total is None or self.previous_total is None:
            return None
        before, after = self.whole
        return explain(before, after, shown_before=self.previous_total, shown_after=self.total)

    def effects_of(self, line: TeamLine) -> Effects | None:
        """Return why a team's line changed; None where either month is unknown, or the line is of several teams."""
        if line.together or line.amount is None or line.previous is None:
            return None
        if line.team_id not in self.items:
            self.read_changes(self.lines)
        before, after = self.items.get(line.team_id, ({}, {}))
        return explain(before, after, shown_before=line.previous, shown_after=line.amount)

    def unread(self, lines: Iterable[TeamLine]) -> list[int | None]:
        """Return the teams of these lines whose change is known, but not yet what it is made of."""
        return [
            line.team_id
            for line in lines
            if not line.together and line.amount is not None and line.previous is not None
            if line.team_id not in self.items
        ]

    def read_changes(self, lines: Iterable[TeamLine]) -> None:
        """Read what the changes of these lines are made of, at once."""
        wanted = self.unread(lines)
        if wanted and self.read_items is not None:
            self.items.update(self.read_items(wanted))


def add_up(amounts: Iterable[Money | None]) -> Money | None:
    """Return the sum of the known amounts; None where none is."""
    return total_of(amounts)
