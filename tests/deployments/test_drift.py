"""PSI and KS against their formulas in other words."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.deployments import drift

rows = st.integers(2, 12).flatmap(
    lambda size: st.tuples(*(st.lists(st.integers(0, 500), min_size=size, max_size=size) for _ in range(2)))
)
whole = rows.filter(lambda pair: sum(pair[0]) > 0 and sum(pair[1]) > 0)
numbers = st.lists(st.integers(-50, 50).map(float), min_size=1, max_size=60)


def psi(expected: list[int], actual: list[int]) -> float:
    """Kullback–Leibler both ways: what the PSI is."""
    kept = [(e or 0.5, a or 0.5) for e, a in zip(expected, actual, strict=True) if e or a]
    left, right = sum(e for e, _ in kept), sum(a for _, a in kept)
    shares = [(Fraction(e) / Fraction(left), Fraction(a) / Fraction(right)) for e, a in kept]

    def divergence(pairs: list[tuple[Fraction, Fraction]]) -> float:
        return sum(float(p) * math.log(float(p / q)) for p, q in pairs)

    return divergence([(a, e) for e, a in shares]) + divergence(shares)


def ks(expected: list[float], actual: list[float]) -> float:
    """Walk every value and count anew."""
    points = set(expected) | set(actual)
    return max(
        abs(
            sum(1 for value in expected if value <= point) / len(expected)
            - sum(1 for value in actual if value <= point) / len(actual)
        )
        for point in points
    )


@pytest.mark.requirement("serving-watch-5.3")
@given(whole)
def test_psi_is_the_symmetric_divergence(pair: tuple[list[int], list[int]]) -> None:
    assert drift.psi(*pair) == pytest.approx(psi(*pair), abs=1e-9)


@pytest.mark.requirement("serving-watch-5.3")
@given(whole)
def test_psi_is_symmetric_never_negative_and_zero_of_the_same(pair: tuple[list[int], list[int]]) -> None:
    assert drift.psi(*pair) >= -1e-12
    assert drift.psi(*pair) == pytest.approx(drift.psi(pair[1], pair[0]), abs=1e-9)
    assert drift.psi(pair[0], pair[0]) == pytest.approx(0, abs=1e-12)


@pytest.mark.requirement("serving-watch-5.3")
@given(whole, st.integers(2, 9), st.randoms())
def test_order_of_bins_and_scale_change_nothing(
    pair: tuple[list[int], list[int]], times: int, dice: random.Random
) -> None:
    order = list(range(len(pair[0])))
    dice.shuffle(order)
    turned = [[row[index] for index in order] for row in pair]
    assert drift.psi(*turned) == pytest.approx(drift.psi(*pair), abs=1e-9)
    if all(pair[0]) and all(pair[1]):
        grown = [count * times for count in pair[1]]
        assert drift.psi(pair[0], grown) == pytest.approx(drift.psi(*pair), abs=1e-9)


@pytest.mark.requirement("serving-watch-5.3")
@given(numbers, numbers)
def test_ks_is_the_largest_distance_of_the_distributions(expected: list[float], actual: list[float]) -> None:
    found = drift.ks_of_samples(expected, actual)
    assert found == pytest.approx(ks(expected, actual), abs=1e-12)
    assert 0 <= found <= 1
    shuffled = random.Random(1).sample(actual, len(actual))
    assert drift.ks_of_samples(expected, shuffled) == found


@pytest.mark.requirement("serving-watch-5.3")
@given(numbers, numbers)
def test_ks_of_bins_is_never_more_than_that_of_the_samples(expected: list[float], actual: list[float]) -> None:
    edges = drift.quantile_edges(expected)
    first, second = drift.counts(expected, edges), drift.counts(actual, edges)
    assert (sum(first), sum(second)) == (len(expected), len(actual))
    if len(first) > 1:
        assert drift.ks_of_bins(first, second) <= drift.ks_of_samples(expected, actual) + 1e-9


@pytest.mark.requirement("serving-watch-5.3")
def test_a_known_example() -> None:
    assert drift.psi([25, 25, 25, 25], [10, 20, 30, 40]) == pytest.approx(0.228, abs=0.001)
    assert drift.ks_of_bins([25, 25, 25, 25], [10, 20, 30, 40]) == pytest.approx(0.2)


@pytest.mark.requirement("serving-watch-5.2")
@pytest.mark.parametrize(
    ("expected", "actual"),
    [([], []), ([1], [1]), ([1, 2], [1]), ([0, 0], [1, 1]), ([1, -1], [1, 1]), ([1, math.nan], [1, 1])],
)
def test_counts_of_which_nothing_can_be_made(expected: list[float], actual: list[float]) -> None:
    with pytest.raises(drift.Unusable):
        drift.psi(expected, actual)
    with pytest.raises(drift.Unusable):
        drift.ks_of_bins(expected, actual)


@pytest.mark.requirement("serving-watch-5.2")
def test_samples_of_which_nothing_can_be_made() -> None:
    for pair in (([], [1.0]), ([1.0], []), ([math.inf], [1.0])):
        with pytest.raises(drift.Unusable):
            drift.ks_of_samples(*pair)
