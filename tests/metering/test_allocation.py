"""The allocation API as a source: quantities from count and minutes, shared GPUs refused, empty steps told apart."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from apps.metering import engine
from apps.metering.sources.allocation import AllocationAdapter
from apps.metering.sources.base import SourceError, SourceRefused, ms
from tests.metering.server import serving
from tests.metering.world import utc

START = utc(2026, 8, 12, 13)
HOUR = timedelta(hours=1)


def row(
    pod: str = "train-0", *, minutes: float = 60, gpus: float = 4, start: str = "2026-08-12T13:00:00Z", **extra: Any
) -> Any:
    """One container as OpenCost serves it (reference cost C1), shortened; unknown keys stay in."""
    return {
        "name": f"dc1/gpu-01/nlp/{pod}/main",
        "properties": {
            "cluster": "dc1", "node": "gpu-01", "container": "main", "controller": "llama-ft", "controllerKind": "job",
            "namespace": "nlp", "pod": pod, "labels": {"app": "x"},
        },
        "start": start, "minutes": minutes, "gpuCount": gpus, "gpuHours": gpus * minutes / 60, "gpuCost": 13.6,
        "gpuEfficiency": 0.155, "neverHeardOf": {"a": 1},
        "gpuAllocation": {"gpuModel": "NVIDIA H100 80GB HBM3", "isGPUShared": False, "gpuUsageAverage": 0.62},
        **extra,
    }  # fmt: skip


NODE = {
    "type": "Node", "properties": {"name": "gpu-01", "cluster": "dc1"}, "gpuCount": 8, "minutes": 1440,
    "labels": {"nvidia_com_gpu_product": "NVIDIA-H100-80GB-HBM3"}, "start": "2026-08-12T00:00:00Z", "GPUHours": 192,
}  # fmt: skip
DISK = {"type": "Disk", "byteHours": 1, "minutes": 60, "start": "2026-08-12T00:00:00Z"}


def read(steps: Any, assets: Any = None, *, hours: int = 1, **options: Any) -> Any:
    asked: list[tuple[str, dict[str, str]]] = []

    def answer(path: str, parameters: dict[str, str]) -> tuple[int, Any]:
        asked.append((path, parameters))
        data = steps if path.endswith("allocation") else ({"n": NODE, "d": DISK} if assets is None else assets)
        return 200, {"code": 200, "status": "success", "data": data}

    with serving(answer) as url:
        adapter = AllocationAdapter(url, options=options)
        try:
            reading = adapter.read(START, START + hours * HOUR)
        finally:
            adapter.close()
    return reading, asked


@pytest.mark.requirement("metering-3.4")
def test_count_and_minutes_make_the_quantity() -> None:
    steps = [
        {"a": row(), "b": row("short", minutes=7.5, gpus=2, start="2026-08-12T13:20:00Z"), "dc1/__idle__": row("idle")}
    ]
    reading, asked = read(steps)
    facts = engine.hour_quantities(reading.holdings, {})[ms(START)]
    assert {fact.holding.pod: fact.gpu_ms for fact in facts} == {"train-0": 14_400_000, "short": 900_000}
    by_pod = {fact.holding.pod: fact for fact in facts}
    # A share of the devices, 0 to 1, never divided by their number (OpenCost's gpuEfficiency is).
    assert by_pod["train-0"].used_gpu_ms == 14_400_000 * 62 // 100
    assert by_pod["train-0"].holding.name == "llama-ft"
    assert by_pod["train-0"].holding.gpu_model == "NVIDIA-H100-80GB-HBM3"
    assert by_pod["short"].holding.key == "nlp/short/main@1200"
    path, parameters = asked[0]
    assert path == "/allocation"
    assert parameters == {
        "window": "2026-08-12T13:00:00Z,2026-08-12T14:00:00Z",
        "step": "1h",
        "accumulate": "false",
    }
    assert len(asked) == 2


@pytest.mark.requirement("metering-3.4")
def test_capacity_comes_from_nodes_only() -> None:
    reading, _ = read([{}], hours=1)
    assert [(node.node, node.gpu_model) for node in reading.nodes] == [("gpu-01", "NVIDIA-H100-80GB-HBM3")]
    assert engine.unit_ms(engine.clip(reading.nodes[0].spans, ms(START), ms(START + HOUR))) == 8 * 3_600_000


@pytest.mark.requirement("metering-3.4", "metering-1.5")
@pytest.mark.parametrize(("steps", "covered"), [([{"a": row()}, None, {}], 3), ([{"a": row()}], 1), ([], 0)])
def test_empty_steps_count_as_idle_where_nodes_are_known(steps: Any, covered: int) -> None:
    assert len(read(steps, hours=3)[0].hours) == covered


@pytest.mark.requirement("metering-3.4", "metering-1.5")
def test_empty_step_without_nodes_is_missing() -> None:
    reading, _ = read([{"a": row()}, {}, None], assets={}, hours=3)
    assert sorted(reading.hours) == [ms(START)]


@pytest.mark.requirement("metering-3.4")
def test_shared_gpus_are_refused_with_the_reason() -> None:
    shared = row()
    shared["gpuAllocation"]["isGPUShared"] = True
    with pytest.raises(SourceRefused, match="shared GPU"):
        read([{"a": shared}])


@pytest.mark.requirement("metering-1.5", "metering-3.4")
def test_missing_and_absurd_use_is_unknown() -> None:
    for details in (None, {}, {"gpuUsageAverage": None}, {"gpuUsageAverage": 9.2e18}):
        reading, _ = read([{"a": row(gpuAllocation=details)}])
        assert engine.hour_quantities(reading.holdings, {})[ms(START)][0].used_gpu_ms is None


@pytest.mark.requirement("metering-3.4")
def test_older_schema_without_properties_and_with_average_counts() -> None:
    old = {"name": "x", "start": "2026-08-12T13:00:00Z", "minutes": 60, "gpuCount": 1.5, "gpuHours": 1.5}
    reading, _ = read([{"dc1/n/ns/pod/c": old, "cpu-only": {"gpuCount": 0, "gpuHours": 0, "minutes": 60}}])
    facts = engine.hour_quantities(reading.holdings, {})[ms(START)]
    assert [(f.holding.namespace, f.holding.pod, f.gpu_ms) for f in facts] == [("ns", "pod", 5_400_000)]


def test_several_clusters_behind_one_server_are_kept_apart() -> None:
    foreign = row("foreign")
    foreign["properties"]["cluster"] = "dc2"
    reading, _ = read([{"a": row(), "b": foreign}], clusters=["dc1"])
    assert [holding.pod for holding in reading.holdings] == ["train-0"]


@pytest.mark.requirement("metering-2.4")
@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"code":500,"message":"ETL not ready"}'])
def test_bad_answers_are_errors_not_zero(body: bytes) -> None:
    with serving(lambda path, parameters: (200, body)) as url:
        adapter = AllocationAdapter(url)
        with pytest.raises(SourceError):
            adapter.read(START, START + HOUR)
        adapter.close()
