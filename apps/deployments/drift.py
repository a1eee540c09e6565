"""Population stability index and Kolmogorov–Smirnov distance: pure.

PSI = Σ (aᵢ − eᵢ) · ln(aᵢ / eᵢ) over the bins' shares of actual and expected (Siddiqi, *Credit Risk Scorecards*, 2006);
an empty bin gets half an observation on that side, so that a share is never zero (the usual continuity correction).
KS = max |F_actual(x) − F_expected(x)|: over samples exactly; over bins at their edges, a lower bound of it.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

#: Below the first nothing much moved, beyond the second the population is another one (common practice).
PSI_NOTICE, PSI_ALARM = 0.1, 0.25


class Unusable(ValueError):
    """Counts or samples that no statistic can be made of; the message says why."""


def psi(expected: Sequence[float], actual: Sequence[float]) -> float:
    """Return the population stability index of two rows of counts over the same bins. Raises Unusable."""
    first, second = _shares(expected, actual), _shares(actual, expected)
    return math.fsum((a - e) * math.log(a / e) for e, a in zip(first, second, strict=True))


def ks_of_bins(expected: Sequence[float], actual: Sequence[float]) -> float:
    """Return the largest distance of the two cumulative shares at the bins' upper edges. Raises Unusable."""
    _checked(expected, actual)
    first, second = math.fsum(expected), math.fsum(actual)
    far, left, right = 0.0, 0.0, 0.0
    for one, other in zip(expected, actual, strict=True):
        left, right = left + one / first, right + other / second
        far = max(far, abs(left - right))
    return min(1.0, far)


def ks_of_samples(expected: Sequence[float], actual: Sequence[float]) -> float:
    """Return the two-sample Kolmogorov–Smirnov statistic. Raises Unusable for an empty side or no number."""
    if not expected or not actual:
        raise Unusable("both sides need at least one sample")
    if not all(math.isfinite(value) for value in (*expected, *actual)):
        raise Unusable("samples must be finite numbers")
    left, right = sorted(expected), sorted(actual)
    return max(
        abs(bisect_right(left, value) / len(left) - bisect_right(right, value) / len(right))
        for value in (*left, *right)
    )


def quantile_edges(expected: Sequence[float], bins: int = 10) -> list[float]:
    """Return inner edges that cut the expected samples into about equal parts; fewer where values repeat."""
    if not expected:
        raise Unusable("the expected side needs at least one sample")
    ordered = sorted(expected)
    cuts = [ordered[min(len(ordered) - 1, len(ordered) * part // bins)] for part in range(1, bins)]
    return sorted(set(cuts))


def counts(samples: Sequence[float], edges: Sequence[float]) -> list[int]:
    """Return how many samples lie in each bin: up to and with the first edge, …, beyond the last."""
    found = [0] * (len(edges) + 1)
    for value in samples:
        found[_bin(value, edges)] += 1
    return found


def _bin(value: float, edges: Sequence[float]) -> int:
    low, high = 0, len(edges)
    while low < high:
        middle = (low + high) // 2
        if value > edges[middle]:
            low = middle + 1
        else:
            high = middle
    return low


def _checked(expected: Sequence[float], actual: Sequence[float]) -> None:
    if len(expected) != len(actual) or len(expected) < 2:
        raise Unusable("expected and actual need the same two or more bins")
    if any(not math.isfinite(count) or count < 0 for count in (*expected, *actual)):
        raise Unusable("counts are finite and not negative")
    if math.fsum(expected) <= 0 or math.fsum(actual) <= 0:
        raise Unusable("both sides need observations")


def _shares(counted: Sequence[float], other: Sequence[float]) -> list[float]:
    _checked(counted, other)
    # A bin that is empty on both sides says nothing; one that is empty here gets half an observation.
    mended = [0.5 if count == 0 and beside > 0 else float(count) for count, beside in zip(counted, other, strict=True)]
    total = math.fsum(mended)
    return [count / total for count, beside in zip(mended, other, strict=True) if count > 0 or beside > 0]
