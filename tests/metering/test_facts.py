"""What facts carry besides quantities: labels, class, capacity type, memory; shares that nodes and exporters tell."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from apps.core import clock
from apps.core.actor import Actor
from apps.metering import actions, engine, rows
from apps.metering.context import ClusterContext
from apps.metering.engine import HOUR_MS
from apps.metering.models import HourFact, WorkspaceClass
from apps.metering.sources import labels
from apps.metering.sources.base import HourCover, Reading, gpu_resources, ms
from apps.metering.sources.gpunodes import Node, node_readings
from apps.metering.sources.prometheus import PrometheusAdapter
from apps.metering.sources.promql import Queries
from tests.metering.prom import Text, blocks, needs_prometheus, prometheus
from tests.metering.world import FakeAdapter, World, hold, utc

HOUR = timedelta(hours=1)
START = utc(2026, 3, 3, 10)
H = ms(START)
BASE = H // 1000
SYSTEM = Actor.system("test")
RELEASE = "0f6a2f0e-6f0f-4b0e-9d2b-0a4f5a3e1c11"


@pytest.fixture(autouse=True)
def _now() -> Iterator[None]:
    with clock.frozen(START + 30 * HOUR):
        yield


# ---------------------------------------------------------------- labels


@pytest.mark.requirement("metering-facts-2.3")
@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"label_gpu_commons_capacity_type": "reserved", "label_karpenter_sh_capacity_type": "spot"}, "reserved"),
        ({"label_gpu_commons_capacity_type": "on-demand"}, "on_demand"),
        ({"label_karpenter_sh_capacity_type": "on-demand"}, "on_demand"),
        ({"label_karpenter_sh_capacity_type": "spot"}, "spot"),
        ({"label_eks_amazonaws_com_capacity_type": "ON_DEMAND"}, "on_demand"),
        ({"label_eks_amazonaws_com_capacityType": "SPOT"}, "spot"),
        ({"label_eks_amazonaws_com_capacity_type": "CAPACITY_BLOCK"}, "reserved"),
        ({"label_cloud_google_com_gke_spot": "true"}, "spot"),
        ({"label_cloud_google_com_gke_spot": "false"}, ""),
        ({"label_kubernetes_azure_com_scalesetpriority": "regular"}, "on_demand"),
        ({"label_gpu_commons_capacity_type": "bare metal"}, ""),
        ({}, ""),
    ],
)
def test_capacity_type_of_a_node(found: dict[str, str], expected: str) -> None:
    assert labels.capacity_type(found) == expected


@pytest.mark.requirement("metering-facts-2.1")
def test_own_labels_win_and_a_release_is_a_uid() -> None:
    both = {"label_gpu_commons_project": "ours", "label_project": "theirs", "label_purpose": "train"}
    assert labels.first(both, labels.PROJECT) == "ours"
    assert labels.first(both, labels.PURPOSE) == "train"
    assert labels.release({"label_gpu_commons_release": RELEASE}) == RELEASE
    assert labels.release({"label_gpu_commons_release": "v1.2"}) is None


# ---------------------------------------------------------------- rows


def ingest(world: World, *found: Any, hours: int = 1) -> None:
    actions.ingest_hours(world.source.pk, START, START + hours * HOUR, actor=SYSTEM, adapter=FakeAdapter(list(found)))


@pytest.mark.requirement("metering-facts-2.1", "metering-facts-2.3", "metering-facts-2.4")
def test_facts_carry_what_was_told_and_a_change_is_another_content(world: World) -> None:
    extra: dict[str, Any] = {"project": "fraud", "purpose": "training", "release_uid": RELEASE}
    extra |= {"capacity_type": "spot", "memory": {H: 71_000}}
    ingest(world, hold("train", "finance-prod", START, START + HOUR, **extra))
    fact = HourFact.objects.get()
    assert (fact.project, fact.purpose, str(fact.release_uid)) == ("fraud", "training", RELEASE)
    assert (fact.capacity_type, fact.gpu_memory_mib, fact.service_class) == ("spot", 71_000, "")
    for number, change in enumerate(({"project": "other"}, {"release_uid": None}, {"memory": None}), start=2):
        ingest(world, hold("train", "finance-prod", START, START + HOUR, **(extra | change)))
        assert HourFact.objects.get().revision == number
    assert HourFact.objects.get().gpu_memory_mib is None


@pytest.mark.requirement("metering-facts-2.2")
def test_the_service_class_is_that_of_the_hour(world: World) -> None:
    WorkspaceClass.objects.create(
        workspace=world.workspaces["finance"],
        service_class="compliance",
        valid=DateTimeTZRange(START + HOUR, START + 3 * HOUR, "[)"),
    )
    pods = [hold(name, name, START, START + 4 * HOUR) for name in ("finance-prod", "research-prod")]
    ingest(world, *pods, hours=4)
    found = HourFact.objects.filter(namespace="finance-prod").order_by("hour")
    assert list(found.values_list("service_class", flat=True)) == ["", "compliance", "compliance", ""]
    assert set(HourFact.objects.filter(namespace="research-prod").values_list("service_class", flat=True)) == {""}


# ---------------------------------------------------------------- a real server


def read(directory: Path, text: Text) -> Reading:
    blocks([text.write(directory / "hour.om")], directory / "tsdb")
    with prometheus(directory / "tsdb") as url:
        adapter = PrometheusAdapter(url, options={})
        try:
            reading = adapter.read(START, START + HOUR)
        finally:
            adapter.close()
    assert adapter.requests - adapter.resource_requests <= 8
    return reading


TIMES = [BASE + second + 17 for second in range(-600, 4200, 60)]


def always(value: float) -> list[tuple[int, float]]:
    return [(at, value) for at in TIMES]


class Hour(Text):
    """Writes whole hours of pods and nodes."""

    def node(self, name: str, resources: dict[str, int], **said: str) -> None:
        for resource, units in resources.items():
            self.add(
                "kube_node_status_capacity", {"node": name, "resource": resource, "unit": "integer"}, always(units)
            )
        self.add(
            "kube_node_labels", {"node": name, **{f"label_{key}": value for key, value in said.items()}}, always(1)
        )

    def pod(self, name: str, node: str, requests: dict[str, int], **said: str) -> None:
        own = {"namespace": "team", "pod": name, "uid": f"uid-{name}"}
        for resource, units in requests.items():
            given = {**own, "container": "main", "node": node, "resource": resource, "unit": "integer"}
            self.add("kube_pod_container_resource_requests", given, always(units))
        self.add("kube_pod_status_phase", {**own, "phase": "Running"}, always(1))
        self.add("kube_pod_info", {**own, "node": node, "created_by_kind": "Job", "created_by_name": name}, always(1))
        if said:
            self.add("kube_pod_labels", {**own, **{f"label_{key}": value for key, value in said.items()}}, always(1))

    def device(self, metric: str, uuid: str, pod: str, value: float, **extra: str) -> None:
        series = {
            "UUID": uuid,
            "exported_namespace": "team",
            "exported_pod": pod,
            "exported_container": "main",
            **extra,
        }
        self.add(metric, series, always(value))


def facts_of(reading: Reading) -> dict[str, engine.HourQuantity]:
    return {fact.holding.pod: fact for fact in engine.hour_quantities(reading.holdings, {})[H]}


@pytest.mark.prometheus
@needs_prometheus
@pytest.mark.requirement("metering-facts-2.1", "metering-facts-2.3", "metering-facts-2.4", "metering-facts-4.3")
def test_labels_memory_replicas_vendors_and_cores(tmp_path: Path) -> None:
    text = Hour()
    text.node("n1", {"nvidia_com_gpu": 8}, nvidia_com_gpu_product="A100", cloud_google_com_gke_spot="true")
    said = {"gpu_commons_project": "fraud", "project": "x", "purpose": "train", "gpu_commons_release": RELEASE}
    text.pod("whole", "n1", {"nvidia_com_gpu": 2}, **said)
    for number in (1, 2):
        text.device("DCGM_FI_DEV_FB_USED", f"GPU-{number}", "whole", 30_000 + number)
        text.device("DCGM_FI_PROF_GR_ENGINE_ACTIVE", f"GPU-{number}", "whole", 0.5)
    text.device("DCGM_FI_DEV_FB_USED", "GPU-3", "blank", 9_223_372_036_854_775_794)
    text.pod("blank", "n1", {"nvidia_com_gpu": 1})
    # Four replicas of each of two devices, five held.
    text.node("n2", {"nvidia_com_gpu": 8}, nvidia_com_gpu_product="L4-SHARED", nvidia_com_gpu_replicas="4")
    for number in range(5):
        text.pod(f"sliced-{number}", "n2", {"nvidia_com_gpu": 1})
    text.node("n3", {"amd_com_gpu": 4}, amd_com_gpu_product_name="MI300X")
    text.pod("amd", "n3", {"amd_com_gpu": 1})
    text.node("n4", {"gpu_intel_com_i915": 2}, gpu_intel_com_product="Max 1550")
    text.pod("intel", "n4", {"gpu_intel_com_i915": 2})
    # The newer driver, beside what its plug-in advertises of the same devices.
    xe = {"gpu_intel_com_xe": 4, "gpu_intel_com_xe_monitoring": 1, "gpu_intel_com_millicores": 4000}
    text.node("n6", xe, gpu_intel_com_family="Max_Series")
    text.pod("intel-xe", "n6", {"gpu_intel_com_xe": 1, "gpu_intel_com_millicores": 500})
    # MPS as GPU feature discovery labels it: ten parts of each of two devices, under the plain name and renamed.
    for node, resource in (("n7", "nvidia_com_gpu"), ("n8", "nvidia_com_gpu_shared")):
        mps = {"nvidia_com_gpu_sharing_strategy": "mps", "nvidia_com_mps_capable": "true"}
        text.node(
            node, {resource: 20}, nvidia_com_gpu_product="A10-SHARED", nvidia_com_gpu_count="2",
            nvidia_com_gpu_replicas="10", **mps,
        )  # fmt: skip
        for number in range(3):
            text.pod(f"{node}-{number}", node, {resource: 1})
    # HAMi: ten virtual GPUs for each of two devices; 30 per cent of the compute of two of them.
    text.node("n5", {"nvidia_com_gpu": 20}, nvidia_com_gpu_product="T4", nvidia_com_gpu_count="2")
    text.pod("hami", "n5", {"nvidia_com_gpu": 2, "nvidia_com_gpucores": 30})
    reading = read(tmp_path, text)
    found = facts_of(reading)
    whole = found["whole"].holding
    assert (whole.project, whole.purpose, whole.release_uid) == ("fraud", "train", RELEASE)
    assert (whole.capacity_type, whole.memory_mib(H)) == ("spot", 60_003)
    assert (found["blank"].holding.memory, found["blank"].holding.project) == (None, "")
    sliced = [found[f"sliced-{number}"] for number in range(5)]
    assert sum(fact.gpu_ms for fact in sliced) == 5 * HOUR_MS // 4
    assert (found["amd"].gpu_ms, found["amd"].holding.gpu_model) == (HOUR_MS, "MI300X")
    assert (found["intel"].gpu_ms, found["intel"].holding.gpu_model) == (2 * HOUR_MS, "Max-1550")
    assert (found["hami"].gpu_ms, found["hami"].holding.resource) == (HOUR_MS * 60 // 100, "nvidia_com_gpucores")
    assert (found["intel-xe"].gpu_ms, found["intel-xe"].holding.gpu_model) == (HOUR_MS, "Max_Series")
    for node in ("n7", "n8"):
        assert sum(found[f"{node}-{number}"].gpu_ms for number in range(3)) == 3 * HOUR_MS // 10
    physical = {node.node: engine.unit_ms(node.spans) // HOUR_MS for node in reading.nodes}
    assert physical == {"n1": 8, "n2": 2, "n3": 4, "n4": 2, "n5": 2, "n6": 4, "n7": 2, "n8": 2}
    built = rows.build_hours(ClusterContext(1), reading)[H]
    assert "capacity_short" not in built.flags
    by_kind: dict[tuple[str, str], int] = {}
    for line in built.lines:
        cells = line.split("\t")
        by_kind[(cells[11], cells[12])] = int(cells[14])
    # Empty replicas are unsold, on the line of the model without the mark of sharing.
    assert by_kind["L4", "unattributed"] == 5 * HOUR_MS // 4
    assert by_kind["L4", "unsold"] == 2 * HOUR_MS - 5 * HOUR_MS // 4
    assert by_kind["A10", "unattributed"] == 6 * HOUR_MS // 10
    assert by_kind["A10", "unsold"] == 4 * HOUR_MS - 6 * HOUR_MS // 10


@pytest.mark.requirement("metering-facts-4.3")
@pytest.mark.parametrize("resource", ["nvidia_com_gpu", "nvidia_com_gpu_shared"])
@pytest.mark.parametrize(("replicas", "held", "tenths"), [(10, 3, 3), (7, 7, 10), (1, 2, 20)])
def test_mps_by_configured_replicas(resource: str, replicas: int, held: int, tenths: int) -> None:
    """Under MPS a unit is one of the configured replicas; free ones stay unsold, and co-tenants pay none of them."""
    gpu_ms = tenths * HOUR_MS // 10
    node = Node(
        model=labels.gpu_model({"label_nvidia_com_gpu_product": "A10-SHARED"}),
        count=2,
        replicas=labels.number({"label_nvidia_com_gpu_replicas": str(replicas)}, labels.REPLICAS),
        capacity={resource: [(H + minute * 60_000, 2 * replicas) for minute in range(1, 61)]},
    )
    [told] = node_readings({"n1": node}, 60_000, ())
    pods = [
        hold(f"pod-{number}", "finance-prod", START, START + HOUR, 1, resource=resource, gpu_model=node.model,
             replicas=node.cut, node="n1")
        for number in range(held)
    ]  # fmt: skip
    reading = Reading(holdings=pods, nodes=[told], hours={H: HourCover(1000)})
    facts = engine.hour_quantities(pods, ClusterContext(1).share_of)[H]
    assert sum(fact.gpu_ms for fact in facts) == gpu_ms
    assert max(fact.gpu_ms for fact in facts) - min(fact.gpu_ms for fact in facts) <= 1
    built = rows.build_hours(ClusterContext(1), reading)[H]
    lines = {cells[12]: int(cells[14]) for cells in (line.split("\t") for line in built.lines)}
    assert lines == {
        kind: value
        for kind, value in (("physical", 2 * HOUR_MS), ("unattributed", gpu_ms), ("unsold", 2 * HOUR_MS - gpu_ms))
        if value
    }


@pytest.mark.requirement("metering-facts-4.3")
def test_intel_devices_are_counted_once() -> None:
    """Of what Intel's plug-ins advertise the devices of either driver are GPUs; their parts and monitors are none."""
    told = Queries(tuple(gpu_resources({}))).requests()
    pattern = re.search(r'resource=~"([^"]*)"', told)
    assert pattern is not None
    names = re.compile(pattern[1].replace("\\\\", "\\"))
    for name in ("gpu_intel_com_xe", "gpu_intel_com_i915", "nvidia_com_gpu_shared", "nvidia_com_mig_1g_10gb"):
        assert names.fullmatch(name), name
    for name in ("xe_monitoring", "i915_monitoring", "millicores", "memory_max", "tiles"):
        assert not names.fullmatch(f"gpu_intel_com_{name}"), name
    assert engine.default_share("gpu_intel_com_xe", "Max-Series") == engine.WHOLE


@pytest.mark.prometheus
@needs_prometheus
@pytest.mark.requirement("metering-facts-4.4")
def test_devices_held_through_claims(tmp_path: Path) -> None:
    text = Hour()
    text.node("n1", {}, nvidia_com_gpu_product="H100", nvidia_com_gpu_count="8")
    text.pod("claimer", "n1", {"cpu": 1})
    claim = {
        "dra_claim_name": "gpus",
        "dra_driver_name": "gpu.nvidia.com",
        "modelName": "NVIDIA H100",
        "Hostname": "n1",
    }
    for number in (1, 2):
        text.device("DCGM_FI_PROF_GR_ENGINE_ACTIVE", f"GPU-{number}", "claimer", 0.25, **claim)
    text.device(
        "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
        "GPU-3",
        "sliver",
        0.5,
        **{**claim, "GPU_I_PROFILE": "1g.10gb", "GPU_I_ID": "7"},
    )
    text.pod("sliver", "n1", {"cpu": 1})
    reading = read(tmp_path, text)
    found = facts_of(reading)
    claimer = found["claimer"]
    assert (claimer.gpu_ms, claimer.holding.key, claimer.holding.node) == (2 * HOUR_MS, "uid-claimer", "n1")
    assert "resource_claim" in claimer.flags
    assert claimer.used_gpu_ms == 2 * HOUR_MS // 4
    assert found["sliver"].gpu_ms == HOUR_MS // 7
    assert engine.unit_ms(reading.nodes[0].spans) == 8 * HOUR_MS
    assert reading.hours[H].flags == ()


@pytest.mark.prometheus
@needs_prometheus
@pytest.mark.requirement("metering-facts-4.4")
def test_claims_that_nobody_tells_of_are_flagged_not_free(tmp_path: Path) -> None:
    text = Hour()
    text.node("n1", {}, nvidia_com_gpu_product="H100", nvidia_com_gpu_count="8")
    text.pod("claimer", "n1", {"cpu": 1})
    reading = read(tmp_path, text)
    assert reading.holdings == []
    assert "claims_unknown" in reading.hours[H].flags
    assert engine.unit_ms(reading.nodes[0].spans) == 8 * HOUR_MS
