"""Closed months in the database: whoever writes, whatever they write."""

# ruff: noqa: S608  # the statements are made of this file's own names of tables and columns

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.utils import ProgrammingError

from apps.core import clock
from apps.core.actor import Actor
from apps.costs.models import Correction, DistributionPolicy, Period, ReopenRequest
from apps.costs.period_calendar import ensure_period
from apps.metering import actions
from tests.metering.world import FakeAdapter, World, hold, make_world, utc

HOUR = timedelta(hours=1)
NOW = utc(2026, 11, 18, 9)
OCTOBER, NOVEMBER = utc(2026, 10, 10), utc(2026, 11, 10)


def ingest(world: World, start: Any, **extra: Any) -> None:
    holdings = [hold("job", "finance-prod", start, start + 3 * HOUR, 2, used=0.5, **extra)]
    actions.ingest_hours(
        world.source.pk, start, start + 4 * HOUR, actor=Actor.system("test"), adapter=FakeAdapter(holdings)
    )


def close_row(month: date) -> Period:
    """Close a month without statements: what the triggers look at."""
    period = ensure_period(month)
    for status in ("closing", "closed"):
        Period.objects.filter(pk=period.pk).update(status=status, closed_at=clock.now())
    period.refresh_from_db()
    return period


@pytest.fixture
def world(company: Any) -> Any:
    with clock.frozen(NOW):
        world = make_world(company.teams.values())
        ingest(world, OCTOBER)
        ingest(world, NOVEMBER)
        close_row(date(2026, 10, 1))
        ensure_period(date(2026, 11, 1))
        yield world


def refused(statement: str, *parameters: Any) -> str:
    with pytest.raises(IntegrityError) as caught, transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement, parameters)
    return str(caught.value)


@pytest.mark.requirement("periods-1.2")
@pytest.mark.parametrize(
    ("table", "column", "change"),
    [
        ("metering_hourfact", "hour", "allocated_gpu_ms = allocated_gpu_ms + 1"),
        ("metering_hourfact", "hour", "team_name = 'Other'"),
        ("metering_capacityline", "hour", "gpu_ms = 0"),
        ("costs_charge", "hour", "rate_id = NULL"),
        ("costs_daycharge", "day", "quantity_ms = 0"),
        ("metering_dayusage", "day", "idle_gpu_ms = 0"),
    ],
)
def test_rows_of_a_closed_month_take_no_change(world: World, table: str, column: str, change: str) -> None:
    inside = f"{column} >= '2026-10-01' AND {column} < '2026-11-01'"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {table} WHERE {inside}")
        assert cursor.fetchone()[0] > 0
    assert "the books of 2026-10 are closed" in refused(f"UPDATE {table} SET {change} WHERE {inside}")
    refused(f"DELETE FROM {table} WHERE {inside}")
    refused(f"DELETE FROM {table}")
    # Moving a row out of the month, or another one into it, is a change of it, too.
    shift = "interval '31 days'" if column == "hour" else "31"
    refused(f"UPDATE {table} SET {column} = {column} + {shift} WHERE {inside}")
    refused(f"UPDATE {table} SET {column} = {column} - {shift} WHERE NOT ({inside})")
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {table} SET {change} WHERE NOT ({inside})")
        assert cursor.rowcount > 0
        cursor.execute(f"DELETE FROM {table} WHERE NOT ({inside})")


@pytest.mark.requirement("periods-1.2")
def test_new_rows_and_partitions_are_refused(world: World) -> None:
    others = "hour, cluster_id, gpu_model, kind, unit_path, cost_centre, team_name, unit_name, environment, gpu_ms"
    others += ", revision"
    insert = f"INSERT INTO metering_capacityline (uid, {others}) SELECT gen_random_uuid(), {others} FROM"
    refused(f"{insert} metering_capacityline WHERE hour < '2026-11-01'")
    with connection.cursor() as cursor:
        cursor.execute(f"{insert} metering_capacityline WHERE hour >= '2026-11-01'")
        assert cursor.rowcount > 0
    for change in ("UPDATE metering_hourfact_2026_10 SET revision = 9", "DELETE FROM costs_charge_2026_10"):
        with pytest.raises(ProgrammingError, match="permission denied"), transaction.atomic():
            connection.cursor().execute(change)


@pytest.mark.requirement("periods-1.2", "periods-2.6")
def test_a_closed_period_opens_only_through_an_approved_request(world: World, company: Any) -> None:
    period = Period.objects.get(month=date(2026, 10, 1))
    refused("DELETE FROM costs_period WHERE id = %s", period.pk)
    refused("UPDATE costs_period SET bill = 1 WHERE id = %s", period.pk)
    refused("UPDATE costs_period SET status = 'open', reopened = 1 WHERE id = %s", period.pk)
    request = ReopenRequest.objects.create(period=period, reason="wrong rate", requested_by=company.finance)
    refused("UPDATE costs_period SET status = 'open', reopened = 1 WHERE id = %s", period.pk)
    ReopenRequest.objects.filter(pk=request.pk).update(
        status="approved", decided_by=company.vp, decided_at=clock.now() + HOUR
    )
    refused("UPDATE costs_period SET status = 'open' WHERE id = %s", period.pk)
    Period.objects.filter(pk=period.pk).update(status="open", reopened=1)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE costs_charge SET revision = 9 WHERE hour < '2026-11-01'")
        assert cursor.rowcount > 0
    refused("UPDATE costs_period SET status = 'closed' WHERE id = %s", period.pk)


@pytest.mark.requirement("periods-1.2")
def test_corrections_are_billed_in_open_months_only(world: World) -> None:
    october, november = Period.objects.order_by("month")
    values = {
        "corrects": october, "cluster": world.cluster, "hour": OCTOBER, "hour_revision": 2, "kind": "allocated",
        "rate": world.rate, "quantity_ms": 1, "gpu_ms": 1, "reason": "late",
    }  # fmt: skip
    with pytest.raises(IntegrityError), transaction.atomic():
        Correction.objects.create(period=october, **values)
    row = Correction.objects.create(period=november, **values)
    close_row(november.month)
    refused("UPDATE costs_correction SET quantity_ms = 2 WHERE id = %s", row.pk)
    refused("DELETE FROM costs_correction WHERE id = %s", row.pk)


@pytest.mark.requirement("periods-3.3")
def test_a_policy_is_decided_once_by_a_second_person(db: None, company: Any) -> None:
    first = DistributionPolicy.objects.get(number=1)
    assert first.rules["reserved_unused"] == "owners"
    refused("UPDATE costs_distributionpolicy SET name = 'x' WHERE number = 1")
    refused("DELETE FROM costs_distributionpolicy WHERE number = 1")
    DistributionPolicy.objects.create(
        number=2, name="Shared", month_from=date(2026, 12, 1), rules={}, proposed_by=company.finance
    )
    refused(
        "UPDATE costs_distributionpolicy SET status = 'approved', decided_by_id = %s WHERE number = 2",
        company.finance.pk,
    )
    refused("""UPDATE costs_distributionpolicy SET rules = '{"unsold": "shared"}' WHERE number = 2""")


@pytest.mark.requirement("periods-1.1")
def test_a_month_keeps_its_bounds(world: World) -> None:
    refused("UPDATE costs_period SET start = start - interval '1 hour' WHERE month = '2026-11-01'")
    refused("UPDATE costs_period SET status = 'closed' WHERE month = '2026-11-01'")
