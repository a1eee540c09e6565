"""Routes, scaling and figures of what the simulated cluster serves."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import urllib3

from apps.demo.cluster import KServeOptions, SimulatedCluster
from apps.demo.cluster.serving.promql import BadQuery, evaluate
from apps.demo.cluster.serving.recorder import Point, Track
from apps.demo.cluster.serving.scaling import Failed, in_window
from tests.demo.cluster.conftest import Client, Obj, namespace, until
from tests.demo.cluster.test_kserve import RELEASE, SERVICES, pods, service, state

ROUTES = "/apis/gateway.networking.k8s.io/v1/namespaces/team/httproutes"
SCALED = "/apis/keda.sh/v1alpha1/namespaces/team/scaledobjects"


class Clock:
    """A clock that runs as the wall's does and can be put forward."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def team(tmp_path: Path, clock: Clock) -> Iterator[Client]:
    options = KServeOptions(gateway=True)
    with SimulatedCluster(tmp_path, kserve=options, gateway=True, clock=clock) as cluster:
        client = Client(cluster)
        client.apply("/api/v1/namespaces/team", namespace("team"))
        yield client
        client.close()


def route(**weights: int) -> Obj:
    backends = [{"name": f"{name}-predictor", "port": 80, "weight": weight} for name, weight in weights.items()]
    spec = {
        "parentRefs": [{"name": "kserve-ingress-gateway", "namespace": "kserve"}], "hostnames": ["scorer.example.com"],
        "rules": [{"backendRefs": backends}],
    }  # fmt: skip
    head = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "scorer"}}
    return {**head, "spec": spec}


def accepted(client: Client) -> dict[str, tuple[str, str]]:
    parents = (client.get(f"{ROUTES}/scorer")[1].get("status") or {}).get("parents") or [{}]
    return {each["type"]: (each["status"], each.get("reason", "")) for each in parents[0].get("conditions") or []}


def ask(client: Client, query: str, path: str = "query", **fields: str) -> Any:
    pool = urllib3.PoolManager(retries=False)
    url = f"{client.cluster.allocation_url}/api/v1/{path}"
    answer = pool.request("POST", url, fields={"query": query, **fields}, encode_multipart=False, timeout=10)
    pool.clear()
    return answer.status, answer.json()


def value(client: Client, query: str) -> float | None:
    code, body = ask(client, query)
    assert code == 200, body
    rows = body["data"]["result"]
    return float(rows[0]["value"][1]) if rows else None


def increase(name: str, service_name: str, seconds: int = 600, **more: str) -> str:
    extra = "".join(f',{key}="{text}"' for key, text in more.items())
    return f'sum(increase({name}{{namespace="team",pod=~"({service_name})-predictor-.+"{extra}}}[{seconds}s]))'


def pass_time(client: Client, clock: Clock, **span: float) -> None:
    client.cluster.recorder.count(force=True)
    clock.ahead += timedelta(**span)
    client.cluster.recorder.count(force=True)


@pytest.mark.requirement("simulated-serving-3.1")
def test_a_route_is_accepted_and_names_missing_backends(team: Client) -> None:
    team.apply(f"{ROUTES}/scorer", route(scorer=90, other=10))
    until(lambda: accepted(team).get("Accepted", ("",))[0] == "True")
    assert accepted(team)["ResolvedRefs"] == ("False", "BackendNotFound")
    for name in ("scorer", "other"):
        team.apply(f"{SERVICES}/{name}", service(name, release=name))
    until(lambda: accepted(team)["ResolvedRefs"][0] == "True")
    orphan = route(scorer=1)
    orphan["spec"]["parentRefs"] = [{"name": "nowhere"}]
    team.apply(f"{ROUTES}/scorer", orphan, force="true")
    until(lambda: accepted(team).get("Accepted") == ("False", "NoMatchingParent"))


@pytest.mark.requirement("simulated-serving-4.1")
def test_figures_follow_the_route_s_weights(team: Client, clock: Clock) -> None:
    for name in ("scorer-r1", "scorer-r2"):
        team.apply(f"{SERVICES}/{name}", service(name, release=name))
    team.apply(f"{ROUTES}/scorer", route(**{"scorer-r1": 90, "scorer-r2": 10}))
    until(lambda: all(state(team, f"scorer-r{n}") == "UpToDate" for n in (1, 2)))
    pass_time(team, clock, seconds=600)
    first = value(team, increase("nv_inference_request_success", "scorer-r1"))
    second = value(team, increase("nv_inference_request_success", "scorer-r2"))
    assert first is not None
    assert second is not None
    assert first / second == pytest.approx(9, rel=0.1)
    assert first > 600


@pytest.mark.requirement("simulated-serving-4.1")
@pytest.mark.parametrize(
    ("model_format", "requests", "latency", "scale"),
    [
        ("huggingface", "vllm:request_success_total", "vllm:e2e_request_latency_seconds_bucket", 1.0),
        ("sklearn", "request_predict_seconds_count", "request_predict_seconds_bucket", 1.0),
    ],
)
def test_figures_bear_the_names_of_the_server(
    team: Client, clock: Clock, model_format: str, requests: str, latency: str, scale: float
) -> None:
    body = service()
    body["spec"]["predictor"]["model"]["modelFormat"] = {"name": model_format}
    team.apply(f"{SERVICES}/scorer", body)
    until(lambda: state(team) == "UpToDate")
    pass_time(team, clock, seconds=600)
    assert (value(team, increase(requests, "scorer")) or 0) > 100
    quantile = f'histogram_quantile(0.95, sum by (le) (rate({latency}{{namespace="team"}}[600s])))'
    assert 0.05 < (value(team, quantile) or 0) * scale < 10
    assert value(team, increase("nv_inference_request_success", "scorer")) is None
    names = ask(team, 'count by (__name__) ({__name__=~".+_count|.+_total",namespace="team"})')[1]["data"]["result"]
    assert requests in [each["metric"].get("__name__") for each in names]


@pytest.mark.requirement("simulated-serving-4.3")
def test_faults_show_in_the_figures_of_what_they_match(team: Client, clock: Clock) -> None:
    for name in ("scorer-r1", "scorer-r2"):
        team.apply(f"{SERVICES}/{name}", service(name, release=name))
    until(lambda: all(state(team, f"scorer-r{n}") == "UpToDate" for n in (1, 2)))
    team.cluster.faults.set("serving-errors", match=f"{RELEASE}=scorer-r2", ratio=0.5)
    team.cluster.faults.set("serving-slow", match=f"{RELEASE}=scorer-r2", delay_ms=900)
    pass_time(team, clock, seconds=600)
    failed = [value(team, increase("nv_inference_request_failure", f"scorer-r{n}")) or 0 for n in (1, 2)]
    good = [value(team, increase("nv_inference_request_success", f"scorer-r{n}")) or 1 for n in (1, 2)]
    assert failed[0] / good[0] < 0.01
    assert failed[1] / good[1] == pytest.approx(1, rel=0.1)
    slow = [
        value(team, f'max(nv_inference_request_summary_us{{quantile="0.95",pod=~"scorer-r{n}-.+"}}) / 1000')
        for n in (1, 2)
    ]
    assert (slow[0] or 0) < 100
    assert (slow[1] or 0) > 900
    team.cluster.faults.clear()
    team.cluster.faults.set("serving-silent")
    pass_time(team, clock, minutes=20)
    assert value(team, increase("nv_inference_request_success", "scorer-r1")) is None


@pytest.mark.requirement("simulated-serving-4.2")
@pytest.mark.parametrize(
    "query",
    [
        "",
        "up{",
        "topk(3, up)",
        "sum without (pod) (up)",
        'up{pod=~"("}',
        "rate(up)",
        "up offset 5m",
        "a b",
        "avg_over_time(up[5m])",
    ],
)
def test_what_is_not_simulated_is_refused(team: Client, query: str) -> None:
    if query == 'up{pod=~"("}':
        team.apply(f"{SERVICES}/scorer", service())
        until(lambda: state(team) == "UpToDate" and team.cluster.recorder.tracks())
        query = 'nv_inference_request_success{pod=~"("}'
    code, body = ask(team, query)
    assert (code, body["status"], body["errorType"]) == (400, "error", "bad_data")
    assert "simulated" in body["error"]


@pytest.mark.requirement("simulated-serving-4.1")
def test_a_range_query_gives_a_matrix(team: Client, clock: Clock) -> None:
    team.apply(f"{SERVICES}/scorer", service())
    until(lambda: state(team) == "UpToDate")
    for _ in range(4):
        pass_time(team, clock, seconds=60)
    now = clock().timestamp()
    query = increase("nv_inference_request_success", "scorer", 60)
    _, body = ask(team, query, "query_range", start=str(now - 120), end=str(now), step="60")
    (row,) = body["data"]["result"]
    assert (body["data"]["resultType"], len(row["values"])) == ("matrix", 3)
    assert ask(team, query, "query_range", start=str(now), end=str(now - 1), step="60")[0] == 400


# ---- the evaluator by itself


def point(at: float, requests: float, errors: float = 0.0) -> Point:
    return Point(at, requests, errors, (requests,) * 13, (0.0,) * 13, 3.0)


@pytest.mark.requirement("simulated-serving-4.1")
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("sum(increase(nv_inference_request_success[100s]))", 100.0),
        ("sum(increase(nv_inference_request_success[50s]))", 50.0),
        ("sum(rate(nv_inference_request_success[100s])) * 2", 2.0),
        ("sum(increase(nv_inference_request_failure[100s])) / sum(increase(nv_inference_request_success[100s]))", 0.1),
        ("sum(nothing) or 0 * sum(increase(nv_inference_request_success[100s]))", 0.0),
        ('sum(increase(nv_inference_request_success{pod!="p"}[100s]))', None),
        ('sum(nv_inference_pending_request_count{pod=~"p|q"})', 3.0),
        ("sum(nothing)", None),
        ("2 + 3 * (4 - 1)", 11.0),
        ("sum(increase(nv_inference_request_success[1s]))", 1.0),
    ],
)
def test_queries(query: str, expected: float | None) -> None:
    track = Track({"pod": "p", "namespace": "n"}, "triton", [point(0, 0), point(100, 110, 10)])
    found = evaluate(query, 100.0, [track])
    rows = [found] if isinstance(found, float) else [each for _, each in found]
    assert rows == ([] if expected is None else [pytest.approx(expected, abs=1)])


@pytest.mark.requirement("simulated-serving-4.2")
def test_nothing_is_known_of_a_pod_before_its_second_look() -> None:
    track = Track({"pod": "p"}, "triton", [point(0, 0)])
    assert evaluate("sum(increase(nv_inference_request_success[100s]))", 50.0, [track]) == []
    assert evaluate("nv_inference_request_success", 1000.0, [track]) == []
    with pytest.raises(BadQuery):
        evaluate("histogram_quantile(up, up)", 0.0, [track])


# ---- KEDA


def scaled(target: str = "scorer-predictor", *, triggers: list[Obj], notes: Obj | None = None, **spec: Any) -> Obj:
    body = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target}, "minReplicaCount": 1,
        "maxReplicaCount": 3, "cooldownPeriod": 0, "triggers": triggers, **spec,
    }  # fmt: skip
    meta = {"name": "scorer", "annotations": notes or {}}
    return {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": meta, "spec": body}


def by_query(query: str, threshold: str = "1", **more: str) -> Obj:
    data = {"serverAddress": "http://prometheus.example.com", "query": query, "threshold": threshold}
    return {"type": "prometheus", "metadata": {**data, "ignoreNullValues": "false", **more}}


def replicas(client: Client) -> int:
    found = client.get("/apis/apps/v1/namespaces/team/deployments/scorer-predictor")[1]
    return int((found.get("spec") or {}).get("replicas", -1))


def condition(client: Client, kind: str) -> str:
    rows = (client.get(f"{SCALED}/scorer")[1].get("status") or {}).get("conditions") or []
    return str(next((each["status"] for each in rows if each["type"] == kind), ""))


@pytest.mark.requirement("simulated-serving-3.2")
def test_a_scaled_object_follows_the_queue_between_its_bounds(team: Client) -> None:
    body = service()
    body["metadata"]["annotations"] |= {
        "serving.kserve.io/autoscalerClass": "external", "simulated.gpu-commons.internal/requests-per-second": "40"
    }  # fmt: skip
    team.apply(f"{SERVICES}/scorer", body)
    team.apply(
        f"{SCALED}/scorer", scaled(triggers=[by_query('sum(nv_inference_pending_request_count{namespace="team"})')])
    )
    until(lambda: replicas(team) == 3)
    until(lambda: len(pods(team)) == 3)
    assert condition(team, "Active") == "True"
    team.apply(f"{SCALED}/scorer", scaled(triggers=[by_query("0 * sum(nv_inference_pending_request_count)")]))
    until(lambda: replicas(team) == 1)
    team.apply(f"{SCALED}/scorer", scaled(triggers=[], notes={"autoscaling.keda.sh/paused-replicas": "0"}))
    until(lambda: replicas(team) == 0)
    assert condition(team, "Paused") == "True"


@pytest.mark.requirement("simulated-serving-3.2")
def test_a_query_without_a_result_falls_back(team: Client) -> None:
    body = service()
    body["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] = "external"
    team.apply(f"{SERVICES}/scorer", body)
    fallback = {"failureThreshold": 3, "replicas": 2, "behavior": "currentReplicasIfHigher"}
    team.apply(f"{SCALED}/scorer", scaled(triggers=[by_query("sum(nothing)")], fallback=fallback))
    until(lambda: replicas(team) == 2)
    until(lambda: condition(team, "Fallback") == "True")


@pytest.mark.requirement("simulated-serving-3.2")
@pytest.mark.parametrize(
    ("at", "start", "end", "open_"),
    [
        ("2026-11-23T09:00", "0 8 * * 1,2,3,4,5", "0 18 * * 1,2,3,4,5", True),
        ("2026-11-23T19:00", "0 8 * * 1,2,3,4,5", "0 18 * * 1,2,3,4,5", False),
        ("2026-11-22T09:00", "0 8 * * 1,2,3,4,5", "0 18 * * 1,2,3,4,5", False),
        ("2026-11-23T23:00", "0 22 * * *", "0 2 * * *", True),
        ("2026-11-23T08:00", "0 8 * * *", "0 9 * * *", True),
        ("2026-11-23T09:00", "0 8 * * *", "0 9 * * *", False),
    ],
)
def test_windows_of_cron_triggers(at: str, start: str, end: str, open_: bool) -> None:
    moment = datetime.fromisoformat(at).replace(tzinfo=UTC)
    assert in_window({"timezone": "Etc/UTC", "start": start, "end": end}, moment) is open_


@pytest.mark.requirement("simulated-serving-3.2")
def test_a_schedule_that_is_not_simulated_fails() -> None:
    moment = datetime(2026, 11, 23, tzinfo=UTC)
    for data in ({"start": "*/5 * * * *", "end": "0 9 * * *"}, {"timezone": "Europe/Berlin"}):
        with pytest.raises(Failed):
            in_window(data, moment)
