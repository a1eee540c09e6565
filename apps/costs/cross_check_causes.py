"""What of a difference between our dollars and a cost tool's is known. Pure: no ORM, no floats.

The causes are those of the tools' own source (reference: OpenCost bills request count × wall hours × one price; shared
GPUs match neither of its paths and cost nothing; a pod counts from its first running sample, to its resolution).
Causes and remainder add up to the difference exactly, whatever the figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, localcontext

HOUR_MS = 3_600_000
ZERO = Decimal(0)

SHARED, PRICE, START_UP, RESOLUTION, RESOURCES, IDLE = (
    "shared_gpus", "price", "start_up", "resolution", "resources", "idle",
)  # fmt: skip
NAMES = {
    SHARED: "Shared GPUs (MIG, time-slicing): they give them no cost, or another",
    PRICE: "Price of exclusive GPUs: our rate against theirs, over their GPU-hours",
    START_UP: "Start-up: GPUs held before the pod ran, which they do not count",
    RESOLUTION: "Resolution: what the edges of pods can be off in their samples",
    RESOURCES: "CPU, memory, storage, network and shared cost: their cost against our charges",
    IDLE: "Idle capacity that they add to their total; ours is on lines of its own",
}


@dataclass(frozen=True, slots=True)
class Ours:
    """Our charges of a cluster's day: what was allocated, in the ledger currency."""

    exclusive: Decimal
    exclusive_gpu_ms: int
    shared: Decimal
    resources: Decimal

    @property
    def total(self) -> Decimal:
        """All of it."""
        return self.exclusive + self.shared + self.resources


@dataclass(frozen=True, slots=True)
class Theirs:
    """Their costs of the same day. `total` is what they say, idle included where they included it."""

    total: Decimal
    exclusive: Decimal
    exclusive_gpu_ms: Decimal
    shared: Decimal
    idle: Decimal

    @property
    def resources(self) -> Decimal:
        """What is neither GPU nor idle."""
        return self.total - self.exclusive - self.shared - self.idle


@dataclass(frozen=True, slots=True)
class Slack:
    """By how much quantities may differ: held before running, and (either way) at the edges of pods."""

    start_up_gpu_ms: int = 0
    edges_gpu_ms: int = 0


@dataclass(frozen=True, slots=True)
class Explained:
    """The known causes, as (code, amount), and what is left. Amounts: ours − theirs."""

    causes: tuple[tuple[str, Decimal], ...]
    remainder: Decimal


def explain(ours: Ours, theirs: Theirs, slack: Slack) -> Explained:
    """Return what of `ours.total − theirs.total` is known, and the open remainder."""
    with localcontext() as context:
        context.prec = 60
        difference = ours.total - theirs.total
        found: list[tuple[str, Decimal]] = []
        if ours.shared or theirs.shared:
            found.append((SHARED, ours.shared - theirs.shared))
        if ours.exclusive_gpu_ms > 0 and theirs.exclusive_gpu_ms > 0:
            rate = ours.exclusive / ours.exclusive_gpu_ms
            found.append((PRICE, rate * theirs.exclusive_gpu_ms - theirs.exclusive))
            more = ours.exclusive_gpu_ms - theirs.exclusive_gpu_ms
            held = max(ZERO, min(more, Decimal(slack.start_up_gpu_ms)))
            found.append((START_UP, held * rate))
            more -= held
            edges = max(-Decimal(slack.edges_gpu_ms), min(more, Decimal(slack.edges_gpu_ms)))
            found.append((RESOLUTION, edges * rate))
        found.append((RESOURCES, ours.resources - theirs.resources))
        found.append((IDLE, -theirs.idle))
        causes = tuple((code, amount.quantize(Decimal("0.000001"))) for code, amount in found)
        causes = tuple((code, amount) for code, amount in causes if amount)
        return Explained(causes, difference - sum((amount for _, amount in causes), ZERO))


def within(remainder: Decimal, ours: Decimal, permille: int, amount: Decimal) -> bool:
    """Whether a remainder is no difference: at most the amount, or that share of our figure, whichever is more."""
    return abs(remainder) <= max(amount, abs(ours) * permille / 1000)
