"""What a release costs in a month, at its smallest and at its largest, and how long a cold start takes. Pure.

A month has 730 hours. A schedule's windows are counted minute by minute over the week (10,080 minutes), the largest of
the windows that meet winning. Money is unit-minutes × hourly rate, exact until it is shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from apps.core.money import Money
from apps.deployments.choices import Tier
from apps.deployments.spec import Spec
from apps.quotas.recurrence import WEEK_MINUTES

HOURS_PER_MONTH = 730
_DAY = 24 * 60
#: Scheduling and starting a container whose image is on the node, in seconds: an assumption, named where it shows.
CONTAINER_SECONDS = 20
#: How fast weights are read into memory, bytes a second: an assumption, named where it shows.
LOAD_BYTES_PER_SECOND = 200_000_000


@dataclass(frozen=True, slots=True)
class Cost:
    """A month's cost at the smallest and at the largest size; None: no rate is published, so it is unknown."""

    minimum: Money | None
    maximum: Money | None

    @property
    def known(self) -> bool:
        """Whether a rate was published."""
        return self.minimum is not None and self.maximum is not None

    def plain(self) -> dict[str, Any]:
        """Return it as it is frozen with a release: decimal strings rounded to the minor unit."""
        return {
            "minimum": str(self.minimum.quantized().amount) if self.minimum is not None else None,
            "maximum": str(self.maximum.quantized().amount) if self.maximum is not None else None,
        }


@dataclass(frozen=True, slots=True)
class TierRow:
    """One tier beside the others: what it costs at rest and at full size, and how long the first answer takes."""

    tier: str
    label: str
    cost: Cost
    first_seconds: int
    more_seconds: int


def replica_minutes(spec: Spec) -> int:
    """Return the replica-minutes of a week that are always there: the smallest size and the windows above it."""
    if not spec.schedule:
        return spec.min_replicas * WEEK_MINUTES
    level = [spec.min_replicas] * WEEK_MINUTES
    for window in spec.schedule:
        when = window.when
        for day in when.days:
            start = day * _DAY + when.start
            for minute in range(start, start + when.minutes):
                at = minute % WEEK_MINUTES
                level[at] = max(level[at], window.replicas)
    return sum(level)


def month(minutes_a_week: int, units: int, hourly: Money) -> Money:
    """Return what `units` cost over a month for so many minutes of every week."""
    return Money(
        hourly.amount * units * HOURS_PER_MONTH * Decimal(minutes_a_week) / Decimal(WEEK_MINUTES), hourly.currency
    )


def cost(spec: Spec, hourly: Money | None) -> Cost:
    """Return a release's monthly cost at its smallest (with its schedule) and at its largest size."""
    if hourly is None:
        return Cost(None, None)
    units = spec.units_per_replica
    return Cost(month(replica_minutes(spec), units, hourly), month(spec.max_replicas * WEEK_MINUTES, units, hourly))


def canary_cost(spec: Spec, hourly: Money | None) -> Money | None:
    """Return what the canary costs once: its largest size over the ladder's hours."""
    return hourly * (spec.max_units * spec.ladder_hours) if hourly is not None else None


def start_seconds(total_bytes: int, startup_minutes: int = 0) -> int:
    """Return how long a replica takes from nothing to its first answer: node (elastic pools), container, weights."""
    return startup_minutes * 60 + CONTAINER_SECONDS + -(-total_bytes // LOAD_BYTES_PER_SECOND)


def start_words(total_bytes: int, startup_minutes: int = 0) -> str:
    """Return how that figure comes about."""
    node = f"{startup_minutes * 60:,} s for a node, " if startup_minutes else ""
    return (
        f"{node}{CONTAINER_SECONDS} s for the container, {-(-total_bytes // LOAD_BYTES_PER_SECOND):,} s for"
        f" {total_bytes / 1e9:,.1f} GB at {LOAD_BYTES_PER_SECOND // 1_000_000} MB/s: an estimate, not measured"
    )


def tiers(spec: Spec, hourly: Money | None, seconds: int) -> list[TierRow]:
    """Return the three tiers at this size, so that seconds and money stand beside each other."""
    found = []
    for tier, least in ((Tier.HOT, spec.max_replicas), (Tier.WARM, 1), (Tier.COLD, 0)):
        units = spec.units_per_replica
        price = (
            Cost(None, None)
            if hourly is None
            else Cost(
                month(least * WEEK_MINUTES, units, hourly), month(spec.max_replicas * WEEK_MINUTES, units, hourly)
            )
        )
        found.append(
            TierRow(str(tier), str(tier.label), price, seconds if tier == Tier.COLD else 0,
                    0 if tier == Tier.HOT else seconds)
        )  # fmt: skip
    return found
