"""Changing a source in place: its token is replaced, never shown, and goes to no other server than its own."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse

from apps.audit.models import AuditEvent
from apps.clusters import crypto
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.metering import selftest_run
from apps.metering.choices import SourceKind
from apps.metering.models import Source
from apps.metering.source_changes import change_source
from tests.metering.world import World

OLD, NEW = "old-token-1", "new-token-2"


@pytest.fixture
def source(world: World) -> Source:
    """A Prometheus with a token and an option, after failures."""
    source = world.source
    source.kind, source.url, source.credentials = SourceKind.PROMETHEUS, "https://prom.example", crypto.encrypt(OLD)
    source.options = {"cluster_filter": 'cluster="dc1"', "windows": [[1, 2]]}
    source.failures, source.retry_at = 3, clock.now()
    source.save()
    return source


def where(source: Source) -> str:
    return reverse("metering:source-change", kwargs={"source_uid": source.uid})


@pytest.mark.requirement("metering-sources-5.3")
def test_a_token_is_replaced_in_place_and_tested(source: Source, company: Any, client_for: Any) -> None:
    client = client_for(company.admin)
    shown = client.get(where(source)).content.decode()
    assert OLD not in shown
    assert "cluster=&quot;dc1&quot;" in shown
    assert 'name="resolution_seconds"' not in shown  # only what its kind has
    sent = {
        "name": "Prometheus DC1", "url": "https://prom.example/", "token": NEW, "cluster_filter": 'cluster="dc2"',
        "gpu_resources": "", "timeout_seconds": "90", "version": source.version,
    }  # fmt: skip
    assert client.post(where(source), sent).status_code == 303
    source.refresh_from_db()
    assert crypto.decrypt(source.credentials) == NEW
    assert source.options == {"cluster_filter": 'cluster="dc2"', "timeout_seconds": 90, "windows": [[1, 2]]}
    assert (source.name, source.failures, source.retry_at) == ("Prometheus DC1", 0, None)
    assert selftest_run.moving(source) is not None
    event = AuditEvent.objects.get(action="metering.source.changed")
    told = event.canonical_text
    assert event.data["changes"]["changed"] == ["name", "token replaced", "cluster_filter", "timeout_seconds"]
    assert NEW not in told
    assert OLD not in told
    assert client.post(where(source), {**sent, "token": ""}).status_code == 409  # an old version of the page
    page = client.get(reverse("metering:source-detail", kwargs={"source_uid": source.uid})).content.decode()
    assert where(source) in page
    assert client_for(company.auditor).get(where(source)).status_code == 403


@pytest.mark.requirement("metering-sources-5.3")
def test_an_empty_token_keeps_the_stored_one(source: Source, company: Any) -> None:
    changed = change_source(source.pk, name="Renamed", actor=Actor.of(company.admin))
    assert crypto.decrypt(changed.credentials) == OLD
    gone = change_source(source.pk, actor=Actor.of(company.admin), forget_token=True)
    assert bytes(gone.credentials) == b""


@pytest.mark.requirement("metering-sources-5.3")
@pytest.mark.parametrize("url", ["https://prom.example:9090", "http://prom.example", "https://other.example/x"])
def test_a_token_goes_to_no_other_server(source: Source, company: Any, url: str) -> None:
    actor = Actor.of(company.admin)
    with pytest.raises(Invalid) as refused:
        change_source(source.pk, url=url, actor=actor)
    assert "Another server" in refused.value.errors["token"][0]
    source.refresh_from_db()
    assert source.url == "https://prom.example"
    assert change_source(source.pk, url=url, token=NEW, actor=actor).url == url
    same = change_source(source.pk, url=f"{url}/prefix", actor=actor)  # the same server: its token stays
    assert crypto.decrypt(same.credentials) == NEW


@pytest.mark.requirement("metering-sources-5.3")
@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"url": "ftp://prom.example"}, "url"),
        ({"url": "https://"}, "url"),
        ({"url": "https://user:secret@prom.example"}, "url"),
        ({"name": " "}, "name"),
        ({"token": "two words"}, "token"),
        ({"token": "line\nbreak"}, "token"),
        ({"token": NEW, "forget_token": True}, "token"),
        ({}, ""),
    ],
)
def test_what_cannot_be_is_said_beside_its_field(
    source: Source, company: Any, given: dict[str, Any], field: str
) -> None:
    with pytest.raises(Invalid) as refused:
        change_source(source.pk, **given, actor=Actor.of(company.admin))
    assert field in refused.value.errors
    source.refresh_from_db()
    assert crypto.decrypt(source.credentials) == OLD


@pytest.mark.requirement("metering-sources-5.3")
def test_only_polled_sources_by_an_admin(source: Source, company: Any, client_for: Any) -> None:
    with pytest.raises(NotAllowed):
        change_source(source.pk, name="Mine", actor=Actor.of(company.finance))
    api = f"/api/v1/usage-sources/{source.uid}/change"
    answer = client_for(company.admin).post(api, {"token": NEW}, content_type="application/json")
    assert answer.status_code == 200, answer.content
    assert NEW not in answer.content.decode()
    source.refresh_from_db()
    assert crypto.decrypt(source.credentials) == NEW
    Source.objects.filter(pk=source.pk).update(kind=SourceKind.CSV)
    with pytest.raises(Conflict):
        change_source(source.pk, name="Mine", actor=Actor.of(company.admin))
    assert client_for(company.admin).get(where(source)).status_code == 409


@pytest.mark.requirement("metering-sources-5.3")
def test_options_of_an_allocation_api_keep_what_nobody_sees(source: Source, company: Any, client_for: Any) -> None:
    Source.objects.filter(pk=source.pk).update(
        kind=SourceKind.ALLOCATION,
        options={"clusters": ["a", "b"], "resolution_seconds": 60, "parameters": {"resolution": "60s", "idle": "no"}},
    )
    client = client_for(company.admin)
    assert 'value="a, b"' in client.get(where(source)).content.decode()
    sent = {"name": "OpenCost", "url": source.url, "api_cluster": "b, c", "version": source.version}
    assert client.post(where(source), sent).status_code == 303
    source.refresh_from_db()
    assert source.options == {"clusters": ["b", "c"], "parameters": {"idle": "no"}}
