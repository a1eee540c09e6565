"""Events that registries post, comparing bytes, pages and API of registries."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from apps.catalogue import registry_actions, registry_bytes, registry_webhooks
from apps.catalogue.models import (
    Registry,
    RegistryDelivery,
    RegistryFinding,
    RegistryModel,
    RegistryVersion,
    VersionFile,
)
from apps.catalogue.reading.base import Entry
from apps.core import clock
from apps.core.actor import Actor
from apps.core.testing import assert_queries
from tests.catalogue.world import make_model, make_store, make_version, seal_directly
from tests.factories import Company, client_for

pytestmark = pytest.mark.django_db
SECRET = "a secret of some length"
BODY = b'{"entity": "model_version_tag", "action": "set", "timestamp": "now", "data": {"value": "EVIL"}}'


@pytest.fixture
def registry(company: Company) -> Registry:
    """A registry with a webhook secret, read a minute ago."""
    row = registry_actions.add_registry(
        "Research", "mlflow", actor=Actor.of(company.admin), base_url="https://mlflow.example.com",
        webhook_secret=SECRET,
    )  # fmt: skip
    later = clock.now() + timedelta(minutes=14)
    Registry.objects.filter(pk=row.pk).update(polled_at=clock.now() - timedelta(minutes=1), next_poll_at=later)
    row.refresh_from_db()
    return row


def post(registry: Registry, body: bytes = BODY, **changes: Any) -> Any:
    at = str(changes.get("at", int(clock.now().timestamp())))
    delivery = changes.get("delivery", "d-1")
    signed = changes.get("signed") or registry_webhooks.signature(changes.get("secret", SECRET), delivery, at, body)
    return Client().post(
        f"/api/v1/registries/{changes.get('slug', registry.slug)}/events", data=changes.get("sent", body),
        content_type="application/json", headers={
            "X-MLflow-Signature": signed, "X-MLflow-Timestamp": at, "X-MLflow-Delivery-Id": delivery,
        },
    )  # fmt: skip


@pytest.mark.requirement("registry-sync-5.1", "registry-sync-5.2")
def test_a_genuine_event_makes_the_next_reading_come_at_once_and_no_more(registry: Registry) -> None:
    assert post(registry).status_code == 202
    registry.refresh_from_db()
    assert registry.next_poll_at is not None
    assert registry.next_poll_at <= clock.now()
    row = RegistryDelivery.objects.get()
    assert (row.entity, row.action) == ("model_version_tag", "set")
    assert not RegistryModel.objects.exists()
    assert not RegistryFinding.objects.exists()
    assert post(registry).status_code == 409  # the same delivery again
    assert RegistryDelivery.objects.count() == 1
    with clock.frozen(clock.now() + timedelta(days=3)):
        assert registry_webhooks.forget_old() == 1


@pytest.mark.requirement("registry-sync-5.1")
@pytest.mark.parametrize(
    "changes",
    [
        {"secret": "another secret of length"}, {"signed": "v1,AAAA"}, {"signed": " "}, {"sent": BODY + b" "},
        {"at": timedelta(seconds=-400)}, {"at": timedelta(seconds=400)}, {"at": "soon"},
        {"at": "9" * 12}, {"delivery": ""}, {"delivery": "x" * 101}, {"slug": "no-such-registry"},
    ],
)  # fmt: skip
def test_every_other_event_is_refused_alike(registry: Registry, changes: dict[str, Any]) -> None:
    if isinstance(away := changes.get("at"), timedelta):
        # Counted from when the test runs, not from when it was collected.
        changes = {"at": int((clock.now() + away).timestamp())}
    answer = post(registry, **changes)
    assert answer.status_code == 401
    assert "not signed by this registry" in answer.json()["detail"]
    assert not RegistryDelivery.objects.exists()
    before = registry.next_poll_at
    registry.refresh_from_db()
    assert registry.next_poll_at == before


@pytest.mark.requirement("registry-sync-5.1")
def test_without_secret_switched_off_or_too_large_no_event_is_taken(company: Company, registry: Registry) -> None:
    assert post(registry, body=b"x" * (registry_webhooks.MAX_BODY + 1)).status_code == 400
    admin = Actor.of(company.admin)
    registry_actions.edit_registry(registry.pk, actor=admin, webhook_secret="")
    assert post(registry).status_code == 401
    assert post(registry, secret="no secret").status_code == 401
    registry_actions.edit_registry(registry.pk, actor=admin, webhook_secret=SECRET)
    registry_actions.disable_registry(registry.pk, actor=admin)
    assert post(registry).status_code == 401


@pytest.mark.requirement("registry-sync-4.3")
def test_changed_bytes_at_a_sealed_versions_source_are_found_once(
    company: Company, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert registry_bytes.differences([("a", 1, "x"), ("b", 2, "y"), ("c", 3, "")], [
        Entry("b", 2, "z"), Entry("c", 3, "w"), Entry("d", 1, "q"),
    ]) == ["a is gone", "d is new", "b was written anew (same size, other ETag)"]  # fmt: skip
    model = make_model(company.finance_team)
    version = make_version(model, company.member_finance, scheme="s3", store=make_store())
    VersionFile.objects.filter(model_version=version).update(etag="e1")
    seal_directly(version)
    at = clock.now()
    entry = RegistryModel.objects.create(
        registry=registry, foreign_id="m", name="m", model=model, first_seen_at=at, last_seen_at=at
    )
    RegistryVersion.objects.create(
        registry_model=entry, foreign_version="1", model_version=version, first_seen_at=at, last_seen_at=at
    )
    file = VersionFile.objects.get(model_version=version)
    lying = [Entry(file.path, file.size, "e1")]

    class Reader:
        def entries(self) -> list[Entry]:
            return lying

    class Opened:
        def __init__(self, *args: Any) -> None: ...

        def __enter__(self) -> Reader:
            return Reader()

        def __exit__(self, *args: Any) -> None: ...

    monkeypatch.setattr(registry_bytes, "opened", Opened)
    assert registry_bytes.check_due() == 1
    assert not RegistryFinding.objects.exists()
    assert registry_bytes.check_due() == 0  # once a day
    lying = [Entry(file.path, file.size + 1, "e2")]
    for day in (1, 2, 3):
        with clock.frozen(at + timedelta(days=day, hours=day)):
            assert registry_bytes.check_due() == 1
    finding = RegistryFinding.objects.get()
    assert finding.kind == "changed_bytes"
    assert f"{file.size + 1} bytes instead of {file.size}" in finding.after


@pytest.mark.requirement("registry-sync-1.1", "registry-sync-1.3")
def test_pages_and_api_show_how_reading_goes_and_never_a_secret(company: Company, registry: Registry) -> None:
    admin = client_for(company.admin)
    Registry.objects.filter(pk=registry.pk).update(failing_since=clock.now(), last_error="It does not answer.")
    page = admin.get(reverse("catalogue:registry-detail", kwargs={"registry_uid": registry.uid})).content.decode()
    assert "It does not answer." in page
    assert f"/api/v1/registries/{registry.slug}/events" in page
    form = admin.get(reverse("catalogue:registry-edit", kwargs={"registry_uid": registry.uid})).content.decode()
    api = admin.get(f"/api/v1/registries/{registry.uid}")
    assert api.json()["has_webhook_secret"] is True
    assert api.json()["last_error"] == "It does not answer."
    assert SECRET not in page + form + api.content.decode()
    answer = admin.post(
        reverse("catalogue:registry-create"),
        {"kind": "kubeflow", "name": "Hub", "base_url": "https://hub.example.com", "poll_minutes": "5",
         "token": "t0ken-t0ken", "username": "both"},
    )  # fmt: skip
    assert answer.status_code == 400
    assert "Either a token" in answer.content.decode()
    answer = admin.post(
        reverse("catalogue:registry-create"),
        {"kind": "kubeflow", "name": "Hub", "base_url": "https://hub.example.com", "poll_minutes": "5",
         "default_team": company.finance_team.slug},
    )  # fmt: skip
    assert answer.status_code == 303
    assert Registry.objects.get(slug="hub").default_team == company.finance_team
    made = admin.post("/api/v1/registries", json.dumps(
        {"name": "Third", "kind": "mlflow", "base_url": "https://third.example.com", "default_team": "finance"}
    ), content_type="application/json")  # fmt: skip
    assert made.status_code == 201
    assert client_for(company.lead_finance).get(reverse("catalogue:registry-list")).status_code == 403


@pytest.mark.requirement("registry-sync-1.3")
def test_lists_keep_to_their_queries_at_any_size(company: Company, registry: Registry) -> None:
    at = clock.now()
    for number in range(60):
        model = make_model(company.finance_team) if number % 2 else None
        entry = RegistryModel.objects.create(
            registry=registry, foreign_id=f"m{number}", name=f"m{number}", model=model, first_seen_at=at,
            last_seen_at=at, seen={"aliases": {"champion": "1"}},
        )  # fmt: skip
        RegistryFinding.objects.create(
            registry=registry, registry_model=entry, kind="moved_alias", key="champion", before="1", after="2",
            found_at=at,
        )  # fmt: skip
    lead, admin = client_for(company.lead_finance), client_for(company.admin)
    for client, shown, hidden in ((lead, "m59", "m58"), (admin, "m58", "")):
        for name in ("registry-model-list", "registry-finding-list"):
            with assert_queries(20):
                page = client.get(reverse(f"catalogue:{name}"), {"search": shown}).content.decode()
            assert f">{shown}<" in page
            if hidden:
                assert hidden not in client.get(
                    reverse(f"catalogue:{name}"), {"search": hidden[:3]}
                ).content.decode().replace(f'value="{hidden}"', "")
        for name in ("registered-models", "registry-findings"):
            with assert_queries(15):
                assert client.get(f"/api/v1/{name}").status_code == 200
    with assert_queries(20):
        assert "60" in admin.get(reverse("catalogue:registry-list")).content.decode()
    finding = RegistryFinding.objects.get(registry_model__name="m59")
    url = reverse("catalogue:registry-finding-acknowledge", kwargs={"finding_uid": finding.uid})
    assert "champion" in lead.get(url).content.decode()
    assert lead.post(url, {"note": "Expected by us.", "version": "1"}).status_code == 303
    assert lead.post(url, {"note": "Expected by us.", "version": "1"}).status_code == 409
    assert lead.get(reverse("catalogue:registry-finding-list"), {"export": "csv"}).status_code == 200
