"""Figures from Prometheus, the guard's roll-back, and the whole way on the simulated cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from apps.clusters.crypto import encrypt
from apps.clusters.errors import Unreachable
from apps.core import clock
from apps.demo.cluster import KServeOptions, SimulatedCluster
from apps.deployments import advancing, guarding, metric_queries, metric_sources, sampling, verdicts
from apps.deployments.choices import LoadState, ReleaseStatus, StepKind
from apps.deployments.metric_queries import FIGURES, Place
from apps.deployments.models import RolloutStep, ServingSample
from apps.deployments.sampling import Pods
from apps.deployments.spec import Guard, Rung
from apps.metering.models import Source
from tests.deployments import world as releases
from tests.deployments.serving import NAMESPACE, Serving, make_serving
from tests.factories import Company

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


class Prometheus:
    """Answers by what a question contains; everything else has no series."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def query(self, expression: str, at: datetime) -> list[dict[str, Any]]:
        self.asked.append(expression)
        for part, value in self.answers.items():
            if part in expression:
                if isinstance(value, Exception):
                    raise value
                return value if isinstance(value, list) else [{"metric": {}, "value": [at.timestamp(), str(value)]}]
        return []


def marked(*names: str) -> list[dict[str, Any]]:
    return [{"metric": {"__name__": name}, "value": [0, "1"]} for name in names]


PODS = Pods(NAMESPACE, ("fraud-r1-predictor-6f5d8b9c4-abcde",), 1)


@pytest.mark.requirement("serving-watch-2.1")
@pytest.mark.parametrize("dialect", list(metric_queries.MARKS))
def test_each_dialect_is_asked_in_its_own_names(dialect: str) -> None:
    client = Prometheus({"__name__": marked(metric_queries.MARKS[dialect]), "": 7})
    found = sampling.measure(client, PODS, NOON)
    wanted = metric_queries.queries(dialect, Place(NAMESPACE, ("fraud-r1-predictor",)), 60)
    assert (found.dialect, found.trouble) == (dialect, "")
    assert found.values == dict.fromkeys(wanted, 7)
    assert set(wanted) <= set(FIGURES)
    assert {key: text for key, text in found.queries.items() if key != "dialect"} == wanted
    assert all('pod=~"(fraud-r1-predictor)-.+"' in text for text in wanted.values())


@pytest.mark.requirement("serving-watch-2.2")
@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("NaN", None), ("+Inf", None), ("-1", None), ("nonsense", None), ([], None), ("12.4", 12), ("0", 0),
        ([{"value": [0, "1"]}, {"value": [0, "2"]}], None), ([{"metric": {}}], None),
    ],
)  # fmt: skip
def test_no_number_is_unknown_never_zero(answer: Any, value: int | None) -> None:
    client = Prometheus({"__name__": marked("vllm:request_success_total"), "num_requests_waiting": answer})
    assert sampling.measure(client, PODS, NOON).values["queue_depth"] == value


@pytest.mark.requirement("serving-watch-2.2")
def test_a_server_that_fails_leaves_figures_unknown() -> None:
    broken = Prometheus({"": Unreachable("connection refused")})
    found = sampling.measure(broken, PODS, NOON)
    assert found.values == {}
    assert "connection refused" in found.trouble
    half = Prometheus({"__name__": marked("vllm:request_success_total"), "waiting": Unreachable("gone"), "": 3})
    found = sampling.measure(half, PODS, NOON)
    assert (found.values["queue_depth"], found.values["requests"]) == (None, 3)
    silent = sampling.measure(Prometheus({}), PODS, NOON)
    assert "no figures of these pods" in silent.trouble
    assert "no pods" in sampling.measure(Prometheus({}), None, NOON).trouble


@pytest.mark.requirement("serving-watch-2.2")
def test_failures_are_never_more_than_requests() -> None:
    client = Prometheus({"__name__": marked("revision_app_request_count"), '5xx"': 9, "revision_app_request_count": 8})
    found = sampling.measure(client, PODS, NOON)
    assert (found.values["requests"], found.values["errors"]) == (8, 8)


@pytest.mark.requirement("serving-watch-2.1")
def test_a_name_that_no_object_has_is_not_asked_about() -> None:
    client = Prometheus({})
    found = sampling.measure(client, Pods('x"} or vector(1) or {a="', ("p-1-2",)), NOON)
    assert "is no name of an object" in found.trouble
    assert client.asked == []


@pytest.mark.requirement("serving-watch-2.1")
def test_pods_are_gathered_by_release() -> None:
    def pod(name: str, release: str, *, ready: bool = True, **more: Any) -> dict[str, Any]:
        labels = {"gpu-commons/release": release, "gpu-commons/endpoint": "e", **more.pop("labels", {})}
        rows = [{"type": "Ready", "status": "True" if ready else "False"}]
        meta = {"name": name, "namespace": NAMESPACE, "labels": labels, **more.pop("meta", {})}
        return {"metadata": meta, "status": {"phase": "Running", "conditions": rows, **more}}

    found = sampling.gather(
        [
            pod("fraud-r1-predictor-a-1", "one"), pod("fraud-r1-predictor-a-2", "one", ready=False),
            pod("fraud-r2-predictor-a-1", "two"),
            pod("fraud-r1-explainer-a-1", "one", labels={"component": "explainer"}),
            pod("gone-a-1", "one", meta={"deletionTimestamp": "2026-01-01T00:00:00Z"}),
            pod("old-a-1", "one", phase="Failed"),
        ]
    )  # fmt: skip
    assert (found["one"].names, found["one"].ready) == (("fraud-r1-predictor-a-1", "fraud-r1-predictor-a-2"), 1)
    assert metric_queries.workloads_of(found["one"].names) == ("fraud-r1-predictor",)
    assert set(found) == {"one", "two"}


@pytest.mark.requirement("serving-watch-1.4")
@pytest.mark.parametrize(
    ("messages", "digest"),
    [
        (['{"files": "%s"}' % ("a" * 64)], "a" * 64),
        (['{"files": "%s"}' % ("a" * 64), '{"files": "%s"}' % ("b" * 64)], ""),
        (["plain text"], ""), (['{"files": "short"}'], ""), ([], ""), (['["a"]'], ""),
    ],
)  # fmt: skip
def test_a_verdict_is_read_from_termination_messages(messages: list[str], digest: str) -> None:
    assert verdicts.told(messages) == digest


# ---- with rows


@pytest.fixture
def serving(company: Company) -> Serving:
    return make_serving(company, guard=Guard(Decimal("0.05"), None, 10))


def source(serving: Serving, url: str, kind: str = "prometheus", **options: Any) -> Source:
    since = DateTimeTZRange(clock.now() - timedelta(days=1), None, "[)")
    return Source.objects.create(
        cluster=serving.cluster, kind=kind, name="Metrics", url=url, options=options, valid=since
    )


@pytest.mark.django_db
@pytest.mark.requirement("serving-watch-2.1")
@pytest.mark.parametrize(
    ("kind", "options", "url", "seconds"),
    [
        ("prometheus", {}, "https://metrics.example.com", 60),
        ("prometheus", {"scrape_seconds": 60}, "https://metrics.example.com", 120),
        ("allocation", {}, None, 0),
        ("allocation", {"prometheus": True}, "https://metrics.example.com", 60),
        ("allocation", {"prometheus": "https://other.example.com"}, "https://other.example.com", 60),
        ("allocation", {"prometheus": "file:///etc/passwd"}, None, 0),
    ],
)
def test_where_figures_are_asked_for(
    serving: Serving, kind: str, options: dict[str, Any], url: str | None, seconds: int
) -> None:
    row = source(serving, "https://metrics.example.com", kind, **options)
    row.credentials = encrypt("secret")
    row.save()
    found = metric_sources.prometheus_of(serving.cluster)
    assert (found.url if found else None) == url
    if found is not None:
        assert found.window_seconds == seconds
        assert found.token == ("secret" if url == row.url else "")


@pytest.mark.django_db
@pytest.mark.requirement("serving-watch-2.3", "serving-watch-2.4")
def test_a_window_is_kept_once_and_not_for_ever(serving: Serving) -> None:
    at = sampling.window_end(clock.now())
    figures = sampling.Figures({"requests": 5}, {"requests": "q"}, "vllm")
    assert sampling._write(serving.current, figures, PODS, 60, at, listed=True) == 1
    again = sampling.Figures({"requests": 9}, {"requests": "q"}, "vllm")
    assert sampling._write(serving.current, again, PODS, 60, at, listed=True) == 0
    (row,) = ServingSample.objects.filter(release=serving.current)
    assert (row.requests, row.errors, row.ready_replicas, row.queries) == (5, None, 1, {"requests": "q"})
    assert serving.current.pk not in [each.pk for each in sampling.due(clock.now()).get(serving.cluster.pk, [])]
    assert sampling.forget(at + timedelta(days=30)) == 0
    assert sampling.forget(at + timedelta(days=32)) == 1


@pytest.mark.django_db
@pytest.mark.requirement("serving-watch-2.1")
def test_only_what_serves_is_sampled(serving: Serving) -> None:
    assert serving.candidate is not None
    assert {row.pk for row in sampling.due(clock.now())[serving.cluster.pk]} == {
        serving.current.pk,
        serving.candidate.pk,
    }
    serving.endpoint.stopped_at = clock.now()
    serving.endpoint.save()
    assert sampling.due(clock.now()) == {}


# ---- the guard's roll-back, on releases that were approved


def canary(company: Company, guard: Guard) -> Any:
    """A canary on an endpoint in development, loaded and with its first share."""
    world = releases.make_world(company)
    world.live()
    version = world.next_version()
    release = world.release(version=version, guard=guard, ladder=(Rung(10, 12),))
    world.load(release)
    advancing.advance_due()
    release.refresh_from_db()
    assert release.status == ReleaseStatus.CANARY
    return release


def samples(release: Any, *rows: tuple[int, int]) -> None:
    begin = release.step_since
    for minute, (requests, errors) in enumerate(rows, 1):
        at = begin + timedelta(microseconds=minute)
        ServingSample.objects.create(
            endpoint=release.endpoint, release=release, at=at, window_seconds=60, requests=requests, errors=errors
        )


@pytest.mark.django_db
@pytest.mark.requirement("serving-watch-3.3")
def test_a_bad_canary_is_rolled_back_once_with_its_figures(company: Company) -> None:
    release = canary(company, Guard(Decimal("0.05"), None, 10))
    samples(release, (100, 2), (100, 20))
    assert guarding.guard_all() == 1
    release.refresh_from_db()
    assert release.status == ReleaseStatus.FAILED
    step = RolloutStep.objects.filter(release=release).latest("pk")
    assert (step.kind, step.automatic, step.traffic_before, step.traffic_after) == (StepKind.FAILED, True, 10, 0)
    assert step.evidence["requests"] == 200
    assert step.evidence["errors"] == 22
    assert "22 of 200 requests failed" in step.reason
    release.endpoint.refresh_from_db()
    assert release.endpoint.candidate_id is None
    assert guarding.guard_all() == 0


@pytest.mark.django_db
@pytest.mark.requirement("serving-watch-3.2", "serving-watch-3.3")
def test_an_unknown_canary_stays(company: Company) -> None:
    release = canary(company, Guard(Decimal("0.05"), None, 10))
    samples(release, (20, 20))
    assert guarding.judge(release).status == "unknown"
    assert guarding.guard_all() == 0
    release.load_state = LoadState.FAILED
    release.save()
    assert guarding.guard_all() == 1


# ---- the simulated cluster


@pytest.fixture
def simulated(tmp_path: Path) -> Iterator[tuple[SimulatedCluster, Callable[[float], None]]]:
    """The cluster, and how its clock is put forward."""
    ahead = timedelta()

    def now() -> datetime:
        return datetime.now(UTC) + ahead

    def forward(seconds: float) -> None:
        nonlocal ahead
        cluster.recorder.count(force=True)
        ahead += timedelta(seconds=seconds)
        cluster.recorder.count(force=True)

    with SimulatedCluster(tmp_path, kserve=KServeOptions(gateway=True), gateway=True, clock=now) as cluster:
        yield cluster, forward


@pytest.mark.django_db(transaction=True)
@pytest.mark.requirement("serving-watch-2.1", "simulated-serving-4.1")
def test_the_whole_way_on_the_simulated_cluster(
    company: Company, simulated: tuple[SimulatedCluster, Callable[[float], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, forward = simulated
    serving = make_serving(
        company, canary=False, api_url=cluster.url, ca_certificate=cluster.ca_pem,
        credentials=encrypt(cluster.admin_token), simulated=True,
    )  # fmt: skip
    source(serving, cluster.allocation_url, "allocation", prometheus=True)
    cluster.api.system_create(_kind("Namespace"), {"metadata": {"name": NAMESPACE}})
    labels = {"gpu-commons/endpoint": str(serving.endpoint.uid), "gpu-commons/release": str(serving.current.uid)}
    model = {"modelFormat": {"name": "huggingface"}, "storageUri": "s3://models/fraud"}
    body = {
        "metadata": {"name": "fraud", "namespace": NAMESPACE},
        "spec": {"predictor": {"labels": labels, "model": model}},
    }  # fmt: skip
    cluster.api.system_create(_kind("InferenceService"), body)
    deadline = time.monotonic() + 15
    while not cluster.recorder.tracks() and time.monotonic() < deadline:
        time.sleep(0.05)
    for _ in range(30):
        forward(5)
    end = sampling.window_end(cluster.clock())
    monkeypatch.setattr(clock, "now", lambda: end + timedelta(seconds=1))
    assert sampling.sample_all() == 1
    (row,) = ServingSample.objects.filter(release=serving.current)
    assert (row.dialect, row.ready_replicas, row.at) == ("vllm", 1, end)
    assert row.requests is not None
    assert 60 < row.requests < 600
    assert row.errors is not None
    assert 0 <= row.errors < 5
    assert row.latency_p95_ms is not None
    assert 1000 < row.latency_p95_ms < 5000
    assert row.ttft_p95_ms is not None
    assert row.queue_depth is not None
    assert sampling.sample_all() == 0


def _kind(name: str) -> Any:
    from apps.demo.cluster.kinds import KINDS

    return next(kind for kind in KINDS if kind.kind == name)
