"""What the report's other parts are made of: budgets, proposals, dearest workloads, stretches of days."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal

from apps.core.money import Money
from apps.costs.forecasting import Forecast
from apps.insights.together import Counted, Worth, together


@dataclass(frozen=True, slots=True)
class BudgetRow:
    """A budget and where it stands. `left` None: part of the cost is unknown, or no limit in money."""

    uid: uuid.UUID
    name: str
    limit: Money | None
    gpu_hours: int | None
    spent: Money | None
    gpu_ms: int
    left: Money | None
    steps: list[str]

    @property
    def over(self) -> bool:
        """Whether more is spent than the limit."""
        return self.left is not None and self.left.amount < 0


@dataclass(frozen=True, slots=True)
class Proposal:
    """Something to do: in a sentence, worth so much a month, with its evidence and its action."""

    text: str
    monthly: Money | None
    evidence: str
    action: str
    action_label: str
    coverage_permille: int | None = None
    #: Workspace and team whose GPUs it stops; "": it stops none. Two that stop the same GPUs save them once.
    stops: str = ""
    #: Whose GPUs it is about, and of a smaller size the part that stays and what stopping when idle saves of it anyway.
    place: str = ""
    clock: bool = False
    share: Decimal | None = None
    of_idle: Decimal | None = None


@dataclass(frozen=True, slots=True)
class TopWorkload:
    """One of the dearest workloads. `idle_share` None: its use is not known well enough."""

    name: str
    kind: str
    namespace: str
    team: str
    flavour: str
    gpu_ms: int
    cost: Money | None
    idle_share: Decimal | None
    url: str


@dataclass(frozen=True, slots=True)
class Span:
    """Some whole days and as many before them: those of the week before, or of the month before from its first on."""

    start: date
    end: date
    cost: Money
    before: Money
    before_start: date

    @property
    def before_end(self) -> date:
        """The last of the days before."""
        return self.before_start + (self.end - self.start)

    @property
    def change(self) -> Money:
        """These days less those before."""
        return self.cost - self.before


@dataclass(slots=True)
class Extras:
    """Everything beside the month's figures."""

    status: str = ""
    closed: bool = False
    budgets: list[BudgetRow] = field(default_factory=list)
    proposals: list[Proposal] = field(default_factory=list)
    workloads: list[TopWorkload] = field(default_factory=list)
    workloads_at: datetime | None = None
    realised: Money | None = None
    forecast: Forecast | None = None
    forecast_low: Money | None = None
    forecast_mid: Money | None = None
    forecast_high: Money | None = None
    week: Span | None = None
    so_far: Span | None = None

    @property
    def _counted(self) -> list[tuple[Proposal, Money, Counted, Proposal | None]]:
        known = [(one, one.monthly) for one in self.proposals if one.monthly is not None]
        counted = together(
            [
                Worth(
                    monthly.amount, one.stops or one.place or None, stops=bool(one.stops), clock=one.clock,
                    share=one.share, of_idle=one.of_idle,
                )
                for one, monthly in known
            ]
        )  # fmt: skip
        return [
            (one, monthly, count, None if count.within is None else known[count.within][0])
            for (one, monthly), count in zip(known, counted, strict=True)
        ]

    @property
    def saving(self) -> Money | None:
        """What the proposals save a month together, where known: no GPU-hour is counted twice (`insights.together`)."""
        known = [Money(count.amount, monthly.currency).quantized() for _, monthly, count, _ in self._counted]
        return sum(known[1:], known[0]) if known else None

    @property
    def rows(self) -> list[tuple[Proposal, Money | None, str]]:
        """The proposals, each with what of it another one saves anyway (None: nothing) and that other's action."""
        included = {
            id(one): (Money(count.included, monthly.currency).quantized(), within.action_label)
            for one, monthly, count, within in self._counted
            if within is not None
        }
        return [(one, *included.get(id(one), (None, ""))) for one in self.proposals]
