"""Objectives: set, read, breached, acted on; the metric port; the live part of an endpoint's page."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from apps.accounts.actions import create_token
from apps.audit.models import AuditEvent
from apps.clusters.choices import Health
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.models import OutboxMessage
from apps.deployments import drift_actions, objective_readings, objectives, watch_advice, watching
from apps.deployments.choices import ObjectiveKind
from apps.deployments.models import DriftReading, Objective, ObjectiveReading
from tests.deployments.serving import Serving, failing, make_serving, service
from tests.factories import Company, client_for

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Sample:
    requests: int | None = None
    errors: int | None = None
    latency_p95_ms: int | None = None
    ready_replicas: int | None = None


@pytest.fixture
def serving(company: Company) -> Serving:
    return make_serving(company)


def lead(serving: Serving) -> Actor:
    return Actor.of(serving.company.lead_finance)


def audited(what: str) -> int:
    return AuditEvent.objects.filter(action=f"deployments.objective.{what}").count()


def make(
    serving: Serving, kind: str = "error_rate", target: str = "0.01", action: str = "notify", **more: Any
) -> Objective:
    return objectives.set_objective(serving.endpoint.pk, kind, target, 24, action, actor=lead(serving), **more)


# ---- readings, pure


@pytest.mark.requirement("serving-watch-4.2")
@pytest.mark.parametrize(
    ("kind", "target", "samples", "value", "breached"),
    [
        ("availability", "0.9", [Sample(ready_replicas=1)] * 9 + [Sample(ready_replicas=0)], "0.9", False),
        ("availability", "0.95", [Sample(ready_replicas=1)] * 9 + [Sample(ready_replicas=0)], "0.9", True),
        ("availability", "0.95", [Sample(ready_replicas=1), Sample()], "1", False),
        ("availability", "0.95", [Sample()], None, None),
        ("error_rate", "0.01", [Sample(100, 1)], "0.01", False),
        ("error_rate", "0.01", [Sample(100, 1), Sample(100, 2), Sample(500, None)], "0.015", True),
        ("error_rate", "0.01", [Sample(49, 49)], None, None),
        ("latency_p95_ms", "100", [Sample(latency_p95_ms=100)] * 3 + [Sample()], "100", False),
        ("latency_p95_ms", "100", [Sample(latency_p95_ms=n) for n in range(1, 201)], "191", True),
        ("latency_p95_ms", "100", [], None, None),
    ],
)
def test_how_an_objective_stands(
    kind: str, target: str, samples: list[Sample], value: str | None, breached: bool | None
) -> None:
    found = objective_readings.read(kind, Decimal(target), samples=samples, at=NOON)
    assert (found.value, found.breached) == (None if value is None else Decimal(value), breached)


@pytest.mark.requirement("serving-watch-4.2")
def test_age_and_drift() -> None:
    trained = NOON - timedelta(days=181, hours=3)
    assert objective_readings.read("age_days", Decimal(180), trained_at=trained, at=NOON).breached is True
    assert objective_readings.read("age_days", Decimal(181), trained_at=trained, at=NOON).breached is False
    assert objective_readings.read("age_days", Decimal(181), at=NOON).value is None
    assert objective_readings.read("psi", Decimal("0.25"), drift=Decimal("0.3"), at=NOON).breached is True
    assert objective_readings.read("ks", Decimal("0.25"), at=NOON).breached is None


# ---- setting


@pytest.mark.django_db
@pytest.mark.requirement("serving-watch-4.1")
@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"kind": "speed"}, "kind"), ({"target": "much"}, "target"), ({"target": "-1"}, "target"),
        ({"target": "NaN"}, "target"),
        ({"target": "1.5"}, "target"), ({"kind": "latency_p95_ms", "target": "1.5"}, "target"),
        ({"window_hours": 0}, "window_hours"), ({"window_hours": 721}, "window_hours"), ({"action": "shout"}, "action"),
        ({"kind": "psi"}, "feature"), ({"feature": "amount"}, "feature"),
        ({"kind": "psi", "feature": "x" * 101}, "feature"),
    ],
)  # fmt: skip
def test_what_an_objective_cannot_be(serving: Serving, values: dict[str, Any], field: str) -> None:
    asked = {"kind": "error_rate", "target": "0.01", "window_hours": 24, "action": "notify", "feature": ""} | values
    with pytest.raises(Invalid) as refusal:
        objectives.set_objective(serving.endpoint.pk, actor=lead(serving), **asked)
    assert field in refusal.value.errors


@pytest.mark.django_db
@pytest.mark.requirement("serving-watch-4.1")
def test_one_of_a_kind_changed_and_archived_under_its_version(serving: Serving) -> None:
    first = make(serving)
    with pytest.raises(Conflict):
        make(serving)
    make(serving, "psi", "0.25", feature="amount")
    make(serving, "psi", "0.25", feature="prediction")
    changed = objectives.change_objective(
        first.pk, "0.02", 48, "recertify", actor=lead(serving), expected_version=first.version
    )
    assert (changed.target, changed.window_hours, changed.action) == (Decimal("0.02"), 48, "recertify")
    with pytest.raises(Conflict):
        objectives.archive_objective(first.pk, actor=lead(serving), expected_version=first.version)
    objectives.archive_objective(first.pk, actor=lead(serving), expected_version=changed.version)
    with pytest.raises(Conflict):
        objectives.change_objective(first.pk, "0.02", 48, "notify", actor=lead(serving))
    make(serving)
    assert (audited("set"), audited("changed"), audited("archived")) == (4, 1, 1)


@pytest.mark.django_db
@pytest.mark.requirement("serving-watch-4.1", "serving-watch-6.2")
def test_only_leads_of_the_team_set_objectives(serving: Serving) -> None:
    row = make(serving)
    for name, error in (("member_finance", NotAllowed), ("auditor", NotAllowed), ("lead_marketing", NotVisible)):
        actor = Actor.of(serving.company[name])
        with pytest.raises(error):
            objectives.set_objective(serving.endpoint.pk, "psi", "0.1", 24, "notify", feature="x", actor=actor)
        with pytest.raises(error):
            objectives.archive_objective(row.pk, actor=actor)


# ---- reading and acting


@pytest.mark.django_db
@pytest.mark.requirement("serving-watch-4.3", "serving-watch-4.4")
def test_a_breach_is_told_once_and_ends(serving: Serving) -> None:
    row = make(serving)
    at = clock.now()
    serving.sample(serving.current, at - timedelta(minutes=3), requests=1000, errors=50)
    assert objectives.read_all() == 1
    assert objectives.read_all() == 0  # five minutes have not passed
    objectives.read_one(row.pk, at + timedelta(minutes=5))
    row.refresh_from_db()
    assert row.breached_since is not None
    (told,) = OutboxMessage.objects.filter(event="deployments.objective.breached")
    assert told.recipient_ids == [serving.company.lead_finance.pk]
    assert audited("breached") == 1
    serving.sample(serving.current, at + timedelta(minutes=6), requests=100_000, errors=0)
    objectives.read_one(row.pk, at + timedelta(minutes=10))
    row.refresh_from_db()
    assert row.breached_since is None
    assert audited("met") == 1
    assert ObjectiveReading.objects.filter(objective=row).count() == 3


@pytest.mark.django_db
@pytest.mark.requirement("serving-watch-4.2")
def test_what_is_unknown_neither_begins_nor_ends_a_breach(serving: Serving) -> None:
    row = make(serving)
    at = clock.now()
    objectives.read_one(row.pk, at)
    assert ObjectiveReading.objects.get(objective=row).breached is None
    Objective.objects.filter(pk=row.pk).update(breached_since=at)
    objectives.read_one(row.pk, at + timedelta(minutes=5))
    row.refresh_from_db()
    assert row.breached_since == at


@pytest.mark.django_db
@pytest.mark.requirement("serving-watch-4.3")
def test_a_breach_opens_recertification(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    serving = make_serving(company, trained_at=clock.now() - timedelta(days=31))
    asked: list[tuple[int, str]] = []

    def recertify(model_version_id: int, reason: str, *, actor: Actor) -> object:
        assert actor.is_system
        asked.append((model_version_id, reason))
        return object()

    monkeypatch.setattr(objectives.catalogue, "recertify", recertify)
    row = make(serving, "age_days", "30", "recertify")
    objectives.read_all()
    assert [pk for pk, _ in asked] == [serving.current.model_version_id]
    assert "Days since training: at most 30 days; it stood at 31 days." in asked[0][1]
    assert ObjectiveReading.objects.get(objective=row).detail["done"] == "Put before compliance again."


@pytest.mark.django_db
@pytest.mark.requirement("serving-watch-4.3")
def test_a_breach_that_cannot_be_acted_on_says_so(company: Company) -> None:
    """The version was never approved here, so the catalogue refuses."""
    serving = make_serving(company, trained_at=clock.now() - timedelta(days=31))
    row = make(serving, "age_days", "30", "recertify")
    objectives.read_all()
    assert ObjectiveReading.objects.get(objective=row).detail["done"].startswith("Refused:")
    row.refresh_from_db()
    assert row.breached_since is not None


@pytest.mark.django_db
@pytest.mark.requirement("serving-watch-4.2")
def test_availability_counts_the_endpoint_not_its_releases(serving: Serving) -> None:
    assert serving.candidate is not None
    row = make(serving, "availability", "0.99")
    at = clock.now()
    for minute in range(1, 11):
        serving.sample(serving.current, at - timedelta(minutes=minute), ready_replicas=1)
        serving.sample(serving.candidate, at - timedelta(minutes=minute), ready_replicas=0)
    objectives.read_one(row.pk, at)
    reading = ObjectiveReading.objects.get(objective=row)
    assert (reading.value, reading.breached) == (Decimal(1), False)


# ---- the metric port


def posting(**more: Any) -> dict[str, Any]:
    at = (clock.now() - timedelta(minutes=1)).isoformat()
    reading = {"feature": "amount", "at": at, "bins": {"expected": [25, 25, 25, 25], "actual": [10, 20, 30, 40]}}
    return {"source": "drift monitor", "readings": [reading | more]}


def token_of(user: Any, *, read_only: bool = False) -> str:
    _, secret = create_token(user.pk, "monitor", clock.now() + timedelta(days=1), read_only, actor=Actor.of(user))
    return secret


def post(serving: Serving, user: Any, body: dict[str, Any], *, read_only: bool = False, uid: Any = None) -> Any:
    client = Client()
    path = reverse("api:endpoint-drift", kwargs={"endpoint_uid": uid or serving.endpoint.uid})
    secret = token_of(user, read_only=read_only)
    return client.post(path, json.dumps(body), "application/json", headers={"Authorization": f"Bearer {secret}"})


@pytest.mark.django_db
@pytest.mark.requirement("serving-watch-5.1")
def test_bins_posted_with_a_token_become_psi_and_ks_once(serving: Serving) -> None:
    body = posting()
    answer = post(serving, serving.company.member_finance, body)
    assert answer.status_code == 201, answer.content
    rows = {row["kind"]: row for row in answer.json()}
    assert Decimal(rows["psi"]["value"]) == pytest.approx(Decimal("0.228"), abs=Decimal("0.001"))
    assert (Decimal(rows["ks"]["value"]), rows["ks"]["samples"]) == (Decimal("0.2"), 100)
    assert rows["psi"]["release"] == str(serving.current.uid)
    assert post(serving, serving.company.member_finance, body).status_code == 201
    assert DriftReading.objects.count() == 2
    assert AuditEvent.objects.filter(action="deployments.drift.posted").count() == 1


@pytest.mark.django_db
@pytest.mark.requirement("serving-watch-5.1")
def test_samples_and_values_are_taken_too(serving: Serving) -> None:
    actor = Actor.of(serving.company.member_finance)
    at = clock.now()
    told = {"expected": [float(n) for n in range(100)], "actual": [float(n) for n in range(50, 150)]}
    rows = drift_actions.post(
        serving.endpoint.uid,
        [
            {"feature": "age", "at": at, "samples": told},
            {"feature": "prediction", "at": at, "values": {"psi": 0.08}, "count": 5000},
        ],
        "monitor", actor=actor,
    )  # fmt: skip
    found = {(row.feature, row.kind): row for row in rows}
    assert found[("age", "ks")].value == Decimal("0.5")
    assert found[("age", "psi")].value > Decimal("0.25")
    assert (found[("prediction", "psi")].value, found[("prediction", "psi")].samples) == (Decimal("0.08"), 5000)


@pytest.mark.django_db
@pytest.mark.requirement("serving-watch-5.2")
@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"feature": " "}, "feature"), ({"bins": None}, "readings[0]"), ({"values": {"psi": 1}}, "readings[0]"),
        ({"bins": {"expected": [1, 2]}}, "bins"), ({"bins": {"expected": [1, 2], "actual": [1, 2, 3]}}, "bins"),
        ({"bins": {"expected": [1, "x"], "actual": [1, 2]}}, "bins.expected"),
        ({"bins": None, "values": {"ks": 2}}, "values.ks"), ({"bins": None, "values": {"mean": 2}}, "values"),
        ({"bins": None, "samples": {"expected": [], "actual": [1.0]}}, "samples.expected"),
        ({"at": "2126-01-01T00:00:00Z"}, "at"),
    ],
)  # fmt: skip
def test_malformed_postings_name_the_field(serving: Serving, more: dict[str, Any], field: str) -> None:
    answer = post(serving, serving.company.member_finance, posting(**more))
    assert answer.status_code == 400
    assert field in json.dumps(answer.json())
    assert DriftReading.objects.count() == 0


@pytest.mark.django_db
@pytest.mark.requirement("serving-watch-5.2")
def test_who_may_not_post(serving: Serving) -> None:
    company, body = serving.company, posting()
    assert post(serving, company.lead_marketing, body).status_code == 404
    assert post(serving, company.member_finance, body, uid=uuid.uuid4()).status_code == 404
    assert post(serving, company.auditor, body).status_code == 403
    assert post(serving, company.member_finance, body, read_only=True).status_code == 403
    path = reverse("api:endpoint-drift", kwargs={"endpoint_uid": serving.endpoint.uid})
    assert Client().post(path, json.dumps(body), "application/json").status_code == 401
    assert DriftReading.objects.count() == 0
    other = drift_actions.post
    with pytest.raises(Invalid):
        other(serving.endpoint.uid, [], "monitor", actor=Actor.of(company.member_finance))
    with pytest.raises(Invalid):
        other(
            serving.endpoint.uid,
            body["readings"],
            "m",
            actor=Actor.of(company.member_finance),
            release_uid=uuid.uuid4(),
        )


# ---- the API of objectives, and pages


@pytest.mark.django_db
@pytest.mark.requirement("serving-watch-4.1")
def test_objectives_through_the_api(serving: Serving) -> None:
    client = client_for(serving.company.lead_finance)
    body = {"endpoint": str(serving.endpoint.uid), "kind": "latency_p95_ms", "target": "250"}
    made = client.post(reverse("api:objective-list"), json.dumps(body), "application/json")
    assert made.status_code == 201, made.content
    path = reverse("api:objective-change", kwargs={"uid": made.json()["uid"]})
    terms = json.dumps({"target": "300", "window_hours": 12, "action": "roll_back"})
    assert client.post(path, terms, "application/json").status_code == 428
    changed = client.post(path, terms, "application/json", headers={"If-Match": made["ETag"]})
    assert (changed.status_code, changed.json()["action"]) == (200, "roll_back")
    archive = reverse("api:objective-archive", kwargs={"uid": made.json()["uid"]})
    assert client.post(archive, headers={"If-Match": made["ETag"]}).status_code in (409, 412)
    assert client.post(archive, headers={"If-Match": changed["ETag"]}).status_code == 200


@pytest.mark.django_db
@pytest.mark.requirement("serving-watch-6.1")
def test_the_live_part_says_what_is_wrong_and_what_to_do(serving: Serving, query_limit: Any) -> None:
    assert serving.candidate is not None
    at = clock.now()
    watching.take(serving.cluster.pk, [service(serving, serving.candidate, **failing("no such format"))], at)
    serving.sample(serving.current, at - timedelta(minutes=1), requests=120, errors=3, latency_p95_ms=1234)
    client = client_for(serving.company.lead_finance)
    path = reverse("deployments:endpoint-live", kwargs={"endpoint_uid": serving.endpoint.uid})
    with query_limit(20):
        page = client.get(path)
    text = page.content.decode()
    assert page.status_code == 200
    assert "Release 2 does not load" in text
    assert "no such format" in text
    assert "Roll it back" in text
    assert "1,234" in text
    assert 'hx-trigger="every 15s"' in text
    assert 'id="live-latency"' in text
    assert "No Prometheus is known" in text


@pytest.mark.django_db
@pytest.mark.requirement("serving-watch-1.3", "serving-watch-6.1")
def test_nothing_of_a_lost_cluster_is_green(serving: Serving) -> None:
    watching.take(serving.cluster.pk, [service(serving, serving.current)], clock.now())
    client = client_for(serving.company.lead_finance)
    path = reverse("deployments:endpoint-live", kwargs={"endpoint_uid": serving.endpoint.uid})
    assert "positive" in client.get(path).content.decode()
    serving.cluster.health, serving.cluster.unreachable_since = Health.UNREACHABLE, clock.now()
    serving.cluster.save()
    text = client.get(path).content.decode()
    assert "positive" not in text
    assert "cannot be reached" in text


@pytest.mark.django_db
@pytest.mark.requirement("serving-watch-6.1")
def test_a_simulated_cluster_is_named_as_such(serving: Serving) -> None:
    serving.cluster.simulated = True
    serving.cluster.save()
    client = client_for(serving.company.lead_finance)
    page = client.get(reverse("deployments:endpoint-live", kwargs={"endpoint_uid": serving.endpoint.uid}))
    assert "simulated cluster" in page.content.decode()


@pytest.mark.django_db
@pytest.mark.requirement("serving-watch-4.1", "serving-watch-6.1", "serving-watch-6.2")
def test_the_pages_of_objectives(serving: Serving, query_limit: Any) -> None:
    client = client_for(serving.company.lead_finance)
    listing = reverse("deployments:objective-list", kwargs={"endpoint_uid": serving.endpoint.uid})
    assert "It is held to nothing" in client.get(listing).content.decode()
    add = reverse("deployments:objective-add", kwargs={"endpoint_uid": serving.endpoint.uid})
    wrong = client.post(add, {"kind": "psi", "feature": "", "target": "0.2", "window_hours": "24", "action": "notify"})
    assert wrong.status_code == 400
    assert "Name the feature" in wrong.content.decode()
    done = client.post(
        add, {"kind": "psi", "feature": "amount", "target": "0.2", "window_hours": "24", "action": "notify"}
    )
    assert done.status_code in (302, 303)
    row = Objective.objects.get()
    drift_actions.post(
        serving.endpoint.uid,
        [{"feature": "amount", "at": clock.now(), "values": {"psi": 0.3}}],
        "m",
        actor=lead(serving),
    )
    objectives.read_all()
    with query_limit(20):
        text = client.get(listing).content.decode()
    assert "Breached" in text
    assert "0.300" in text
    edit = reverse("deployments:objective-edit", kwargs={"objective_uid": row.uid})
    row.refresh_from_db()
    data = {"target": "0.4", "window_hours": "24", "action": "notify", "version": row.version}
    assert client.post(edit, data).status_code in (302, 303)
    member = client_for(serving.company.member_finance)
    assert "Set an objective" not in member.get(listing).content.decode()
    assert member.get(add).status_code == 403
    assert client_for(serving.company.lead_marketing).get(listing).status_code == 404
    row.refresh_from_db()
    archive = reverse("deployments:objective-archive", kwargs={"objective_uid": row.uid})
    assert client.post(archive, {"version": row.version}).status_code in (302, 303)
    assert "It is held to nothing" in client.get(listing).content.decode()


@pytest.mark.requirement("serving-watch-1.4", "serving-watch-6.1")
def test_advice_in_sentences() -> None:
    objects = {
        "HTTPRoute/fraud": {"kind": "HTTPRoute", "trouble": "ResolvedRefs: backends not found: a/b"},
        "InferenceService/fraud-r1": {
            "kind": "InferenceService", "release": "x", "trouble": "exceeded quota: gpu", "ready": False,
        },
        "ScaledObject/fraud-r1": {"kind": "ScaledObject", "trouble": "the query gave no result"},
    }  # fmt: skip
    found = watch_advice.troubles(objects, {"x": 1})
    assert [each.title for each in found] == [
        "Traffic is not routed as declared", "Release 1 has no room", "Scaling does not follow its query"
    ]  # fmt: skip
    assert watch_advice.worst(found) == "critical"
    assert watch_advice.worst([]) == ""
    assert watch_advice.bytes_trouble("a" * 64, "a" * 64, 1) is None
    wrong = watch_advice.bytes_trouble("a" * 64, "b" * 64, 1)
    assert wrong is not None
    assert "other bytes than were approved" in wrong.title
    assert set(objective_readings.DRIFT) == {ObjectiveKind.PSI, ObjectiveKind.KS}
