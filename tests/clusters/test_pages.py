"""Pages, forms and API of the clusters room."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse

from apps.clusters import actions, health
from apps.clusters.models import Cluster, Flavour, Node, Pool
from apps.core import clock
from apps.core.actor import Actor
from apps.core.testing import assert_queries
from tests.factories import Company, client_for

pytestmark = pytest.mark.django_db
SYSTEM = Actor.system("tests")


@pytest.fixture
def cluster(company: Company) -> Cluster:
    """A cluster with fifty GPUs that answered a moment ago."""
    made = actions.register_cluster(
        "Frankfurt", slug="frankfurt", api_url="https://192.0.2.1:6443", token="secret-token", actor=SYSTEM
    )
    Node.objects.create(
        cluster=made, name="node-1", gpu_model="A100", physical_gpus=50, ready=True, observed_at=clock.now()
    )
    health.record_contact(made.pk, True)
    return made


@pytest.fixture
def pool(cluster: Cluster) -> Pool:
    """Its pool."""
    flavour = actions.create_flavour("A100 80 GB", slug="a100", gpu_model="A100", actor=SYSTEM)
    return actions.create_pool(cluster.pk, "A100", actor=SYSTEM, flavour_ids=[flavour.pk])


@pytest.mark.requirement("clusters-3.1")
def test_a_page_never_shows_green_for_what_is_not(company: Company, cluster: Cluster) -> None:
    """Healthy, stale, unreachable, paused: list and page say the same."""
    client = client_for(company.admin)
    pages = [reverse("clusters:cluster-list"), reverse("clusters:cluster-detail", kwargs={"slug": "frankfurt"})]
    for url in pages:
        assert "Healthy" in client.get(url).content.decode()
    Cluster.objects.update(last_seen_at=clock.now() - timedelta(minutes=4))
    for url in pages:
        body = client.get(url).content.decode()
        assert "Healthy" not in body
        assert "Not heard of" in body
    health.record_contact(cluster.pk, False, "connection refused")
    body = client.get(pages[1]).content.decode()
    assert "does not answer" in body
    assert "connection refused" in body
    assert "Unreachable" in client.get(pages[0]).content.decode()
    actions.pause(cluster.pk, "Rack is being moved", actor=SYSTEM)
    assert "Rack is being moved" in client.get(pages[1]).content.decode()


@pytest.mark.requirement("clusters-1.1")
def test_no_page_and_no_answer_holds_the_token(company: Company, cluster: Cluster) -> None:
    """Neither detail, forms nor API."""
    client = client_for(company.admin)
    for url in (
        reverse("clusters:cluster-detail", kwargs={"slug": "frankfurt"}),
        reverse("clusters:cluster-credentials", kwargs={"slug": "frankfurt"}),
        reverse("api:cluster-detail", kwargs={"uid": cluster.uid}),
    ):
        response = client.get(url)
        assert response.status_code == 200
        assert "secret-token" not in response.content.decode()
    typed = {"name": "X", "api_url": "http://169.254.169.254", "token": "typed-token"}
    response = client.post(reverse("clusters:cluster-create"), typed)
    assert response.status_code == 400
    assert "typed-token" not in response.content.decode()
    assert "metadata" in response.content.decode()


@pytest.mark.requirement("clusters-1.1", "clusters-1.5")
def test_an_admin_registers_pauses_and_resumes(company: Company) -> None:
    """Through the forms, with messages next to the fields."""
    client = client_for(company.admin)
    url = reverse("clusters:cluster-create")
    assert client.post(url, {"name": "Lab"}).status_code == 400
    made = client.post(url, {"name": "Lab", "api_url": "https://192.0.2.2", "token": "t"})
    assert (made.status_code, made["Location"]) == (303, "/clusters/lab/")
    cluster = Cluster.objects.get(slug="lab")
    pause = reverse("clusters:cluster-pause", kwargs={"slug": "lab"})
    assert client.post(pause, {"reason": ""}).status_code == 400
    assert client.post(pause, {"reason": "why", "version": "77"}).status_code == 409
    assert client.post(pause, {"reason": "why", "version": cluster.version}).status_code == 303
    assert client.get(pause).status_code == 409
    assert client.post(reverse("clusters:cluster-resume", kwargs={"slug": "lab"})).status_code == 303
    cluster.refresh_from_db()
    assert cluster.paused_at is None


@pytest.mark.requirement("clusters-4.1", "clusters-4.2", "clusters-4.3")
def test_an_admin_makes_flavour_pool_and_capacity(company: Company, cluster: Cluster) -> None:
    """The forms lead from one to the next."""
    client = client_for(company.admin)
    given = {
        "name": "A100 80 GB", "slug": "a100", "gpu_model": "A100", "resource_name": "nvidia.com/gpu",
        "sharing": "exclusive", "numerator": "1", "denominator": "1", "memory_mib": "81920",
        "node_labels": "nvidia.com/gpu.product=A100",
        "tolerations": '[{"key": "nvidia.com/gpu", "operator": "Exists"}]',
    }  # fmt: skip
    url = reverse("clusters:flavour-create")
    for bad in ({"tolerations": "{"}, {"node_labels": "no equals"}, {"resource_name": "gpu"}, {"numerator": "x"}):
        assert client.post(url, {**given, **bad}).status_code == 400
    assert client.post(url, given).status_code == 303
    flavour = Flavour.objects.get()
    assert flavour.node_labels == {"nvidia.com/gpu.product": "A100"}
    form = {
        "cluster": cluster.pk, "gpu_model": "A100", "kind": "fixed", "flavours": [flavour.pk], "commit_factor": "1.00",
    }  # fmt: skip
    url = reverse("clusters:pool-create")
    assert client.post(url, {**form, "flavours": []}).status_code == 400
    made = client.post(url, form)
    assert made.status_code == 303
    url = made["Location"]
    assert 'value="50"' in client.get(url).content.decode()  # what was observed is proposed
    start = clock.now().strftime("%Y-%m-%dT%H:%M")
    for bad in (
        {"gpus": "-1"},
        {"gpus": "1.5"},
        {"valid_from": "2020-01-01T00:00"},
        {"valid_until": "2020-01-01T00:00"},
    ):
        assert client.post(url, {"gpus": "60", "valid_from": start, **bad}).status_code == 400
    assert client.post(url, {"gpus": "60", "valid_from": start}).status_code == 303
    body = client.get(reverse("clusters:pool-detail", kwargs={"pool_uid": Pool.objects.get().uid})).content.decode()
    assert "Fewer GPUs are there than may be promised" in body
    assert "A100 80 GB" in body


@pytest.mark.requirement("clusters-4.5")
def test_who_sees_and_who_changes(company: Company, cluster: Cluster, pool: Pool) -> None:
    """Admin and auditor see clusters, finance the pools, everybody the flavours; only admins change."""
    detail = reverse("clusters:cluster-detail", kwargs={"slug": "frankfurt"})
    capacity = reverse("clusters:pool-capacity", kwargs={"pool_uid": pool.uid})
    expected = {
        "admin": (200, 200, 200), "auditor": (200, 200, 403), "finance": (404, 200, 403),
        "lead_finance": (404, 403, 404), "vp": (404, 403, 404),
    }  # fmt: skip
    for name, statuses in expected.items():
        client = client_for(company[name])
        found = tuple(client.get(url).status_code for url in (detail, reverse("clusters:pool-list"), capacity))
        assert found == statuses, name
        assert client.get(reverse("clusters:flavour-list")).status_code == 200


def test_lists_take_a_fixed_number_of_queries(company: Company, cluster: Cluster, pool: Pool) -> None:
    """However many there are."""
    for number in range(12):
        made = actions.register_cluster(f"C {number}", api_url="https://192.0.2.9", token="t", actor=SYSTEM)
        actions.create_pool(made.pk, "A100", actor=SYSTEM, flavour_ids=[Flavour.objects.get().pk])
    client = client_for(company.admin)
    for name in ("cluster-list", "pool-list", "flavour-list"):
        with assert_queries(20):
            assert client.get(reverse(f"clusters:{name}")).status_code == 200
    for name in ("cluster-list", "pool-list", "flavour-list"):
        with assert_queries(15):
            assert client.get(reverse(f"api:{name}")).status_code == 200


def test_the_api_does_what_the_pages_do(company: Company, cluster: Cluster, pool: Pool) -> None:
    """With problems and ETags."""
    client = client_for(company.admin)
    url = reverse("api:pool-set-committable", kwargs={"uid": pool.uid})

    def post(path: str, data: dict[str, Any], **headers: str) -> Any:
        return client.post(path, data, content_type="application/json", headers=headers)

    bad = post(url, {"gpus": -1, "valid_from": clock.now().isoformat()})
    assert (bad.status_code, bad["Content-Type"]) == (400, "application/problem+json")
    good = post(url, {"gpus": 50, "valid_from": clock.now().isoformat()})
    assert good.status_code == 200
    assert good.json()["capacities"][0]["committable_gpus"] == 50
    pause = reverse("api:cluster-pause", kwargs={"uid": cluster.uid})
    assert post(pause, {"reason": "why"}, **{"If-Match": '"99"'}).status_code == 412
    assert post(pause, {"reason": "why"}).json()["health"] == "paused"
    assert post(pause, {"reason": "why"}).status_code == 409
    assert post(reverse("api:cluster-resume", kwargs={"uid": cluster.uid}), {}).status_code == 200
