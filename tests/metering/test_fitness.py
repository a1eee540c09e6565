"""Fit to bill from: derived from the newest test and the waivers; hours read meanwhile carry the flag."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from apps.core import clock
from apps.core.actor import Actor
from apps.metering import actions, fitness, waivers
from apps.metering.models import HourFact, HourStatus, Source, SourceCheck
from apps.metering.selftest import Finding, verdict
from tests.metering.world import FakeAdapter, World, hold, make_world, utc

START = utc(2026, 11, 10, 10)
END = START + timedelta(hours=3)


def checked(
    source: Source, failed: Sequence[str] = (), *, warned: Sequence[str] = (), at: datetime | None = None
) -> SourceCheck:
    """Record a self-test of which these checks failed."""
    findings = [Finding(code, "failed", f"{code} is wrong", "repair it") for code in failed]
    findings += [Finding(code, "warning", "so so", "mind it") for code in warned]
    findings.append(Finding("version", "ok", "fine"))
    return SourceCheck.objects.create(
        source=source,
        verdict=verdict(findings),
        findings=[finding.as_json() for finding in findings],
        checked_at=at or clock.now(),
    )


def ingest(world: World) -> list[list[str]]:
    adapter = FakeAdapter([hold("train", "finance-prod", START, END, 2)])
    actions.ingest_hours(world.source.pk, START, END, actor=Actor.system("test"), adapter=adapter)
    return list(HourStatus.objects.order_by("hour").values_list("flags", flat=True))


@pytest.mark.requirement("metering-sources-2.1")
def test_hours_of_an_unfit_source_are_read_and_flagged_until_it_is_repaired(world: World) -> None:
    assert fitness.unfit(world.source) is None
    checked(world.source, ["retention", "clock"])
    found = fitness.unfit(world.source)
    assert found is not None
    assert found.codes == ("retention", "clock")
    assert found.reasons[1] == "Clocks agree: clock is wrong"
    assert ingest(world) == [["source_unfit"]] * 3
    facts = list(HourFact.objects.order_by("hour", "uid").values_list())
    assert len(facts) == 3
    checked(world.source, warned=["pod_labels"])
    assert fitness.unfit(world.source) is None
    assert ingest(world) == [[]] * 3
    # The flag is no content: nothing was rewritten, nothing revised.
    assert list(HourFact.objects.order_by("hour", "uid").values_list()) == facts
    assert set(HourStatus.objects.values_list("revision", flat=True)) == {1}


@pytest.mark.requirement("metering-sources-2.1", "metering-sources-3.1")
def test_hours_of_a_waived_source_are_not_flagged(world: World, company: Any) -> None:
    checked(world.source, ["retention"])
    until = clock.now() + timedelta(days=1)
    waivers.waive(world.source.pk, ["retention"], "Thanos follows.", until, actor=Actor.of(company.finance))
    assert ingest(world) == [[]] * 3


@pytest.mark.requirement("metering-sources-2.2")
def test_unfit_sources_of_a_time(world: World, company: Any) -> None:
    other = make_world([], slug="dc2")
    month = (utc(2026, 10, 1), utc(2026, 11, 1))
    assert fitness.unfit_sources(*month) == []
    assert {source.pk for source in fitness.untested_sources(*month)} == {world.source.pk, other.source.pk}
    checked(world.source, ["retention"])
    checked(other.source, ["retention"], at=clock.now() - timedelta(hours=7))
    checked(other.source)
    assert [(found.source.pk, found.codes) for found in fitness.unfit_sources(*month)] == [
        (world.source.pk, ("retention",))
    ]
    assert fitness.untested_sources(*month) == []
    # Before its beginning and after its end it was no source of record.
    assert fitness.unfit_sources(utc(2024, 10, 1), utc(2024, 11, 1)) == []
    actions.end_source(world.source.pk, utc(2026, 10, 1), actor=Actor.of(company.admin))
    assert fitness.unfit_sources(*month) == []


@pytest.mark.requirement("metering-sources-2.2")
def test_health_in_a_word_and_at_a_time(world: World, company: Any, frozen_clock: datetime) -> None:
    def word(at: datetime | None = None) -> str:
        return fitness.health_of([world.source], at)[world.source.pk].word

    assert word() == "untested"
    checked(world.source)
    assert word() == "passed"
    clock.advance(timedelta(hours=1))
    checked(world.source, warned=["clock"])
    assert word() == "warned"
    clock.advance(timedelta(hours=1))
    checked(world.source, ["clock"])
    assert word() == "unfit"
    until = clock.now() + timedelta(hours=3)
    waivers.waive(world.source.pk, ["clock"], "Set right tonight.", until, actor=Actor.of(company.admin))
    assert word() == "waived"
    assert [word(frozen_clock + timedelta(minutes=minutes)) for minutes in (0, 61, 119)] == [
        "passed", "warned", "warned",
    ]  # fmt: skip
    clock.advance(timedelta(hours=3))
    assert word() == "unfit"
    assert fitness.TONES.keys() == fitness.WORDS.keys() == {
        "untested", "passed", "warned", "unfit", "waived", "unknown",
    }  # fmt: skip


def test_two_queries_for_any_number_of_sources(world: World, query_limit: Any) -> None:
    sources = [world.source, *(make_world([], slug=f"dc{number}").source for number in range(3, 9))]
    for source in sources:
        checked(source, ["clock"])
    with query_limit(2):
        assert {health.word for health in fitness.health_of(sources).values()} == {"unfit"}
