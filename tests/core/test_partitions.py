"""Month partitions: made on demand by the portal's plain role, for named tables only."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from django.db import ProgrammingError, connection, transaction

from apps.core import clock, partitions

pytestmark = pytest.mark.django_db


@pytest.fixture
def measured() -> str:
    """A partitioned table as a room's migration would make it."""
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL ROLE commons_owner")
        cursor.execute(
            "CREATE TABLE public.tests_measured (hour timestamptz NOT NULL, uid uuid NOT NULL,"
            " amount bigint CHECK (amount >= 0), PRIMARY KEY (uid, hour)) PARTITION BY RANGE (hour)"
        )
        cursor.execute("CREATE INDEX tests_measured_hour ON public.tests_measured (hour)")
        operation = partitions.month_partitioned("tests_measured")
        for sql, parameters in operation.sql:
            cursor.execute(sql, parameters)
        cursor.execute("SET LOCAL ROLE commons_app")
    return "tests_measured"


@pytest.mark.requirement("database-3.1")
def test_partition_is_made_once_and_takes_rows(measured: str) -> None:
    at = datetime(2027, 3, 31, 23, 30, tzinfo=UTC)
    assert partitions.ensure_month(measured, at) is True
    assert partitions.ensure_month(measured, date(2027, 3, 1)) is False
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO tests_measured VALUES (%s, gen_random_uuid(), 1)", [at])
        cursor.execute("SELECT tableoid::regclass::text FROM tests_measured")
        assert cursor.fetchall() == [("tests_measured_2027_03",)]
        cursor.execute("SELECT count(*) FROM pg_indexes WHERE tablename = 'tests_measured_2027_03'")
        assert cursor.fetchone() == (2,), "indexes are taken over"
        cursor.execute("SELECT relowner::regrole::text FROM pg_class WHERE relname = 'tests_measured_2027_03'")
        assert cursor.fetchone() == ("commons_owner",)


@pytest.mark.requirement("database-3.1")
def test_months_are_utc_months(measured: str) -> None:
    late_in_new_york = datetime(2027, 3, 31, 22, tzinfo=timezone(timedelta(hours=-5)))
    partitions.ensure_month(measured, late_in_new_york)
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('tests_measured_2027_04'), to_regclass('tests_measured_2027_03') IS NULL")
        assert cursor.fetchone() == ("tests_measured_2027_04", True)
    with pytest.raises(ValueError, match="timezone-aware"):
        partitions.ensure_month(measured, datetime(2027, 3, 1))  # noqa: DTZ001 (naive on purpose)


@pytest.mark.requirement("database-3.2")
@pytest.mark.parametrize("table", ["teams_team", "django_session", "x'; DROP TABLE teams_team; --", "pg_class", ""])
def test_any_other_table_is_refused(table: str) -> None:
    with pytest.raises(ProgrammingError, match="not a table partitioned by month"), transaction.atomic():
        partitions.ensure_month(table, date(2027, 1, 1))


@pytest.mark.requirement("database-3.2")
def test_the_portals_role_cannot_name_tables_itself() -> None:
    with (
        pytest.raises(ProgrammingError, match="permission denied"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute("INSERT INTO commons.partitioned_table VALUES ('teams_team')")


@pytest.mark.requirement("database-3.3")
def test_sweep_keeps_three_months_ready(measured: str) -> None:
    with clock.frozen(datetime(2040, 11, 22, tzinfo=UTC)):
        first = partitions.ensure_months_ahead()
        assert first >= 4
        assert partitions.ensure_months_ahead() == 0
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('tests_measured_2041_02'), to_regclass('tests_measured_2041_03') IS NULL")
        assert cursor.fetchone() == ("tests_measured_2041_02", True)


@pytest.mark.requirement("database-3.1")
@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (date(2026, 11, 30), date(2026, 11, 1), [date(2026, 11, 1)]),
        (date(2026, 11, 30), date(2027, 1, 1), [date(2026, 11, 1), date(2026, 12, 1), date(2027, 1, 1)]),
        (date(2027, 1, 1), date(2026, 11, 1), []),
    ],
)
def test_months_between(first: date, last: date, expected: list[date]) -> None:
    assert list(partitions.months_between(first, last)) == expected
