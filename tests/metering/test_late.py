"""What arrives after a month was closed stands beside what was billed, revision by revision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection

from apps.core import clock
from apps.core.actor import Actor
from apps.metering import actions, ports
from apps.metering.models import CapacityLine, DayUsage, HourFact, HourStatus, IngestRun
from apps.quotas.models import Workspace
from tests.metering.world import FakeAdapter, World, hold, utc

HOUR = timedelta(hours=1)
START = utc(2026, 10, 31, 20)
CLOSED = utc(2026, 11, 1)
NOW = utc(2026, 11, 18, 9)
SYSTEM = Actor.system("test")


@pytest.fixture(autouse=True)
def _now() -> Iterator[None]:
    with clock.frozen(NOW):
        yield


@pytest.fixture
def closing(monkeypatch: pytest.MonkeyPatch) -> list[ports.Late]:
    """Close everything before November; returns what was told of late rows."""
    told: list[ports.Late] = []

    def freeze(cluster_id: int, hours: Sequence[datetime]) -> set[datetime]:
        return {hour for hour in hours if hour < CLOSED}

    monkeypatch.setattr(ports, "_freezes", {"test": freeze})
    monkeypatch.setattr(ports, "_late_listeners", {"test": told.append})
    return told


def adapter(units: int = 4, *, extra: bool = False) -> FakeAdapter:
    holdings = [hold("train", "finance-prod", START, START + 8 * HOUR, units, used=0.5)]
    if extra:
        holdings.append(hold("stray", "nobody-here", START, START + 8 * HOUR, 1))
    return FakeAdapter(holdings)


def ingest(world: World, source: FakeAdapter) -> IngestRun:
    return actions.ingest_hours(world.source.pk, START, START + 8 * HOUR, actor=SYSTEM, adapter=source)


def late(table: str = "metering_latefact") -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        columns = "hour, uid, revision, team_id"
        cursor.execute(f"SELECT {columns} FROM {table} ORDER BY hour, uid, revision")  # noqa: S608 (own constants)
        return cursor.fetchall()


def books() -> list[list[Any]]:
    rows: list[Any] = [HourFact.objects.order_by("hour", "uid"), CapacityLine.objects.order_by("hour", "uid")]
    return [list(found.filter(hour__lt=CLOSED).values_list()) for found in rows]


@pytest.mark.requirement("metering-facts-1.1", "metering-facts-1.3")
def test_other_content_of_closed_hours_is_appended(world: World, closing: list[ports.Late]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ports, "_freezes", {})
        ingest(world, adapter())
    before = books()
    days = list(DayUsage.objects.filter(day__lt=CLOSED.date()).values_list())
    run = ingest(world, adapter(units=6))
    assert books() == before
    assert list(DayUsage.objects.filter(day__lt=CLOSED.date()).values_list()) == days
    frozen = [START + number * HOUR for number in range(4)]
    assert [(list(item.hours), list(item.revisions)) for item in closing] == [(frozen, [2, 2, 2, 2])]
    assert [(hour, revision) for hour, _, revision, _ in late()] == [(hour, 2) for hour in frozen]
    assert late("metering_lateline")
    assert (run.hours_written, run.report["late"]) == (8, 4)
    status = HourStatus.objects.get(hour=START)
    assert (status.revision, status.late_revision) == (1, 2)
    assert HourStatus.objects.get(hour=CLOSED).revision == 2
    assert set(HourFact.objects.filter(hour__gte=CLOSED).values_list("allocated_unit_ms", flat=True)) == {6 * 3_600_000}


@pytest.mark.requirement("metering-facts-1.2")
def test_the_same_late_content_writes_nothing(world: World, closing: list[ports.Late]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ports, "_freezes", {})
        ingest(world, adapter())
    assert ingest(world, adapter()).hours_unchanged == 8
    assert late() == []
    ingest(world, adapter(units=6))
    rows, told = late(), len(closing)
    for _ in range(2):
        assert ingest(world, adapter(units=6)).hours_unchanged == 8
    assert (late(), len(closing)) == (rows, told)
    # Back to what was billed: a revision of its own, that takes the correction back.
    ingest(world, adapter())
    assert {revision for _, _, revision, _ in late()} == {2, 3}
    assert HourStatus.objects.get(hour=START).late_revision == 3


@pytest.mark.requirement("metering-facts-1.3")
def test_closed_hours_keep_the_owners_they_were_billed_to(world: World, closing: list[ports.Late]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ports, "_freezes", {})
        ingest(world, adapter(extra=True))
    team = Workspace.objects.get(namespace="research-prod").team
    finance = Workspace.objects.get(namespace="finance-prod")
    billed_to = finance.team_id
    # The namespaces change hands after the close: what nobody owned stays nobody's, what Finance paid stays theirs.
    Workspace.objects.filter(namespace="research-prod").update(namespace="nobody-here")
    Workspace.objects.filter(pk=finance.pk).update(namespace="moved-away")
    ingest(world, adapter(units=6, extra=True))
    assert {team_id for hour, _, _, team_id in late()} == {billed_to, None}
    open_owners = set(HourFact.objects.filter(hour__gte=CLOSED).values_list("namespace", "team_id"))
    assert ("nobody-here", team.pk) in open_owners


@pytest.mark.requirement("metering-facts-1.3")
def test_a_listener_that_fails_leaves_no_late_rows(
    world: World, closing: list[ports.Late], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(told: ports.Late) -> None:
        raise RuntimeError("no open period")

    monkeypatch.setattr(ports, "_late_listeners", {"test": fail})
    with pytest.raises(RuntimeError, match="no open period"):
        ingest(world, adapter())
    assert late() == []
    assert not HourStatus.objects.filter(late_revision__gt=0).exists()


@pytest.mark.requirement("metering-facts-1.1")
def test_an_hour_that_was_missing_at_the_close_comes_late(world: World, closing: list[ports.Late]) -> None:
    ingest(world, adapter())
    assert not HourFact.objects.filter(hour__lt=CLOSED).exists()
    assert len(late()) == 4
    status = HourStatus.objects.get(hour=START)
    assert (status.state, status.revision, status.late_revision) == ("final", 0, 1)


@pytest.mark.requirement("metering-facts-1.4")
def test_part_of_a_closed_hour_is_no_correction(world: World, closing: list[ports.Late]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ports, "_freezes", {})
        ingest(world, adapter())
    source = adapter(units=2)
    source.incomplete = {START: 400, CLOSED: 400}
    ingest(world, source)
    assert START not in {hour for hour, *_ in late()}
    status = HourStatus.objects.get(hour=START)
    assert (status.state, status.coverage_permille, status.late_revision) == ("final", 1000, 0)
