"""The engine: exact hours, whatever order, gaps, shares (pure; no database)."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.metering import engine
from apps.metering.engine import HOUR_MS, Holding, Share, Span, Use

MINUTE = 60_000
BASE = 1_772_496_000_000  # 2026-03-03T00:00Z, a full hour


def holding(key: str = "a", *spans: Span, **extra: object) -> Holding:
    values = {"namespace": "ns", "name": key, "kind": "Job", "resource": "nvidia_com_gpu", **extra}
    return Holding(key=key, spans=tuple(spans), **values)  # type: ignore[arg-type]  # keyword bundle of a test helper


spans = st.builds(
    lambda start, length, units: Span(BASE + start, BASE + start + length, units),
    st.integers(0, 5 * HOUR_MS),
    st.integers(1, 3 * HOUR_MS),
    st.integers(1, 16),
)


@pytest.mark.requirement("metering-1.1")
@given(st.lists(spans, min_size=1, max_size=6))
def test_hours_sum_to_the_interval_exactly(parts: list[Span]) -> None:
    merged = engine.merge(parts)
    facts = engine.hour_quantities([holding("a", *parts)], {})
    assert sum(fact.unit_ms for hour in facts.values() for fact in hour) == engine.unit_ms(merged)
    for hour, entries in facts.items():
        assert hour % HOUR_MS == 0
        for fact in entries:
            assert all(hour <= s.start < s.end <= hour + HOUR_MS for s in fact.spans)


@pytest.mark.requirement("metering-2.1")
@given(st.lists(st.tuples(st.sampled_from("abcd"), spans), min_size=1, max_size=12), st.randoms())
def test_any_order_and_repetition_gives_the_same_facts(rows: list[tuple[str, Span]], rnd: random.Random) -> None:
    holdings = [holding(key, span, used={BASE: Use(400_000, 1000, "sm_active")}) for key, span in rows]
    again = [*holdings, *holdings[: len(holdings) // 2]]
    rnd.shuffle(again)
    assert engine.hour_quantities(holdings, {}) == engine.hour_quantities(again, {})


@given(st.lists(spans, max_size=8), st.randoms())
def test_merging_is_idempotent_order_free_and_never_sums_replicas(parts: list[Span], rnd: random.Random) -> None:
    merged = engine.merge(parts)
    shuffled = [*parts, *parts]
    rnd.shuffle(shuffled)
    assert engine.merge(shuffled) == merged == engine.merge(merged)
    assert all(a.end <= b.start for a, b in itertools.pairwise(merged))
    assert max((s.units for s in merged), default=0) == max((s.units for s in parts), default=0)


@pytest.mark.requirement("metering-1.6")
@given(
    st.lists(
        st.tuples(st.integers(0, 4 * HOUR_MS), st.sampled_from([(1, 1), (1, 7), (2, 7), (3, 7), (1, 4), (1, 8)])),
        min_size=1,
        max_size=30,
    )
)
def test_shares_add_up_to_whole_milliseconds(rows: list[tuple[int, tuple[int, int]]]) -> None:
    quantities = [(unit, Share(*share)) for unit, share in rows]
    parts = engine.physical_shares(quantities)
    exact = sum(unit * 56 * n // d for unit, (n, d) in rows)  # 56 = lcm(7, 8)
    assert sum(parts) == exact // 56
    for (unit, share), part in zip(quantities, parts, strict=True):
        assert abs(part * share.denominator - unit * share.numerator) < share.denominator


@pytest.mark.requirement("metering-1.6")
def test_seven_sevenths_are_one_device() -> None:
    slices = [holding(f"p{i}", Span(BASE, BASE + HOUR_MS, 1), resource="nvidia_com_mig_1g_10gb") for i in range(7)]
    facts = engine.hour_quantities(slices, {})[BASE]
    assert sum(fact.gpu_ms for fact in facts) == HOUR_MS
    assert all(fact.unit_ms == HOUR_MS and "shared" in fact.flags for fact in facts)


@pytest.mark.parametrize(
    ("resource", "model", "expected"),
    [
        ("nvidia_com_gpu", "NVIDIA-A100", Share(1, 1)),
        ("nvidia_com_mig_3g_40gb", "NVIDIA-A100-80GB", Share(3, 7)),
        ("nvidia.com/mig-2g.12gb", "NVIDIA-A30", Share(2, 4)),
        ("nvidia_com_mig_7g_80gb", "NVIDIA-H100", Share(7, 7)),
    ],
)
def test_default_share_by_compute_slices(resource: str, model: str, expected: Share) -> None:
    assert engine.default_share(resource, model) == expected


def minutes(*numbers: int, units: int = 4) -> list[tuple[int, int]]:
    return [(BASE + n * MINUTE, units) for n in numbers]


@pytest.mark.requirement("metering-1.3")
def test_short_gap_is_bridged_and_flagged_long_gap_is_not() -> None:
    window = (BASE, BASE + HOUR_MS)
    short, flags = engine.spans_from_samples(minutes(*range(1, 20), *range(25, 61)), MINUTE, window=window)
    assert short == (Span(BASE, BASE + HOUR_MS, 4),)
    assert flags == {engine.BRIDGED}
    long, flags = engine.spans_from_samples(minutes(*range(1, 20), *range(26, 61)), MINUTE, window=window)
    assert engine.unit_ms(long) == 4 * (19 + 35) * MINUTE
    assert engine.BRIDGED not in flags


@pytest.mark.requirement("metering-1.3")
def test_twelve_minute_outage_of_the_source_is_bridged() -> None:
    """Reference E3, the worked case: a 4-GPU pod all hour, kube-state-metrics away for 12 minutes: 4.000 GPU-hours."""
    away = (Span(BASE + 20 * MINUTE, BASE + 32 * MINUTE, 1),)
    found, flags = engine.spans_from_samples(
        minutes(*range(1, 21), *range(33, 61)), MINUTE, away=away, window=(BASE, BASE + HOUR_MS)
    )
    assert engine.unit_ms(found) == 4 * HOUR_MS
    assert flags == {engine.BRIDGED}


@pytest.mark.requirement("metering-1.3")
def test_outage_at_the_hours_beginning_counts_for_a_pod_that_ran_before() -> None:
    away = (Span(BASE, BASE + 12 * MINUTE, 1),)
    found, flags = engine.spans_from_samples(
        minutes(*range(13, 61)), MINUTE, away=away, started=BASE - HOUR_MS, window=(BASE, BASE + HOUR_MS)
    )
    assert engine.unit_ms(found) == 4 * HOUR_MS
    assert engine.BRIDGED in flags


def test_a_gap_with_other_units_is_not_bridged() -> None:
    found, _ = engine.bridge([Span(0, 60, 4), Span(120, 180, 2)])
    assert found == [Span(0, 60, 4), Span(120, 180, 2)]


@pytest.mark.requirement("metering-1.4")
def test_exact_times_win_over_the_sampling_grid() -> None:
    started, completed = BASE + 3 * MINUTE + 17_000, BASE + 41 * MINUTE + 5_000
    found, _ = engine.spans_from_samples(
        minutes(*range(5, 43)), MINUTE, started=started, completed=completed, window=(BASE, BASE + HOUR_MS)
    )
    assert found == (Span(started, completed, 4),)


@pytest.mark.requirement("metering-1.4")
def test_a_pod_shorter_than_a_scrape_is_metered_from_its_times() -> None:
    found, flags = engine.spans_from_samples(
        [], MINUTE, started=BASE + 1_000, completed=BASE + 71_000, units=2, window=(BASE, BASE + HOUR_MS)
    )
    assert engine.unit_ms(found) == 2 * 70_000
    assert flags == {engine.TIMES_ONLY}
    assert engine.spans_from_samples([], MINUTE, started=BASE, units=2, window=(BASE, BASE + HOUR_MS))[0] == ()


@pytest.mark.requirement("metering-1.5")
def test_missing_use_is_unknown_and_observed_use_is_not_extrapolated() -> None:
    assert engine.used_ms(HOUR_MS, None) is None
    assert engine.used_ms(HOUR_MS, Use(500_000, 0, "")) is None
    assert engine.used_ms(HOUR_MS, Use(0, 1000, "sm_active")) == 0
    assert engine.used_ms(HOUR_MS, Use(500_000, 500, "sm_active")) == HOUR_MS // 4
    fact = engine.hour_quantities([holding("a", Span(BASE, BASE + HOUR_MS, 1))], {})[BASE][0]
    assert fact.used_gpu_ms is None
    assert fact.coverage_permille == 0


@given(st.lists(st.integers(1, 60), unique=True, min_size=1, max_size=60))
def test_samples_never_make_more_than_the_hour(present: list[int]) -> None:
    found, _ = engine.spans_from_samples(sorted(minutes(*present, units=1)), MINUTE, window=(BASE, BASE + HOUR_MS))
    held = engine.unit_ms(found)
    assert len(present) * MINUTE <= held <= HOUR_MS
