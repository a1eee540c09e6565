"""Conservation under any mix, crashes and races, and every trap of the Philly trace's description."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict
from apps.metering import actions, engine, rows, writer
from apps.metering.context import ClusterContext, FlavourInfo, Owner, PoolInfo, QuotaInfo
from apps.metering.engine import HOUR_MS, Holding, Share, Span
from apps.metering.models import CapacityLine, HourFact, HourStatus
from apps.metering.sources.base import HourCover, NodeReading, Reading, ms
from apps.metering.sources.prometheus import PrometheusAdapter
from tests.metering.prom import Text, blocks, needs_prometheus, prometheus
from tests.metering.world import FakeAdapter, World, hold, utc

HOUR = timedelta(hours=1)
START = utc(2026, 3, 3, 10)
H = ms(START)
BASE = H // 1000
NOW = utc(2026, 3, 4, 9)
SYSTEM = Actor.system("test")
HOURS = 3

# ---------------------------------------------------------------- conservation

MODELS = ("A100", "H100")
FINANCE = Owner(team_id=1, unit_id=1, unit_path=(1,), team_name="Finance", workspace_id=1, environment="production")
RESEARCH = Owner(team_id=2, unit_id=1, unit_path=(1,), team_name="Research", workspace_id=2, environment="production")
WHOLE, QUARTER, THIRD = (
    FlavourInfo(1, "a100", "A100", "A100", "nvidia_com_gpu", Share()),
    FlavourInfo(2, "h100-quarter", "H100 quarter", "H100", "nvidia_com_gpu", Share(1, 4)),
    FlavourInfo(3, "a100-3g", "A100 3g", "A100", "nvidia_com_mig_3g_40gb", Share(3, 7)),
)


def books(guaranteed: Sequence[int]) -> ClusterContext:
    """Two owners with quotas on three flavours."""
    return ClusterContext(
        1,
        owners={"finance": FINANCE, "research": RESEARCH},
        flavours=[WHOLE, QUARTER, THIRD],
        pools={model: PoolInfo(model, (), 16, None) for model in MODELS},
        quotas=[
            QuotaInfo(owner.workspace_id or 0, owner, info.id, info.gpu_model, info.share, count, 0, 1 << 60)
            for (owner, info), count in zip(
                ((FINANCE, WHOLE), (RESEARCH, WHOLE), (RESEARCH, QUARTER), (FINANCE, THIRD)), guaranteed, strict=True
            )
            if count
        ],
    )


moments = st.integers(0, HOURS * HOUR_MS)
spans = st.lists(
    st.tuples(moments, moments, st.integers(1, 8)).map(lambda t: Span(H + min(t[:2]), H + max(t[:2]), t[2])),
    min_size=1,
    max_size=3,
).map(lambda found: engine.merge(found))
#: Exclusive, MIG and time-sliced, by flavour, node or name alone.
kinds = st.sampled_from(
    [("nvidia_com_gpu", "A100", 1), ("nvidia_com_mig_3g_40gb", "A100", 1), ("nvidia_com_mig_1g_10gb", "A100", 1),
     ("nvidia_com_gpu", "H100", 1), ("nvidia_com_gpu", "H100", 4), ("nvidia_com_gpu", "H100-SHARED", 3),
     ("nvidia_com_gpucores", "H100", 1), ("nvidia_com_gpu", "", 1)]
)  # fmt: skip
holdings = st.lists(
    st.builds(
        lambda number, kind, held, namespace, node: Holding(
            f"pod-{number}", namespace, "w", "Job", kind[0], held, node=node, gpu_model=kind[1], replicas=kind[2]
        ),
        st.integers(0, 40), kinds, spans, st.sampled_from(["finance", "research", "nobody"]),
        st.sampled_from(["n1", "n2", ""]),
    ),
    max_size=12,
)  # fmt: skip
nodes = st.lists(
    st.builds(
        lambda name, model, physical, closed, broken, stranded, resource: NodeReading(
            name, model, physical, closed=closed, broken=broken, stranded=(stranded, 7), resource=resource
        ),
        st.sampled_from(["n1", "n2", "n3"]), st.sampled_from(MODELS), spans, spans, spans, st.integers(0, 6),
        st.sampled_from(["", "nvidia_com_gpu"]),
    ),
    max_size=4,
)  # fmt: skip
#: Hours that the source covers: any of them may be a gap.
covers = st.sets(st.integers(0, HOURS - 1), min_size=1)


@pytest.mark.requirement("metering-facts-6.2")
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(holdings, nodes, covers, st.lists(st.integers(0, 12), min_size=4, max_size=4), st.randoms())
def test_every_gpu_millisecond_is_on_one_line(
    held: list[Holding], machines: list[NodeReading], covered: set[int], guaranteed: list[int], rnd: Any
) -> None:
    reading = Reading(held, machines, hours={H + number * HOUR_MS: HourCover(1000) for number in covered})
    built = rows.build_hours(books(guaranteed), reading)
    assert set(built) == set(reading.hours)
    for hour in built.values():
        facts: dict[str, int] = {}
        for line in hour.facts:
            cells = dict(zip(rows.FACT_COLUMNS, line.split("\t"), strict=False))
            facts[cells["gpu_model"]] = facts.get(cells["gpu_model"], 0) + int(cells["allocated_gpu_ms"])
            assert int(cells["allocated_gpu_ms"]) <= int(cells["allocated_unit_ms"])
        lines: dict[str, dict[str, int]] = {}
        for line in hour.lines:
            cells = dict(zip(rows.LINE_COLUMNS, line.split("\t"), strict=False))
            model = lines.setdefault(cells["gpu_model"], {})
            model[cells["kind"]] = model.get(cells["kind"], 0) + int(cells["gpu_ms"])
            assert int(cells["gpu_ms"]) > 0
        for name, model in lines.items():
            physical = model.pop("physical")
            assert sum(model.values()) == physical
            assert model.get("attributed", 0) + model.get("unattributed", 0) == facts.get(name, 0)
        # What is held of a model is on lines, or the hour says that nobody knows its capacity.
        assert all(name in lines or "capacity_unknown" in hour.flags for name, value in facts.items() if value)
    # Any order, and everything told twice, is the same content.
    again = [*held, *held]
    rnd.shuffle(again)
    if len({holding.key for holding in held}) == len(held):
        twice = rows.build_hours(books(guaranteed), Reading(again, machines, hours=reading.hours))
        assert {h: r.content_hash() for h, r in twice.items()} == {h: r.content_hash() for h, r in built.items()}


# ---------------------------------------------------------------- crashes and races


def adapter(units: int = 4) -> FakeAdapter:
    return FakeAdapter([hold("train", "finance-prod", START, START + HOUR, units)])


def ingest(world: World, units: int = 4) -> Any:
    return actions.ingest_hours(world.source.pk, START, START + HOUR, actor=SYSTEM, adapter=adapter(units))


def stands() -> list[Any]:
    return [list(model.objects.order_by("hour", "uid").values_list()) for model in (HourFact, CapacityLine)]


@pytest.fixture
def _now() -> Iterator[None]:
    with clock.frozen(NOW):
        yield


@pytest.mark.requirement("metering-facts-6.3")
@pytest.mark.usefixtures("_now")
def test_a_crash_between_delete_and_insert_leaves_what_stood(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ingest(world)
    before = stands()
    copy = writer._copy

    def crash(table: str, *args: Any) -> None:
        if table == "metering_hourfact":
            assert not HourFact.objects.exists()  # deleted, not written yet
            raise SystemExit("the worker dies here")
        copy(table, *args)

    with monkeypatch.context() as patch:
        patch.setattr(writer, "_copy", crash)
        with pytest.raises(SystemExit):
            ingest(world, 6)
    assert stands() == before
    assert HourStatus.objects.get().revision == 1
    # The next worker finds the hour as it was and goes on.
    assert ingest(world, 6).hours_written == 1
    assert HourFact.objects.get().allocated_unit_ms == 6 * HOUR_MS


@pytest.mark.requirement("metering-facts-6.3")
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("_now")
def test_two_workers_on_one_hour(world: World) -> None:
    """The second writer waits for the first and finds its hour: no doubling, no hole, whoever comes first."""
    reading = adapter().read(START, START + HOUR)
    both = threading.Barrier(2, timeout=30)
    outcomes: list[writer.Outcome] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            context = actions.books.load(world.cluster.pk, START, START + HOUR)
            hours = rows.build_hours(context, reading)
            both.wait()
            with transaction.atomic():
                outcomes.append(
                    writer.write_hours(world.source, hours, proof=None, run=None, window=(START, START + HOUR))
                )
        except Exception as error:  # noqa: BLE001 (every failure of a thread is the test's)
            errors.append(error)
        finally:
            connection.close()

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
    assert errors == []
    assert sorted(outcome.written for outcome in outcomes) == [0, 1]
    assert HourFact.objects.count() == 1
    assert HourStatus.objects.get().revision == 1
    lines = {line.kind: line.gpu_ms for line in CapacityLine.objects.all()}
    assert lines.pop("physical") == sum(lines.values())


@pytest.mark.requirement("metering-facts-6.3")
@pytest.mark.usefixtures("_now")
def test_the_second_worker_is_told_that_the_cluster_is_being_read(world: World) -> None:
    seen: list[str] = []

    class Slow(FakeAdapter):
        def read(self, start: Any, end: Any) -> Reading:
            with pytest.raises(Conflict) as refused:
                ingest(world)
            seen.append(refused.value.message)
            return super().read(start, end)

    slow = Slow(adapter().holdings)
    actions.ingest_hours(world.source.pk, START, START + HOUR, actor=SYSTEM, adapter=slow)
    assert len(seen) == 1
    assert HourFact.objects.count() == 1


@pytest.mark.requirement("metering-facts-6.4")
@pytest.mark.usefixtures("_now")
def test_a_namespace_that_falls_silent_is_absent_not_zero(world: World) -> None:
    """Philly trap 3: namespaces come, shrink and end; an hour without them stands, complete, without rows of zero."""
    pods = [
        hold("one", "finance-prod", START, START + HOUR, 1),
        hold("two", "research-prod", START, START + 3 * HOUR, 1),
    ]
    actions.ingest_hours(world.source.pk, START, START + 3 * HOUR, actor=SYSTEM, adapter=FakeAdapter(pods))
    found = HourFact.objects.filter(namespace="finance-prod")
    assert list(found.values_list("hour", flat=True)) == [START]
    assert set(HourStatus.objects.values_list("state", "coverage_permille")) == {("final", 1000)}


# ---------------------------------------------------------------- a real server, scraped every five minutes


def scrapes(first: int, last: int, step: int = 300) -> list[int]:
    """Scrape times of [first, last) in seconds after the hour's start, on a grid of `step`, 17 s past it."""
    grid = range(-3600, 7200 + 600, step)
    return [BASE + second + 17 for second in grid if first <= second + 17 < last]


class Trace(Text):
    """Writes what kube-state-metrics tells of jobs as the Philly replay does."""

    def job(
        self, name: str, start: int, end: int, *, queued: int = 0, linger: int = 900, namespace: str = "vc-11cb48"
    ) -> None:
        own = {"namespace": namespace, "pod": name, "uid": f"uid-{name}"}
        request = {**own, "container": "main", "resource": "nvidia_com_gpu", "unit": "integer"}
        waiting, running = scrapes(start - queued, start), scrapes(start, end)
        after = scrapes(end, end + linger)
        self.add("kube_pod_container_resource_requests", request, [(t, 1) for t in waiting])
        self.add(
            "kube_pod_container_resource_requests", {**request, "node": "n1"}, [(t, 1) for t in (*running, *after)]
        )
        for phase, times in (("Pending", waiting), ("Running", running), ("Succeeded", after)):
            everything = (*waiting, *running, *after)
            self.add("kube_pod_status_phase", {**own, "phase": phase}, [(t, float(t in times)) for t in everything])
        self.add("kube_pod_start_time", own, [(t, BASE + start) for t in (*running, *after)])
        self.add("kube_pod_completion_time", own, [(t, BASE + end) for t in after])


def hours_of(directory: Path, text: Text, hours: int = 1, **options: Any) -> tuple[dict[str, int], Reading]:
    every = scrapes(-3600, 7800, int(options.get("scrape", 300)))
    text.add("kube_node_status_capacity", {"node": "n1", "resource": "nvidia_com_gpu", "unit": "integer"},
             [(t, 8) for t in every])  # fmt: skip
    text.add("kube_node_labels", {"node": "n1", "label_nvidia_com_gpu_product": "Tesla-P40"}, [(t, 1) for t in every])
    directory.mkdir(exist_ok=True)
    blocks([text.write(directory / "trace.om")], directory / "tsdb")
    reading = Reading()
    with prometheus(directory / "tsdb", lookback="300s") as url:
        source = PrometheusAdapter(url, options={"resources": False})
        try:
            for number in range(hours):
                part = source.read(START + number * HOUR, START + (number + 1) * HOUR)
                reading.holdings += part.holdings
                reading.hours |= part.hours
        finally:
            source.close()
    found: dict[str, int] = {}
    for facts in engine.hour_quantities(reading.holdings, {}).values():
        for fact in facts:
            found[fact.holding.pod] = found.get(fact.holding.pod, 0) + fact.gpu_ms
    return found, reading


@pytest.mark.prometheus
@needs_prometheus
@pytest.mark.requirement("metering-facts-6.4")
def test_short_jobs_in_step_with_the_scrape_are_metered_to_their_times(tmp_path: Path) -> None:
    """Philly traps 1 and 2: a job of 70 s every 600 s aliases with a scrape of 300 s; most are never seen running."""
    text = Trace()
    for number in range(6):
        text.job(f"seen-{number}", 600 * number, 600 * number + 70)  # a scrape falls into its 17th second
        text.job(f"unseen-{number}", 600 * number + 100, 600 * number + 170)  # no scrape sees it running
    found, _ = hours_of(tmp_path, text)
    assert found == {f"{kind}-{number}": 70_000 for kind in ("seen", "unseen") for number in range(6)}


@pytest.mark.prometheus
@needs_prometheus
@pytest.mark.requirement("metering-facts-6.4")
def test_waiting_and_finished_pods_hold_nothing(tmp_path: Path) -> None:
    """Philly trap 5: pods without a node and finished pods still tell what they asked for."""
    text = Trace()
    text.job("late", 3000, 3600, queued=3000, linger=900)
    text.job("early", -1200, 30, linger=3300)
    text.job("waits", 5400, 6000, queued=5400)
    found, _ = hours_of(tmp_path, text, hours=2)
    assert found == {"late": 600_000, "early": 30_000, "waits": 600_000}
    assert "waits" not in {h.pod for h in hours_of(tmp_path / "one", _waiting(), hours=1)[1].holdings}


def _waiting() -> Trace:
    text = Trace()
    text.job("waits", 5400, 6000, queued=5400)
    return text


@pytest.mark.prometheus
@needs_prometheus
@pytest.mark.requirement("metering-facts-6.4")
def test_the_worked_outage_of_twelve_minutes(tmp_path: Path) -> None:
    """Reference cost E3: a 4-GPU pod, kube-state-metrics away for 12 minutes: 4.000 GPU-hours, bridged, shown."""
    text = Text()
    every = [BASE + second + 17 for second in range(-600, 4200, 60) if not 1200 <= second < 1920]
    own = {"namespace": "team", "pod": "steady", "uid": "uid-steady"}
    request = {**own, "container": "main", "node": "n1", "resource": "nvidia_com_gpu", "unit": "integer"}
    text.add("kube_pod_container_resource_requests", request, [(t, 4) for t in every])
    text.add("kube_pod_status_phase", {**own, "phase": "Running"}, [(t, 1) for t in every])
    text.add("kube_node_status_capacity", {"node": "n1", "resource": "nvidia_com_gpu"}, [(t, 8) for t in every])
    blocks([text.write(tmp_path / "outage.om")], tmp_path / "tsdb")
    with prometheus(tmp_path / "tsdb") as url:
        source = PrometheusAdapter(url)
        try:
            reading = source.read(START, START + HOUR)
        finally:
            source.close()
    (fact,) = engine.hour_quantities(reading.holdings, {})[H]
    assert f"{fact.gpu_ms / HOUR_MS:.3f}" == "4.000"
    assert "bridged" in fact.flags
    cover = reading.hours[H]
    assert (cover.coverage_permille, cover.flags) == (800, ("source_gap",))
    assert cover.reason == "12 of 60 samples of the hour are missing"
