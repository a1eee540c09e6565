"""How an objective stands: pure, from samples, drift and dates. None: unknown, which is no breach and is shown so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol

from apps.deployments.choices import ObjectiveKind

#: Availability is a promise from below; everything else a limit from above.
AT_LEAST = frozenset({ObjectiveKind.AVAILABILITY})
DRIFT = frozenset({ObjectiveKind.PSI, ObjectiveKind.KS})
#: On fewer requests a share says nothing.
MIN_REQUESTS = 50
_PLACES = Decimal("0.000000001")


class Sample(Protocol):
    """What is read of a serving sample; None: not measured."""

    @property
    def requests(self) -> int | None:
        """Requests in the window."""

    @property
    def errors(self) -> int | None:
        """Of these, those that failed."""

    @property
    def latency_p95_ms(self) -> int | None:
        """95th percentile of their duration."""

    @property
    def ready_replicas(self) -> int | None:
        """Replicas that could answer."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A value with the figures it stands on, and whether it breaches the target; both None: unknown."""

    value: Decimal | None
    breached: bool | None
    detail: dict[str, Any] = field(default_factory=dict)


def read(
    kind: str,
    target: Decimal,
    *,
    samples: Sequence[Sample] = (),
    drift: Decimal | None = None,
    trained_at: datetime | None = None,
    at: datetime,
) -> Reading:
    """Return how an objective of a kind stands at a time.

    `samples`: of its window, of every release that served. `drift`: the newest statistic of its feature in the window.
    """
    value, detail = _value(ObjectiveKind(kind), samples, drift, trained_at, at)
    if value is None:
        return Reading(None, None, detail)
    value = value.quantize(_PLACES)
    return Reading(value, value < target if kind in AT_LEAST else value > target, detail)


def _value(
    kind: ObjectiveKind, samples: Sequence[Sample], drift: Decimal | None, trained_at: datetime | None, at: datetime
) -> tuple[Decimal | None, dict[str, Any]]:
    if kind in DRIFT:
        return drift, {}
    if kind is ObjectiveKind.AGE:
        if trained_at is None:
            return None, {"why": "The version does not say when it was trained."}
        return Decimal(max(0, (at - trained_at).days)), {"trained_at": trained_at.isoformat()}
    if kind is ObjectiveKind.AVAILABILITY:
        known = [row for row in samples if row.ready_replicas is not None]
        detail: dict[str, Any] = {"samples": len(samples), "known": len(known)}
        if not known:
            return None, detail
        up = sum(1 for row in known if row.ready_replicas)
        return Decimal(up) / Decimal(len(known)), detail | {"up": up}
    if kind is ObjectiveKind.ERROR_RATE:
        pairs = [(row.errors, row.requests) for row in samples if row.errors is not None and row.requests is not None]
        failed, count = sum(errors for errors, _ in pairs), sum(requests for _, requests in pairs)
        detail = {"requests": count, "errors": failed}
        return (Decimal(failed) / Decimal(count) if count >= MIN_REQUESTS else None), detail
    values = sorted(row.latency_p95_ms for row in samples if row.latency_p95_ms is not None)
    # Quantiles of windows cannot be added up: what 95 of 100 windows stay below.
    value = Decimal(values[min(len(values) - 1, (len(values) * 95) // 100)]) if values else None
    return value, {"samples": len(samples), "known": len(values)}
