"""Pages, panels and API of the provisioning room."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.urls import reverse

from apps.clusters import actions as cluster_actions
from apps.clusters.models import Cluster
from apps.core import clock
from apps.core.actor import Actor
from apps.core.testing import assert_queries, settle
from apps.demo.cluster import SimulatedCluster
from apps.provisioning.choices import DeclarationStatus, RunOutcome
from apps.provisioning.models import ApplyRun, Declaration, Drift
from tests.cluster.fixtures import declare, fresh_namespace, register, workspace
from tests.factories import Company, client_for

pytestmark = [pytest.mark.django_db, pytest.mark.cluster]


@pytest.fixture
def cluster(simulated: SimulatedCluster) -> Cluster:
    """The simulated cluster as the portal knows it."""
    row: Cluster = register(simulated)
    return row


def _detail(declaration: Declaration) -> str:
    return reverse("provisioning:declaration-detail", kwargs={"declaration_uid": declaration.uid})


@pytest.mark.requirement("provisioning-5.1")
def test_the_team_page_says_why_it_is_not_applied_yet(
    company: Company, cluster: Cluster, simulated: SimulatedCluster
) -> None:
    """Waiting, then why, then nothing any more."""
    row = declare(cluster, workspace(fresh_namespace()), title="Finance production", team_id=company.finance_team.pk)
    client = client_for(company.lead_finance)
    team = reverse("reports:team", kwargs={"team_slug": company.finance_team.slug})
    assert "waits for its turn" in client.get(team).content.decode()
    simulated.faults.set("down")
    settle(only=("provisioning.",))
    body = client.get(team).content.decode()
    assert "does not answer" in body
    assert "Finance production" in body
    assert (
        "does not answer"
        in client_for(company.admin)
        .get(reverse("clusters:cluster-detail", kwargs={"slug": cluster.slug}))
        .content.decode()
    )
    simulated.faults.clear()
    Cluster.objects.update(retry_at=None)
    Declaration.objects.update(retry_at=None)
    settle(only=("provisioning.",))
    row.refresh_from_db()
    assert row.status == DeclarationStatus.APPLIED
    assert "Finance production" not in client.get(team).content.decode()


@pytest.mark.requirement("provisioning-5.2")
def test_everybody_sees_their_own_teams_only(company: Company, cluster: Cluster) -> None:
    """Lists and details alike."""
    mine = declare(cluster, workspace(fresh_namespace()), title="Okapi production", team_id=company.finance_team.pk)
    baseline = declare(cluster, workspace(fresh_namespace()), title="Cluster baseline", kind="baseline")
    url = reverse("provisioning:declaration-list")
    for name, sees in (("lead_finance", True), ("member_finance", True), ("vp", True), ("admin", True),
                       ("lead_marketing", False), ("vp_other", False)):  # fmt: skip
        client = client_for(company[name])
        assert ("Okapi production" in client.get(url).content.decode()) is sees, name
        assert client.get(_detail(mine)).status_code == (200 if sees else 404), name
        assert client.get(_detail(baseline)).status_code == (200 if name == "admin" else 404), name


@pytest.mark.requirement("provisioning-3.7", "provisioning-5.1")
def test_a_declaration_shows_its_objects_and_attempts(company: Company, cluster: Cluster) -> None:
    """Bytes as YAML with their digest; the run with every request."""
    row = declare(cluster, workspace(fresh_namespace()), team_id=company.finance_team.pk)
    settle(only=("provisioning.",))
    client = client_for(company.admin)
    body = client.get(_detail(row)).content.decode()
    assert "requests.nvidia.com/gpu: &#x27;8&#x27;" in body
    assert row.declared_objects.first().digest in body
    run = row.runs.get()
    page = client.get(reverse("provisioning:run-detail", kwargs={"run_uid": run.uid})).content.decode()
    assert page.count("<td>apply <code") == 5
    assert client.get(reverse("provisioning:run-list"), {"outcome": "succeeded"}).status_code == 200


@pytest.mark.requirement("provisioning-3.8")
def test_an_admin_retries_with_confirmation(company: Company, cluster: Cluster) -> None:
    """GET asks, POST does; nothing to retry is a 409; a stale form, too."""
    row = declare(cluster, workspace(fresh_namespace()), team_id=company.finance_team.pk)
    url = reverse("provisioning:declaration-retry", kwargs={"declaration_uid": row.uid})
    Declaration.objects.update(status=DeclarationStatus.STOPPED, last_error="ResourceQuota: held by kubectl-edit")
    admin = client_for(company.admin)
    assert "held by kubectl-edit" in admin.get(url).content.decode()
    assert client_for(company.lead_finance).get(url).status_code == 403
    assert admin.post(url, {"version": "99"}).status_code == 409
    row.refresh_from_db()
    assert row.status == DeclarationStatus.STOPPED
    assert admin.post(url, {"version": row.version, "take_over": "on", "reason": "agreed"}).status_code == 303
    row.refresh_from_db()
    assert (row.status, row.take_over) == (DeclarationStatus.APPLYING, True)
    settle(only=("provisioning.",))
    assert admin.get(url).status_code == 409


def test_lists_take_a_fixed_number_of_queries(company: Company) -> None:
    """However many there are, and whatever they hold."""
    cluster = cluster_actions.register_cluster(
        "Lab", api_url="https://192.0.2.1", token="t", actor=Actor.system("tests")
    )
    for number in range(15):
        row = declare(cluster, workspace(f"ns-{number}"), team_id=company.finance_team.pk)
        ApplyRun.objects.create(
            declaration=row, generation=1, outcome=RunOutcome.FAILED, lease_token=uuid.uuid4(), started_at=clock.now()
        )
        Drift.objects.create(
            declaration=row, kind="ResourceQuota", namespace=f"ns-{number}", name="q", found_at=clock.now()
        )
    client = client_for(company.admin)
    for name in ("declaration-list", "run-list", "drift-list"):
        with assert_queries(20):
            response = client.get(reverse(f"provisioning:{name}"))
        assert response.status_code == 200
        assert "1–15 of 15" in response.content.decode()
        exported = client.get(reverse(f"provisioning:{name}"), {"export": "csv"})
        assert exported.status_code == 200
        assert exported.getvalue().count(b"\r\n") == 16  # read to its end, which closes the file behind it
    for name in ("declaration-list", "apply-run-list", "drift-list", "plan-list"):
        with assert_queries(15):
            assert client.get(reverse(f"api:{name}")).status_code == 200
    for state in ("failed", "drifted", "waiting"):
        assert client.get(reverse("provisioning:declaration-list"), {"state": state}).status_code == 200


def test_the_api_retries_and_shows_why(company: Company, cluster: Cluster) -> None:
    """State and reason in words; retry with the version seen."""
    row = declare(cluster, workspace(fresh_namespace()), team_id=company.finance_team.pk)
    Declaration.objects.update(status=DeclarationStatus.STOPPED, last_error="held")
    client = client_for(company.admin)
    shown: dict[str, Any] = client.get(reverse("api:declaration-detail", kwargs={"uid": row.uid})).json()
    assert (shown["state"], shown["why"], len(shown["objects"])) == ("stopped", "held", 5)
    url = reverse("api:declaration-retry", kwargs={"uid": row.uid})
    assert client.post(url, {}, content_type="application/json", headers={"If-Match": '"99"'}).status_code == 412
    assert client.post(url, {"take_over": True}, content_type="application/json").json()["status"] == "applying"
    assert client_for(company.lead_finance).post(url, {}, content_type="application/json").status_code == 403


@pytest.mark.requirement("provisioning-2.4", "provisioning-5.2")
def test_a_plan_shows_changes_conflicts_and_warnings(company: Company, cluster: Cluster) -> None:
    """To those who see the team."""
    from apps.provisioning import actions

    owner, ns = uuid.uuid4(), fresh_namespace()
    plan = actions.request_plan(cluster.pk, "workspace", owner, uuid.uuid4(), company.finance_team.pk, workspace(ns))
    url = reverse("provisioning:plan-detail", kwargs={"plan_uid": plan.uid})
    client = client_for(company.lead_finance)
    assert "Being made" in client.get(url).content.decode()
    settle(only=("provisioning.",))
    plan.refresh_from_db()
    plan.entries[0]["conflicts"] = [{"manager": "kubectl-edit", "field": ".spec", "message": ""}]
    plan.entries[0]["taken_over"] = [{"manager": "helm", "field": ".spec.hard.pods", "message": ""}]
    plan.entries[0]["warnings"] = ["this version is going away"]
    plan.save(update_fields=["entries"])
    body = client.get(url).content.decode()
    for text in (
        "as rendered",
        "requests.nvidia.com/gpu",
        "kubectl-edit",
        "taken over from helm",
        "this version is going away",
    ):
        assert text in body
    assert client_for(company.lead_marketing).get(url).status_code == 404
