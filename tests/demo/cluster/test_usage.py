"""History, allocation API, assets, live pods, replay."""

from __future__ import annotations

import copy
import json
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import urllib3
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.demo.cluster import SimulatedCluster, history
from apps.demo.cluster.errors import ApiError
from apps.demo.cluster.windows import parse_window
from tests.demo.cluster.conftest import Client, gpu_quota, namespace, pod, until

RULES = history.load()
DOCUMENT = json.loads(history.DEFAULT_FILE.read_text())
NOW = datetime(2026, 11, 22, 10, 30, tzinfo=UTC)
MAXIMUM = {"finance-production": 30, "marketing-production": 15, "research-development": 20}
THIRTY_DAYS = [(year, month) for year in (2025, 2026, 2027) for month in (4, 6, 9, 11) if (year, month) >= (2025, 6)]
EVERY_MONTH = [(year, month) for year in (2025, 2026, 2027) for month in range(1, 13) if (year, month) >= (2025, 6)]

# Every key of an unaggregated allocation, from OpenCost's AllocationJSON.
_FIELDS = """
    name properties window start end minutes
    cpuCores cpuCoreRequestAverage cpuCoreLimitAverage cpuCoreUsageAverage cpuCoreHours cpuCost cpuCostAdjustment
    cpuCostIdle cpuEfficiency gpuCount gpuHours gpuCost gpuCostAdjustment gpuCostIdle gpuEfficiency
    networkTransferBytes networkReceiveBytes networkCost networkCrossZoneCost networkCrossRegionCost
    networkInternetCost networkCostAdjustment loadBalancerCost loadBalancerCostAdjustment
    pvBytes pvByteHours pvCost pvs pvCostAdjustment
    ramBytes ramByteRequestAverage ramByteLimitAverage ramByteUsageAverage ramByteHours ramCost ramCostAdjustment
    ramCostIdle ramEfficiency externalCost sharedCost totalCost totalEfficiency
    rawAllocationOnly proportionalAssetResourceCosts lbAllocations sharedCostBreakdown gpuAllocation
"""
FIELDS = set(_FIELDS.split())


def month(year: int, number: int) -> tuple[datetime, datetime]:
    start = datetime(year, number, 1, tzinfo=UTC)
    return start, (start + timedelta(days=32)).replace(day=1)


def gpu_minutes(rules: history.Rules, start: datetime, end: datetime) -> tuple[Counter[str], Counter[str]]:
    """GPU-minutes by namespace, all and unused."""
    total: Counter[str] = Counter()
    idle: Counter[str] = Counter()
    for run in rules.runs(start, end):
        assert run.end is not None
        minutes = (min(run.end, end) - max(run.start, start)) // timedelta(minutes=1) * run.gpus
        total[run.namespace] += minutes
        if run.utilisation < 0.02:
            idle[run.namespace] += minutes
    return total, idle


@pytest.mark.requirement("simulated-cluster-5.2")
@pytest.mark.parametrize(("year", "number"), THIRTY_DAYS)
def test_thirty_day_months_give_the_founding_figures(year: int, number: int) -> None:
    total, idle = gpu_minutes(RULES, *month(year, number))
    hours = {name: minutes / 60 for name, minutes in total.items()}
    assert hours == {"finance-production": 5760, "marketing-production": 3840, "research-development": 8640}
    assert idle["research-development"] * 100 == total["research-development"] * 35
    assert set(idle) == {"research-development"}


@pytest.mark.requirement("simulated-cluster-5.2")
@pytest.mark.parametrize(("year", "number"), EVERY_MONTH)
def test_no_instant_holds_more_than_there_is(year: int, number: int) -> None:
    start, end = month(year, number)
    runs = list(RULES.runs(start, end))
    capacity = {node.name: node.gpus for node in RULES.nodes}
    # Use changes only where a run begins or ends: looking there is looking everywhere.
    for at in sorted({run.start for run in runs} | {start}):
        nodes: Counter[str] = Counter()
        teams: Counter[str] = Counter()
        for run in runs:
            assert run.end is not None
            if run.start <= at < run.end:
                nodes[run.node] += run.gpus
                teams[run.namespace] += run.gpus
        assert all(held <= capacity[node] for node, held in nodes.items()), (at, nodes)
        assert sum(nodes.values()) <= 48
        assert all(held <= MAXIMUM[team] for team, held in teams.items()), (at, teams)
    days = (end - start).days
    total, _ = gpu_minutes(RULES, start, end)
    assert total["marketing-production"] == days * 128 * 60
    assert total["research-development"] == days * 288 * 60
    assert total["finance-production"] == 5760 * 60


@pytest.mark.requirement("simulated-cluster-5.2")
def test_pod_names_are_unique_per_run_and_stable() -> None:
    start, end = month(2026, 9)[0], month(2026, 11)[1]
    runs = list(RULES.runs(start, end))
    assert runs == list(history.parse(copy.deepcopy(DOCUMENT)).runs(start, end))
    assert len({(run.namespace, run.pod) for run in runs}) == len(runs)
    halves = [*RULES.runs(start, month(2026, 10)[0]), *RULES.runs(month(2026, 10)[0], end)]
    assert sorted(halves, key=repr) == sorted(runs, key=repr)


@pytest.mark.requirement("simulated-cluster-5.3")
def test_another_file_gives_other_figures(tmp_path: Path) -> None:
    document = copy.deepcopy(DOCUMENT)
    document["workloads"][0]["pods"] = [{"node": "atlas-gpu-01", "gpus": 5}]
    document["workloads"][0]["namespace"] = "finance-staging"
    path = tmp_path / "other.json"
    path.write_text(json.dumps(document))
    with SimulatedCluster(tmp_path / "state", history_file=path, clock=lambda: NOW) as cluster:
        (data,) = cluster.allocations.allocation(
            {"window": "2026-09-01T00:00:00Z,2026-10-01T00:00:00Z", "aggregate": "namespace"}
        )["data"]
    assert data["finance-staging"]["gpuHours"] == 5 * 48 * 4
    assert "finance-production" not in data


@pytest.mark.requirement("simulated-cluster-5.3")
@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda d: d["nodes"][0].update(gpus="8"), "nodes[0].gpus"),
        (lambda d: d["nodes"][0].update(gpus=-1), "nodes[0].gpus"),
        (lambda d: d["nodes"][0].update(name="atlas-gpu-02"), "two nodes"),
        (lambda d: d["workloads"][1]["pods"][0].update(node="nowhere"), "workloads[1].pods[0].node"),
        (lambda d: d["workloads"][0].update(utilisation=2), "workloads[0].utilisation"),
        (lambda d: d["workloads"][0].update(kind="CronJob"), "workloads[0].kind"),
        (lambda d: d["workloads"][2]["schedule"].update(start="25:00"), "workloads[2].schedule.start"),
        (lambda d: d["workloads"][2]["schedule"].update(minutes=1500), "workloads[2].schedule"),
        (lambda d: d["workloads"][0]["schedule"].update(weekday="moonday"), "workloads[0].schedule.weekday"),
        (lambda d: d["workloads"][0]["schedule"].update(every="year"), "workloads[0].schedule.every"),
        (lambda d: d.update(historyStart="2025-06-01"), "historyStart"),
        (lambda d: d.pop("gpu"), "gpu"),
    ],
)
def test_a_malformed_file_is_refused_with_the_place(change: Any, place: str, tmp_path: Path) -> None:
    document = copy.deepcopy(DOCUMENT)
    change(document)
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(document))
    with pytest.raises(history.BadRules, match=place.replace("[", r"\[").replace("]", r"\]")):
        history.load(path)


@pytest.fixture
def past(tmp_path: Path) -> Any:
    """A cluster whose clock stands still."""
    with SimulatedCluster(tmp_path / "state", clock=lambda: NOW) as cluster:
        yield cluster


def ask(cluster: SimulatedCluster, path: str, **query: str) -> Any:
    headers = {"Authorization": "Bearer whatever"}  # OpenCost looks at none
    url = f"{cluster.allocation_url}{path}"
    answer = urllib3.request("GET", url, fields=query, headers=headers, timeout=20, retries=False)
    return answer.status, answer.json()


@pytest.mark.requirement("simulated-cluster-5.1")
@pytest.mark.parametrize("path", ["/allocation", "/allocation/compute", "/model/allocation"])
def test_the_shape_is_that_of_the_real_one(past: SimulatedCluster, path: str) -> None:
    code, answer = ask(past, path, window="2026-09-01T08:00:00Z,2026-09-01T10:00:00Z", step="1h", accumulate="false")
    assert (code, answer["code"], answer["status"], len(answer["data"])) == (200, 200, "success", 2)
    name, row = next((k, v) for k, v in answer["data"][0].items() if v["properties"]["controller"].startswith("debug"))
    assert (
        name
        == row["name"]
        == "/".join(row["properties"][k] for k in ("cluster", "node", "namespace", "pod", "container"))
    )
    assert row["window"] == {"start": "2026-09-01T08:00:00Z", "end": "2026-09-01T09:00:00Z"}
    assert (row["minutes"], row["gpuCount"], row["gpuHours"]) == (60, 1, 1)
    assert row["properties"]["controllerKind"] == "job"
    assert row["gpuAllocation"].keys() == {
        "gpuDevice",
        "gpuModel",
        "gpuUUID",
        "isGPUShared",
        "gpuUsageAverage",
        "gpuRequestAverage",
    }
    assert row["gpuAllocation"]["gpuUsageAverage"] == 0
    assert row["gpuCost"] == 0.95
    assert row["totalCost"] == pytest.approx(row["cpuCost"] + row["gpuCost"] + row["ramCost"])
    assert row.keys() == FIELDS
    _, hours = ask(past, path, window="2026-09-01T12:00:00Z,2026-09-01T13:00:00Z", step="1h")
    part = next(v for v in hours["data"][0].values() if v["properties"]["controller"].startswith("debug"))
    assert (part["minutes"], part["gpuHours"], part["gpuCount"], part["end"]) == (48, 0.8, 1, "2026-09-01T12:48:00Z")


@pytest.mark.requirement("simulated-cluster-5.1")
def test_hours_ahead_and_before_the_history_are_empty(past: SimulatedCluster) -> None:
    _, answer = ask(past, "/allocation", window="today", step="1h")
    counts = [len(each) for each in answer["data"]]
    assert len(counts) == 24
    assert all(counts[:11])
    assert not any(counts[11:])
    assert {row["minutes"] for row in answer["data"][10].values()} == {30}
    _, answer = ask(past, "/allocation", window="2025-05-01T00:00:00Z,2025-06-01T01:00:00Z", step="1h")
    assert not any(answer["data"][:-1])
    assert answer["data"][-1]


@pytest.mark.requirement("simulated-cluster-5.1")
@settings(max_examples=25, deadline=None)
@given(start=st.integers(0, 24 * 500), hours=st.integers(1, 200), step=st.sampled_from(["30m", "1h", "7h", "1d"]))
def test_steps_cover_the_window_once(start: int, hours: int, step: str) -> None:
    begin = RULES.start + timedelta(hours=start)
    end = begin + timedelta(hours=hours)
    allocations = _still().allocations
    window = f"{int(begin.timestamp())},{int(end.timestamp())}"
    by_step = allocations.allocation({"window": window, "step": step})["data"]
    whole = allocations.allocation({"window": window, "aggregate": "namespace"})["data"][0]
    summed: defaultdict[str, float] = defaultdict(float)
    for each in by_step:
        for row in each.values():
            summed[row["properties"]["namespace"]] += row["gpuHours"]
    expected, _ = gpu_minutes(RULES, begin, min(end, NOW))
    for name, minutes in expected.items():
        assert summed[name] == pytest.approx(minutes / 60)
        assert whole[name]["gpuHours"] == pytest.approx(minutes / 60)


_CACHE: list[SimulatedCluster] = []


def _still() -> SimulatedCluster:
    return _CACHE[0]


@pytest.fixture(autouse=True, scope="module")
def _cached(tmp_path_factory: pytest.TempPathFactory) -> Any:
    _CACHE.append(SimulatedCluster(tmp_path_factory.mktemp("still"), clock=lambda: NOW))
    yield
    _CACHE.pop().close()


@pytest.mark.requirement("simulated-cluster-5.1")
def test_aggregation_accumulation_and_idle(past: SimulatedCluster) -> None:
    window = "2026-09-01T00:00:00Z,2026-10-01T00:00:00Z"
    _, answer = ask(
        past, "/allocation", window=window, step="1d", accumulate="true", aggregate="namespace,controllerKind"
    )
    (data,) = answer["data"]
    assert data["marketing-production/deployment"]["gpuHours"] == 2880
    assert data["marketing-production/job"]["gpuHours"] == 960
    assert data["research-development/deployment"]["gpuAllocation"]["gpuUsageAverage"] == 0
    _, answer = ask(past, "/allocation", window=window, aggregate="label:app", includeIdle="true")
    (data,) = answer["data"]
    assert data["fraud-training"]["gpuHours"] == 5760
    assert data["__idle__"]["gpuCost"] == pytest.approx((50 * 720 - 18240) * 0.95)
    assert data["__idle__"]["gpuHours"] == 0
    _, answer = ask(past, "/allocation", window="yesterday", includeIdle="true", idleByNode="true")
    assert f"{past.name}/atlas-gpu-07/__idle__" in answer["data"][0]


@pytest.mark.requirement("simulated-cluster-5.1")
@pytest.mark.parametrize(
    "query",
    [
        {},
        {"window": "whenever"},
        {"window": "2026-09-02T00:00:00Z,2026-09-01T00:00:00Z"},
        {"window": "2026-09-01T00:00:00,2026-09-02T00:00:00"},
        {"window": "1d", "step": "1 hour"},
        {"window": "1d", "step": "0h"},
        {"window": "1d", "aggregate": "colour"},
        {"window": "1d", "accumulate": "perhaps"},
        {"window": "1d", "filter": 'namespace:"x"'},
        {"window": "400d", "step": "1h"},
    ],
)
def test_bad_queries_are_answered_in_the_real_envelope(past: SimulatedCluster, query: dict[str, str]) -> None:
    code, answer = ask(past, "/allocation", **query)
    assert (code, answer["code"], answer["status"]) == (400, 400, "error")
    assert answer["message"]


@pytest.mark.requirement("simulated-cluster-5.1")
def test_windows() -> None:
    day = timedelta(days=1)
    midnight = NOW.replace(hour=0, minute=0)
    expected = {
        "today": (midnight, midnight + day),
        "yesterday": (midnight - day, midnight),
        "month": month(2026, 11),
        "lastmonth": month(2026, 10),
        "week": (midnight, midnight + 7 * day),
        "lastweek": (midnight - 7 * day, midnight),
        "7d": (NOW - 7 * day, NOW),
        "24h": (NOW - day, NOW),
        "2026-09-01T00:00:00Z,2026-09-02T02:00:00+02:00": (month(2026, 9)[0], month(2026, 9)[0] + day),
        "2026-09-01T00:00:00Z,2026-09-02T02:00:00 02:00": (month(2026, 9)[0], month(2026, 9)[0] + day),
        "1788220800,1788224400": (month(2026, 9)[0], month(2026, 9)[0] + timedelta(hours=1)),
    }
    for text, window in expected.items():
        assert parse_window(text, NOW) == window, text
    with pytest.raises(ApiError):
        parse_window("99999999999999999,999999999999999999", NOW)


@pytest.mark.requirement("simulated-cluster-5.4")
def test_assets_give_gpu_hours_up_to_now(past: SimulatedCluster) -> None:
    _, answer = ask(past, "/assets", window="2026-09-01T00:00:00Z,2026-10-01T00:00:00Z")
    assert isinstance(answer["data"], dict)
    assert sum(each["GPUHours"] for each in answer["data"].values()) == 36000
    _, answer = ask(past, "/model/assets", window="2026-11-22T10:00:00Z,2026-11-22T11:00:00Z")
    assert sum(each["GPUHours"] for each in answer["data"].values()) == 25
    assert {each["type"] for each in answer["data"].values()} == {"Node"}
    assert ask(past, "/assets", window="2025-05-01T00:00:00Z,2025-05-02T00:00:00Z")[1]["data"] == {}


@pytest.mark.requirement("simulated-cluster-5.4")
def test_live_pods_are_metered_beside_the_history(tmp_path: Path) -> None:
    now = [NOW]
    with SimulatedCluster(tmp_path, clock=lambda: now[0]) as cluster:
        client = Client(cluster)
        client.post("/api/v1/namespaces", namespace("team", owner="us"))
        body = pod("mine", 2)
        body["metadata"]["annotations"] = {"simulated.gpu-commons.internal/utilisation": "0.4"}
        client.post("/api/v1/namespaces/team/pods", body)
        path = "/api/v1/namespaces/team/pods/mine"
        until(lambda: client.get(path)[1]["spec"].get("nodeName"))
        until(lambda: cluster.store.query("SELECT uid FROM live_pods"))
        now[0] += timedelta(minutes=90)
        until(lambda: client.get(path)[1]["status"]["phase"] == "Running")
        client.request("DELETE", path, {"gracePeriodSeconds": 0})
        until(lambda: cluster.store.query("SELECT uid FROM live_pods WHERE end_us IS NOT NULL"))
        now[0] += timedelta(hours=5)
        _, answer = ask(cluster, "/allocation", window="2026-11-22T10:00:00Z,2026-11-22T14:00:00Z", step="1h")
        mine = [row for each in answer["data"] for row in each.values() if row["properties"]["namespace"] == "team"]
        assert [row["gpuHours"] for row in mine] == [1, 2]
        assert mine[0]["start"] == "2026-11-22T10:30:00Z"
        assert mine[0]["gpuAllocation"]["gpuUsageAverage"] == 0.4
        assert mine[0]["properties"]["namespaceLabels"]["owner"] == "us"
        assert sum(len(each) for each in answer["data"]) > 2
        client.close()


@pytest.mark.requirement("simulated-cluster-5.4")
def test_a_lost_node_gives_no_hours(tmp_path: Path) -> None:
    now = [NOW]
    with SimulatedCluster(tmp_path, clock=lambda: now[0]) as cluster:
        client = Client(cluster)
        until(lambda: cluster.meter._checked)
        client.request("DELETE", "/api/v1/nodes/atlas-gpu-01")
        until(lambda: cluster.store.query("SELECT name FROM live_nodes WHERE end_us IS NOT NULL"))
        now[0] = NOW + timedelta(hours=3)
        _, answer = ask(cluster, "/assets", window="2026-11-22T10:00:00Z,2026-11-22T11:00:00Z")
        assert sum(each["GPUHours"] for each in answer["data"].values()) == 50 - 8 / 2
        client.close()


@pytest.mark.requirement("simulated-cluster-5.5")
def test_replay_shows_the_moments_workloads_and_meters_them_once(tmp_path: Path) -> None:
    now = [NOW]
    with SimulatedCluster(tmp_path, clock=lambda: now[0], replay=True) as cluster:
        client = Client(cluster)
        client.post("/api/v1/namespaces", namespace("research-development"))
        client.post("/api/v1/namespaces/research-development/resourcequotas", gpu_quota("10"))
        path = "/api/v1/namespaces/research-development/pods"
        pods = until(lambda: client.get(path)[1]["items"])
        assert {each["status"]["phase"] for each in pods} == {"Running"}
        names = {run.pod for run in RULES.runs(NOW, NOW + timedelta(seconds=1)) if run.namespace.startswith("research")}
        assert {each["metadata"]["name"] for each in pods} == names
        quota = "/api/v1/namespaces/research-development/resourcequotas/quota"
        used = until(lambda: client.get(quota)[1]["status"].get("used"))
        until(lambda: client.get(quota)[1]["status"]["used"]["requests.nvidia.com/gpu"] == "14")
        assert used
        client.request("DELETE", f"{path}/{pods[0]['metadata']['name']}", {"gracePeriodSeconds": 0})
        until(lambda: {each["metadata"]["name"] for each in client.get(path)[1]["items"]} == names)
        _, answer = ask(
            cluster, "/allocation", window="2026-11-22T09:00:00Z,2026-11-22T10:00:00Z", aggregate="namespace"
        )
        assert answer["data"][0]["research-development"]["gpuHours"] == 14
        now[0] = NOW.replace(hour=13)
        until(lambda: any("ablation" in each["metadata"]["name"] for each in client.get(path)[1]["items"]))
        assert not any("debug" in each["metadata"]["name"] for each in client.get(path)[1]["items"])
        _, answer = ask(
            cluster, "/allocation", window="2026-11-22T10:00:00Z,2026-11-22T11:00:00Z", aggregate="namespace"
        )
        assert answer["data"][0]["research-development"]["gpuHours"] == 14
        client.close()


@pytest.mark.requirement("simulated-cluster-5.1")
def test_the_allocation_api_is_beside_the_kubernetes_api_too(past: SimulatedCluster) -> None:
    client = Client(past, "")
    assert client.get("/allocation", window="yesterday")[1]["code"] == 200
    assert client.get("/model/assets", window="yesterday")[1]["code"] == 200
    assert client.request("POST", "/allocation", {})[0] == 405
    assert ask(past, "/healthz2")[0] == 404
    client.close()


@pytest.mark.requirement("simulated-cluster-5.4")
def test_metrics_show_quota(cluster: SimulatedCluster, client: Client, space: str) -> None:
    client.post(f"{space}/resourcequotas", gpu_quota("8", requests_memory="1Ki"))

    def text() -> str:
        return urllib3.request("GET", f"{cluster.allocation_url}/metrics", retries=False).data.decode()

    head = 'kube_resourcequota{namespace="team",resourcequota="quota",resource='
    until(lambda: f'{head}"requests.nvidia.com/gpu",type="hard"}} 8' in text())
    assert f'{head}"requests.memory",type="hard"}} 1024' in text()
    assert f'{head}"requests.memory",type="used"}} 0' in text()
