"""Ingest: idempotent, honest about what is missing, one source of record, safe under two workers."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from apps.audit.models import AuditEvent
from apps.core import clock, leases
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.metering import actions, due, selectors
from apps.metering.models import CapacityLine, DayUsage, HourFact, HourStatus, IngestRun, SourceProof
from apps.teams.models import Unit
from tests.metering.world import FakeAdapter, World, guarantee, hold, make_world, utc

HOUR = timedelta(hours=1)
START = utc(2026, 11, 10)
NOW = utc(2026, 11, 18, 9)
SYSTEM = Actor.system("test")


def adapter(**extra: Any) -> FakeAdapter:
    return FakeAdapter(
        [
            hold("train", "finance-prod", START + timedelta(minutes=10), START + timedelta(hours=3), 4, used=0.5),
            hold("serve", "marketing-prod", START - HOUR, START + timedelta(hours=30), 2),
            hold("stray", "nobody-here", START, START + timedelta(hours=2), 1),
        ],
        **extra,
    )


def ingest(world: World, source: FakeAdapter, start: Any = START, hours: int = 24) -> IngestRun:
    return actions.ingest_hours(world.source.pk, start, start + hours * HOUR, actor=SYSTEM, adapter=source)


def books() -> tuple[list[Any], list[Any]]:
    facts = [
        tuple(value for name, value in row.items() if name not in ("proof_id", "revision"))
        for row in HourFact.objects.order_by("hour", "uid").values()
    ]
    lines = [
        tuple(value for name, value in row.items() if name != "revision")
        for row in CapacityLine.objects.order_by("hour", "uid").values()
    ]
    return facts, lines


@pytest.fixture(autouse=True)
def _now() -> Any:
    with clock.frozen(NOW):
        yield


@pytest.mark.requirement("metering-2.1")
def test_ingesting_again_changes_nothing(world: World) -> None:
    first = ingest(world, adapter())
    before, proofs = books(), SourceProof.objects.count()
    revisions = list(HourStatus.objects.order_by("hour").values_list("revision", "inputs_hash", "written_at"))
    clock.advance(timedelta(hours=1))
    again = ingest(world, adapter())
    assert (first.hours_written, again.hours_written, again.hours_unchanged) == (24, 0, 24)
    assert books() == before
    assert list(HourStatus.objects.order_by("hour").values_list("revision", "inputs_hash", "written_at")) == revisions
    assert SourceProof.objects.count() == proofs


@pytest.mark.requirement("metering-2.1")
def test_any_order_of_hours_gives_the_same_books(world: World, company: Any) -> None:
    ingest(world, adapter())
    whole = books()
    HourFact.objects.all().delete()
    CapacityLine.objects.all().delete()
    HourStatus.objects.all().delete()
    for number in (17, 3, 0, 23, *range(24), 5):
        ingest(world, adapter(), START + number * HOUR, 1)
    assert books() == whole


@pytest.mark.requirement("metering-2.1")
def test_a_changed_hour_is_replaced_as_a_whole(world: World) -> None:
    ingest(world, adapter())
    other = adapter()
    other.holdings = other.holdings[1:]
    run = ingest(world, other)
    assert run.hours_written == 3
    assert not HourFact.objects.filter(workload_name="train").exists()
    assert HourStatus.objects.get(hour=START).revision == 2
    day = DayUsage.objects.filter(day=START.date()).values_list("team_id", "allocated_gpu_ms")
    assert sum(gpu_ms for _, gpu_ms in day) == (2 * 24 + 2) * 3_600_000


@pytest.mark.requirement("metering-1.7")
def test_capacity_lines_equal_physical(world: World) -> None:
    guarantee(world, "finance", 20)
    guarantee(world, "research", 10)
    ingest(world, adapter())
    lines = selectors.capacity_lines(world.cluster.pk, world.pool.gpu_model, START, START + HOUR)
    physical = lines.pop("physical")
    assert physical == 50 * 3_600_000 == sum(lines.values())
    assert lines["attributed"] == 4 * 50 * 60_000 + 2 * 3_600_000
    assert lines["unattributed"] == 3_600_000
    assert lines["reserved_unused"] == (20 + 10) * 3_600_000 - 4 * 50 * 60_000


@pytest.mark.requirement("metering-1.5", "metering-2.4")
def test_missing_hours_are_unknown_and_retried(world: World) -> None:
    hole = START + 5 * HOUR
    run = ingest(world, adapter(absent={hole}))
    assert (run.status, run.hours_failed) == ("partial", 1)
    status = HourStatus.objects.get(hour=hole)
    assert (status.state, status.revision, status.facts) == ("missing", 0, 0)
    assert status.retry_at == NOW + timedelta(minutes=2)
    found = selectors.completeness(world.cluster.pk, START, START + 24 * HOUR)
    assert (found.expected, found.final, found.missing, found.complete) == (24, 23, 1, False)
    assert [item.hour for item in found.open_hours] == [hole]
    assert not CapacityLine.objects.filter(hour=hole).exists()


@pytest.mark.requirement("metering-2.4")
def test_a_failing_source_leaves_earlier_facts_and_grows_its_pause(world: World) -> None:
    ingest(world, adapter())
    before = books()
    run = ingest(world, adapter(error="connection refused"))
    assert (run.status, run.error) == ("failed", "connection refused")
    assert books() == before
    assert set(HourStatus.objects.values_list("state", "reason")) == {("final", "connection refused")}
    world.source.refresh_from_db()
    assert (world.source.failures, world.source.retry_at) == (1, NOW + timedelta(minutes=2))
    ingest(world, adapter(error="connection refused"), START + 48 * HOUR)
    world.source.refresh_from_db()
    assert world.source.retry_at == NOW + timedelta(minutes=4)
    assert HourStatus.objects.get(hour=START + 48 * HOUR).state == "incomplete"
    ingest(world, adapter(), START + 48 * HOUR)
    world.source.refresh_from_db()
    assert (world.source.failures, world.source.retry_at) == (0, None)


@pytest.mark.requirement("metering-2.4")
def test_a_source_that_has_forgotten_does_not_erase_what_it_told(world: World) -> None:
    ingest(world, adapter())
    before = books()
    poorer = adapter(incomplete={START: 400})
    poorer.holdings = []
    ingest(world, poorer, START, 1)
    assert books() == before
    assert HourStatus.objects.get(hour=START).state == "final"


@pytest.mark.requirement("metering-2.3")
def test_provisional_then_final(world: World) -> None:
    last = clock.hour_floor(NOW) - HOUR
    with pytest.raises(Invalid):
        ingest(world, adapter(), clock.hour_floor(NOW), 1)
    with clock.frozen(NOW + timedelta(minutes=9)), pytest.raises(Invalid):
        ingest(world, adapter(), last, 1)
    with clock.frozen(NOW + timedelta(minutes=10)):
        ingest(world, adapter(), last, 1)
    assert HourStatus.objects.get(hour=last).state == "provisional"
    with clock.frozen(NOW + timedelta(hours=2)):
        ingest(world, adapter(), last, 1)
    assert HourStatus.objects.get(hour=last).state == "final"


@pytest.mark.requirement("metering-2.2", "metering-2.3")
def test_due_hours_newest_first_bounded_and_trailing(world: World) -> None:
    world.source.valid = type(world.source.valid)(NOW - timedelta(days=10), None, "[)")
    world.source.save()
    found = due.due_hours(world.source, 30)
    assert len(found) == 30
    assert found[0] == NOW - 2 * HOUR  # the hour that ended at nine is not ten minutes old
    assert found == sorted(found, reverse=True)
    assert due.windows(found) == [(found[-1], found[0] + HOUR)]
    for start, end in due.windows(due.due_hours(world.source, 1000)):
        actions.ingest_hours(world.source.pk, start, end, actor=SYSTEM, adapter=adapter())
    assert due.due_hours(world.source, 1000) == []
    clock.advance(timedelta(hours=6, minutes=30))
    again = due.due_hours(world.source, 1000)
    assert min(again) > clock.now() - timedelta(hours=48, minutes=59)
    assert max(again) == clock.hour_floor(clock.now()) - HOUR
    assert len(again) == 47


@pytest.mark.requirement("metering-2.2")
def test_the_sweep_reads_what_is_due_and_settles(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.source.valid = type(world.source.valid)(NOW - timedelta(days=3), None, "[)")
    world.source.save()
    monkeypatch.setattr(actions, "adapter_for", lambda source: adapter())
    assert due.ingest_due() == 71
    assert due.ingest_due() == 0


@pytest.mark.requirement("metering-2.5")
def test_a_cluster_is_read_by_one_worker_at_a_time(world: World) -> None:
    token = leases.claim(f"metering.ingest.{world.cluster.pk}", seconds=60)
    assert token is not None
    with pytest.raises(Conflict):
        ingest(world, adapter())
    leases.release(f"metering.ingest.{world.cluster.pk}", token)
    assert ingest(world, adapter()).status == "succeeded"


@pytest.mark.requirement("metering-2.5")
def test_a_worker_that_lost_its_lease_writes_nothing(world: World) -> None:
    class Slow(FakeAdapter):
        def read(self, start: Any, end: Any) -> Any:
            reading = super().read(start, end)
            clock.advance(timedelta(minutes=11))
            assert leases.claim(f"metering.ingest.{world.cluster.pk}", seconds=60) is not None
            return reading

    run = ingest(world, Slow(adapter().holdings))
    assert run.status == "failed"
    assert not HourFact.objects.exists()


@pytest.mark.requirement("metering-2.5")
def test_a_crash_between_delete_and_insert_leaves_the_old_hour(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ingest(world, adapter())
    before = books()
    from apps.metering import writer

    def crash(*args: Any) -> None:
        raise RuntimeError("worker killed")

    monkeypatch.setattr(writer, "roll_up", crash)
    changed = adapter()
    changed.holdings = changed.holdings[1:]
    with pytest.raises(RuntimeError, match="killed"):
        ingest(world, changed)
    assert books() == before


@pytest.mark.requirement("metering-2.6")
def test_facts_lead_to_their_proof(world: World) -> None:
    ingest(world, adapter())
    fact = HourFact.objects.filter(workload_name="train").earliest("hour")
    view = selectors.proof_view(fact.proof_id, ["train-0"])
    assert view is not None
    assert view.exchanges[0]["excerpt"] == '{"pod": "train-0"}'
    other = selectors.proof_of(HourFact.objects.filter(workload_name="serve").earliest("hour"))
    assert other is not None
    assert other.exchanges[0]["excerpt"] == ""  # nothing about this workload: nobody else's lines are shown


@pytest.mark.requirement("metering-2.7")
def test_one_source_of_record(world: World, company: Any) -> None:
    actor = Actor.of(company.admin)
    with pytest.raises(Invalid) as refused:
        actions.register_source(world.cluster.pk, "prometheus", "New", "http://prom.example", NOW, actor=actor)
    assert "valid_from" in refused.value.errors
    world.source.refresh_from_db()
    actions.end_source(world.source.pk, NOW, actor=actor, expected_version=world.source.version)
    source = actions.register_source(world.cluster.pk, "prometheus", "New", "http://prom.example", NOW, actor=actor)
    assert source.valid.lower == NOW
    with pytest.raises(IntegrityError), transaction.atomic():
        type(source).objects.create(cluster=world.cluster, kind="csv", name="x", valid=source.valid)
    assert AuditEvent.objects.filter(action="metering.source.registered").count() == 2


@pytest.mark.requirement("metering-5.2")
def test_retry_is_for_admins_and_audited(world: World, company: Any) -> None:
    ingest(world, adapter(absent={START + HOUR}))
    with pytest.raises(NotAllowed):
        actions.retry_hours(world.source.pk, START, START + 24 * HOUR, actor=Actor.of(company.lead_finance))
    assert actions.retry_hours(world.source.pk, START, START + 24 * HOUR, actor=Actor.of(company.admin)) == 1
    assert AuditEvent.objects.filter(action="metering.hours.retried").count() == 1
    assert START + HOUR in due.due_hours(world.source, 20_000)
    ingest(world, adapter(), START + HOUR, 1)
    assert START + HOUR not in due.due_hours(world.source, 20_000)
    with pytest.raises(Invalid):
        actions.retry_hours(world.source.pk, START, START + 24 * HOUR, actor=Actor.of(company.admin))


@pytest.mark.requirement("metering-2.1")
def test_history_keeps_the_owner_of_its_hour(world: World, company: Any) -> None:
    ingest(world, adapter())
    workspace = world.workspaces["finance"]
    workspace.team, workspace.environment = company.marketing_team, "staging"
    workspace.save()
    Unit.objects.filter(pk=company.unit.pk).update(name="Renamed")
    ingest(world, adapter())
    fact = HourFact.objects.filter(workload_name="train").earliest("hour")
    assert (fact.team_id, fact.unit_name) == (company.finance_team.pk, "Retail Bank")


@pytest.mark.requirement("metering-5.1")
def test_facts_are_seen_by_the_team_and_unit_on_the_row(world: World, company: Any) -> None:
    ingest(world, adapter())
    seen = {
        name: set(HourFact.objects.visible_to(company[name]).values_list("team_name", flat=True))
        for name in ("lead_finance", "member_finance", "lead_research", "vp", "vp_other", "auditor")
    }
    assert seen == {
        "lead_finance": {"Finance"},
        "member_finance": {"Finance"},
        "lead_research": set(),
        "vp": {"Finance", "Marketing"},
        "vp_other": set(),
        "auditor": {"Finance", "Marketing", ""},
    }
    assert not IngestRun.objects.visible_to(company.vp).exists()
    assert IngestRun.objects.visible_to(company.auditor).exists()


def test_two_clusters_do_not_mix(world: World, company: Any) -> None:
    other = make_world([], slug="dc2")
    ingest(world, adapter())
    ingest(other, FakeAdapter([hold("train", "finance-prod", START, START + HOUR, 1)]))
    assert HourFact.objects.filter(cluster_id=other.cluster.pk, team_id=None).count() == 1
    found = selectors.completeness(None, START, START + 24 * HOUR)
    assert (found.expected, found.final) == (48, 48)


def test_a_window_that_begins_within_an_hour_counts_whole_hours(world: World, company: Any) -> None:
    """The home page looks back 48 hours from any minute: what is metered is known, not shifted to nowhere."""
    ingest(world, adapter())
    found = selectors.completeness(None, START + timedelta(minutes=13), START + 24 * HOUR)
    assert (found.expected, found.final, found.open) == (23, 23, 0)
