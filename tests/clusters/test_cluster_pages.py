"""Pages around bringing a cluster in: what it needs, the check as it moves, how it is used, maintenance."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
import yaml
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from apps.clusters import actions, capabilities, checking
from apps.clusters.capabilities import Capabilities, KServe, Kueue
from apps.clusters.choices import CheckStatus, KueueMode
from apps.clusters.models import Cluster, ClusterCheck, MaintenanceWindow
from apps.core import clock
from apps.core.actor import Actor
from apps.core.testing import assert_queries
from apps.demo.cluster import SimulatedCluster
from tests.factories import Company, client_for

pytestmark = pytest.mark.django_db
SYSTEM = Actor.system("tests")
FOUND = Capabilities(
    kubernetes_version="v1.36.2",
    kueue=Kueue(True, ("v1beta2",), pod_integration=True, fair_sharing=False, managed_labels={"kueue": "yes"}),
    kserve=KServe(installed=False),
    checked_at=clock.now(),
)


@pytest.fixture
def cluster(company: Company) -> Cluster:
    """A cluster that nobody calls, with Kueue found on it."""
    made = actions.register_cluster(
        "Frankfurt", slug="frankfurt", api_url="https://192.0.2.1:6443", token="secret-token", actor=SYSTEM
    )
    checking.remember(made.pk, FOUND)
    made.refresh_from_db()
    return made


def _url(name: str) -> str:
    return reverse(f"clusters:{name}", kwargs={"slug": "frankfurt"})


@pytest.mark.requirement("cluster-onboarding-1.1")
def test_the_page_of_needs_hands_out_yaml_that_fits_the_options(company: Company) -> None:
    """Shown and downloaded are the same; unknown names are refused next to the field."""
    client = client_for(company.admin)
    url = reverse("clusters:cluster-needs")
    body = client.get(url).content.decode()
    assert "resourcequotas" in body
    assert "kubectl create token gpu-commons --namespace gpu-commons" in body
    chosen = f"{url}?chosen=1&namespace=portal&account=robot&stopping=on"
    file = client.get(f"{chosen}&download=1")
    assert file["Content-Disposition"].endswith('"gpu-commons-access.yaml"')
    objects = list(yaml.safe_load_all(file.content))
    assert [o["kind"] for o in objects] == ["Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding"]
    assert objects[3]["subjects"] == [{"kind": "ServiceAccount", "name": "robot", "namespace": "portal"}]
    assert "kueue" not in file.content.decode()
    assert "kueue.x-k8s.io" in client.get(f"{chosen}&kueue=on&download=1").content.decode()
    wrong = client.get(f"{url}?chosen=1&namespace=No+Such&account=robot")
    assert wrong.status_code == 400
    assert "Lower-case letters" in wrong.content.decode()


@pytest.mark.requirement("cluster-onboarding-1.3", "cluster-onboarding-2.1")
def test_an_uploaded_kubeconfig_registers_and_the_check_shows_its_progress(
    company: Company, simulated: SimulatedCluster
) -> None:
    """From the file to the steps, which the page asks for until they are done."""
    client = client_for(company.admin)
    file = SimpleUploadedFile("kubeconfig", simulated.kubeconfig().encode())
    made = client.post(reverse("clusters:cluster-create"), {"name": "Frankfurt", "kubeconfig_file": file})
    assert (made.status_code, made["Location"]) == (303, "/clusters/frankfurt/")
    body = client.get(made["Location"]).content.decode()
    assert "Waiting for a worker" in body
    assert 'hx-trigger="every 2s"' in body
    follows = {"HX-Request": "true", "HX-Target": "cluster-check"}
    assert "HX-Refresh" not in client.get(made["Location"], headers=follows)
    assert checking.run_due() == 1
    # Once it is over all of the page tells more, so a page that followed is loaded anew.
    assert client.get(made["Location"], headers=follows)["HX-Refresh"] == "true"
    body = client.get(made["Location"]).content.decode()
    assert 'hx-trigger="every 2s"' not in body
    assert "Token is taken" in body
    assert "v1.36.0+simulated" in body
    assert "Server certificate" in body


@pytest.mark.requirement("cluster-onboarding-1.3")
def test_a_file_that_is_no_kubeconfig_is_refused_next_to_its_field(company: Company) -> None:
    """Binary, empty, too large, or beside a text."""
    client = client_for(company.admin)
    url = reverse("clusters:cluster-create")
    for content, extra, says in (
        (b"\xff\xfe\x00binary", {}, "not a text file"),
        (b"", {}, "empty"),
        (b"a" * 300_000, {}, "larger than any kubeconfig"),
        (b"kind: Config", {"kubeconfig": "kind: Config"}, "not both"),
        (b"kind: Pod", {}, "not a kubeconfig"),
    ):
        given = {"name": "Lab", "kubeconfig_file": SimpleUploadedFile("k", content), **extra}
        response = client.post(url, given)
        assert response.status_code == 400, says
        assert says in response.content.decode()
    assert not Cluster.objects.exists()


@pytest.mark.requirement("clusters-1.1")
def test_a_refused_kubeconfig_is_not_sent_back(company: Company, simulated: SimulatedCluster) -> None:
    """It holds a token: whatever else is wrong on the form, it is pasted again."""
    text = simulated.kubeconfig()
    token = yaml.safe_load(text)["users"][0]["user"]["token"]
    response = client_for(company.admin).post(reverse("clusters:cluster-create"), {"name": "", "kubeconfig": text})
    assert response.status_code == 400
    assert token not in response.content.decode()


@pytest.mark.requirement("cluster-onboarding-1.3")
def test_a_ca_certificate_that_cannot_be_read_is_refused_where_it_was_given(company: Company) -> None:
    """Before the cluster is registered, in words that say what to do."""
    broken = "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----"
    given = {"name": "Lab", "api_url": "https://api.example.com:6443", "token": "t", "ca_certificate": broken}
    response = client_for(company.admin).post(reverse("clusters:cluster-create"), given)
    assert response.status_code == 400
    assert "Paste it whole" in response.content.decode()
    assert not Cluster.objects.exists()


@pytest.mark.requirement("cluster-onboarding-2.1")
def test_what_a_failed_step_left_out_is_named_in_one_line(company: Company, cluster: Cluster) -> None:
    """Not twenty times over."""
    Cluster.objects.filter(pk=cluster.pk).update(api_url="http://127.0.0.1:1")
    ClusterCheck.objects.all().delete()
    client = client_for(company.admin)
    client.post(_url("cluster-check"))
    assert checking.run_due() == 1
    body = client.get(_url("cluster-detail")).content.decode()
    assert "steps left out" in body
    assert body.count("Not tried, because “Server answers” failed.") == 1


@pytest.mark.requirement("cluster-onboarding-2.1")
def test_check_again_queues_one_check(company: Company, cluster: Cluster) -> None:
    """However often it is pressed; a paused cluster is not called."""
    ClusterCheck.objects.all().delete()
    client = client_for(company.admin)
    for _ in range(2):
        assert client.post(_url("cluster-check")).status_code == 303
    assert ClusterCheck.objects.filter(status=CheckStatus.PENDING).count() == 1
    assert ClusterCheck.objects.get().requested_by == company.admin
    actions.pause(cluster.pk, "moving", actor=SYSTEM)
    assert client.post(_url("cluster-check")).status_code == 409
    assert checking.run_due() == 0


@pytest.mark.requirement("cluster-onboarding-3.3", "cluster-onboarding-6.1")
def test_what_is_not_offered_says_why_to_those_who_may_see_it(company: Company, cluster: Cluster) -> None:
    """On the page and through the API; to nobody else."""
    why = "KServe was not found on this cluster."
    for name in ("admin", "auditor"):
        client = client_for(company[name])
        assert why in client.get(_url("cluster-detail")).content.decode()
        answer = client.get(reverse("api:cluster-detail", kwargs={"uid": cluster.uid})).json()
        assert answer["capabilities"]["kserve"]["installed"] is False
        assert answer["not_offered"]["serving"] == why
        assert "guard" in answer["not_offered"]
        assert answer["last_check"]["status"] == "pending"
    for name in ("lead_finance", "vp", "finance", "compliance"):
        client = client_for(company[name])
        assert client.get(_url("cluster-detail")).status_code == 404
        assert client.get(reverse("api:cluster-detail", kwargs={"uid": cluster.uid})).status_code == 404
    for name in ("cluster-check", "cluster-edit", "cluster-kueue", "maintenance-create"):
        assert client_for(company.auditor).post(_url(name)).status_code == 403


@pytest.mark.requirement("cluster-onboarding-3.4")
def test_how_kueue_is_used_is_chosen_within_what_was_found(company: Company, cluster: Cluster) -> None:
    """Labels are filled in from what was found; what is impossible is refused with the reason."""
    client = client_for(company.admin)
    assert "kueue=yes" in client.get(_url("cluster-kueue")).content.decode()
    assert client.post(_url("cluster-kueue"), {"mode": "jobs", "namespace_labels": "no equals"}).status_code == 400
    made = client.post(_url("cluster-kueue"), {"mode": "pods", "namespace_labels": "kueue=yes"})
    assert made.status_code == 303
    cluster.refresh_from_db()
    assert (cluster.kueue_mode, cluster.kueue_namespace_labels) == (KueueMode.PODS, {"kueue": "yes"})
    actions.set_kueue_mode(cluster.pk, "off", actor=SYSTEM)
    checking.remember(cluster.pk, Capabilities(kueue=Kueue(installed=False), checked_at=clock.now()))
    refused = client.post(_url("cluster-kueue"), {"mode": "jobs", "namespace_labels": ""})
    assert refused.status_code == 400
    assert "Kueue was not found on this cluster." in refused.content.decode()


@pytest.mark.requirement("cluster-onboarding-3.5")
def test_a_cluster_is_edited(company: Company, cluster: Cluster) -> None:
    """With messages beside the fields."""
    client = client_for(company.admin)
    assert 'value="Frankfurt"' in client.get(_url("cluster-edit")).content.decode()
    given = {"name": "Frankfurt 2", "region": "de", "group_prefix": "company:", "identity": "oidc"}
    bad = client.post(_url("cluster-edit"), {**given, "issuer_url": "http://sso.example.com", "client_id": "k"})
    assert bad.status_code == 400
    assert "begins with https" in bad.content.decode()
    assert client.post(_url("cluster-edit"), {**given, "identity": "", "group_prefix": "system:"}).status_code == 400
    good = client.post(_url("cluster-edit"), {**given, "issuer_url": "https://sso.example.com", "client_id": "k"})
    assert good.status_code == 303
    cluster.refresh_from_db()
    assert (cluster.name, cluster.group_prefix) == ("Frankfurt 2", "company:")
    assert cluster.identity_provider == {"type": "oidc", "issuer_url": "https://sso.example.com", "client_id": "k"}


@pytest.mark.requirement("cluster-onboarding-5.1", "cluster-onboarding-5.2")
def test_maintenance_is_planned_shown_and_cancelled(company: Company, cluster: Cluster) -> None:
    """Through the forms."""
    client = client_for(company.admin)
    now = clock.now()

    def stamp(at: Any) -> str:
        return str(at.strftime("%Y-%m-%dT%H:%M"))

    url = _url("maintenance-create")
    given = {"start": stamp(now), "end": stamp(now + timedelta(hours=2)), "reason": "Kernel update"}
    assert client.post(url, {**given, "end": stamp(now - timedelta(hours=1))}).status_code == 400
    assert client.post(url, {**given, "reason": ""}).status_code == 400
    assert client.post(url, given).status_code == 303
    body = client.get(_url("cluster-detail")).content.decode()
    assert "Maintenance until" in body
    assert "Kernel update" in body
    cancel = reverse("clusters:maintenance-cancel", kwargs={"window_uid": MaintenanceWindow.objects.get().uid})
    assert client.get(cancel).status_code == 200
    assert client.post(cancel).status_code == 303
    assert client.post(cancel).status_code == 409
    assert "Maintenance until" not in client.get(_url("cluster-detail")).content.decode()


@pytest.mark.requirement("cluster-onboarding-2.4")
def test_what_ends_soon_is_warned_of(company: Company, cluster: Cluster) -> None:
    """Certificate and token, with how long they last; what is over is said at the top."""
    Cluster.objects.update(
        certificate_expires_at=clock.now() + timedelta(days=10, hours=1),
        credentials_expire_at=clock.now() - timedelta(hours=3),
    )
    body = client_for(company.admin).get(_url("cluster-detail")).content.decode()
    assert "ends in 10 d" in body
    assert "ended 3 h ago" in body


def test_the_page_of_a_cluster_takes_a_fixed_number_of_queries(company: Company, cluster: Cluster) -> None:
    """With checks and windows."""
    start = clock.now() + timedelta(days=1)
    for number in range(12):
        begins = start + timedelta(days=number)
        actions.schedule_maintenance(cluster.pk, begins, begins + timedelta(hours=1), "x", actor=SYSTEM)
    client = client_for(company.admin)
    with assert_queries(30):
        assert client.get(_url("cluster-detail")).status_code == 200
    with assert_queries(15):
        assert client.get(reverse("api:cluster-list")).status_code == 200


def test_the_stored_record_reads_as_it_was_written(cluster: Cluster) -> None:
    """And one of another version as far as it goes."""
    assert capabilities.of(cluster) == FOUND
    stored = json.loads(json.dumps(cluster.capabilities))
    stored["of_tomorrow"] = 1
    stored["kueue"]["of_tomorrow"] = 1
    del stored["keda"]
    assert capabilities.from_json(stored).kueue == FOUND.kueue
    assert capabilities.from_json({}) == Capabilities()
