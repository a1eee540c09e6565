"""The checks of a Prometheus and of an allocation API, each trap by itself. Pure: answers in, findings out."""

from __future__ import annotations

from typing import Any

import pytest

from apps.clusters.errors import NotFound, ServerError, Unauthorised
from apps.metering import selftest_allocation as allocation
from apps.metering.choices import CheckVerdict
from apps.metering.selftest import (
    TITLES,
    Finding,
    Knowledge,
    advice,
    duration,
    failed_codes,
    verdict,
)
from apps.metering.selftest_allocation import Nodes, Sets
from apps.metering.selftest_prometheus import Answers, check
from apps.metering.selftest_prometheus_rules import seconds_of
from apps.metering.selftest_questions import MEASURES, NEEDED, RESOURCES, TIMES, USEFUL
from tests.metering.test_allocation import NODE, row

ALL = [*NEEDED, *USEFUL, *TIMES, *MEASURES, *(name for series in RESOURCES.values() for name in series)]
A100 = Knowledge(models=frozenset({"A100", "H100"}))


def healthy(**changes: Any) -> Answers:
    """Answers of a server with which everything is in order; `changes` replace single answers."""
    one: dict[str, Any] = {
        "ranges": 4, "back_2d": 8, "back_32d": 8, "unlabelled": [], "namespace_labels": 4, "pod_labels": 3,
        "duplicates": [], "holding": 5, "terminal": [], "scrapes": 30, "dcgm_scrapes": 60, "exported": 5, "plain": [],
        "sentinels": [], "vgpu": [], "device_rows": [], "dra": [],
        "names": [({"__name__": name}, 9.0) for name in ALL],
        "clusters": [({"cluster": "dc1"}, 8.0)],
        "nodes": [({"node": "n1"}, 8.0)],
        "tellers": [({"job": "ksm", "instance": "a"}, 1.0)],
    }  # fmt: skip
    one |= {key: value for key, value in changes.items() if key in one}
    answers = Answers(version="2.42.0", retention="40d", skew_seconds=0.2, requests=24)
    answers.vectors = {key: value if isinstance(value, list) else [({}, float(value))] for key, value in one.items()}
    for key, value in changes.items():
        if key not in one:
            setattr(answers, key, value)
    return answers


def without(*names: str) -> list[tuple[dict[str, str], float]]:
    return [({"__name__": name}, 9.0) for name in ALL if name not in names]


def by_code(findings: list[Finding]) -> dict[str, Finding]:
    found = {finding.code: finding for finding in findings}
    assert len(found) == len(findings)
    assert all(finding.code in TITLES for finding in findings)
    assert all(finding.todo for finding in findings if finding.status == "failed")
    return found


@pytest.mark.requirement("metering-sources-1.2")
def test_a_server_in_order_passes() -> None:
    findings = check(healthy(), A100)
    assert {finding.code: finding.status for finding in findings if finding.status != "ok"} == {}
    assert verdict(findings) == CheckVerdict.PASSED
    assert len(by_code(findings)) == 22


@pytest.mark.requirement(
    "metering-sources-1.3", "metering-sources-1.4", "metering-sources-1.5", "metering-sources-1.6",
    "metering-sources-1.7", "metering-sources-1.8", "metering-sources-1.9",
)  # fmt: skip
@pytest.mark.parametrize(
    ("changes", "code", "status", "said"),
    [
        ({"version": "2.25.0"}, "version", "failed", "last_over_time"),
        ({"version": ""}, "version", "ok", "Thanos"),
        ({"ranges": 3, "version": "3.5.0"}, "range_semantics", "ok", "left-open"),
        ({"ranges": 3}, "range_semantics", "ok", "lets expect the other one"),
        ({"ranges": 12}, "range_semantics", "failed", "12 samples"),
        ({"ranges": []}, "range_semantics", "failed", "0 samples"),
        ({"retention": "36h"}, "retention", "failed", "36h"),
        ({"retention": "15d"}, "retention", "warning", "15d"),
        ({"retention": "1y or 10GiB", "back_2d": [], "back_32d": []}, "retention", "warning", "young"),
        ({"retention": "40d", "back_32d": []}, "retention", "ok", "young"),
        ({"retention": "", "back_2d": [], "back_32d": []}, "retention", "warning", "does not tell"),
        ({"retention": ""}, "retention", "ok", "month"),
        ({"skew_seconds": -30.0}, "clock", "warning", "30.0 s"),
        ({"skew_seconds": 121.0}, "clock", "failed", "wrong hour"),
        ({"names": []}, "kube_state_metrics", "failed", "no series of kube-state-metrics"),
        ({"names": without("kube_pod_status_phase")}, "kube_state_metrics", "failed", "kube_pod_status_phase"),
        ({"names": without("kube_pod_info")}, "kube_state_metrics", "warning", "kube_pod_info"),
        ({"names": without("kube_pod_completion_time")}, "pod_times", "warning", "kube_pod_completion_time"),
        ({"names": without(*MEASURES)}, "gpu_metrics", "warning", "unknown"),
        ({"names": without(MEASURES[0])}, "best_measure", "ok", "off by default"),
        ({"names": without(*MEASURES[:2])}, "best_measure", "warning", "DCGM_FI_DEV_GPU_UTIL only"),
        ({"names": without("container_network_transmit_bytes_total")}, "resource_metrics", "warning", "egress"),
        ({"clusters": [({"cluster": "a"}, 1.0), ({"cluster": "b"}, 1.0)]}, "one_cluster", "failed", "2 clusters: a, b"),
        ({"duplicates": 12}, "duplicates", "warning", "12 requests told more than once, by ksm a"),
        ({"terminal": 7}, "terminal_pods", "ok", "7 finished pods"),
        ({"unlabelled": [({"node": "n1"}, 8.0)]}, "node_labels", "failed", "n1"),
        ({"namespace_labels": []}, "namespace_labels", "warning", "gpu-commons/workspace"),
        ({"pod_labels": []}, "pod_labels", "warning", "project"),
        ({"scrapes": 6}, "scrape_interval", "warning", "5 min apart"),
        ({"scrapes": 3}, "scrape_interval", "failed", "10 min apart"),
        ({"scrapes": []}, "scrape_interval", "warning", "No samples"),
        ({"exported": [], "plain": 4}, "workload_labels", "ok", "honorLabels: true"),
        ({"plain": 4}, "workload_labels", "warning", "both are read"),
        ({"exported": []}, "workload_labels", "warning", "no series names a workload"),
        ({"exported": [], "holding": []}, "workload_labels", "ok", "nothing to name"),
        ({"sentinels": 2}, "sentinels", "warning", "dropped"),
        ({"vgpu": 3, "device_rows": 1}, "virtual_gpus", "warning", "estimate"),
        ({"dra": 2}, "dra", "ok", "2 series of claimed devices"),
    ],
)
def test_each_trap_by_itself(changes: dict[str, Any], code: str, status: str, said: str) -> None:
    found = by_code(check(healthy(**changes), A100))
    assert (found[code].status, said in found[code].detail) == (status, True), found[code]


@pytest.mark.requirement("metering-sources-1.6")
def test_nodes_are_compared_with_the_inventory() -> None:
    for nodes, status in (({"n1"}, "ok"), ({"n1", "n2"}, "warning"), ({"n9"}, "failed"), (set(), "ok")):
        found = by_code(check(healthy(), Knowledge(nodes=frozenset(nodes))))
        assert found["inventory"].status == status, nodes
    assert by_code(check(healthy(nodes=[]), Knowledge(nodes=frozenset({"n1"}))))["inventory"].status == "warning"


@pytest.mark.requirement("metering-sources-1.5")
def test_an_unknown_model_is_no_harm_where_there_is_one() -> None:
    answers = healthy(unlabelled=[({"node": "n1"}, 8.0)])
    assert by_code(check(answers, Knowledge(models=frozenset({"A100"}))))["node_labels"].status == "warning"


@pytest.mark.requirement("metering-sources-1.10")
def test_a_question_without_answer_fails_its_check_and_says_what_to_do() -> None:
    codes = {
        "names": {"kube_state_metrics", "pod_times", "gpu_metrics", "best_measure", "resource_metrics"},
        "back_2d": {"retention"}, "clusters": {"one_cluster"}, "unlabelled": {"node_labels"},
        "pod_labels": {"pod_labels"}, "namespace_labels": {"namespace_labels"}, "duplicates": {"duplicates"},
        "terminal": {"terminal_pods"}, "scrapes": {"scrape_interval"}, "exported": {"workload_labels"},
        "version": {"version"}, "clock": {"clock"}, "retention": {"retention"},
    }  # fmt: skip
    for key, expected in codes.items():
        answers = healthy()
        answers.errors[key] = ServerError("out of memory", status=503)
        findings = check(answers, A100)
        assert set(failed_codes([finding.as_json() for finding in findings])) == expected, key
        assert all("out of memory" in finding.detail for finding in findings if finding.status == "failed")
    answers = healthy()
    answers.errors["ranges"] = Unauthorised("who are you", status=401)
    alone = check(answers, A100)
    assert [finding.code for finding in alone] == ["reachable"]
    assert "token" in alone[0].todo


def test_words() -> None:
    assert [seconds_of(text) for text in ("15d", "1w2d", "36h", "90d or 10GiB", "", "10GiB")] == [
        1_296_000.0, 777_600.0, 129_600.0, 7_776_000.0, None, None,
    ]  # fmt: skip
    assert [duration(s) for s in (15, 60, 300, 7200, 172_800)] == ["15 s", "60 s", "5 min", "2 h", "2 days"]
    assert "address" in advice(NotFound("x"))


# ---------------------------------------------------------------- allocation APIs


def sets_of(*rows: Any, sets: int = 2) -> Sets:
    found = Sets(sets=sets)
    for index, one in enumerate(rows):
        found.take(f"dc1/n/ns/pod-{index}/c" if isinstance(one, dict) else one, one)
    return found


def nodes_of(*assets: Any) -> Nodes:
    found = Nodes()
    for index, asset in enumerate(assets):
        found.take(f"n{index}", asset)
    return found


def told(recent: Sets | None = None, **changes: Any) -> allocation.Answers:
    answers = allocation.Answers(
        kind="allocation", recent=recent or sets_of(row()), old=sets_of(row(), sets=1), nodes=nodes_of(NODE),
        old_nodes=nodes_of(NODE), resolution_seconds=60,
    )  # fmt: skip
    for key, value in changes.items():
        setattr(answers, key, value)
    return answers


@pytest.mark.requirement("metering-sources-1.11")
def test_an_allocation_api_in_order_passes() -> None:
    findings = allocation.check(told(), Knowledge(nodes=frozenset({"gpu-01"})))
    assert {finding.code for finding in findings if finding.status != "ok"} == set()
    assert set(by_code(findings)) == {
        "reachable", "schema", "steps", "retention", "resolution", "idle_rows", "one_cluster", "nodes", "shared_gpus",
        "currency",
    }  # fmt: skip


SHARED = {**row(), "gpuAllocation": {"isGPUShared": True, "gpuUsageAverage": 0.5}}
DAY = {"start": "2026-08-12T00:00:00Z", "end": "2026-08-13T00:00:00Z"}
FIVE = [row(minutes=minutes) for minutes in (5, 25, 40)]


@pytest.mark.requirement("metering-sources-1.11", "metering-sources-4.2", "metering-sources-4.3")
@pytest.mark.parametrize(
    ("changes", "known", "code", "status", "said"),
    [
        ({"recent": sets_of(SHARED)}, Knowledge(), "shared_gpus", "failed", "pod-0"),
        ({}, Knowledge(shared=("flavour “1g” is mig profile",)), "shared_gpus", "failed", "flavour “1g”"),
        (
            {"nodes": nodes_of({**NODE, "labels": {"label_nvidia_com_mig_strategy": "mixed"}})},
            Knowledge(), "shared_gpus", "failed", "MIG is on at gpu-01",
        ),
        ({"recent": sets_of(row(window=DAY))}, Knowledge(), "steps", "failed", "of 24 hours each"),
        ({"recent": sets_of(row(), sets=3)}, Knowledge(), "steps", "failed", "3 sets for 2 hours"),
        ({"old": sets_of(row(window=DAY), sets=1)}, Knowledge(), "retention", "failed", "daily sets"),
        ({"old": sets_of(sets=1), "old_nodes": nodes_of()}, Knowledge(), "retention", "warning", "48 hours ago"),
        ({"resolution_seconds": 0}, Knowledge(), "resolution", "warning", "5 min (its default"),
        ({"recent": sets_of(*FIVE), "resolution_seconds": 0}, Knowledge(), "resolution", "warning", "5 min (from its"),
        ({"resolution_seconds": 300}, Knowledge(), "resolution", "warning", "up to 8 %, one of five minutes −100 %"),
        ({"recent": sets_of("dc1/__idle__", row())}, Knowledge(), "idle_rows", "ok", "1 row of idle"),
        ({"recent": sets_of({**row(), "gpuAllocation": None})}, Knowledge(), "schema", "warning", "older schema"),
        ({"recent": sets_of({"gpuCount": 1})}, Knowledge(), "schema", "failed", "no `minutes`"),
        ({"recent": sets_of()}, Knowledge(), "schema", "ok", "first one"),
        ({"nodes": nodes_of({"type": "Disk"})}, Knowledge(), "nodes", "warning", "No node"),
        ({}, Knowledge(nodes=frozenset({"x"})), "nodes", "failed", "inventory"),
        ({"only": frozenset({"dc9"})}, Knowledge(), "one_cluster", "failed", "nothing would be metered"),
    ],
)  # fmt: skip
def test_each_trap_of_an_allocation_api(
    changes: dict[str, Any], known: Knowledge, code: str, status: str, said: str
) -> None:
    found = by_code(allocation.check(told(**changes), known))
    assert (found[code].status, said in found[code].detail) == (status, True), found[code]


@pytest.mark.requirement("metering-sources-1.6", "metering-sources-1.11")
def test_several_clusters_behind_one_api() -> None:
    other = row("foreign")
    other["properties"] = {**other["properties"], "cluster": "dc2"}
    both = sets_of(row(), other)
    assert by_code(allocation.check(told(both), Knowledge()))["one_cluster"].status == "failed"
    assert by_code(allocation.check(told(both, only=frozenset({"dc1"})), Knowledge()))["one_cluster"].status == "ok"
