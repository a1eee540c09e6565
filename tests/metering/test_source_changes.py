"""Changing a source in place: its token is replaced, never shown, and goes to no other server than its own."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse

from apps.audit.models import AuditEvent
from apps.clusters import crypto
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.core.models import OutboxMessage
from apps.metering import fitness, selftest_run, waivers
from apps.metering.choices import SourceKind
from apps.metering.models import Source
from apps.metering.selftest import Finding, Outcome
from apps.metering.source_changes import change_source
from tests.metering.test_fitness import checked, ingest
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


def matching(source: Source) -> dict[str, str]:
    source.refresh_from_db()
    return {"If-Match": f'"{source.version}"'}


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
    admin = client_for(company.admin)
    assert admin.post(api, {"token": NEW}, content_type="application/json").status_code == 428
    answer = admin.post(api, {"token": NEW}, content_type="application/json", headers=matching(source))
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


@pytest.mark.requirement("metering-sources-5.3")
def test_options_through_the_api_as_on_the_page(source: Source, company: Any, client_for: Any) -> None:
    client, api = client_for(company.admin), f"/api/v1/usage-sources/{source.uid}"
    assert client.get(api).json()["options"] == {
        "cluster_filter": 'cluster="dc1"', "gpu_resources": None, "timeout_seconds": None,
    }  # fmt: skip

    def change(options: dict[str, Any]) -> Any:
        return client.post(
            f"{api}/change", {"options": options}, content_type="application/json", headers=matching(source)
        )

    done = change({"cluster_filter": None, "gpu_resources": ["nvidia.com/gpu", "amd.com/gpu"], "timeout_seconds": 90})
    assert done.status_code == 200, done.content
    given = {"cluster_filter": None, "gpu_resources": ["nvidia_com_gpu", "amd_com_gpu"], "timeout_seconds": 90}
    assert done.json()["options"] == given
    assert done.headers["ETag"] == matching(source)["If-Match"]
    assert source.options == {**{key: value for key, value in given.items() if value}, "windows": [[1, 2]]}
    assert selftest_run.moving(source) is not None
    for options, field in (
        ({"resolution_seconds": 60}, "resolution_seconds"),  # an option of the other kinds
        ({"cluster_filter": 'a="b"} or up{'}, "cluster_filter"),
        ({"gpu_resources": ["no name"]}, "gpu_resources"),
        ({"timeout_seconds": 1}, "options.timeout_seconds"),
    ):
        refused = change(options)
        assert (refused.status_code, list(refused.json()["errors"])) == (400, [field])
    stale = {"If-Match": '"1"'}
    old = client.post(f"{api}/change", {"options": {}}, content_type="application/json", headers=stale)
    assert old.status_code == 412


@pytest.mark.requirement("metering-sources-5.3")
def test_a_source_is_registered_with_options_through_the_api(world: World, company: Any, client_for: Any) -> None:
    client = client_for(company.admin)
    Source.objects.all().delete()
    body = {
        "cluster": world.cluster.slug, "kind": "allocation", "name": "OpenCost", "url": "http://cost.example:9003",
        "valid_from": "2026-11-01T00:00:00Z", "options": {"clusters": [" a ", "b"], "resolution_seconds": 60},
    }  # fmt: skip
    wrong = client.post("/api/v1/usage-sources", {**body, "options": {"cluster_filter": "a=b"}}, "application/json")
    assert (wrong.status_code, list(wrong.json()["errors"])) == (400, ["cluster_filter"])
    made = client.post("/api/v1/usage-sources", body, "application/json")
    assert made.status_code == 201, made.content
    assert Source.objects.get().options == {
        "clusters": ["a", "b"], "resolution_seconds": 60, "parameters": {"resolution": "60s"},
    }  # fmt: skip


@pytest.mark.requirement("metering-sources-3.3")
@pytest.mark.parametrize(
    ("given", "ends"),
    [
        ({"url": "https://other.example", "token": NEW}, True),
        ({"url": "https://prom.example/prefix"}, True),
        ({"options": {"cluster_filter": 'cluster="dc2"'}}, True),
        ({"options": {"gpu_resources": ["amd.com/gpu"]}}, True),
        ({"options": {"timeout_seconds": 90}}, False),
        ({"token": NEW}, False),
        ({"name": "Renamed"}, False),
    ],
)
def test_a_waiver_ends_with_what_it_was_given_for(
    source: Source, company: Any, client_for: Any, given: dict[str, Any], ends: bool
) -> None:
    checked(source, ["retention"])
    until = clock.now() + timedelta(days=30)
    waiver = waivers.waive(source.pk, ["retention"], "Thanos follows.", until, actor=Actor.of(company.finance))
    OutboxMessage.objects.all().delete()
    asked = source.check_requested_at
    change_source(source.pk, **given, actor=Actor.of(company.admin))
    waiver.refresh_from_db()
    source.refresh_from_db()
    assert (fitness.unfit(source) is not None) is ends
    assert waivers.standing(waiver) is not ends
    assert source.check_requested_at != asked  # tested again in either case
    events = AuditEvent.objects.filter(action="metering.waiver.ended")
    told = OutboxMessage.objects.filter(event="metering.waiver.ended")
    assert (events.count(), told.count()) == ((1, 1) if ends else (0, 0))
    if ends:
        # Who gave their word for the old one is told that it holds no more.
        assert company.finance.pk in told.get().recipient_ids
        assert company.admin.pk not in told.get().recipient_ids
        changed = AuditEvent.objects.get(action="metering.source.changed").data["changes"]
        assert changed["waivers_ended"] == 1
        page = client_for(company.admin).get(reverse("metering:source-detail", kwargs={"source_uid": source.uid}))
        assert "ended when the source was changed" in page.content.decode()


@pytest.mark.requirement("metering-sources-2.1", "metering-sources-3.1")
def test_a_verdict_is_unknown_until_the_new_server_is_tested(source: Source, company: Any, client_for: Any) -> None:
    admin = Actor.of(company.admin)
    checked(source)
    assert fitness.unfit(source) is None
    change_source(source.pk, name="Renamed", actor=admin)
    assert fitness.unfit(source) is None  # the same server: what it said still counts
    change_source(source.pk, url="https://other.example", token=NEW, actor=admin)
    source.refresh_from_db()
    found = fitness.unfit(source)
    assert found is not None
    assert found.codes == ("changed",)
    assert "former server" in found.reasons[0]
    assert fitness.health_of([source])[source.pk].word == "unknown"
    assert [one.source.pk for one in fitness.unfit_sources(clock.now() - timedelta(days=1), clock.now())] == [source.pk]
    assert source in selftest_run.due_sources()
    page = client_for(company.admin).get(reverse("metering:source-detail", kwargs={"source_uid": source.uid}))
    assert "Unknown since it was changed" in page.content.decode()
    # Finance may bill on it all the same, by name.
    until = clock.now() + timedelta(days=1)
    waivers.waive(source.pk, ["changed"], "The same Prometheus, renamed.", until, actor=Actor.of(company.finance))
    assert fitness.unfit(source) is None
    checked(source, at=clock.now() + timedelta(seconds=1))
    assert fitness.health_of([source])[source.pk].word == "passed"


@pytest.mark.requirement("metering-sources-2.1")
def test_hours_read_from_a_server_that_was_not_tested_carry_the_flag(world: World, company: Any) -> None:
    checked(world.source)
    Source.objects.filter(pk=world.source.pk).update(kind=SourceKind.PROMETHEUS, url="https://prom.example")
    assert ingest(world) == [[]] * 3
    change_source(world.source.pk, url="https://other.example", actor=Actor.of(company.admin))
    assert ingest(world) == [["source_unfit"]] * 3


@pytest.mark.requirement("metering-sources-2.1", "metering-sources-1.13")
def test_a_test_of_the_former_server_does_not_count(
    source: Source, company: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked(source)

    def slow(asked: Source, *_: Any) -> Outcome:
        """Find everything well at the old address while somebody enters another one."""
        change_source(asked.pk, url="https://other.example", token=NEW, actor=Actor.of(company.admin))
        return Outcome([Finding("version", "ok", "fine")])

    monkeypatch.setattr(selftest_run, "_ask", slow)
    with pytest.raises(Conflict):
        selftest_run.check_source(source.pk, actor=Actor.system("test"))
    assert fitness.health_of([source])[source.pk].word == "unknown"
    assert source.pk in {one.pk for one in selftest_run.due_sources()}
    monkeypatch.setattr(selftest_run, "_ask", lambda *_: Outcome([Finding("version", "ok", "fine")]))
    assert selftest_run.check_source(source.pk, actor=Actor.system("test")) is not None
    assert fitness.health_of([source])[source.pk].word == "passed"
