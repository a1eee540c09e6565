"""CPU, memory, storage and egress: counters, caps, rows (pure), and a real Prometheus with every one of them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core import clock
from apps.core.actor import Actor
from apps.costs.models import Charge
from apps.metering import actions
from apps.metering.engine import HOUR_MS
from apps.metering.models import HourStatus, ResourceFact, SourceProof
from apps.metering.sources import resources
from apps.metering.sources.base import Reading, ResourceHold, ms
from apps.metering.sources.prometheus import PrometheusAdapter
from apps.metering.sources.resources import GIB, Rise, allocation_resources, capped, egress_ms, joined, rise
from tests.metering.prom import Text, blocks, needs_prometheus, prometheus
from tests.metering.server import serving
from tests.metering.world import FakeAdapter, World, hold, utc

HOUR = timedelta(hours=1)
START = utc(2026, 3, 3, 10)
H = ms(START)
BASE = H // 1000
SYSTEM = Actor.system("test")

# ---------------------------------------------------------------- counters


@pytest.mark.requirement("metering-facts-3.3")
@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([(-30, 100.0), (30, 150.0), (60, 170.0)], 70),  # a sample before the hour is the baseline
        ([(30, 5_000.0), (60, 5_020.0)], 20),  # no baseline: the first sample counts nothing
        ([(-30, 100.0), (30, 150.0), (60, 20.0), (90, 30.0)], 80),  # reset: the new value counts
        ([(-30, 100.0), (30, 0.0), (60, 0.0)], 0),
        ([(-30, 100.0), (3_600, 160.0), (3_630, 999.0)], 60),  # what comes after the hour is the next one's
        ([], 0),
        ([(30, 7.0)], 0),
    ],
)
def test_rise_of_a_counter(samples: list[tuple[int, float]], expected: int) -> None:
    assert rise([(H + at * 1000, value) for at, value in samples], H, H + HOUR_MS) == expected


@pytest.mark.requirement("metering-facts-3.3")
@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=40), st.lists(st.booleans(), min_size=40, max_size=40))
def test_hours_of_a_counter_add_up_to_the_bytes_sent(steps: list[int], resets: list[bool]) -> None:
    """However often it starts anew: what was sent between the first and the last sample, hour by hour, no more."""
    value, samples, sent = 0, [(H, 0.0)], 0
    for number, (step, reset) in enumerate(zip(steps, resets, strict=False)):
        # A reset hides what was sent before it in the same interval; here it happens right at the sample before.
        value = step if reset and step < value else value + step
        sent += step
        samples.append((H + (number + 1) * 400_000, float(value)))
    hours = range(H, samples[-1][0] + HOUR_MS, HOUR_MS)
    assert sum(rise(samples, hour, hour + HOUR_MS) for hour in hours) == sent
    assert rise(list(reversed(samples)), H, H + 100 * HOUR_MS) == sent


@pytest.mark.requirement("metering-facts-3.3", "metering-facts-6.4")
def test_replicas_count_once_and_successors_add_up() -> None:
    assert joined([Rise(0, 100, 50), Rise(10, 90, 48)]) == 50
    assert joined([Rise(0, 100, 50), Rise(200, 300, 7)]) == 57
    assert joined([Rise(200, 300, 7), Rise(0, 100, 50), Rise(205, 299, 9)]) == 59
    assert joined([]) == 0


# ---------------------------------------------------------------- caps

holds = st.lists(
    st.builds(
        lambda key, resource, quantity: ResourceHold(H, resource, key, "ns", key, quantity, node="n1"),
        st.uuids().map(str),
        st.sampled_from(["cpu", "memory"]),
        st.integers(1, 10**12),
    ),
    max_size=12,
    unique_by=lambda item: item.key,
)


@pytest.mark.requirement("metering-facts-3.1")
@given(holds, st.integers(0, 10**12))
def test_a_node_gives_no_more_than_it_has(found: list[ResourceHold], limit: int) -> None:
    result = capped(found, {("n1", "cpu"): limit})
    before = sum(item.quantity_ms for item in found if item.resource == "cpu")
    after = [item for item in result if item.resource == "cpu"]
    assert sum(item.quantity_ms for item in after) == min(before, limit)
    assert [item.key for item in result] == [item.key for item in found]
    assert all(a == b for a, b in zip(result, found, strict=True) if a.resource == "memory")
    if before > limit > 0:
        assert all(item.flags == (resources.CAPPED,) for item in after)
        for small, large in zip(after, (item for item in found if item.resource == "cpu"), strict=True):
            assert abs(small.quantity_ms - large.quantity_ms * limit / before) <= 1


# ---------------------------------------------------------------- the allocation API


@pytest.mark.requirement("metering-facts-3.1", "metering-facts-3.2")
def test_quantities_of_the_allocation_api() -> None:
    row = {
        "properties": {
            "namespace": "nlp", "pod": "p", "container": "c", "node": "n", "controller": "llama",
            "controllerKind": "job", "labels": {"gpu_commons_project": "mine", "project": "theirs", "purpose": "train"},
        },
        "minutes": 60, "cpuCoreHours": 48, "cpuCoreRequestAverage": 40, "cpuCoreUsageAverage": 48,
        "ramByteHours": 2 * GIB, "ramByteRequestAverage": 2 * GIB, "ramByteUsageAverage": None,
        "pvByteHours": 100 * GIB, "networkTransferBytes": GIB / 2,
    }  # fmt: skip
    found = {item.resource: item for item in allocation_resources("a/n/nlp/p/c", row, H)}
    assert (found["cpu"].quantity_ms, found["cpu"].requested_ms, found["cpu"].used_ms) == (
        48 * HOUR_MS, 40 * HOUR_MS, 48 * HOUR_MS,
    )  # fmt: skip
    assert (found["memory"].quantity_ms, found["memory"].used_ms) == (2 * HOUR_MS, None)
    assert found["storage"].quantity_ms == 100 * HOUR_MS
    assert found["egress"].quantity_ms == HOUR_MS // 2
    assert (found["cpu"].project, found["cpu"].purpose, found["cpu"].name) == ("mine", "train", "llama")
    assert allocation_resources("x", {}, H) == []


# ---------------------------------------------------------------- rows


class Adapter(FakeAdapter):
    """Tells resources, too."""

    def __init__(self, *args: Any, resources: list[ResourceHold], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.told = resources

    def read(self, start: Any, end: Any) -> Reading:
        reading = super().read(start, end)
        reading.resources = [item for item in self.told if ms(start) <= item.hour < ms(end)]
        return reading


def told(quantity: int = 4, namespace: str = "finance-prod", **extra: Any) -> ResourceHold:
    values = {"requested_ms": 2 * HOUR_MS, "used_ms": quantity * HOUR_MS, **extra}
    return ResourceHold(H, "cpu", "train", namespace, "train", quantity * HOUR_MS, node="n1", **values)


@pytest.mark.requirement("metering-facts-3.4")
def test_resources_stand_and_fall_with_their_hour(world: World) -> None:
    def ingest(*found: ResourceHold) -> Any:
        adapter = Adapter([hold("train", "finance-prod", START, START + HOUR)], resources=list(found))
        return actions.ingest_hours(world.source.pk, START, START + HOUR, actor=SYSTEM, adapter=adapter)

    with clock.frozen(START + 5 * HOUR):
        ingest(told(), told(namespace="elsewhere"))
        fact = ResourceFact.objects.get()  # a namespace without owner and without GPUs is not metered
        assert (fact.quantity_ms, fact.requested_ms, fact.used_ms) == (4 * HOUR_MS, 2 * HOUR_MS, 4 * HOUR_MS)
        assert (fact.team_name, fact.revision) == (world.workspaces["finance"].team.name, 1)
        assert SourceProof.objects.filter(pk=fact.proof_id).exists()
        assert ingest(told(), told(namespace="elsewhere")).hours_written == 0
        assert ingest(told(3)).hours_written == 1  # the GPUs are the same: the hour is another one
        fact = ResourceFact.objects.get()
        assert (fact.quantity_ms, fact.revision) == (3 * HOUR_MS, 2)
        assert HourStatus.objects.get().revision == 2
        # Two containers of a pod are one workload.
        ingest(told(3), told(2))
        assert ResourceFact.objects.get().quantity_ms == 5 * HOUR_MS
        assert not Charge.objects.filter(kind="allocated", gpu_ms=0).exists()


# ---------------------------------------------------------------- a real server


def read(url: str, **options: Any) -> tuple[Reading, PrometheusAdapter]:
    adapter = PrometheusAdapter(url, options=options)
    try:
        return adapter.read(START, START + HOUR), adapter
    finally:
        adapter.close()


def at(first: int, last: int, *, step: int = 60) -> list[int]:
    return [BASE + second + 17 for second in range(first, last, step)]


@pytest.mark.prometheus
@needs_prometheus
@pytest.mark.requirement("metering-facts-3.1", "metering-facts-3.2", "metering-facts-3.3", "metering-facts-3.4")
def test_an_hour_of_a_real_server(tmp_path: Path) -> None:
    text = Text()
    hour = at(-600, 4200)
    gpu = {"node": "n1", "resource": "nvidia_com_gpu", "unit": "integer"}
    text.add("kube_node_status_capacity", gpu, [(t, 8) for t in hour])
    text.add("kube_node_status_capacity", {"node": "n1", "resource": "cpu"}, [(t, 10) for t in hour])
    text.add("kube_node_status_capacity", {"node": "n1", "resource": "memory"}, [(t, 64 * GIB) for t in hour])
    spot = {"node": "n1", "label_karpenter_sh_capacity_type": "spot", "label_nvidia_com_gpu_product": "NVIDIA-A100"}
    text.add("kube_node_labels", spot, [(t, 1) for t in hour])
    for name, cores, first, last in (("a", 6.0, -600, 4200), ("b", 2.0, 0, 1800), ("old", 1.0, -600, 4200)):
        pod = {"namespace": "team", "pod": name, "uid": f"uid-{name}"}
        times = at(first, last)
        for replica in ("x", "y"):
            for resource, value in (("cpu", cores), ("memory", 4 * GIB)):
                text.add(
                    "kube_pod_container_resource_requests",
                    {**pod, "container": "main", "node": "n1", "resource": resource, "instance": replica},
                    [(t, value) for t in times],
                )
        phase = "Succeeded" if name == "old" else "Running"
        text.add("kube_pod_status_phase", {**pod, "phase": phase}, [(t, 1) for t in times])
        info = {**pod, "created_by_kind": "Job", "created_by_name": f"job-{name}", "node": "n1"}
        text.add("kube_pod_info", info, [(t, 1) for t in times])
    text.add(
        "kube_pod_labels",
        {
            "namespace": "team",
            "pod": "a",
            "uid": "uid-a",
            "label_project": "other",
            "label_gpu_commons_project": "ours",
        },
        [(t, 1) for t in hour],
    )
    # Use: a rises by 3 cores, restarts half way (the counter begins anew); b uses 7 cores; old nothing.
    real = {"namespace": "team", "container": "main", "image": "i"}
    restart = BASE + 1800
    counter = [(t, 1000 + 3.0 * (t - BASE)) if t < restart else (t, 3.0 * (t - restart)) for t in hour]
    text.add("container_cpu_usage_seconds_total", {**real, "pod": "a", "id": "/a1"}, counter)
    text.add(
        "container_cpu_usage_seconds_total",
        {**real, "pod": "b", "id": "/b1"},
        [(t, 7.0 * (t - BASE)) for t in at(0, 1800)],
    )
    text.add("container_memory_working_set_bytes", {**real, "pod": "a", "id": "/a1"}, [(t, 6 * GIB) for t in hour])
    claim = {"namespace": "team", "persistentvolumeclaim": "data"}
    text.add("kube_persistentvolumeclaim_resource_requests_storage_bytes", claim, [(t, 100 * GIB) for t in hour])
    text.add("kubelet_volume_stats_used_bytes", claim, [(t, 25 * GIB) for t in hour])
    # Egress: raw samples; replicas; a reset; the loopback and other namespaces do not count.
    for replica in ("x", "y"):
        text.add(
            "container_network_transmit_bytes_total",
            {"namespace": "team", "pod": "a", "interface": "eth0", "prometheus": replica},
            [
                (t, float(GIB + (t - BASE) * 1_000)) if t < BASE + 1800 else (t, float((t - BASE - 1800) * 1_000))
                for t in hour
            ],
        )
    text.add("container_network_transmit_bytes_total", {"namespace": "team", "pod": "a", "interface": "lo"},
             [(t, float((t - BASE + 600) * 10**9)) for t in hour])  # fmt: skip
    blocks([text.write(tmp_path / "hour.om")], tmp_path / "tsdb")
    with prometheus(tmp_path / "tsdb") as url:
        reading, adapter = read(url)
        off, _ = read(url, resources=False)
    assert adapter.resource_requests <= 8
    assert off.resources == []
    assert len(reading.proof.exchanges) == adapter.requests
    found = {(item.resource, item.name): item for item in reading.resources}
    assert ("cpu", "job-old") not in found  # finished, though its object still tells its requests
    a, b = found["cpu", "job-a"], found["cpu", "job-b"]
    assert a.requested_ms == 6 * HOUR_MS
    # Raw samples: from −43 s to 1,757 s, the new value at 1,817 s, then to 3,557 s.
    assert a.used_ms == 3_000 * (1_757 + 43 + 17 + 3_557 - 1_817)
    assert abs((b.requested_ms or 0) - HOUR_MS) <= 2 * 60_000
    assert b.used_ms == 7_000 * (1_757 - 17)  # without an earlier sample the first one counts nothing
    assert (a.quantity_ms, b.quantity_ms) == (a.requested_ms, b.used_ms)  # 6 + 3.4 of the node's 10 cores
    assert (a.project, a.capacity_type, a.kind, a.key) == ("ours", "spot", "Job", "uid-a")
    memory = found["memory", "job-a"]
    assert (memory.requested_ms, memory.used_ms, memory.quantity_ms) == (4 * HOUR_MS, 6 * HOUR_MS, 6 * HOUR_MS)
    assert found["memory", "job-b"].used_ms is None  # nothing tells: unknown, not zero
    disk = found["storage", "data"]
    assert (disk.quantity_ms, disk.used_ms, disk.kind) == (100 * HOUR_MS, 25 * HOUR_MS, "PersistentVolumeClaim")
    sent = found["egress", "job-a"].quantity_ms
    # 17 s past the minute: the last sample before the hour is at −43 s, the last one within at 3,557 s.
    raw = (1757 + 43) * 1_000 + 17 * 1_000 + (3557 - 1817) * 1_000
    assert sent == egress_ms(raw)
    assert all(item.coverage_permille == 1000 for item in reading.resources)


@pytest.mark.requirement("metering-facts-3.1")
def test_what_a_server_refuses_is_unknown_and_flagged_and_gpus_are_metered() -> None:
    def answer(path: str, parameters: dict[str, str]) -> tuple[int, Any]:
        query = parameters["query"]
        if "container_network" in query:
            return 422, {"status": "error", "error": "query processing would load too many samples into memory"}
        result: list[Any] = []
        if path.endswith("query_range") and "kube_node_status_capacity" in query:
            labels = {"node": "n1", "resource": "nvidia_com_gpu", "what": "capacity"}
            points = range(int(parameters["start"]), int(parameters["end"]) + 1, 60)
            result = [{"metric": labels, "values": [[point, "8"] for point in points]}]
        elif "storage_bytes" in query:
            labels = {"namespace": "team", "persistentvolumeclaim": "data", "what": "provisioned"}
            result = [{"metric": labels, "value": [BASE, str(60 * GIB)]}]
        return 200, {"status": "success", "data": {"resultType": "vector", "result": result}}

    with serving(answer) as url:
        reading, _ = read(url, timeout_seconds=5)
    assert reading.hours[H].flags == ("resources_unknown",)
    assert [(item.resource, item.quantity_ms) for item in reading.resources] == [("storage", HOUR_MS)]
