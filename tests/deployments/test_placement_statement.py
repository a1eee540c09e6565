"""Statements of placement: what was metered, what is unknown, which rule held; signed, revised, verified outside."""

from __future__ import annotations

import base64
import json
import uuid
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction
from django.urls import reverse

from apps.clusters.administering import update_cluster
from apps.clusters.models import ClusterPlace
from apps.core import clock, signing
from apps.core.actor import Actor
from apps.core.partitions import ensure_month
from apps.deployments import placement_rules, placement_statement_making
from apps.deployments.models import PlacementStatement, Release
from apps.deployments.placement import Place, Rule
from apps.deployments.placement_statement import DatedRule, Ran, line
from apps.metering.models import HourFact, HourStatus
from apps.metering.rows import FACT_COLUMNS
from tests.deployments.world import World, make_world
from tests.factories import Company, client_for

MONTH = date(2026, 11, 1)
KEY, OTHER = base64.urlsafe_b64encode(b"k" * 32).decode(), base64.urlsafe_b64encode(b"o" * 32).decode()


def _hour(number: int) -> datetime:
    return datetime(2026, 11, 18, tzinfo=UTC) + timedelta(hours=number)


@pytest.mark.requirement("placement-1.1", "placement-1.2")
def test_unknown_unused_and_stray_hours_are_told_apart_and_rules_judged_while_in_force() -> None:
    rule = Rule("r", "health", "on_premises", (), "Health data stays on premises.")
    ran = Ran({"release": "x"}, Place("c", "cloud", "EU"), {"namespace": "n"}, ("health",))
    ran.serving = {_hour(1), _hour(2), _hour(3)}
    ran.metered = {_hour(1): 3_600_000, _hour(9): 1}
    found = line(ran, [DatedRule(rule, _hour(3), None)], complete={_hour(1), _hour(2), _hour(9)})
    assert (found["hours_serving"], found["hours_metered"], found["gpu_ms"]) == (3, 2, "3600001")
    assert (found["hours_unknown"], found["hours_without_gpu_use"], found["hours_outside_rollout"]) == (1, 1, 1)
    assert [(one["held"], one["hours"]) for one in found["rules"]] == [(False, 2)]
    assert found["violations"] == 2
    ended = line(ran, [DatedRule(rule, _hour(-5), _hour(1))], complete=set())
    assert ended["rules"] == []
    at_home = Ran(ran.release, Place("c", "on_premises", "EU"), ran.workspace, ("health",), {_hour(3)})
    assert line(at_home, [DatedRule(rule, _hour(0), None)], complete={_hour(3)})["violations"] == 0


@pytest.fixture
def world(company: Company, frozen_clock: Any, settings: Any) -> World:
    settings.COMMONS_SIGNING_KEYS = [KEY]
    found = make_world(company, classes=("health",))
    placement_rules.add_starting_rules(actor=found.actor("compliance"))
    return found


def _fact(world: World, release: Release, hour: datetime, gpu_ms: int = 3_600_000) -> None:
    ensure_month("metering_hourfact", hour)
    space = release.endpoint.workspace
    HourFact.objects.create(
        hour=hour, uid=uuid.uuid4(), cluster_id=world.cluster.pk, namespace=space.namespace, workload_key=str(hour),
        workload_name="fraud", spans=[0, 3_600_000, 1], allocated_unit_ms=gpu_ms, allocated_gpu_ms=gpu_ms, source_id=1,
        workspace_id=space.pk, release_uid=release.uid, team_id=space.team_id,
    )  # fmt: skip


@pytest.mark.django_db
@pytest.mark.requirement("placement-1.1", "placement-1.2", "placement-1.3", "placement-1.4", "placement-1.5")
def test_a_month_is_stated_signed_revised_and_verified(world: World, tmp_path: Path, settings: Any) -> None:
    release = world.live()
    start = clock.now()
    assert placement_statement_making.make(MONTH) is None  # the month has not ended
    for number in range(3):
        hour = start + timedelta(hours=number)
        _fact(world, release, hour)
        HourStatus.objects.create(cluster=world.cluster, hour=hour, state="final")
    clock.advance(timedelta(days=14))
    assert placement_statement_making.make_due() == 0  # hours are missing: wait
    clock.advance(timedelta(days=10))
    assert placement_statement_making.make_due() == 1
    assert placement_statement_making.make_due() == 0  # nothing changed
    first = PlacementStatement.objects.get()
    [stated] = json.loads(bytes(first.body))["lines"]
    assert (stated["cluster"], stated["location"], stated["jurisdiction"]) == (world.cluster.slug, "on_premises", "EU")
    assert (stated["hours_metered"], stated["gpu_ms"], stated["data_classes"]) == (3, str(3 * 3_600_000), ["health"])
    assert stated["hours_unknown"] == stated["hours_serving"] - 3
    assert ([one["held"] for one in stated["rules"]], first.violations) == ([True], 0)
    assert signing.verifies(bytes(first.body), first.key_id, first.signature)
    _fact(world, release, start + timedelta(hours=3))  # came late
    assert placement_statement_making.make_due() == 1
    second = PlacementStatement.objects.get(revision=2)
    assert json.loads(bytes(second.body))["replaces"] == first.digest
    auditor = client_for(world.company.auditor)
    url = reverse("deployments:placement-detail", kwargs={"statement_uid": second.uid})
    assert "The signature holds" in auditor.get(url).content.decode()
    assert client_for(world.company.lead_finance).get(url).status_code == 404
    given = auditor.get(reverse("deployments:placement-file", kwargs={"statement_uid": second.uid})).content
    path = tmp_path / "statement.json"
    path.write_bytes(given)
    call_command("placement_verify", str(path))
    public = json.loads(given)["public_key"]
    settings.COMMONS_SIGNING_KEYS = [OTHER]
    call_command("placement_verify", str(path), "--public-key", public)
    with pytest.raises(SystemExit) as untrusted:
        call_command("placement_verify", str(path))
    assert untrusted.value.code == 2
    changed = json.loads(given)
    changed["body"] = base64.b64encode(
        base64.b64decode(changed["body"]).replace(b"on_premises", b"on_the_moon")
    ).decode()
    path.write_text(json.dumps(changed))
    with pytest.raises(SystemExit) as forged:
        call_command("placement_verify", str(path), "--public-key", public)
    assert forged.value.code == 1
    PlacementStatement.objects.filter(pk=second.pk).update(body=bytes(second.body) + b" ")
    settings.COMMONS_SIGNING_KEYS = [KEY]
    assert "The signature does not hold" in auditor.get(url).content.decode()


@pytest.mark.django_db
@pytest.mark.requirement("placement-1.1")
def test_each_hour_is_judged_by_what_was_stated_of_the_cluster_then(world: World) -> None:
    release, admin = world.live(), Actor.of(world["admin"])
    start = clock.now()
    clock.advance(timedelta(hours=5))
    update_cluster(world.cluster.pk, location="cloud", jurisdiction="DE", actor=admin)
    clock.advance(timedelta(hours=5))
    update_cluster(world.cluster.pk, location="on_premises", actor=admin)
    with pytest.raises(DatabaseError), transaction.atomic():
        ClusterPlace.objects.update(location="on_premises")
    for number in (1, 6, 7, 11):
        _fact(world, release, start + timedelta(hours=number))
    clock.advance(timedelta(days=20))
    lines = placement_statement_making.gather(MONTH).lines
    assert [(one["location"], one["jurisdiction"], one["hours_metered"], one["violations"]) for one in lines] == [
        ("on_premises", "EU", 1, 0), ("cloud", "DE", 2, 1), ("on_premises", "DE", 1, 0),
    ]  # fmt: skip
    assert [one["hours_serving"] for one in lines][:2] == [5, 5]


@pytest.mark.django_db
@pytest.mark.requirement("placement-1.3")
def test_what_is_told_of_a_closed_month_corrects_it_and_stands_in_the_next_statement(world: World) -> None:
    release = world.live()
    start = clock.now()
    for number in range(2):
        _fact(world, release, start + timedelta(hours=number))
        HourStatus.objects.create(cluster=world.cluster, hour=start + timedelta(hours=number), state="final")
    clock.advance(timedelta(days=24))
    assert placement_statement_making.make_due() == 1
    clock.advance(timedelta(days=150))  # out of the months that are looked at anyway
    placement_statement_making.make_due()
    assert PlacementStatement.objects.filter(month=MONTH).count() == 1
    clock.advance(timedelta(days=1))
    late = start + timedelta(hours=1)
    HourStatus.objects.filter(hour=late).update(late_hash="x", late_revision=2, read_at=clock.now())
    ensure_month("metering_latefact", late)
    with connection.cursor() as cursor:
        told = {"allocated_gpu_ms": "1800000", "revision": "2"}
        cursor.execute(
            f"INSERT INTO metering_latefact ({', '.join(FACT_COLUMNS)}) "  # noqa: S608 (own constants)
            f"SELECT {', '.join(told.get(one, one) for one in FACT_COLUMNS)} FROM metering_hourfact WHERE hour = %s",
            [late],
        )
    assert placement_statement_making.make_due() == 1
    second = PlacementStatement.objects.get(month=MONTH, revision=2)
    [told] = json.loads(bytes(second.body))["lines"]
    assert (told["hours_metered"], told["hours_late"], told["gpu_ms"]) == (2, 1, str(5_400_000))
    assert placement_statement_making.make_due() == 0
    clock.advance(timedelta(days=40))
    placement_statement_making.make_due()
    newest = PlacementStatement.objects.order_by("month", "revision").last()
    assert newest is not None
    [named] = json.loads(bytes(newest.body))["corrections"]
    assert (named["month"], named["revision"], named["statement"]) == ("2026-11", 2, second.digest)
    page = client_for(world.company.auditor).get(
        reverse("deployments:placement-detail", kwargs={"statement_uid": newest.uid})
    )
    assert "Correction of 2026-11" in page.content.decode()


@pytest.mark.django_db
@pytest.mark.requirement("placement-1.3")
def test_without_a_key_nothing_is_stated_and_the_page_says_so(world: World, settings: Any) -> None:
    world.live()
    clock.advance(timedelta(days=30))
    settings.COMMONS_SIGNING_KEYS = []
    assert placement_statement_making.make_due() == 0
    page = client_for(world.company.auditor).get(reverse("deployments:placement-list")).content.decode()
    assert "no signing key is set" in page
