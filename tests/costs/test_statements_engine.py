"""Distribution and statements as pure engines: any quantities, prices, policies, corrections and credits."""

from __future__ import annotations

import uuid
from collections import Counter
from datetime import date
from decimal import Decimal, localcontext
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.core.money import CurrencyMismatch
from apps.costs.choices import ChargeKind, Keeper, LineSort, OwnerKind
from apps.costs.distribution import DEFAULT, RULES, Owner, Quantity, distribute, rule_of
from apps.costs.statements import Adjustment, Price, build, numbers
from tests.metering.world import utc

START, END, DAY = utc(2026, 9, 1), utc(2026, 10, 1), date(2026, 9, 3)
OWNERS = [None, *(Owner(team, 1 + team % 2, f"CC-{team}") for team in range(1, 5))]
HOURS = 3_600_000
rates = st.dictionaries(
    st.integers(1, 3),
    st.decimals(min_value=0, max_value=400, places=8).map(lambda amount: Price(uuid.UUID(int=1), amount, "USD")),
    min_size=3,
)


@st.composite
def quantities(draw: Any) -> list[Quantity]:
    found = []
    for _ in range(draw(st.integers(0, 25))):
        kind = draw(st.sampled_from(list(ChargeKind)))
        owner = draw(st.sampled_from(OWNERS))
        if kind == ChargeKind.ALLOCATED:
            owner = owner or OWNERS[1]
        elif rule_of(kind) in RULES and kind not in ("reserved_unused", "cpu", "memory", "storage", "egress"):
            owner = None
        resource = rule_of(kind) == "resources"
        size = draw(st.integers(0, 10**12))
        found.append(
            Quantity(
                owner, kind, draw(st.integers(1, 2)), None if resource else draw(st.integers(1, 2)),
                "" if resource else draw(st.sampled_from(["A100", "H100"])),
                draw(st.sampled_from([None, 1, 2, 3])), size,
                0 if resource else size // draw(st.integers(1, 7)), DAY, DAY,
            )
        )  # fmt: skip
    return found


policies = st.fixed_dictionaries({name: st.sampled_from(keepers) for name, keepers in RULES.items()})


@st.composite
def adjustments(draw: Any) -> list[Adjustment]:
    found = []
    for index in range(draw(st.integers(0, 8))):
        owner = draw(st.sampled_from(OWNERS))
        values: dict[str, Any] = {"quantity_ms": draw(st.integers(-(10**12), 10**12))}
        values["rate_id"] = draw(st.sampled_from([None, 1, 2, 3]))
        sort = LineSort.CORRECTION
        if draw(st.booleans()):
            sort, values = LineSort.CREDIT, {"fixed": draw(st.decimals(-(10**6), 10**6, places=2))}
        found.append(Adjustment(owner, sort, "late", START, END, uuid.UUID(int=index), kind="", **values))
    return found


def sums(rows: list[Quantity]) -> Counter[Any]:
    found: Counter[Any] = Counter()
    for row in rows:
        key = (row.cluster_id, row.kind, row.flavour_id, row.gpu_model, row.rate_id)
        found[(*key, "units")] += row.quantity_ms
        found[(*key, "gpu")] += row.gpu_ms
    return +found


@pytest.mark.requirement("periods-3.1", "periods-3.2")
@given(quantities(), policies)
def test_distribution_loses_and_adds_nothing(rows: list[Quantity], rules: dict[str, str]) -> None:
    after = distribute(rows, rules, 7)
    assert sums(after) == sums(rows)
    allocated = dict.fromkeys(OWNERS, 0)
    for row in rows:
        if row.kind == ChargeKind.ALLOCATED:
            allocated[row.owner] += row.gpu_ms
    for row in after:
        rule = rule_of(row.kind)
        if row.sort == LineSort.DISTRIBUTED:
            assert rule is not None
            assert row.owner is not None
            assert row.method.startswith(f"v7:{rule}:{rules[rule]}")
            assert row.ratio_ppm is not None
            if rules[rule] == Keeper.SHARED:
                assert allocated[row.owner] > 0
        elif rule is not None and row.owner is None and rules[rule] == Keeper.SHARED:
            same = [
                one for one in rows if one.kind == ChargeKind.ALLOCATED and one.cluster_id == row.cluster_id
                and (rule == "resources" or one.gpu_model == row.gpu_model)
            ]  # fmt: skip
            assert not any(one.gpu_ms for one in same), "it stays with the platform only where nobody had allocated"


@pytest.mark.requirement("periods-4.1", "periods-4.2")
@settings(max_examples=200)
@given(quantities(), policies, adjustments(), rates)
def test_lines_statements_and_bill_agree_to_the_cent(
    rows: list[Quantity], rules: dict[str, str], extra: list[Adjustment], prices: dict[int, Price]
) -> None:
    built, bill = build(distribute(rows, rules, 1), extra, prices, currency="USD", start=START, end=END)
    lines = [line for one in built for line in one.lines]
    assert sum(one.amount for one in built) == bill.amount
    assert all(one.amount == sum(line.amount for line in one.lines) for one in built)
    with localcontext() as context:
        context.prec = 60
        exact = sum((line.exact for line in lines if line.exact is not None), Decimal(0))
        assert abs(exact - bill.amount) <= Decimal("0.005")
        # What is distributed is moved, never revalued: the bill is that of the undistributed quantities.
        whole = sum((Decimal(r.quantity_ms) * prices[r.rate_id].amount for r in rows if r.rate_id), Decimal(0))
        for item in extra:
            if item.fixed is not None:
                whole += item.fixed * HOURS
            elif item.rate_id:
                whole += Decimal(item.quantity_ms) * prices[item.rate_id].amount
        assert abs(whole / HOURS - exact) < Decimal("1e-30")
    for line in lines:
        assert line.amount == line.amount.quantize(Decimal("0.01"))
        if line.exact is None:
            assert line.amount == 0
            assert line.rate_id is None
        else:
            assert abs(line.amount - line.exact) < Decimal("0.01")
            if line.sort == LineSort.CREDIT:
                assert line.amount == line.exact
    unpriced = sum(r.quantity_ms for r in rows if r.rate_id is None)
    unpriced += sum(a.quantity_ms for a in extra if a.fixed is None and a.rate_id is None)
    assert sum(one.unpriced_ms for one in built) == unpriced
    assert built[-1].owner_kind == OwnerKind.PLATFORM
    again, _ = build(
        distribute(list(reversed(rows)), rules, 1), list(reversed(extra)), prices, currency="USD", start=START, end=END
    )
    assert [(one.owner, one.amount) for one in again] == [(one.owner, one.amount) for one in built]


def one(owner: Owner | None, kind: str, gpu_ms: int, **extra: Any) -> Quantity:
    values = {"cluster_id": 1, "flavour_id": 1, "gpu_model": "H100", "rate_id": 1, "first": DAY, "last": DAY, **extra}
    return Quantity(owner, kind, quantity_ms=gpu_ms, gpu_ms=gpu_ms, **values)


@pytest.mark.requirement("periods-3.1", "periods-4.1")
def test_the_worked_hour() -> None:
    """cost.md E8: 8 × H100 for an hour at $3.40; the unallocated $6.80 shared, where rounding half-up loses a cent."""
    teams = [Owner(number) for number in range(1, 7)]
    seconds = [Decimal(14400), Decimal(3600), Decimal(10800) / 7, Decimal(1800) / 7, Decimal(900), Decimal(900)]
    price = {1: Price(uuid.UUID(int=1), Decimal("3.40"), "USD")}
    # In thousandths of a GPU-millisecond times 28 the sevenths are whole; the ratio is all that matters here.
    rows = [one(team, "allocated", int(size * 7 * 1000)) for team, size in zip(teams, seconds, strict=True)]
    rows.append(one(None, "unsold", 7200 * 7 * 1000))
    built, bill = build(
        distribute(rows, {**DEFAULT, "unsold": "shared"}, 3), [], price, currency="USD", start=START, end=END
    )
    assert bill.amount == Decimal("190.40")  # 7 × 27.20
    assert sum(one.amount for one in built) == bill.amount
    shares = [next(line for line in one.lines if line.shared) for one in built[:-1]]
    assert sum(line.quantity_ms for line in shares) == 7200 * 7 * 1000
    assert [line.ratio_ppm for line in shares] == [666667, 166667, 71428, 11905, 41667, 41666]
    assert {line.method for line in shares} == {"v3:unsold:shared-by-allocated-gpu-time"}
    assert built[0].own_amount == built[0].amount - shares[0].amount


@pytest.mark.requirement("periods-3.1")
def test_reservations_go_to_their_owners_and_idle_models_stay() -> None:
    team, other = Owner(1), Owner(2)
    rows = [
        one(team, "allocated", 10), one(other, "reserved_unused", 30), one(None, "unsold", 7),
        one(None, "unsold", 9, gpu_model="A100"),
    ]  # fmt: skip
    after = distribute(rows, {**DEFAULT, "unsold": "shared"}, 1)
    assert {(row.owner, row.kind, row.gpu_model, row.gpu_ms) for row in after} == {
        (team, "allocated", "H100", 10),
        (other, "reserved_unused", "H100", 30),
        (team, "unsold", "H100", 7),
        (None, "unsold", "A100", 9),
    }
    kept = distribute(rows, {**DEFAULT, "reserved_unused": "platform"}, 1)
    assert {row.kind for row in kept if row.owner is None} == {"reserved_unused", "unsold"}


@pytest.mark.requirement("periods-4.3")
def test_numbers_tell_month_kind_and_edition() -> None:
    assert numbers(date(2026, 9, 1), "team", 2) == ["2026-09-T-0001", "2026-09-T-0002"]
    assert numbers(date(2026, 9, 1), "platform", 1, 2) == ["2026-09-P-0001-2"]


@pytest.mark.requirement("periods-4.1")
def test_a_foreign_currency_is_refused() -> None:
    price = {1: Price(uuid.UUID(int=1), Decimal(3), "EUR")}
    with pytest.raises(CurrencyMismatch):
        build([one(Owner(1), "allocated", 10)], [], price, currency="USD", start=START, end=END)
