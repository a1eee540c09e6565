"""A real Prometheus server: the Philly fixture to its truth, and every known trap with a few series."""

from __future__ import annotations

import gzip
import json
import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from apps.metering import engine, rows
from apps.metering.context import ClusterContext
from apps.metering.engine import HOUR_MS, Share
from apps.metering.sources.base import Reading, ms
from apps.metering.sources.prometheus import PrometheusAdapter
from tests.metering.prom import Text, blocks, needs_prometheus, prometheus
from tests.metering.world import utc

pytestmark = [needs_prometheus, pytest.mark.prometheus]

FIXTURE = Path(__file__).resolve().parents[3] / "shared" / "data" / "philly"
HOUR = timedelta(hours=1)
START = utc(2026, 3, 3, 10)
BASE = ms(START) // 1000
STEP = 60
OFFSET = 17


def read(url: str, start: datetime, hours: int = 1, **options: Any) -> tuple[Reading, PrometheusAdapter]:
    adapter = PrometheusAdapter(url, options=options)
    try:
        reading = Reading()
        for number in range(hours):
            part = adapter.read(start + number * HOUR, start + (number + 1) * HOUR)
            reading.holdings += part.holdings
            reading.nodes += part.nodes
            reading.hours |= part.hours
            reading.proof = part.proof
        return reading, adapter
    finally:
        adapter.close()


# ---------------------------------------------------------------- the fixture


@pytest.mark.requirement("metering-3.1", "metering-1.2", "metering-1.4", "metering-3.3")
@pytest.mark.skipif(not FIXTURE.is_dir(), reason="the Philly fixture lies outside the repository and is not here")
def test_philly_day_to_its_truth(tmp_path: Path) -> None:
    truth = json.loads((FIXTURE / "fixture_1d.truth.json").read_text())
    texts = []
    for packed in sorted((FIXTURE / "fixture").glob("*.om.gz")):
        text = tmp_path / packed.stem
        with gzip.open(packed) as source, text.open("wb") as target:
            shutil.copyfileobj(source, target)
        texts.append(text)
    blocks(texts, tmp_path / "tsdb")
    with prometheus(tmp_path / "tsdb", lookback="300s") as url:
        reading, adapter = read(url, utc(2026, 3, 3), 24)
    assert adapter.requests - adapter.resource_requests <= 8 * 24
    assert adapter.resource_requests <= 8 * 24
    found: dict[str, int] = {}
    used: dict[str, list[int]] = {}
    for facts in engine.hour_quantities(reading.holdings, {}).values():
        for fact in facts:
            namespace = fact.holding.namespace
            found[namespace] = found.get(namespace, 0) + fact.gpu_ms
            if fact.used_gpu_ms is not None and fact.coverage_permille:
                sums = used.setdefault(namespace, [0, 0])
                sums[0] += fact.used_gpu_ms
                sums[1] += fact.gpu_ms * fact.coverage_permille // 1000
    assert found.keys() == truth["gpu_hours"].keys()
    for namespace, hours in truth["gpu_hours"].items():
        # Sampling every 300 s alone would miss by up to 2.2 GPU-hours here; start and completion times close the gap.
        # What is left are jobs around the day's end, whose completion no scrape of the fixture saw.
        assert abs(found[namespace] / HOUR_MS - hours) <= 0.03, (namespace, found[namespace] / HOUR_MS, hours)
    for namespace, mean in truth["mean_gpu_util_of_allocated_samples"].items():
        ratio = 100 * used[namespace][0] / used[namespace][1]
        # The fixture's engine activity is 0.94 of its utilisation, and engine activity is the better measure.
        assert abs(ratio - 0.94 * mean) <= 1, (namespace, ratio, mean)
    context = ClusterContext(1)
    lines = rows.build_hours(context, reading)
    assert len(lines) == 24
    assert {flag for hour in lines.values() for flag in hour.flags} <= {"source_gap"}


# ---------------------------------------------------------------- traps


def times(first: int, last: int, *, step: int = STEP) -> list[int]:
    """Scrape times every step from `first` to `last`, in seconds after the hour's start, 17 s past the minute.

    Off the queries' grid: backfilled samples have no staleness marker, and one exactly a lookback old still counts on a
    server with closed ranges.
    """
    return [BASE + second + OFFSET for second in range(first, last + 1, step)]


def constant(value: float, first: int = 0, last: int = 3900) -> list[tuple[int, float]]:
    return [(at, value) for at in times(first, last)]


class Cluster(Text):
    """Writes the series of pods and nodes as kube-state-metrics and dcgm-exporter do."""

    def node(
        self,
        name: str = "n1",
        gpus: int = 8,
        *,
        model: str = "NVIDIA-A100",
        resource: str = "nvidia_com_gpu",
        last: int = 3900,
        **labels: str,
    ) -> None:
        for metric in ("kube_node_status_capacity", "kube_node_status_allocatable"):
            self.add(metric, {"node": name, "resource": resource, "unit": "integer"}, constant(gpus, 0, last))
        self.add("kube_node_labels", {"node": name, "label_nvidia_com_gpu_product": model, **labels}, constant(1))

    def pod(
        self, name: str, gpus: int, *, held: tuple[int, int], phase: str = "Running", node: str = "n1",
        uid: str = "", resource: str = "nvidia_com_gpu", after: str = "", linger: int = 0,
        start: float | None = None, completion: float | None = None, instance: str = "a",
        gap: tuple[int, int] | None = None,
    ) -> None:  # fmt: skip
        """A pod in `phase` from `held[0]` until before `held[1]`, then in phase `after` for `linger` seconds."""
        own = {"namespace": "team", "pod": name, "uid": uid or f"uid-{name}", "instance": instance}
        first, last = held
        seen = [at for at in times(first, last - STEP) if gap is None or not gap[0] < at - BASE - OFFSET < gap[1]]
        later = times(last, last + linger) if linger else []
        request = {**own, "container": "main", "resource": resource, "unit": "integer"}
        self.add(
            "kube_pod_container_resource_requests",
            {**request, **({"node": node} if node else {})},
            [(at, gpus) for at in [*seen, *later]],
        )
        self.add("kube_pod_status_phase", {**own, "phase": phase}, [(a, 1) for a in seen] + [(a, 0) for a in later])
        if after:
            self.add("kube_pod_status_phase", {**own, "phase": after}, [(a, 0) for a in seen] + [(a, 1) for a in later])
        for metric, value, when in (
            ("kube_pod_start_time", start, [*seen, *later]),
            ("kube_pod_completion_time", completion, later),
        ):
            if value is not None:
                self.add(metric, own, [(at, BASE + value) for at in when])

    def dcgm(self, metric: str, labels: dict[str, str], samples: list[tuple[int, float]], uuid: str = "GPU-1") -> None:
        self.add(metric, {"UUID": uuid, "gpu": "0", "device": "nvidia0", **labels}, samples)


def owner(pod: str, *, exported: bool) -> dict[str, str]:
    mark = "exported_" if exported else ""
    found = {f"{mark}namespace": "team", f"{mark}pod": pod, f"{mark}container": "main"}
    if exported:
        found |= {"namespace": "gpu-operator", "pod": "dcgm-exporter-x", "container": "exporter"}
    return found


@pytest.fixture(scope="module")
def traps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, engine.HourQuantity]:
    """One hour with one pod per trap, read once; facts by pod name."""
    text = Cluster()
    text.node()
    text.add("kube_node_spec_unschedulable", {"node": "n1"}, constant(0))
    text.pod("whole-hour", 4, held=(0, 3900))
    text.pod("unscheduled", 8, held=(0, 3900), phase="Pending", node="")
    text.pod("image-pull", 1, held=(600, 1200), phase="Pending")
    text.pod("finished", 2, held=(0, 1800), after="Succeeded", linger=1800)
    text.pod("failed", 2, held=(0, 600), after="Failed", linger=3000)
    text.pod("timed", 2, held=(0, 1800), after="Succeeded", linger=900, start=-7200, completion=1795.0)
    text.pod("replicas", 2, held=(0, 3900), instance="a")
    text.pod("replicas", 2, held=(0, 3900), instance="b")
    text.pod("same-name", 1, held=(0, 1200), uid="uid-old", after="Succeeded", linger=2400)
    text.pod("same-name", 1, held=(1800, 3900), uid="uid-new")
    text.pod("short-gap", 1, held=(0, 3900), gap=(600, 840))
    text.pod("long-gap", 1, held=(0, 3900), gap=(600, 1200))
    text.pod("mig", 1, held=(0, 3900), resource="nvidia_com_mig_3g_40gb", node="n2")
    text.node(
        "n2",
        2,
        resource="nvidia_com_mig_3g_40gb",
        label_nvidia_com_mig_strategy="mixed",
        label_nvidia_com_gpu_count="1",
    )
    text.pod("amd", 1, held=(0, 3900), resource="amd_com_gpu", node="n3")
    text.node("n3", 4, model="MI300X", resource="amd_com_gpu")
    text.pod("cpu-only", 8, held=(0, 3900), resource="cpu")
    # A pod that no scrape saw running: only its object, finished, with its times.
    own = {"namespace": "team", "pod": "never-seen", "uid": "uid-never"}
    request = {**own, "container": "main", "resource": "nvidia_com_gpu", "unit": "integer", "node": "n1"}
    text.add("kube_pod_container_resource_requests", request, constant(1, 660, 1500))
    text.add("kube_pod_status_phase", {**own, "phase": "Succeeded"}, constant(1, 660, 1500))
    text.add("kube_pod_start_time", own, constant(BASE + 610, 660, 1500))
    text.add("kube_pod_completion_time", own, constant(BASE + 650, 660, 1500))
    # Use: the workload in exported_* labels; blanks; several devices; a better measure beside a coarser one.
    text.dcgm("DCGM_FI_DEV_GPU_UTIL", owner("whole-hour", exported=True), constant(50), uuid="GPU-1")
    text.dcgm("DCGM_FI_DEV_GPU_UTIL", owner("whole-hour", exported=True), constant(100), uuid="GPU-2")
    text.dcgm("DCGM_FI_DEV_GPU_UTIL", owner("replicas", exported=False), constant(30), uuid="GPU-3")
    text.dcgm(
        "DCGM_FI_DEV_GPU_UTIL", {**owner("replicas", exported=False), "instance": "b"}, constant(30), uuid="GPU-3"
    )
    text.dcgm("DCGM_FI_PROF_GR_ENGINE_ACTIVE", owner("replicas", exported=False), constant(0.2), uuid="GPU-3")
    text.dcgm("DCGM_FI_DEV_GPU_UTIL", owner("image-pull", exported=True), constant(9223372036854775794), uuid="GPU-4")
    text.dcgm("DCGM_FI_DEV_GPU_UTIL", owner("timed", exported=True), constant(2147483632), uuid="GPU-5")
    text.dcgm(
        "DCGM_FI_DEV_GPU_UTIL",
        {"namespace": "gpu-operator", "pod": "dcgm-exporter-x", "container": "exporter"},
        constant(77),
        uuid="GPU-6",
    )
    directory = tmp_path_factory.mktemp("traps")
    blocks([text.write(directory / "traps.om")], directory / "tsdb")
    with prometheus(directory / "tsdb") as url:
        reading, adapter = read(url, START)
    assert adapter.requests - adapter.resource_requests <= 8
    assert reading.hours[ms(START)].coverage_permille == 1000
    traps_reading.clear()
    traps_reading.append(reading)
    found: dict[str, engine.HourQuantity] = {}
    for fact in engine.hour_quantities(reading.holdings, {})[ms(START)]:
        key = fact.holding.pod if fact.holding.pod != "same-name" else fact.holding.key
        assert key not in found
        found[key] = fact
    return found


traps_reading: list[Reading] = []


@pytest.mark.requirement("metering-1.2")
def test_phase_gate(traps: dict[str, engine.HourQuantity]) -> None:
    assert traps["whole-hour"].unit_ms == 4 * HOUR_MS
    assert "unscheduled" not in traps  # Pending without a node holds nothing, though its request is exported
    assert traps["image-pull"].unit_ms == 10 * 60_000  # Pending with a node holds its GPU
    assert traps["finished"].unit_ms == 2 * 1_800_000  # the listed but finished object holds nothing
    assert traps["failed"].unit_ms == 2 * 600_000
    assert "cpu-only" not in traps


@pytest.mark.requirement("metering-1.4")
def test_exact_times(traps: dict[str, engine.HourQuantity]) -> None:
    assert traps["timed"].unit_ms == 2 * 1_795_000
    assert traps["never-seen"].unit_ms == 40_000
    assert "times_only" in traps["never-seen"].flags


@pytest.mark.requirement("metering-3.2")
def test_replicas_count_once_and_names_do_not_identify(traps: dict[str, engine.HourQuantity]) -> None:
    assert traps["replicas"].unit_ms == 2 * HOUR_MS
    assert (traps["uid-old"].unit_ms, traps["uid-new"].unit_ms) == (1_200_000, HOUR_MS - 1_800_000)


@pytest.mark.requirement("metering-1.3")
def test_gaps(traps: dict[str, engine.HourQuantity]) -> None:
    assert traps["short-gap"].unit_ms == HOUR_MS
    assert "bridged" in traps["short-gap"].flags
    assert traps["long-gap"].unit_ms == HOUR_MS - 9 * 60_000
    assert "bridged" not in traps["long-gap"].flags


@pytest.mark.requirement("metering-3.3", "metering-1.5")
def test_use_is_attributed_through_either_labels_and_blanks_are_unknown(traps: dict[str, engine.HourQuantity]) -> None:
    whole = traps["whole-hour"]
    # Two of four devices tell: mean 75 %, half of the coverage.
    assert (whole.used_source, whole.coverage_permille) == ("gpu_util", 500)
    assert whole.used_gpu_ms == 4 * HOUR_MS * 75 // 200
    plain = traps["replicas"]
    assert plain.used_source == "engine_active"
    assert plain.used_gpu_ms == plain.gpu_ms * 200_000 * plain.coverage_permille // 1_000_000_000
    for name in ("image-pull", "timed", "failed"):
        assert traps[name].used_gpu_ms is None


@pytest.mark.requirement("metering-1.6", "metering-1.7")
def test_mig_and_other_vendors(traps: dict[str, engine.HourQuantity]) -> None:
    assert traps["mig"].gpu_ms == HOUR_MS * 3 // 7
    assert traps["mig"].holding.gpu_model == "NVIDIA-A100"
    assert traps["amd"].gpu_ms == HOUR_MS
    mig = next(node for node in traps_reading[0].nodes if node.node == "n2")
    assert (engine.unit_ms(mig.spans), mig.stranded) == (HOUR_MS, (1, 7))  # 3g + 3g on one device strand a seventh
    assert engine.default_share("nvidia_com_mig_3g_40gb", "NVIDIA-A100") == Share(3, 7)


@pytest.mark.requirement("metering-1.3", "metering-1.5")
def test_an_outage_of_kube_state_metrics_is_not_idle_time(tmp_path: Path) -> None:
    text = Cluster()
    for metric in ("kube_node_status_capacity", "kube_node_status_allocatable"):
        samples = [(at, 8.0) for at in times(0, 3900) if not 1200 < at - BASE - OFFSET <= 1920]
        text.add(metric, {"node": "n1", "resource": "nvidia_com_gpu", "unit": "integer"}, samples)
    text.add("kube_node_labels", {"node": "n1", "label_nvidia_com_gpu_product": "NVIDIA-A100"}, constant(1))
    text.pod("steady", 4, held=(0, 3900), gap=(1200, 1980), start=-7200)
    blocks([text.write(tmp_path / "outage.om")], tmp_path / "tsdb")
    with prometheus(tmp_path / "tsdb") as url:
        reading, _ = read(url, START)
        later, _ = read(url, START + 6 * HOUR)
    fact = engine.hour_quantities(reading.holdings, {})[ms(START)][0]
    assert fact.unit_ms == 4 * HOUR_MS
    assert "bridged" in fact.flags
    cover = reading.hours[ms(START)]
    assert cover.coverage_permille < 1000
    assert cover.flags == ("source_gap",)
    assert engine.unit_ms(reading.nodes[0].spans) == 8 * HOUR_MS
    assert later.hours == {}  # an hour without any data is missing, not empty


@pytest.mark.requirement("metering-1.7")
def test_cordoned_node_is_maintenance(tmp_path: Path) -> None:
    text = Cluster()
    text.node("n1", 8)
    text.add("kube_node_spec_unschedulable", {"node": "n1"}, [(at, float(at - BASE >= 1800)) for at in times(0, 3900)])
    text.pod("draining", 2, held=(0, 3900))
    blocks([text.write(tmp_path / "cordon.om")], tmp_path / "tsdb")
    with prometheus(tmp_path / "tsdb") as url:
        reading, _ = read(url, START)
    context = ClusterContext(1)
    hour = rows.build_hours(context, reading)[ms(START)]
    lines = {line.split("\t")[12]: int(line.split("\t")[14]) for line in hour.lines}
    assert lines["physical"] == 8 * HOUR_MS
    # Closed for 30 minutes: 8 × 30 min, less what a pod held on the node.
    assert lines["maintenance"] == 8 * 1_800_000 - 2 * HOUR_MS
    assert sum(lines.values()) == 2 * lines["physical"]
