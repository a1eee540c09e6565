"""Sizes, rest by the clock, unusual hours: pure engines."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.money import MILLISECONDS_PER_HOUR as HOUR_MS
from apps.core.money import Money
from apps.insights import advice, rhythm
from apps.insights.rhythm import Hour
from apps.quotas.idle_policy import IdlePolicy
from tests.metering.world import utc

HOUR = timedelta(hours=1)
END = utc(2026, 11, 2)  # a Monday
START = END - timedelta(weeks=4)


@dataclass(frozen=True)
class Ran:
    """A workload: `units` GPUs for `hours`, at 2.00 an hour."""

    workspace_id: int | None = 1
    namespace: str = "research-dev"
    workload_kind: str = "Job"
    workload_name: str = "probe"
    purpose: str = "experiment"
    environment: str = "development"
    hours: int = 100
    units: int = 1
    covered_permille: int = 1000
    idle_gpu_ms: int = 0
    savable_gpu_ms: int = 0
    currency: str = "USD"
    unpriced_ms: int = 0
    most_memory_mib: int | None = None
    use_p95_permille: int | None = None

    @property
    def allocated_gpu_ms(self) -> int:
        return self.hours * self.units * HOUR_MS

    @property
    def allocated_unit_ms(self) -> int:
        return self.allocated_gpu_ms

    @property
    def covered_gpu_ms(self) -> int:
        return self.allocated_gpu_ms * self.covered_permille // 1000

    @property
    def product(self) -> Decimal:
        return Decimal(2) * self.allocated_gpu_ms

    @property
    def savable_product(self) -> Decimal:
        return Decimal(2) * self.savable_gpu_ms


SIZES = [
    advice.Size(1, "1g.10gb", "A100", 1, 7, 10_000),
    advice.Size(2, "3g.40gb", "A100", 3, 7, 40_000),
    advice.Size(3, "1g.12gb", "H100", 1, 7, 12_000),
]


@pytest.mark.requirement("monthly-report-3.3")
def test_one_of_k_gpus_is_enough() -> None:
    """Eight GPUs used at 11 % in 95 % of the hours: one of them, with a tenth of room, would have done."""
    found = advice.fit(Ran(units=8, use_p95_permille=110), "A100", True, SIZES)
    assert found is not None
    assert (found.units, found.keep_units, found.size) == (8, 1, None)
    assert found.saving_product / HOUR_MS == 2 * 100 * 7
    assert found.saved_gpu_ms == 700 * HOUR_MS
    assert advice.fit(Ran(units=2, use_p95_permille=500), "A100", True, SIZES) is None  # no room left on one


@pytest.mark.requirement("monthly-report-3.3")
def test_a_mig_profile_must_fit_by_use_and_by_memory() -> None:
    fits = Ran(use_p95_permille=100, most_memory_mib=9_000)
    found = advice.fit(fits, "A100", True, SIZES)
    assert found is not None
    assert found.size == SIZES[0]
    assert abs(found.saving_product / HOUR_MS - Decimal(200) * 6 / 7) < Decimal("0.000001")
    larger = advice.fit(replace(fits, most_memory_mib=9_500), "A100", True, SIZES)
    assert larger is not None
    assert larger.size == SIZES[1]
    for none in (
        replace(fits, use_p95_permille=420),  # too busy for three sevenths
        replace(fits, most_memory_mib=None),
        replace(fits, use_p95_permille=None),
        replace(fits, covered_permille=899),
        replace(fits, hours=23),
        replace(fits, idle_gpu_ms=51 * HOUR_MS),  # idle rather than large
    ):
        assert advice.fit(none, "A100", True, SIZES) is None
    assert advice.fit(fits, "A100", False, SIZES) is None  # is a share already
    assert advice.fit(fits, "L40S", True, SIZES) is None  # no share of this model is offered


@pytest.mark.requirement("monthly-report-3.1")
def test_idle_work_is_told_by_workspace_in_a_sentence() -> None:
    ran = [
        Ran(hours=350, idle_gpu_ms=350 * HOUR_MS, savable_gpu_ms=346 * HOUR_MS),
        Ran(workload_name="train", purpose="training", hours=650),
        Ran(workspace_id=2, idle_gpu_ms=5 * HOUR_MS, savable_gpu_ms=HOUR_MS),  # not worth a word
        Ran(workspace_id=None, idle_gpu_ms=99 * HOUR_MS, savable_gpu_ms=95 * HOUR_MS),  # nobody's
    ]
    (found,) = advice.idle_work(ran, IdlePolicy(enabled=True))
    assert (found.workspace_id, found.idle_share, found.what) == (1, Decimal("0.35"), "idle experiments")
    saving = found.saving
    assert saving == Money(Decimal(692), "USD")
    assert advice.sentence("Research", found, 4, monthly=saving) == (
        "Research: 2,000 USD; 35 % from idle experiments: shutting down after 4 idle hours saves about 692 USD a month"
    )
    unknown = advice.idle_work([replace(ran[0], unpriced_ms=1)], IdlePolicy(enabled=True))[0]
    assert unknown.saving is None
    assert advice.sentence("Research", unknown, 4, monthly=None).endswith("gives back 346 GPU-hours")


@pytest.mark.requirement("monthly-report-3.1")
def test_what_the_policy_spares_is_not_proposed() -> None:
    serving = Ran(
        workload_kind="Deployment", environment="production", idle_gpu_ms=99 * HOUR_MS, savable_gpu_ms=95 * HOUR_MS
    )
    assert advice.idle_work([serving], IdlePolicy(enabled=True)) == []
    assert advice.idle_work([serving], IdlePolicy(enabled=True, production_serving=True)) != []


@pytest.mark.parametrize(
    ("amount", "text"), [("11642.40", "11,600 USD"), ("999.5", "1,000 USD"), ("12.3", "12 USD"), ("0", "0 USD")]
)
def test_about(amount: str, text: str) -> None:
    assert advice.about(Money(Decimal(amount), "USD")) == text


def week(rests: set[int]) -> dict[object, Hour]:
    """Four weeks in which the slots of the week in `rests` are idle and the others busy."""
    hours = {START + number * HOUR: number % 168 for number in range(4 * 168)}
    return {at: Hour(HOUR_MS, Decimal(3 * HOUR_MS), slot in rests) for at, slot in hours.items()}


@pytest.mark.requirement("monthly-report-3.4")
def test_rest_is_what_rests_in_every_week() -> None:
    nights = {day * 24 + hour for day in range(5) for hour in range(6)}
    found = rhythm.resting(week(nights), END)  # type: ignore[arg-type]  # datetimes
    assert found is not None
    assert found.slots == sorted(nights)
    assert found.product / HOUR_MS == 3 * 30 * 4
    assert rhythm.words(found.spans).startswith("Mon 00:00 to Mon 06:00, Tue 00:00")
    one_busy = week(nights)
    one_busy[START + HOUR] = Hour(HOUR_MS, Decimal(0), False)
    unknown = week(nights)
    unknown[START + 2 * HOUR] = Hour(HOUR_MS, Decimal(0), None)
    for hours, slot in ((one_busy, 1), (unknown, 2)):
        rest = rhythm.resting(hours, END)  # type: ignore[arg-type]  # datetimes
        assert rest is not None
        assert slot not in rest.slots
    assert rhythm.resting(week(set(range(168))), END) is None  # type: ignore[arg-type]  # idle, not resting
    assert rhythm.resting(week(set()), END) is None  # type: ignore[arg-type]  # datetimes


@pytest.mark.requirement("monthly-report-3.5")
def test_a_spike_is_far_above_the_same_hours_of_four_weeks() -> None:
    hours = [START + number * HOUR for number in range(24)]
    usual = {hour: [Decimal(value) for value in (9, 10, 11, 10)] for hour in hours}
    day = dict.fromkeys(hours, Decimal(10)) | {hours[3]: Decimal(40), hours[4]: Decimal(12)}
    found = rhythm.spike(day, usual)
    assert found is not None
    assert (found.hours, found.excess) == ([hours[3]], Decimal(30))
    assert rhythm.spike(dict.fromkeys(hours, Decimal(10)), usual) is None
    assert rhythm.spike(day, {hour: values[:3] for hour, values in usual.items()}) is None  # three weeks tell nothing


@pytest.mark.requirement("monthly-report-3.5")
@given(st.lists(st.decimals(0, 1000, places=2), min_size=4, max_size=4), st.decimals(0, 5000, places=2))
def test_what_was_seen_before_is_never_unusual(earlier: list[Decimal], now: Decimal) -> None:
    middle = rhythm.unusual(now, earlier)
    if middle is not None:
        assert now > max(sorted(earlier)[1:3])
        assert now > middle
