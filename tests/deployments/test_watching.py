"""What observers report of endpoints, and how far it is believed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from apps.clusters.choices import Health
from apps.core import clock
from apps.deployments import live_status, watching
from apps.deployments.choices import CanaryMode, LoadState
from apps.deployments.models import Endpoint, Release
from apps.deployments.watching import Truth
from apps.provisioning import observing
from apps.provisioning.models import WatchCursor
from apps.provisioning.ordering import Key
from tests.deployments.serving import NAMESPACE, Serving, failing, make_serving, route, service
from tests.factories import Company

pytestmark = pytest.mark.django_db


@pytest.fixture
def serving(company: Company) -> Serving:
    return make_serving(company)


def report(serving: Serving, *objects: tuple[Key, Any], ago: int = 0) -> int:
    return watching.take(serving.cluster.pk, list(objects), clock.now() - timedelta(seconds=ago))


@pytest.mark.requirement("serving-watch-1.1")
def test_a_report_is_kept_condensed(serving: Serving) -> None:
    assert serving.candidate is not None
    loading = {
        "conditions": [
            {"type": "Ready", "status": "False"}, {"type": "PredictorReady", "status": "False", "message": "0 of 1"}
        ],
        "modelStatus": {
            "transitionStatus": "InProgress", "copies": {"totalCopies": 0},
            "states": {"activeModelState": "Pending", "targetModelState": "Loading"},
        },
    }  # fmt: skip
    moved = report(
        serving, service(serving, serving.current), service(serving, serving.candidate, **loading),
        route(serving, fraud_r1=90, fraud_r2=10),
    )  # fmt: skip
    endpoint = serving.again()
    assert moved == 1
    assert endpoint.url == "http://fraud-finance-production.example.com"
    assert endpoint.ready_replicas == 1
    assert (serving.current.load_state, serving.candidate.load_state) == (LoadState.LOADED, LoadState.LOADING)
    held = list(endpoint.live["objects"].values())
    assert [(row.name, row.percent) for row in live_status.shares(held)] == [
        ("fraud-r1-predictor", 90), ("fraud-r2-predictor", 10)
    ]  # fmt: skip
    assert endpoint.live["objects"]["InferenceService/fraud-r2"]["trouble"] == "0 of 1"
    before = endpoint.version
    report(serving, service(serving, serving.current))
    assert serving.again().version == before  # an observation is nobody's edit


@pytest.mark.requirement("serving-watch-1.1")
def test_a_failed_load_is_kept_with_its_reason_and_the_guard_is_woken(
    serving: Serving, nudges: list[Any], django_capture_on_commit_callbacks: Any
) -> None:
    assert serving.candidate is not None
    with django_capture_on_commit_callbacks(execute=True):
        report(serving, service(serving, serving.candidate, **failing("no such format")))
    serving.again()
    assert (serving.candidate.load_state, serving.candidate.failure) == (LoadState.FAILED, "no such format")
    assert "deployments.guard_rollouts" in [name for name, _ in nudges]


@pytest.mark.requirement("serving-watch-1.1")
def test_a_status_of_an_earlier_specification_is_no_news(serving: Serving) -> None:
    assert serving.candidate is not None
    key, body = service(serving, serving.candidate)
    body["metadata"]["generation"] = 3
    report(serving, (key, body))
    serving.again()
    assert serving.candidate.load_state == LoadState.PENDING


@pytest.mark.requirement("serving-watch-1.2")
def test_an_older_report_changes_nothing(serving: Serving) -> None:
    report(serving, service(serving, serving.current))
    assert report(serving, service(serving, serving.current, **failing()), ago=60) == 0
    serving.again()
    assert serving.current.load_state == LoadState.LOADED


@pytest.mark.requirement("serving-watch-1.2")
def test_what_bears_the_label_only_is_not_believed(serving: Serving) -> None:
    key, body = service(serving, serving.current, **failing())
    for namespace, name in (("elsewhere", key.name), (NAMESPACE, "another"), (NAMESPACE, "another-r1")):
        assert report(serving, (Key(key.kind, namespace, name), body)) == 0
    body["metadata"]["labels"]["gpu-commons/endpoint"] = "somebody-else"
    assert report(serving, (key, body)) == 0
    serving.again()
    assert serving.current.load_state == LoadState.LOADED
    assert serving.endpoint.live == {}


@pytest.mark.requirement("serving-watch-1.1")
def test_what_is_gone_is_taken_out(serving: Serving) -> None:
    report(serving, service(serving, serving.current), route(serving, fraud_r1=100))
    key, _ = route(serving)
    report(serving, (key, None))
    assert set(serving.again().live["objects"]) == {"InferenceService/fraud-r1"}


@pytest.mark.requirement("serving-watch-1.1")
def test_knative_speaks_of_two_releases_in_one_object(serving: Serving) -> None:
    assert serving.candidate is not None
    Endpoint.objects.filter(pk=serving.endpoint.pk).update(canary_mode=CanaryMode.KNATIVE)
    Release.objects.filter(endpoint=serving.endpoint).update(load_state="")
    traffic = [
        {"revisionName": "fraud-predictor-00002", "percent": 10},
        {"revisionName": "fraud-predictor-00001", "percent": 90},
    ]
    parts = {"predictor": {"latestCreatedRevision": "fraud-predictor-00002", "traffic": traffic}}
    report(serving, service(serving, serving.candidate, name="fraud", components=parts))
    serving.again()
    assert (serving.current.load_state, serving.candidate.load_state) == (LoadState.LOADED, LoadState.LOADED)
    report(serving, service(serving, serving.candidate, name="fraud", components=parts, **failing()))
    serving.again()
    assert (serving.current.load_state, serving.candidate.load_state) == (LoadState.LOADED, LoadState.FAILED)


@pytest.mark.requirement("serving-watch-1.1")
@pytest.mark.parametrize(
    ("status", "state"),
    [
        ({}, LoadState.LOADED),
        ({"conditions": [{"type": "Ready", "status": "False"}]}, LoadState.PENDING),
        ({"conditions": [{"type": "Stopped", "status": "True"}]}, LoadState.STOPPED),
        ({"modelStatus": {"transitionStatus": "InvalidSpec"}}, LoadState.FAILED),
        ({"modelStatus": {}}, LoadState.PENDING),
        ({"observedGeneration": 1}, LoadState.PENDING),
    ],
)
def test_load_states(serving: Serving, status: dict[str, Any], state: LoadState) -> None:
    _, body = service(serving, serving.current, **status)
    assert live_status.load_state(live_status.condense(body)) is state


@pytest.mark.requirement("serving-watch-1.3")
def test_a_lost_cluster_is_never_shown_as_fresh(serving: Serving) -> None:
    assert watching.seen(serving.again()).truth is Truth.NEVER
    report(serving, service(serving, serving.current))
    found = watching.seen(serving.again())
    assert (found.truth, found.believed) == (Truth.FRESH, True)
    serving.cluster.health, serving.cluster.unreachable_since = Health.UNREACHABLE, clock.now()
    serving.cluster.save()
    found = watching.seen(serving.again())
    assert (found.truth, found.believed) == (Truth.UNREACHABLE, False)
    assert "cannot be reached since" in found.why


@pytest.mark.requirement("serving-watch-1.3")
def test_an_old_report_is_stale_unless_the_watch_went_on(serving: Serving) -> None:
    report(serving, service(serving, serving.current))
    later = clock.now() + timedelta(minutes=20)
    assert watching.seen(serving.again(), later).truth is Truth.STALE
    WatchCursor.objects.create(
        cluster=serving.cluster, kind="InferenceService", resource_version="9", seen_at=later - timedelta(minutes=1)
    )
    found = watching.seen(serving.again(), later)
    assert (found.truth, found.at) == (Truth.FRESH, later - timedelta(minutes=1))


@pytest.mark.requirement("serving-watch-1.1")
def test_observers_pass_their_looks_on(serving: Serving, django_capture_on_commit_callbacks: Any) -> None:
    key, body = service(serving, serving.current)
    body["metadata"]["resourceVersion"] = "7"
    with django_capture_on_commit_callbacks(execute=True):
        observing.record_objects(serving.cluster.pk, [(key, body)], clock.now())
    assert serving.again().live_at is not None


@pytest.mark.requirement("serving-watch-1.1")
def test_what_scalers_and_routes_complain_of_is_kept() -> None:
    rows = [
        {"type": "Ready", "status": "True"},
        {"type": "Fallback", "status": "True", "message": "the query gave no result"},
    ]  # fmt: skip
    scaler = live_status.condense({"kind": "ScaledObject", "status": {"conditions": rows}})
    assert (scaler["fallback"], scaler["trouble"]) == (True, "the query gave no result")
    parents = [{"conditions": [{"type": "Accepted", "status": "False", "reason": "NoMatchingParent"}]}]
    found = live_status.condense({"kind": "HTTPRoute", "status": {"parents": parents}, "spec": {"rules": []}})
    assert (found["ready"], found["trouble"]) == (False, "Accepted: NoMatchingParent")
    assert watching.endpoint_name("fraud-r12") == "fraud"
    assert watching.endpoint_name("fraud-r") == "fraud-r"
