"""Self-tests carried out: faults of the source, sweep and request, progress, lease, imports; never in a transaction."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction

from apps.audit.models import AuditEvent
from apps.clusters.choices import Sharing
from apps.clusters.clients.guard import TransactionOpen
from apps.clusters.models import Flavour
from apps.core import clock, leases
from apps.core.actor import Actor
from apps.core.errors import Conflict, NotAllowed, NotVisible
from apps.core.models import Lease, OutboxMessage
from apps.metering import actions, selftest_run
from apps.metering.choices import SourceKind
from apps.metering.models import Source, SourceCheck, UsageInterval
from apps.metering.selftest_intervals import gaps
from apps.metering.selftest_questions import RANGES
from apps.metering.sources.base import ms
from apps.metering.tasks import check_sources
from tests.metering.server import Answer, serving
from tests.metering.test_allocation import NODE, row
from tests.metering.world import World, make_world

SYSTEM = Actor.system("test")


def vector(value: float) -> dict[str, Any]:
    return {"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [0, str(value)]}]}}


EMPTY = {"status": "success", "data": {"resultType": "vector", "result": []}}


def prometheus(path: str, parameters: dict[str, str]) -> tuple[int, Any]:
    """A Prometheus without a single series, but alive."""
    if path.endswith("buildinfo"):
        return 200, {"status": "success", "data": {"version": "2.53.0"}}
    if path.endswith("runtimeinfo"):
        return 200, {"status": "success", "data": {"storageRetention": "40d"}}
    if parameters["query"] == "time()":
        now = clock.now().timestamp()
        return 200, {"status": "success", "data": {"resultType": "scalar", "result": [now, str(now)]}}
    return 200, vector(4) if parameters["query"] == RANGES else EMPTY


def point(source: Source, url: str, kind: str = SourceKind.PROMETHEUS, **options: Any) -> Source:
    Source.objects.filter(pk=source.pk).update(kind=kind, url=url, options=options)
    source.refresh_from_db()
    return source


def run(world: World, answer: Answer, kind: str = SourceKind.PROMETHEUS, **options: Any) -> SourceCheck:
    with serving(answer) as url:
        check = selftest_run.check_source(point(world.source, url, kind, **options).pk, actor=SYSTEM)
    assert check is not None
    return check


def failing(check: SourceCheck) -> dict[str, str]:
    return {item["code"]: item["detail"] for item in check.findings if item["status"] == "failed"}


@pytest.mark.requirement("metering-sources-1.10")
@pytest.mark.parametrize(
    ("status", "body", "said", "todo"),
    [
        (401, {"error": "token expired"}, "token expired", "bearer token"),
        (403, {"error": "no"}, "no", "read metrics"),
        (404, b"nothing", "HTTP 404", "address"),
        (200, b"<html>Sign in</html>", "no query result", "login page"),
        (302, b"", "HTTP 302", "login page"),
        (500, {"error": "storage full"}, "storage full", "server's log"),
    ],
)
@pytest.mark.parametrize("kind", [SourceKind.PROMETHEUS, SourceKind.ALLOCATION])
def test_a_server_that_refuses(world: World, kind: str, status: int, body: Any, said: str, todo: str) -> None:
    check = run(world, lambda path, parameters: (status, body), kind)
    assert check.verdict == "failed"
    assert list(failing(check)) == ["reachable"]
    finding = check.findings[0]
    expected = "not JSON" if kind == SourceKind.ALLOCATION and "result" in said else said
    assert expected in finding["detail"]
    assert todo in finding["todo"]


@pytest.mark.requirement("metering-sources-1.10")
def test_nobody_there(world: World) -> None:
    with serving(prometheus) as url:
        pass
    check = selftest_run.check_source(point(world.source, url).pk, actor=SYSTEM)
    assert check is not None
    assert list(failing(check)) == ["reachable"]
    assert "no answer" in failing(check)["reachable"]


@pytest.mark.requirement("metering-sources-1.10")
def test_no_series_at_all(world: World) -> None:
    check = run(world, prometheus)
    assert list(failing(check)) == ["kube_state_metrics", "terminal_pods"]
    assert check.verdict == "failed"


@pytest.mark.requirement("metering-sources-1.10")
def test_gone_in_the_middle_of_the_test(world: World) -> None:
    """The connection is cut after eight questions: what was answered is judged, the rest named as not asked."""
    asked: list[str] = []

    def answer(path: str, parameters: dict[str, str]) -> tuple[int, Any]:
        asked.append(parameters.get("query", path))
        if len(asked) > 8:
            raise ConnectionAbortedError
        return prometheus(path, parameters)

    check = run(world, answer)
    found = failing(check)
    assert "no answer" in found["pod_labels"]
    assert "the server is gone" in found["clock"]
    assert "the server is gone" in found["scrape_interval"]
    assert {item["code"] for item in check.findings if item["status"] == "ok"} >= {"reachable", "range_semantics"}
    assert len(asked) < 16


@pytest.mark.requirement("metering-sources-1.10")
@pytest.mark.parametrize("kind", [SourceKind.PROMETHEUS, SourceKind.KUBECOST])
def test_a_very_slow_server_ends_the_test(world: World, kind: str) -> None:
    release = threading.Event()

    def answer(path: str, parameters: dict[str, str]) -> tuple[int, Any]:
        release.wait(20)
        return 200, EMPTY

    with serving(answer) as url:
        source = point(world.source, url, kind, test_seconds=0.2)
        check = selftest_run.check_source(source.pk, actor=SYSTEM)
        release.set()
    assert check is not None
    assert next(iter(failing(check))) == "reachable"
    assert "ReadTimeout" in failing(check)["reachable"]


@pytest.mark.requirement("metering-sources-1.10", "metering-sources-1.11")
def test_an_allocation_api_that_answers(world: World) -> None:
    hour = clock.hour_floor(clock.now())

    def answer(path: str, parameters: dict[str, str]) -> tuple[int, Any]:
        start = parameters["window"].split(",")[0]
        if path.endswith("assets"):
            return 200, {"code": 200, "data": {"n": NODE}}
        count = 1 if start < f"{hour - timedelta(hours=40):%Y-%m-%dT%H}" else 2
        return 200, {"code": 200, "data": [{"dc1/gpu-01/nlp/train-0/main": row(start=start)}] * count}

    check = run(world, answer, SourceKind.ALLOCATION, resolution_seconds=60)
    assert (check.verdict, check.requests) == ("passed", 4)
    Flavour.objects.filter(pk=world.flavour.pk).update(sharing=Sharing.TIME_SLICED, denominator=4)
    check = run(world, answer, SourceKind.ALLOCATION, resolution_seconds=60)
    assert list(failing(check)) == ["shared_gpus"]
    assert "time-sliced" in failing(check)["shared_gpus"]


@pytest.mark.requirement("metering-sources-4.2", "metering-sources-1.10")
def test_shared_gpus_show_even_where_nobody_answers(world: World) -> None:
    Flavour.objects.filter(pk=world.flavour.pk).update(sharing=Sharing.MIG, denominator=7)
    check = run(world, lambda path, parameters: (500, b""), SourceKind.ALLOCATION)
    assert list(failing(check)) == ["reachable", "shared_gpus"]


# ---------------------------------------------------------------- when, by whom, how far


@pytest.mark.requirement("metering-sources-1.1")
def test_new_then_every_six_hours_and_sooner_after_silence(world: World, frozen_clock: Any) -> None:
    answering = True

    def answer(path: str, parameters: dict[str, str]) -> tuple[int, Any]:
        return prometheus(path, parameters) if answering else (503, b"")

    with serving(answer) as url:
        point(world.source, url)
        assert selftest_run.run_due() == 1
        assert selftest_run.run_due() == 0
        clock.advance(timedelta(hours=5, minutes=59))
        assert selftest_run.run_due() == 0
        clock.advance(timedelta(minutes=1))
        answering = False
        assert selftest_run.run_due() == 1
        clock.advance(timedelta(minutes=14))
        assert selftest_run.run_due() == 0
        clock.advance(timedelta(minutes=1))
        assert check_sources.run() == 1
    assert SourceCheck.objects.filter(source=world.source).count() == 3


@pytest.mark.requirement("metering-sources-1.1")
def test_registering_and_asking_bring_a_test(world: World, company: Any, nudges: Any) -> None:
    actor = Actor.of(company.admin)
    actions.end_source(world.source.pk, clock.now(), actor=actor)
    with serving(prometheus) as url:
        source = actions.register_source(world.cluster.pk, "prometheus", "P", url, clock.now(), actor=actor)
        assert [found.pk for found in selftest_run.due_sources()] == [source.pk]
        assert selftest_run.run_due() == 1
        assert selftest_run.due_sources() == []
        with pytest.raises(NotAllowed):
            selftest_run.request_check(source.pk, actor=Actor.of(company.finance))
        selftest_run.request_check(source.pk, actor=actor)
        source.refresh_from_db()
        newest = SourceCheck.objects.get()
        waiting = selftest_run.moving(source, newest)
        assert waiting is not None
        assert not waiting.running
        assert selftest_run.run_due() == 1
    newest = SourceCheck.objects.latest("checked_at")
    assert newest.started_by == company.admin
    source.refresh_from_db()
    assert selftest_run.moving(source, newest) is None
    with pytest.raises(NotVisible):
        selftest_run.check_source(0, actor=SYSTEM)


@pytest.mark.requirement("metering-sources-1.1", "metering-sources-1.13")
def test_progress_and_one_worker_at_a_time(world: World) -> None:
    seen: list[tuple[int, int]] = []
    others: list[Any] = []

    def tell(done: int, total: int, what: str) -> None:
        moving = selftest_run.moving(world.source)
        assert moving is not None
        seen.append((moving.done, moving.total))
        others.append(selftest_run.check_source(world.source.pk, actor=SYSTEM))

    original = selftest_run._teller

    def teller(name: str, token: Any) -> Any:
        kept = original(name, token)

        def both(done: int, total: int, what: str) -> None:
            kept(done, total, what)
            tell(done, total, what)

        return both

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selftest_run, "_teller", teller)
        run(world, prometheus)
    assert seen == [(index + 1, len(seen)) for index in range(len(seen))]
    assert len(seen) > 20
    assert set(others) == {None}
    assert SourceCheck.objects.count() == 1
    assert not Lease.objects.filter(name__startswith="metering.selftest").exists()


@pytest.mark.requirement("metering-sources-1.13")
def test_a_worker_that_lost_its_lease_records_nothing(world: World) -> None:
    original = selftest_run._ask

    def slow(*args: Any) -> Any:
        outcome = original(*args)
        name = f"metering.selftest.{world.source.pk}"
        Lease.objects.filter(name=name).update(expires_at=clock.now() - timedelta(seconds=1))
        assert leases.claim(name, seconds=60) is not None
        return outcome

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selftest_run, "_ask", slow)
        with pytest.raises(Conflict):
            run(world, prometheus)
    assert not SourceCheck.objects.exists()


@pytest.mark.requirement("metering-sources-1.13")
def test_never_inside_a_transaction(world: World) -> None:
    with transaction.atomic(), pytest.raises(TransactionOpen):
        selftest_run.run_due()


@pytest.mark.requirement("metering-sources-1.1", "metering-sources-2.1")
def test_people_are_told_once_and_it_is_audited(world: World, company: Any) -> None:
    for _ in range(2):
        run(world, prometheus)
    told = OutboxMessage.objects.filter(event="metering.source.test_failed")
    assert [message.recipient_ids for message in told] == [[company.admin.pk]]
    assert AuditEvent.objects.filter(action="metering.source.tested").count() == 1
    assert SourceCheck.objects.count() == 2


# ---------------------------------------------------------------- imports


@pytest.mark.requirement("metering-sources-1.12")
def test_gaps_between_files(company: Any, frozen_clock: Any) -> None:
    world = make_world([], kind=SourceKind.CSV, since=clock.now() - timedelta(days=3))
    source = world.source
    first = ms(source.valid.lower)
    hour = 3_600_000
    source.options = {"windows": [[first, first + 24 * hour], [first + 30 * hour, first + 72 * hour]]}
    source.save()
    UsageInterval.objects.create(
        source=source, key="k", workload="w", namespace="n", units=1, start_ms=first, end_ms=first + 1
    )
    check = selftest_run.check_source(source.pk, actor=SYSTEM)
    assert check is not None
    assert "6 hours: 2026-11-16 09:00 to 2026-11-16 15:00 UTC" in failing(check)["gaps"]
    source.options = {"windows": [[first, first + 72 * hour]]}
    source.save()
    check = selftest_run.check_source(source.pk, actor=SYSTEM)
    assert check is not None
    assert check.verdict == "passed"
    UsageInterval.objects.all().delete()
    check = selftest_run.check_source(source.pk, actor=SYSTEM)
    assert check is not None
    assert list(failing(check)) == ["intervals"]


@pytest.mark.requirement("metering-sources-1.12")
def test_gaps_are_what_no_window_covers() -> None:
    assert gaps([], 0, 10) == [(0, 10)]
    assert gaps([(0, 10)], 0, 10) == []
    assert gaps([(2, 4), (3, 6), (8, 20)], 0, 10) == [(0, 2), (6, 8)]
    assert gaps([(-5, 1), (50, 60)], 0, 10) == [(1, 10)]
    assert gaps([(5, 5)], 0, 10) == [(0, 10)]
