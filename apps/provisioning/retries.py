"""When to try again: growing pauses with jitter, never before the server asked. Pure but for the dice."""

from __future__ import annotations

import random
from datetime import datetime, timedelta

from apps.clusters.errors import ClusterError, ServerError, Throttled

FIRST_SECONDS, LONGEST_SECONDS = 1.0, 300.0


def retry_at(error: ClusterError, attempts: int, now: datetime, *, spread: float | None = None) -> datetime:
    """Return when to try again after the `attempts`-th failure in a row.

    1, 2, 4 … 300 seconds, shortened by up to a half at random (`spread` in [0, 1) replaces the dice), and not before
    `Retry-After`. Raises ValueError for an error that no retry can help.
    """
    if not error.retryable:
        raise ValueError(f"{error.code} is not to be retried")
    spread = random.random() if spread is None else spread  # noqa: S311 (jitter, no secret)
    pause = min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(max(0, attempts - 1), 12)) * (1.0 - 0.5 * spread)
    asked = error.retry_after if isinstance(error, Throttled | ServerError) else 0.0
    return now + timedelta(seconds=max(pause, asked))
