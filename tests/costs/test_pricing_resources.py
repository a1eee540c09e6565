"""Charges by capacity type and service class, and of resources; what readers make of them."""

from __future__ import annotations

import itertools
import uuid
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.db.models import Sum
from hypothesis import given
from hypothesis import strategies as st

from apps.core import clock
from apps.core.actor import Actor
from apps.core.money import Money
from apps.core.partitions import ensure_month
from apps.costs import actions, budget_figures, pricing, selectors
from apps.costs.models import Charge, DayCharge, PricedHour
from apps.costs.overview import money_of
from apps.metering import actions as metering
from apps.metering.ports import Written
from apps.rates.choosing import chosen, keys, pieces, split
from apps.rates.models import Rate
from tests.metering.world import SINCE, FakeAdapter, World, hold, make_world, utc
from tests.rates.test_pricing import FakeRate, Valid

HOUR = timedelta(hours=1)
HOUR_MS = 3_600_000
NOW = utc(2026, 11, 18, 9)
DAY = utc(2026, 11, 10)


@pytest.fixture
def world(company: Any) -> Any:
    with clock.frozen(NOW):
        yield make_world(company.teams.values())


def rate(world: World, amount: str, start: datetime = SINCE, end: datetime | None = None, **what: Any) -> Rate:
    """Add a price as an old card would have; `cls`/`factor` make one of a service class."""
    name, factor = what.pop("cls", ""), what.pop("factor", None)
    resource = what.pop("resource", "")
    values: dict[str, Any] = {
        "card": world.card, "cluster": world.cluster, "flavour": None if resource else world.flavour,
        "resource": resource, "currency": "USD", "valid": (start, end), **what,
    }  # fmt: skip
    if not name:
        return Rate.objects.create(amount=Decimal(amount), **values)
    base = Rate.objects.filter(
        cluster=world.cluster, flavour=values["flavour"], resource=resource, service_class="",
        capacity_type=what.get("capacity_type", ""), valid__contains=start,
    ).get()  # fmt: skip
    return Rate.objects.create(
        amount=base.amount * Decimal(factor), base=base, factor=Decimal(factor), service_class=name, **values
    )


def add_resource(world: World, hour: datetime, resource: str, quantity_ms: int, **extra: Any) -> uuid.UUID:
    """Store what a pod of the Finance team had of a resource in an hour, as ingest does."""
    ensure_month("metering_resourcefact", hour.date().replace(day=1))
    workspace = world.workspaces["finance"]
    team = workspace.team
    uid = uuid.uuid4()
    row: dict[str, Any] = {
        "hour": hour, "uid": uid, "cluster_id": world.cluster.pk, "namespace": workspace.namespace,
        "workload_key": "key", "workload_name": "a", "workload_kind": "Job", "node": "", "capacity_type": "",
        "resource": resource, "quantity_ms": quantity_ms, "coverage_permille": 1000, "flags": [], "project": "",
        "purpose": "", "service_class": "", "source_id": world.source.pk, "revision": 1, "team_id": team.pk,
        "unit_id": team.unit_id, "unit_path": team.unit.path, "cost_centre": team.cost_centre, "team_name": team.name,
        "unit_name": team.unit.name, "workspace_id": workspace.pk, "environment": "production", **extra,
    }  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO metering_resourcefact ({', '.join(row)}) VALUES ({', '.join(['%s'] * len(row))})",  # noqa: S608 (own names)
            list(row.values()),
        )
    return uid


def ingest(world: World, holdings: list[Any], start: Any = DAY, hours: int = 1) -> None:
    metering.ingest_hours(
        world.source.pk, start, start + hours * HOUR, actor=Actor.system("test"), adapter=FakeAdapter(holdings)
    )


def reprice(world: World, *hours: datetime) -> None:
    days = sorted({hour.date() for hour in hours})
    pricing.price_hours(Written(world.cluster.pk, list(hours), days, [1] * len(hours)))


# ---------------------------------------------------------------- pure: which price applies


class Keyed(FakeRate):
    """A rate for a capacity type and class."""

    capacity_type = ""
    service_class = ""


def keyed(capacity_type: str, service_class: str, amount: str, low: Any = None, high: Any = None) -> Keyed:
    made = Keyed(Valid(low, high), Money(Decimal(amount), "USD"))
    object.__setattr__(made, "capacity_type", capacity_type)
    object.__setattr__(made, "service_class", service_class)
    return made


@pytest.mark.requirement("rate-proposals-1.1")
def test_class_goes_before_capacity_type_and_exact_before_general() -> None:
    rates = [
        keyed("", "", "1"), keyed("spot", "", "2"), keyed("", "compliance", "3"), keyed("spot", "compliance", "4"),
    ]  # fmt: skip
    at = DAY
    for count in range(1, 5):
        for some in itertools.combinations(rates, count):
            have = {(one.capacity_type, one.service_class): one for one in some}
            for capacity, name in (("spot", "compliance"), ("spot", ""), ("reserved", "compliance"), ("", "")):
                want = next((have[key] for key in keys(capacity, name) if key in have), None)
                assert chosen(some, capacity, name, at) is want
    assert keys("spot", "compliance") == [("spot", "compliance"), ("", "compliance"), ("spot", ""), ("", "")]
    assert keys("", "") == [("", "")]


spans = st.lists(st.tuples(st.integers(0, 100), st.integers(1, 60)), max_size=4)


@pytest.mark.requirement("rate-proposals-1.1", "rate-proposals-1.7")
@given(st.lists(spans, min_size=1, max_size=4))
def test_pieces_join_without_gap_and_take_the_best_layer(raw: list[list[tuple[int, int]]]) -> None:
    layers: list[list[tuple[int, int, str]]] = []
    for number, one in enumerate(raw):
        at, layer = 0, []
        for index, (low, length) in enumerate(sorted(one)):
            begin = max(low, at)
            layer.append((begin, begin + length, f"{number}.{index}"))
            at = begin + length
        layers.append(layer)
    found = pieces(0, 120, layers)
    assert found[0][0] == 0
    assert found[-1][1] == 120
    assert all(a[1] == b[0] and a[2] != b[2] for a, b in itertools.pairwise(found))
    for low, high, value in found:
        for moment in range(low, high):
            best = next((name for layer in layers for first, last, name in layer if first <= moment < last), None)
            assert value == best


@pytest.mark.requirement("rate-proposals-1.1")
def test_a_class_price_that_begins_later_splits_the_span() -> None:
    middle = DAY + 10 * HOUR
    general, special = keyed("", "", "1"), keyed("", "compliance", "2", middle)
    found = split(DAY, DAY + 24 * HOUR, [general, special], "spot", "compliance")
    assert [(one.start, one.end, one.rate) for one in found] == [
        (DAY, middle, general),
        (middle, DAY + 24 * HOUR, special),
    ]


# ---------------------------------------------------------------- in the books


@pytest.mark.requirement("rate-proposals-1.1", "rate-proposals-4.1")
def test_facts_are_charged_at_the_price_of_their_type_and_class(world: World, company: Any) -> None:
    spot = rate(world, "1.5", capacity_type="spot")
    special = rate(world, "0", cls="compliance", factor="1.2")
    ingest(world, [hold(name, "finance-prod", DAY, DAY + HOUR, 2) for name in ("a", "b", "c", "d")])
    changes = {"b": ("spot", ""), "c": ("spot", "compliance"), "d": ("reserved", "")}
    with connection.cursor() as cursor:
        for name, (capacity, service) in changes.items():
            cursor.execute(
                "UPDATE metering_hourfact SET capacity_type = %s, service_class = %s WHERE workload_name = %s",
                [capacity, service, name],
            )
        cursor.execute("SELECT uid, workload_name FROM metering_hourfact")
        names = dict(cursor.fetchall())
    reprice(world, DAY)
    assert world.rate is not None
    found = {
        names[row.uid]: (row.rate_id, row.capacity_type, row.service_class, row.environment)
        for row in Charge.objects.filter(kind="allocated")
    }
    assert found == {
        "a": (world.rate.pk, "", "", "production"),
        "b": (spot.pk, "spot", "", "production"),
        "c": (special.pk, "spot", "compliance", "production"),
        "d": (world.rate.pk, "reserved", "", "production"),
    }
    days = DayCharge.objects.filter(kind="allocated").values_list("capacity_type", "service_class", "quantity_ms")
    assert sorted(days) == [
        ("", "", 2 * HOUR_MS), ("reserved", "", 2 * HOUR_MS), ("spot", "", 2 * HOUR_MS),
        ("spot", "compliance", 2 * HOUR_MS),
    ]  # fmt: skip
    assert set(Charge.objects.filter(kind="unsold").values_list("rate_id", flat=True)) == {world.rate.pk}


@pytest.mark.requirement("rate-proposals-1.5", "rate-proposals-1.6")
def test_resources_are_charged_from_their_first_price_and_never_mixed_into_gpu_hours(
    world: World, company: Any
) -> None:
    ingest(world, [hold("a", "finance-prod", DAY, DAY + 3 * HOUR, 2)], hours=3)
    hours = [DAY, DAY + HOUR, DAY + 2 * HOUR]
    for hour in hours:
        add_resource(world, hour, "cpu", 8 * HOUR_MS)
        add_resource(world, hour, "egress", 5 * HOUR_MS)
    reprice(world, *hours)
    assert not Charge.objects.filter(kind__in=["cpu", "egress"]).exists()
    assert not PricedHour.objects.filter(unpriced_ms__gt=0).exists()
    # A price from the second hour on, one third of it away from its start.
    first = DAY + HOUR + timedelta(minutes=20)
    second = DAY + 2 * HOUR + timedelta(minutes=15)
    rate(world, "0.03", first, second, resource="cpu")
    rate(world, "0.06", second + timedelta(minutes=15), resource="cpu")
    reprice(world, *hours)
    found = Charge.objects.filter(kind="cpu").values_list("hour", "quantity_ms", "gpu_ms")
    assert sorted(found) == [
        (hours[1], 8 * 2_400_000, 0), (hours[2], 8 * 900_000, 0), (hours[2], 8 * 900_000, 0),
        (hours[2], 8 * 1_800_000, 0),
    ]  # fmt: skip
    assert Charge.objects.filter(kind="cpu", rate_id=None).values_list("hour", "quantity_ms").get() == (
        hours[2],
        8 * 900_000,
    )
    assert PricedHour.objects.get(hour=hours[2]).unpriced_ms == 8 * 900_000
    team = company.finance_team
    cost = selectors.cost_of_month(team.pk, DAY.date())
    gpu = Decimal("3.85") * 6
    cpu = Decimal(8) * (Decimal("0.03") * Decimal(2400 + 900) + Decimal("0.06") * 1800) / 3600
    assert cost.gpu_ms == 6 * HOUR_MS
    assert cost.amount.amount == gpu + cpu
    assert cost.resources is not None
    assert cost.resources.amount == cpu
    assert cost.unpriced_ms == 8 * 900_000
    assert budget_figures.remaining(team.pk, NOW) is None
    money = money_of([team.pk], DAY.date())[team.pk]
    assert (money.spent, money.unpriced_gpu_ms, money.unpriced_ms) == (cost.amount, 0, 8 * 900_000)


@pytest.mark.requirement("rate-proposals-1.6", "costs-2.3")
def test_reports_show_resources_apart_and_every_level_adds_up(world: World, company: Any) -> None:
    rate(world, "0.03", resource="cpu")
    rate(world, "0.004", resource="memory")
    ingest(world, [hold("a", "finance-prod", DAY, DAY + HOUR, 2, used=0.001)])
    add_resource(world, DAY, "cpu", 7 * HOUR_MS)
    add_resource(world, DAY, "memory", 33 * HOUR_MS)
    add_resource(world, DAY, "cpu", HOUR_MS, workload_name="cpu-only", workload_key="other")
    reprice(world, DAY)
    resources = Decimal("0.03") * 8 + Decimal("0.004") * 33
    report = selectors.month_report(None, DAY.date(), company.vp)
    line = report.lines[0]
    assert line.allocated_gpu_ms == 2 * HOUR_MS
    assert line.amount == report.total == Money((Decimal("7.70") + resources).quantize(Decimal("0.01")), "USD")
    assert line.resource_amount == report.resource_total == Money(resources.quantize(Decimal("0.01")), "USD")
    assert line.idle_amount == Money(Decimal("7.70"), "USD")
    team, user = company.finance_team, company.lead_finance
    days = selectors.team_month_days(team, DAY.date(), user)
    assert [day.amount for day in days] == [line.amount]
    rows = selectors.day_workloads(team, DAY.date(), user, total=days[0].amount)
    assert sum((row.amount for row in rows if row.amount), Money.zero("USD")) == days[0].amount
    assert [(row.workload_name, row.resources, row.allocated_gpu_ms) for row in rows] == [
        ("a", False, 2 * HOUR_MS), ("a", True, 0), ("cpu-only", True, 0),
    ]  # fmt: skip


@pytest.mark.requirement("rate-proposals-1.7", "costs-1.2")
def test_a_mid_hour_change_splits_everything_without_losing_a_millisecond(world: World, company: Any) -> None:
    change = DAY + timedelta(minutes=20, seconds=1)
    assert world.rate is not None
    rate(world, "0", cls="compliance", factor="2")
    rate(world, "0.03", resource="cpu", end=change)
    rate(world, "0.05", change, resource="cpu")
    rate(world, "9", change, capacity_type="spot")
    held = hold("a", "finance-prod", DAY + timedelta(minutes=10), DAY + timedelta(minutes=40), 4)
    ingest(world, [held])
    with connection.cursor() as cursor:
        cursor.execute("UPDATE metering_hourfact SET capacity_type = 'spot'")
    add_resource(world, DAY, "cpu", 1_000_003)
    reprice(world, DAY)
    spot = Charge.objects.filter(kind="allocated").values_list("quantity_ms", flat=True)
    assert sorted(spot) == sorted([4 * 601_000, 4 * 1_199_000])
    cpu = Charge.objects.filter(kind="cpu")
    assert cpu.count() == 2
    assert cpu.aggregate(total=Sum("quantity_ms"))["total"] == 1_000_003
    total = Charge.objects.aggregate(total=Sum("gpu_ms"))["total"]
    assert total == DayCharge.objects.aggregate(total=Sum("gpu_ms"))["total"] == 50 * HOUR_MS


@pytest.mark.requirement("rate-proposals-1.5", "costs-1.6")
def test_a_resource_price_imported_later_reaches_the_hours_before_but_no_closed_month(
    world: World, company: Any
) -> None:
    from apps.costs.models import Period

    ingest(world, [hold("a", "finance-prod", DAY, DAY + HOUR, 1)])
    old = utc(2026, 10, 5)
    ingest(world, [hold("a", "finance-prod", old, old + HOUR, 1)], old)
    add_resource(world, DAY, "cpu", HOUR_MS)
    add_resource(world, old, "cpu", HOUR_MS)
    assert pricing.due_hours(100) == {}
    Period.objects.create(
        month=old.date().replace(day=1), start=utc(2026, 10, 1), end=utc(2026, 11, 1), status="closed", currency="USD"
    )
    rate(world, "0.03", resource="cpu")
    assert [status.hour for status in pricing.due_hours(100)[world.cluster.pk]] == [DAY]
    assert actions.price_due() == 1
    assert Charge.objects.filter(kind="cpu").values_list("hour", flat=True).get() == DAY
