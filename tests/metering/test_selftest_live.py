"""The self-test against a real Prometheus over the one-day Philly fixture: its real traps show, nothing else does."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from apps.metering import selftest_prometheus
from apps.metering.selftest import Knowledge, verdict
from apps.metering.sources.base import DEFAULT_RESOURCES
from tests.metering.prom import Text, blocks, needs_prometheus, prometheus

FIXTURE = Path(__file__).resolve().parents[3] / "shared" / "data" / "philly" / "fixture"
needs_fixture = pytest.mark.skipif(
    not FIXTURE.is_dir(), reason="the Philly fixture lies outside the repository and is not here"
)
pytestmark = [pytest.mark.prometheus, needs_prometheus]
#: In the middle of the fixture's day; its samples lie 300 s apart, 17 s off the minute.
AT = datetime(2026, 3, 3, 15, 2, tzinfo=UTC)


def findings_of(url: str, at: datetime, *, known: Knowledge | None = None, selector: str = "") -> dict[str, Any]:
    """Return the findings by code."""
    outcome = selftest_prometheus.run(
        url,
        token="",
        resources=tuple(DEFAULT_RESOURCES),
        selector=selector,
        at=at,
        known=known or Knowledge(),
        tell=lambda done, total, what: None,
    )
    found = {finding.code: finding for finding in outcome.findings}
    assert len(found) == len(outcome.findings), "a check reported twice"
    assert outcome.requests <= 30
    found["verdict"] = verdict(outcome.findings)  # type: ignore[assignment]  # beside the findings, for one assert
    return found


@pytest.fixture(scope="module")
def philly(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the fixture."""
    base = tmp_path_factory.mktemp("philly")
    texts = []
    for packed in sorted(FIXTURE.glob("*.om.gz")):
        text = base / packed.stem
        text.write_bytes(gzip.decompress(packed.read_bytes()))
        texts.append(text)
    blocks(texts, base / "tsdb")
    with prometheus(base / "tsdb", lookback="300s") as url:
        yield url


@needs_fixture
@pytest.mark.requirement("metering-sources-1.2", "metering-sources-1.3", "metering-sources-1.5")
def test_philly_fixture_shows_its_real_traps(philly: str) -> None:
    found = findings_of(philly, AT)
    statuses = {code: item.status for code, item in found.items() if code != "verdict"}
    assert statuses["reachable"] == statuses["version"] == statuses["clock"] == "ok"
    # What the fixture really lacks is named, with what is lost.
    assert "kube_node_spec_unschedulable: cordoned nodes" in found["kube_state_metrics"].detail
    # Debian's Prometheus is 2.x: closed, found by asking.
    assert "closed" in found["range_semantics"].detail
    assert statuses["range_semantics"] == "ok"
    # Trap 1: five minutes between samples, with the bound that follows.
    assert statuses["scrape_interval"] == "warning"
    assert "5 min apart" in found["scrape_interval"].detail
    # Trap 4: the team is in exported_namespace.
    assert "exported_*" in found["workload_labels"].detail
    # Trap 5: finished pods still tell requests; they are counted here, and left out when metering.
    assert "finished pod" in found["terminal_pods"].detail
    assert statuses["terminal_pods"] == "ok"
    assert statuses["node_labels"] == statuses["pod_times"] == statuses["duplicates"] == "ok"
    assert statuses["pod_labels"] == "warning"
    assert "engine" in found["best_measure"].detail.lower() or "GR_ENGINE" in found["best_measure"].detail
    assert statuses["resource_metrics"] == "warning"
    assert statuses["sentinels"] == statuses["one_cluster"] == "ok"
    assert not [code for code, status in statuses.items() if status == "failed"], found
    assert all(item.evidence for code, item in found.items() if code in ("range_semantics", "terminal_pods"))


@needs_fixture
@pytest.mark.requirement("metering-sources-1.10")
def test_a_server_without_series_of_that_time_fails(philly: str) -> None:
    found = findings_of(philly, AT + timedelta(days=200))
    assert found["kube_state_metrics"].status == "failed"
    assert found["verdict"] == "failed"
    assert found["range_semantics"].status == "ok"


@needs_fixture
@pytest.mark.requirement("metering-sources-1.6")
def test_another_clusters_server_is_found_out(philly: str) -> None:
    found = findings_of(philly, AT, known=Knowledge(nodes=frozenset({"dc9-gpu-01"})))
    assert found["inventory"].status == "failed"


@pytest.mark.requirement("metering-sources-1.6", "metering-sources-1.7", "metering-sources-1.8")
def test_traps_of_other_set_ups(tmp_path: Path) -> None:
    """Two kube-state-metrics, two clusters, mixed label forms, sentinels, virtual GPUs, DRA; no phases, no labels."""
    end = int(AT.timestamp())
    times = list(range(end - 3600, end + 60, 60))
    text = Text()

    def add(metric: str, value: float, **labels: str) -> None:
        text.add(metric, labels, [(at, value) for at in times])

    for instance in ("ksm-a", "ksm-b"):
        for cluster in ("dc1", "dc2"):
            common = {"cluster": cluster, "job": "ksm", "instance": instance}
            add("kube_node_status_capacity", 8, node=f"{cluster}-n1", resource="nvidia_com_gpu", **common)
            add(
                "kube_pod_container_resource_requests", 1, node=f"{cluster}-n1", resource="nvidia_com_gpu",
                uid=f"{cluster}-u", pod="train", namespace="nlp", container="main", **common,
            )  # fmt: skip
    device = {"cluster": "dc1", "instance": "dcgm", "modelName": "A100"}
    own = {"namespace": "gpu-operator", "pod": "dcgm-exporter-x"}
    add("DCGM_FI_DEV_GPU_UTIL", 50, UUID="GPU-1", exported_namespace="nlp", exported_pod="train", **own, **device)
    add("DCGM_FI_DEV_GPU_UTIL", 9223372036854775794.0, UUID="GPU-2", namespace="nlp", pod="train", **device)
    add("DCGM_FI_DEV_GPU_UTIL", 10, UUID="GPU-3", vgpu="1", namespace="nlp", pod="train", **device)
    add("DCGM_FI_DEV_GPU_UTIL", 10, UUID="GPU-3", **device)
    add("DCGM_FI_DEV_GPU_UTIL", 10, UUID="GPU-4", dra_claim_name="one", **device)
    blocks([text.write(tmp_path / "om.txt")], tmp_path / "tsdb")
    with prometheus(tmp_path / "tsdb") as url:
        found = findings_of(url, AT)
        one = findings_of(url, AT, selector='cluster="dc1"')
    failed = {code for code, item in found.items() if code != "verdict" and item.status == "failed"}
    assert failed == {"one_cluster", "kube_state_metrics", "terminal_pods", "node_labels"}
    assert found["one_cluster"].detail == "It holds 2 clusters: dc1, dc2."
    assert one["one_cluster"].status == "ok"
    warned = {code for code, item in found.items() if code != "verdict" and item.status == "warning"}
    assert warned >= {"duplicates", "workload_labels", "sentinels", "virtual_gpus", "best_measure", "pod_times"}
    assert "ksm-a" in found["duplicates"].detail
    assert found["dra"].detail == "1 series of claimed devices."
    assert found["scrape_interval"].status == "ok"
    assert found["retention"].status in ("ok", "warning")
