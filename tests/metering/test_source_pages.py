"""Pages and API of sources: health and age, the newest test as a table, waivers, and who may do what."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse

from apps.clusters.choices import Sharing
from apps.clusters.models import Flavour
from apps.core import clock, leases
from apps.core.actor import Actor
from apps.core.models import Lease
from apps.metering import actions, waivers
from apps.metering.models import Source, SourceWaiver
from tests.metering.test_fitness import checked
from tests.metering.world import World, make_world


def page(source: Source) -> str:
    return reverse("metering:source-detail", kwargs={"source_uid": source.uid})


def form(world: World, **changes: Any) -> dict[str, Any]:
    return {
        "cluster": world.cluster.pk, "kind": "prometheus", "name": "P", "url": "http://prom.example",
        "valid_from": "2026-11-20T00:00", **changes,
    }  # fmt: skip


@pytest.mark.requirement("metering-sources-5.1")
def test_list_shows_health_and_age(world: World, company: Any, client_for: Any, query_limit: Any) -> None:
    others = [make_world([], slug=f"dc{number}") for number in range(3, 9)]
    checked(world.source, ["clock"])
    for other in others[:3]:
        checked(other.source, warned=["clock"], at=clock.now() - timedelta(hours=3))
    client = client_for(company.auditor)
    with query_limit(20):
        body = client.get(reverse("metering:source-list")).content.decode()
    assert body.count("Not fit to bill from") == 1
    assert body.count("Fit, with remarks") == 3
    assert body.count("Not tested yet") == 3
    assert "3 hours ago" in body or "3 h ago" in body
    text = client.get(reverse("metering:source-list") + "?export=csv")
    assert b"Not fit to bill from" in b"".join(text.streaming_content)


@pytest.mark.requirement("metering-sources-5.1")
def test_page_shows_the_newest_test_as_a_table(world: World, company: Any, client_for: Any, query_limit: Any) -> None:
    url = page(world.source)
    assert "Not tested yet" in client_for(company.auditor).get(url).content.decode()
    old = checked(world.source, at=clock.now() - timedelta(days=1))
    checked(world.source, ["retention"], warned=["clock"])
    with query_limit(25):
        body = client_for(company.auditor).get(url).content.decode()
    assert body.index("How long it remembers") < body.index("Clocks agree") < body.index("Version")
    assert "retention is wrong" in body
    assert "repair it" in body
    assert "Test now" not in body
    assert "Waive failed checks" not in body
    assert reverse("metering:source-check", kwargs={"check_uid": old.uid}) in body
    admin = client_for(company.admin).get(url).content.decode()
    assert "Test now" in admin
    assert "Waive failed checks" in admin
    finance = client_for(company.finance).get(url).content.decode()
    assert "Test now" not in finance
    assert "Waive failed checks" in finance
    earlier = client_for(company.auditor).get(reverse("metering:source-check", kwargs={"check_uid": old.uid}))
    assert "Fit to bill from" in earlier.content.decode()
    every = client_for(company.auditor).get(
        reverse("metering:source-check-list", kwargs={"source_uid": world.source.uid})
    )
    assert every.content.decode().count("/usage/self-tests/") == 2


@pytest.mark.requirement("metering-sources-5.1", "metering-sources-1.1")
def test_testing_now_shows_progress(world: World, company: Any, client_for: Any) -> None:
    client = client_for(company.admin)
    test = reverse("metering:source-test", kwargs={"source_uid": world.source.uid})
    answer = client.post(test)
    assert answer.status_code in (302, 303)
    body = client.get(page(world.source)).content.decode()
    assert "Waiting for a worker" in body
    assert 'hx-trigger="every 2s"' in body
    name = f"metering.selftest.{world.source.pk}"
    assert leases.claim(name, seconds=60) is not None
    Lease.objects.filter(name=name).update(detail={"done": 7, "total": 22, "what": "Retention: 48 hours"})
    body = client.get(page(world.source)).content.decode()
    assert "Retention: 48 hours" in body
    assert "7 of 22" in body
    assert client_for(company.finance).post(test).status_code == 403


@pytest.mark.requirement("metering-sources-5.1", "metering-sources-3.1", "metering-sources-3.3")
def test_waiving_and_revoking_by_page(world: World, company: Any, client_for: Any) -> None:
    checked(world.source, ["retention", "shared_gpus"])
    client = client_for(company.finance)
    url = reverse("metering:source-waive", kwargs={"source_uid": world.source.uid})
    asked = client.get(url).content.decode()
    assert "How long it remembers" in asked
    assert "All GPUs are exclusive" not in asked
    until = f"{clock.now() + timedelta(days=5):%Y-%m-%dT%H:%M}"
    refused = client.post(url, {"codes": ["retention"], "reason": "", "until": until})
    assert refused.status_code == 400
    data = {"codes": ["retention"], "reason": "Thanos follows.", "until": until, "version": world.source.version}
    assert client.post(url, data).status_code in (302, 303)
    waiver = SourceWaiver.objects.get()
    body = client.get(page(world.source)).content.decode()
    assert "Thanos follows." in body
    assert "In force" in body
    assert "Failed, waived" in body
    revoke = reverse("metering:waiver-revoke", kwargs={"waiver_uid": waiver.uid})
    assert "Revoke" in client.get(revoke).content.decode()
    assert client.post(revoke, {"version": waiver.version}).status_code in (302, 303)
    assert "Revoked" in client.get(page(world.source)).content.decode()
    assert client.get(revoke).status_code == 409
    assert client_for(company.auditor).get(url).status_code == 403


@pytest.mark.requirement("metering-sources-4.1", "metering-sources-5.1")
def test_registering_by_page_explains_and_refuses(world: World, company: Any, client_for: Any) -> None:
    client = client_for(company.admin)
    url = reverse("metering:source-create")
    shown = client.get(url).content.decode()
    assert shown.count("field-help") >= 10
    actions.end_source(world.source.pk, clock.now() - timedelta(days=9), actor=Actor.of(company.admin))
    Flavour.objects.filter(pk=world.flavour.pk).update(sharing=Sharing.TIME_SLICED, denominator=4)
    refused = client.post(url, form(world, kind="kubecost"))
    assert refused.status_code == 400
    assert "is time-sliced" in refused.content.decode()
    wrong = client.post(url, form(world, gpu_resources="nvidia.com/gpu, not a name!"))
    assert "is no name of a resource" in wrong.content.decode()
    done = client.post(
        url, form(world, cluster_filter='cluster="dc1"', gpu_resources="nvidia.com/gpu", timeout_seconds="90")
    )
    assert done.status_code in (302, 303)
    source = Source.objects.latest("pk")
    assert source.options == {
        "cluster_filter": 'cluster="dc1"', "gpu_resources": ["nvidia_com_gpu"], "timeout_seconds": 90,
    }  # fmt: skip


@pytest.mark.requirement("metering-sources-5.1")
def test_options_of_an_allocation_api(world: World, company: Any, client_for: Any) -> None:
    actions.end_source(world.source.pk, clock.now() - timedelta(days=9), actor=Actor.of(company.admin))
    data = form(world, kind="allocation", api_cluster="dc1-prod", resolution_seconds="60", cluster_filter='a="b"')
    assert client_for(company.admin).post(reverse("metering:source-create"), data).status_code in (302, 303)
    assert Source.objects.latest("pk").options == {
        "clusters": ["dc1-prod"], "resolution_seconds": 60, "parameters": {"resolution": "60s"},
    }  # fmt: skip


@pytest.mark.requirement("metering-sources-5.2")
def test_health_through_the_api(world: World, company: Any, client_for: Any, query_limit: Any) -> None:
    for number in range(3, 8):
        checked(make_world([], slug=f"dc{number}").source)
    checked(world.source, ["clock", "retention"])
    until = clock.now() + timedelta(days=2)
    waivers.waive(world.source.pk, ["clock"], "Tonight.", until, actor=Actor.of(company.admin))
    client = client_for(company.auditor)
    with query_limit(15):
        found = client.get(reverse("api:usage-source-list")).json()["results"]
    assert len(found) == 6
    mine = next(item for item in found if item["uid"] == str(world.source.uid))
    assert mine["health"]["state"] == "unfit"
    assert mine["health"]["failed"] == ["clock", "retention"]
    assert mine["health"]["waived"] == ["clock"]
    assert mine["health"]["findings"][0]["todo"] == "repair it"
    assert "credentials" not in mine
    detail = client.get(reverse("api:usage-source-detail", kwargs={"uid": world.source.uid}))
    assert detail.json()["health"]["verdict"] == "failed"
    assert client_for(company.lead_finance).get(reverse("api:usage-source-list")).status_code in (403, 404)
