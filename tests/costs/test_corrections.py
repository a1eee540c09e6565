"""Corrections: what arrives after a month was closed, at the original hour and price, signed, exactly once."""

from __future__ import annotations

import csv
import io
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.urls import reverse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.audit.models import AuditEvent
from apps.clusters.models import PoolCapacity
from apps.core import clock
from apps.core.actor import Actor
from apps.core.money import MILLISECONDS_PER_HOUR
from apps.core.testing import assert_queries
from apps.costs import corrections_books
from apps.costs.corrections import Entry, Key, Owner, differences
from apps.costs.models import Charge, Correction, Period, Statement
from apps.metering import actions as metering
from apps.metering.models import HourStatus
from apps.metering.ports import Late
from tests.costs.frozen import Draft, freeze, open_month
from tests.factories import client_for
from tests.metering.world import FakeAdapter, World, add_rate, hold, make_world, utc

HOUR = timedelta(hours=1)
JULY = utc(2026, 7, 1)
LATE_HOUR = utc(2026, 7, 31, 22)
CLOSED_AT = utc(2026, 8, 8, 9)
ARRIVED_AT = utc(2026, 8, 12, 9)

keys = st.builds(
    Key,
    kind=st.sampled_from(["allocated", "unsold", "cpu"]),
    team_id=st.none() | st.integers(1, 3),
    unit_id=st.none() | st.integers(1, 2),
    cost_centre=st.sampled_from(["", "CC-1"]),
    flavour_id=st.none() | st.integers(1, 2),
    gpu_model=st.sampled_from(["", "A100"]),
    rate_id=st.none() | st.integers(1, 3),
)
quantities = st.integers(-(10**15), 10**15)
entries = st.lists(st.builds(Entry, keys, st.just(Owner()), quantities, quantities), max_size=12)


def summed(*lists: list[Entry]) -> dict[Key, tuple[int, int]]:
    found: dict[Key, tuple[int, int]] = {}
    for entry in (entry for one in lists for entry in one):
        quantity, gpu = found.get(entry.key, (0, 0))
        found[entry.key] = (quantity + entry.quantity_ms, gpu + entry.gpu_ms)
    return {key: value for key, value in found.items() if value != (0, 0)}


# ---------------------------------------------------------------- pure


@pytest.mark.requirement("adjustments-1.1")
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(entries, entries)
def test_what_was_billed_and_the_difference_make_the_late_reading(billed: list[Entry], late: list[Entry]) -> None:
    found = differences(billed, late)
    assert summed(billed, found) == summed(late)
    assert all(entry.quantity_ms or entry.gpu_ms for entry in found)


@pytest.mark.requirement("adjustments-1.3")
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(entries, st.lists(entries, max_size=4))
def test_readings_in_a_row_never_add_up_to_more_than_the_last(billed: list[Entry], readings: list[list[Entry]]) -> None:
    stands = list(billed)
    for reading in readings:
        stands += differences(stands, reading)
        assert differences(stands, reading) == []
    assert summed(stands) == summed(readings[-1] if readings else billed)
    stands += differences(stands, billed)
    assert summed(stands) == summed(billed)


# ---------------------------------------------------------------- in the books


@pytest.fixture
def world(company: Any) -> Any:
    """One cluster that had 24 GPUs, and 25 from 31 July 22:30 on."""
    with clock.frozen(utc(2026, 8, 1, 9)):
        world = make_world(company.teams.values(), gpus=24, rate="3.39", slug="dc2")
        half = LATE_HOUR + timedelta(minutes=30)
        PoolCapacity.objects.update(valid=type(world.rate.valid)(utc(2025, 1, 1), half, "[)"))  # type: ignore[union-attr]  # has a rate
        PoolCapacity.objects.create(
            pool=world.pool,
            committable_gpus=25,
            valid=type(world.rate.valid)(half, None, "[)"),  # type: ignore[union-attr]  # has a rate
        )
        yield world


def late_reading(**extra: Any) -> FakeAdapter:
    """24.5 GPU-hours in the hour that was missing."""
    holdings = [
        hold("training", "finance-prod", LATE_HOUR - HOUR, LATE_HOUR + HOUR, 24),
        hold("evaluation", "finance-prod", LATE_HOUR + timedelta(minutes=30), LATE_HOUR + HOUR, 1),
    ]
    return FakeAdapter(holdings, **extra)


def ingest(world: World, adapter: FakeAdapter, start: Any = LATE_HOUR, hours: int = 1) -> Any:
    return metering.ingest_hours(
        world.source.pk, start, start + hours * HOUR, actor=Actor.system("test"), adapter=adapter
    )


def close_july(world: World, bill: str = "412000.00") -> Period:
    """July without its last hours, at exactly `bill`."""
    with clock.frozen(utc(2026, 8, 1, 9)):
        ingest(world, late_reading(absent={LATE_HOUR}), LATE_HOUR - HOUR, 2)
    with clock.frozen(CLOSED_AT):
        priced = Decimal(24) * Decimal("3.39")
        return freeze(JULY.date(), extra=[Draft("charge", "Everything else of July", Decimal(bill) - priced)])


def amount(rows: Any) -> Decimal:
    return sum((Decimal(row.quantity_ms) * row.rate.amount / MILLISECONDS_PER_HOUR for row in rows), Decimal(0))


@pytest.mark.requirement("adjustments-1.1", "adjustments-1.3")
def test_the_worked_case_of_dc2(world: World, company: Any) -> None:
    july = close_july(world)
    assert july.bill == Decimal("412000.00")
    before = list(Statement.objects.order_by("pk").values())
    with clock.frozen(ARRIVED_AT):
        ingest(world, late_reading())
        rows = list(Correction.objects.select_related("period", "corrects", "rate"))
        assert [(row.kind, row.team_id, row.hour) for row in rows] == [
            ("allocated", company.finance_team.pk, LATE_HOUR)
        ]
        assert (f"{rows[0].period.month:%Y-%m}", rows[0].corrects) == ("2026-08", july)
        assert amount(rows) == Decimal("83.055")
        assert rows[0].gpu_ms == int(Decimal("24.5") * MILLISECONDS_PER_HOUR)
        assert "July 2026 was closed" in rows[0].reason
        for _ in range(3):
            ingest(world, late_reading())
        status = HourStatus.objects.get(hour=LATE_HOUR)
        corrections_books.correct_late(Late(world.cluster.pk, [LATE_HOUR], [status.late_revision]))
        assert Correction.objects.count() == 1
    assert not Charge.objects.filter(hour=LATE_HOUR).exists()
    assert list(Statement.objects.order_by("pk").values()) == before
    july.refresh_from_db()
    assert (july.status, july.bill) == ("closed", Decimal("412000.00"))
    event = AuditEvent.objects.filter(action="costs.corrections.written").latest("occurred_at")
    assert b'"month":"2026-07"' in bytes(event.canonical)
    with clock.frozen(utc(2026, 9, 8, 9)):
        august = freeze(utc(2026, 8, 1).date())
    statement = Statement.objects.get(period=august, team=company.finance_team)
    line = statement.lines.get(sort="correction")
    assert (line.amount, line.exact, line.charge_start) == (Decimal("83.06"), Decimal("83.055"), LATE_HOUR)


@pytest.mark.requirement("adjustments-1.3")
def test_a_reading_that_is_taken_back_sums_to_zero(world: World) -> None:
    close_july(world)
    other = FakeAdapter([hold("training", "finance-prod", LATE_HOUR, LATE_HOUR + HOUR, 20)])
    with clock.frozen(ARRIVED_AT):
        ingest(world, late_reading())
        ingest(world, other)
        assert amount(Correction.objects.filter(kind="allocated").select_related("rate")) == 20 * Decimal("3.39")
        assert amount(Correction.objects.filter(kind="unsold").select_related("rate")) == Decimal("4.5") * Decimal(
            "3.39"
        )
        ingest(world, late_reading())
        assert amount(Correction.objects.filter(kind="unsold").select_related("rate")) == 0
        assert amount(Correction.objects.select_related("rate")) == Decimal("83.055")


@pytest.mark.requirement("adjustments-1.1")
def test_only_what_differs_from_the_frozen_charges_is_corrected(world: World, company: Any) -> None:
    """The hour before was billed: 24 held by finance. It turns out that marketing held four of them."""
    close_july(world)
    hour = LATE_HOUR - HOUR
    changed = FakeAdapter(
        [hold("training", "finance-prod", hour, hour + HOUR, 20), hold("ads", "marketing-prod", hour, hour + HOUR, 4)]
    )
    with clock.frozen(ARRIVED_AT):
        ingest(world, changed, hour)
    rows = {row.team_id: row.gpu_ms // MILLISECONDS_PER_HOUR for row in Correction.objects.all()}
    assert rows == {company.finance_team.pk: -4, company.marketing_team.pk: 4}
    assert amount(Correction.objects.select_related("rate")) == 0


@pytest.mark.requirement("adjustments-1.2")
def test_the_price_of_the_hour_itself_split_at_the_second(world: World) -> None:
    change = LATE_HOUR + timedelta(minutes=45)
    assert world.rate is not None
    world.rate.valid = type(world.rate.valid)(world.rate.valid.lower, change, "[)")
    world.rate.save()
    later = add_rate(world.card, world.flavour, "2.00", change, utc(2026, 8, 5))
    add_rate(world.card, world.flavour, "9.99", utc(2026, 8, 5))
    close_july(world)
    with clock.frozen(ARRIVED_AT):
        ingest(world, late_reading())
    rows = {row.rate_id: row.quantity_ms for row in Correction.objects.all()}
    # 24 all hour, one more from 22:30; the price changes at 22:45.
    assert rows == {
        world.rate.pk: int((24 * Decimal("0.75") + Decimal("0.25")) * MILLISECONDS_PER_HOUR),
        later.pk: int((24 * Decimal("0.25") + Decimal("0.25")) * MILLISECONDS_PER_HOUR),
    }


@pytest.mark.requirement("adjustments-1.1")
def test_corrections_go_to_the_earliest_month_that_is_open(world: World) -> None:
    close_july(world)
    open_month(utc(2026, 8, 1).date(), status="closing")
    with clock.frozen(ARRIVED_AT):
        ingest(world, late_reading())
    assert [f"{row.period.month:%Y-%m}" for row in Correction.objects.select_related("period")] == ["2026-09"]


@pytest.mark.requirement("adjustments-1.4")
def test_a_reopened_hour_takes_its_corrections_back(world: World, company: Any) -> None:
    from apps.costs import reopening

    july = close_july(world)
    second = company.auditor
    with clock.frozen(ARRIVED_AT):
        ingest(world, late_reading())
        from tests.factories import grant

        grant(second, "finance")
        request = reopening.request_reopening(
            july.pk, "The buffered hour of dc2 belongs into July", actor=Actor.of(company.finance)
        )
        reopening.approve_reopening(request.pk, "Agreed with the controller", actor=Actor.of(second))
        assert metering.ingest_hours(
            world.source.pk, LATE_HOUR, LATE_HOUR + HOUR, actor=Actor.system("test"), adapter=late_reading()
        )
        charges = Charge.objects.filter(hour=LATE_HOUR, kind="allocated")
        assert sum(charge.gpu_ms for charge in charges) == int(Decimal("24.5") * MILLISECONDS_PER_HOUR)
        assert amount(Correction.objects.select_related("rate")) == 0
        assert Correction.objects.count() == 2


# ---------------------------------------------------------------- pages


@pytest.mark.requirement("adjustments-1.5")
def test_the_page_of_corrections_leads_to_the_late_rows(world: World, company: Any) -> None:
    close_july(world)
    with clock.frozen(ARRIVED_AT):
        ingest(world, late_reading())
        client = client_for(company.finance)
        url = reverse("costs:correction-list") + "?period=2026-08"
        with assert_queries(20):
            page = client.get(url).content.decode()
        assert "83.055 USD" in page
        assert "24.50" in page
        row = Correction.objects.get()
        detail = client.get(reverse("costs:correction-detail", kwargs={"correction_uid": row.uid})).content.decode()
        assert "evaluation" in detail
        assert "training" in detail
        assert "2026-07-31 22:00" in detail
        exported = client.get(f"{url}&export=csv")
        lines = list(csv.DictReader(io.StringIO(exported.getvalue().decode("utf-8-sig"))))
        assert [line["Amount, exact"] for line in lines] == ["83.055000"]
        assert client_for(company.lead_marketing).get(url).content.decode().count("83.05") == 0
        assert (
            client_for(company.lead_marketing)
            .get(reverse("costs:correction-detail", kwargs={"correction_uid": row.uid}))
            .status_code
            == 404
        )
