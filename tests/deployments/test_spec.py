"""What a release asks for: read, checked, written, priced. Pure."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.canonical import canonical_bytes
from apps.core.money import Money
from apps.deployments import money
from apps.deployments.spec import Autoscaling, Guard, Rung, Spec, Unreadable, Window, name_problem
from apps.quotas.recurrence import WEEK_MINUTES

HOT = Spec(2, 2, 1, 4, 16)
QUEUE = Autoscaling("sum(vllm:num_requests_waiting)", 4)
HOURLY = Money(Decimal("2"), "USD")


@st.composite
def specs(draw: Any) -> Spec:
    """Specs that hold by themselves."""
    most = draw(st.integers(1, 50))
    tier = draw(st.sampled_from(["hot", "warm", "cold"]))
    least = most if tier == "hot" else 0 if tier == "cold" else draw(st.integers(1, most))
    traffic = sorted(draw(st.sets(st.integers(1, 99), max_size=5)))
    schedule: tuple[Window, ...] = ()
    if tier != "hot" and most > least and draw(st.booleans()):
        schedule = (Window((0, 2), "08:00", draw(st.integers(1, 1440)), draw(st.integers(least + 1, most))),)
    return Spec(
        least, most, draw(st.integers(1, 8)), draw(st.integers(1, 64)), draw(st.integers(1, 256)), tier,
        None if tier == "hot" else QUEUE, schedule,
        tuple(Rung(one, draw(st.integers(0, 48))) for one in traffic),
        Guard(draw(st.one_of(st.none(), st.just(Decimal("0.05")))), draw(st.one_of(st.none(), st.integers(1, 9999)))),
    )  # fmt: skip


@pytest.mark.requirement("releases-1.1")
@given(specs())
def test_what_is_written_is_read_back_and_has_a_canonical_form(spec: Spec) -> None:
    assert spec.validate() == {}
    assert Spec.from_json(spec.to_json()) == spec
    assert canonical_bytes(spec.to_json()) == canonical_bytes(Spec.from_json(spec.to_json()).to_json())


@pytest.mark.requirement("releases-1.2")
@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"max_replicas": 0, "min_replicas": 0}, "max_replicas"),
        ({"min_replicas": 1}, "min_replicas"),
        ({"tier": "warm", "min_replicas": 0}, "min_replicas"),
        ({"tier": "cold"}, "min_replicas"),
        ({"tier": "cold", "min_replicas": 0}, "query"),
        ({"tier": "warm", "min_replicas": 1}, "query"),
        ({"units_per_replica": 0}, "units_per_replica"),
        ({"ladder": (Rung(50, 1), Rung(10, 1))}, "ladder"),
        ({"ladder": (Rung(100, 1),)}, "ladder"),
        ({"guard": Guard(Decimal("1.5"))}, "error_rate"),
        ({"autoscaling": Autoscaling("", 4)}, "query"),
        ({"autoscaling": Autoscaling("up", 4, up_seconds=60, down_seconds=30)}, "down_seconds"),
        ({"tier": "warm", "min_replicas": 1, "schedule": (Window((0,), "08:00", 60, 1),)}, "schedule"),
        ({"expiry_action": "stop"}, "expiry_action"),
    ],
)
def test_every_fault_is_named_beside_its_field(changes: dict[str, Any], field: str) -> None:
    assert field in dataclasses.replace(HOT, **changes).validate()


@pytest.mark.requirement("releases-1.2")
def test_faults_of_form_are_all_said_at_once() -> None:
    body = HOT.to_json() | {"min_replicas": "two", "ladder": "10", "surprise": 1}
    with pytest.raises(Unreadable) as found:
        Spec.from_json(body)
    assert found.value.errors.keys() >= {"min_replicas", "ladder", "spec"}


@pytest.mark.parametrize(("name", "ok"), [("fraud-v2", True), ("2fraud", False), ("fraud-", False), ("a" * 41, False)])
def test_names_are_what_kserve_takes(name: str, ok: bool) -> None:
    assert (name_problem(name) == "") is ok


@pytest.mark.requirement("releases-2.3")
@given(specs())
def test_cost_at_rest_lies_between_the_smallest_and_the_largest_size(spec: Spec) -> None:
    found = money.cost(spec, HOURLY)
    assert found.minimum is not None
    assert found.maximum is not None
    floor = money.month(spec.min_replicas * WEEK_MINUTES, spec.units_per_replica, HOURLY)
    assert floor <= found.minimum <= found.maximum
    assert found.maximum.amount == Decimal(2) * spec.max_units * 730


@pytest.mark.requirement("releases-2.3")
def test_windows_and_tiers_have_their_price_and_their_seconds() -> None:
    spec = Spec(0, 4, 2, 4, 16, "cold", QUEUE, (Window((0, 1, 2, 3, 4), "08:00", 600, 1),))
    # Five windows of ten hours a week, one replica of two units: 50/168 of a month.
    assert money.replica_minutes(spec) == 5 * 600
    assert money.cost(spec, HOURLY).minimum == Money(Decimal(4 * 730 * 3000) / Decimal(WEEK_MINUTES), "USD")
    rows = {row.tier: row for row in money.tiers(spec, HOURLY, 95)}
    assert [rows[tier].first_seconds for tier in ("hot", "warm", "cold")] == [0, 0, 95]
    assert rows["cold"].cost.minimum == Money(Decimal(0), "USD")
    assert rows["hot"].cost.minimum == rows["hot"].cost.maximum
    assert money.start_seconds(15_000_000_000, 3) == 180 + 20 + 75
    assert money.cost(spec, None).minimum is None
