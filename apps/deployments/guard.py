"""Whether a canary may go on, from what was measured of it: a pure judgement that a roll-back can be explained by.

Three answers. *bad*: the cluster says that it failed to load, or enough was measured and a threshold was exceeded.
*ok*: everything that the guard asks for was measured and holds. *unknown*: something asked for was not measured, or on
too few requests; missing is unknown, never zero.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, Protocol

from apps.deployments.choices import LoadState

#: On fewer requests a rate says nothing: one failure in ten would end a good canary.
MIN_REQUESTS = 50
#: So many samples must tell a latency before it is judged, and more than half of them must exceed it.
MIN_SAMPLES = 3


class Sample(Protocol):
    """What is read of a serving sample; None: not measured."""

    @property
    def at(self) -> datetime:
        """End of its window."""

    @property
    def requests(self) -> int | None:
        """Requests in its window, those that failed among them."""

    @property
    def errors(self) -> int | None:
        """Of these, those that failed."""

    @property
    def latency_p95_ms(self) -> int | None:
        """95th percentile of their duration."""


class Thresholds(Protocol):
    """What a release's guard asks for; None: not looked at."""

    @property
    def error_rate(self) -> Decimal | None:
        """Share of 1 that may fail."""

    @property
    def latency_p95_ms(self) -> int | None:
        """Milliseconds that 95 of 100 requests may take."""

    @property
    def window_minutes(self) -> int:
        """How far back is looked."""


class Status(enum.StrEnum):
    """The three answers."""

    OK = "ok"
    BAD = "bad"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Verdict:
    """An answer, the sentence that explains it, and the figures it stands on (JSON, for the step's evidence)."""

    status: Status
    reason: str
    figures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def bad(self) -> bool:
        """Whether the canary is to be taken off."""
        return self.status is Status.BAD


def verdict(samples: Iterable[Sample], guard: Thresholds, load_state: str, *, at: datetime | None = None) -> Verdict:
    """Judge a release by its samples within the guard's window, which ends at `at` (None: at the newest sample).

    Samples may come in any order; later ones than `at` are left out.
    """
    if load_state == LoadState.FAILED:
        return Verdict(Status.BAD, "The cluster says that it failed to load.", {"load_state": str(load_state)})
    rows = within(samples, guard.window_minutes, at)
    figures = _figures(rows, guard, load_state)
    parts = [
        part for part in (_errors(rows, guard.error_rate), _latency(rows, guard.latency_p95_ms)) if part is not None
    ]
    if not parts:
        loaded = load_state == LoadState.LOADED
        reason = "It has loaded; no threshold is set." if loaded else "It has not loaded yet, as far as is known."
        return Verdict(Status.OK if loaded else Status.UNKNOWN, reason, figures)
    for status in (Status.BAD, Status.UNKNOWN, Status.OK):
        reasons = [reason for found, reason in parts if found is status]
        if reasons:
            return Verdict(status, " ".join(reasons), figures)
    raise AssertionError("a part has one of three answers")


def within(samples: Iterable[Sample], minutes: int, at: datetime | None = None) -> list[Sample]:
    """Return the samples whose windows ended within the last `minutes` before `at`, the oldest first."""
    rows = sorted(samples, key=lambda one: one.at)
    if not rows:
        return []
    end = at if at is not None else rows[-1].at
    return [row for row in rows if end - timedelta(minutes=minutes) < row.at <= end]


def error_share(rows: Sequence[Sample]) -> tuple[int, int]:
    """Return failed and all requests over the samples that tell both."""
    known = [(row.errors, row.requests) for row in rows if row.errors is not None and row.requests is not None]
    return sum(failed for failed, _ in known), sum(count for _, count in known)


def _errors(rows: Sequence[Sample], limit: Decimal | None) -> tuple[Status, str] | None:
    if limit is None:
        return None
    failed, count = error_share(rows)
    if count < MIN_REQUESTS:
        return Status.UNKNOWN, f"Errors are known of {count} requests; {MIN_REQUESTS} are needed to judge."
    share = f"{failed:,} of {count:,} requests failed ({Decimal(failed) / Decimal(count):.2%}; {limit:.2%} may)."
    # In whole numbers: a share that is just allowed is not exceeded by rounding.
    over = Fraction(failed, count) > Fraction(limit)
    return (Status.BAD if over else Status.OK), share


def _latency(rows: Sequence[Sample], limit: int | None) -> tuple[Status, str] | None:
    if limit is None:
        return None
    known = [row.latency_p95_ms for row in rows if row.latency_p95_ms is not None]
    if len(known) < MIN_SAMPLES:
        return Status.UNKNOWN, f"The latency is known of {len(known)} samples; {MIN_SAMPLES} are needed to judge."
    over = sum(1 for value in known if value > limit)
    text = f"{over} of {len(known)} samples exceeded {limit:,} ms at the 95th percentile (most: {max(known):,} ms)."
    return (Status.BAD if 2 * over > len(known) else Status.OK), text


def _figures(rows: Sequence[Sample], guard: Thresholds, load_state: str) -> dict[str, Any]:
    failed, count = error_share(rows)
    known = [row.latency_p95_ms for row in rows if row.latency_p95_ms is not None]
    return {
        "load_state": str(load_state),
        "window_minutes": guard.window_minutes,
        "samples": len(rows),
        "from": rows[0].at.isoformat() if rows else None,
        "to": rows[-1].at.isoformat() if rows else None,
        "requests": count,
        "errors": failed,
        "error_rate_allowed": str(guard.error_rate) if guard.error_rate is not None else None,
        "latency_p95_ms": max(known) if known else None,
        "latency_p95_ms_allowed": guard.latency_p95_ms,
    }
