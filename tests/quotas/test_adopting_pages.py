"""Pages of adopting a namespace: form, progress, proposal, request; the rows are written directly."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from apps.approvals import actions as approvals
from apps.core import clock
from apps.core.actor import Actor
from apps.core.testing import assert_queries
from apps.quotas import adopting
from apps.quotas.adopting_reader import clashes
from apps.quotas.choices import ReadingStatus
from apps.quotas.models import ChangeRequest, NamespaceReading, Workspace
from tests.factories import client_for
from tests.quotas.change_kinds import CHANGE_POLICY
from tests.quotas.conftest import World

pytestmark = pytest.mark.django_db
GPU = "nvidia.com/gpu"
FOUND: dict[str, Any] = {
    "namespace": {"uid": "u-1", "created": "", "labels": {"owner": {"value": "them", "manager": "their-tool"}}},
    "quotas": [{"name": "team-quota", "hard": {f"requests.{GPU}": "8"}, "used": {f"requests.{GPU}": "3"},
                "scopes": ["PriorityClass In high"]}],
    "limit_ranges": [],
    "role_bindings": [{"name": "old-admins", "role": "ClusterRole admin", "subjects": "Group old-team"}],
    "network_policies": [],
    "pods": {"count": 2, "cpu_cores": 4, "memory_gib": 8, "gpus": {GPU: {"node-1": 3}}},
}  # fmt: skip
ADDED = {"kind": "LimitRange", "name": "gpu-commons", "namespace": "theirs", "api_version": "v1", "operation": "create",
         "server_checked": True, "changes": [], "conflicts": [], "warnings": ["existing pods violate it"]}  # fmt: skip


@pytest.fixture
def reading(world: World) -> NamespaceReading:
    """A reading that is done; finance has no workspace for staging there."""
    approvals.publish_policy("change", "Changes", "quotas.change", CHANGE_POLICY, actor=Actor.of(world.company.admin))
    now = clock.now()
    return NamespaceReading.objects.create(
        cluster=world.cluster, namespace="theirs", team=world.company.finance_team, environment="staging",
        requested_by=world.company.admin, asked_at=now, read_at=now, status=ReadingStatus.DONE, found=FOUND,
        plan=[ADDED], steps=["namespace"],
    )  # fmt: skip


@pytest.mark.requirement("adoption-1.1", "adoption-1.2")
def test_the_form_has_a_namespace_read(world: World) -> None:
    client = client_for(world.company.admin)
    cluster = client.get(f"/clusters/{world.cluster.slug}/").content.decode()
    url = f"/quotas/clusters/{world.cluster.uid}/adopt/"
    assert url in cluster
    data = {"namespace": "kube-system", "team": world.company.finance_team.pk, "environment": "staging"}
    refused = client.post(url, data)
    assert refused.status_code == 400
    assert "belongs to the cluster itself" in refused.content.decode()
    answer = client.post(url, data | {"namespace": "theirs", "data_classes": ["internal"]})
    assert answer.status_code == 303
    page = client.get(answer["Location"]).content.decode()
    assert "Steps done" in page
    assert "every 2s" in page
    for person in (world.company.vp, world["lead_finance"], world.company.auditor):
        other = client_for(person)
        assert other.get(answer["Location"]).status_code in (403, 404)
        assert "Adopt a namespace" not in other.get(f"/clusters/{world.cluster.slug}/").content.decode()


@pytest.mark.requirement("adoption-1.3", "adoption-1.4")
def test_the_page_says_what_went_wrong(world: World, reading: NamespaceReading) -> None:
    client = client_for(world.company.admin)
    url = f"/quotas/adoptions/{reading.uid}/"
    NamespaceReading.objects.update(status=ReadingStatus.PENDING, error="no answer", retry_at=clock.now())
    page = client.get(url).content.decode()
    assert "The cluster does not answer" in page
    assert "It is tried again by itself" in page
    NamespaceReading.objects.update(status=ReadingStatus.FAILED, error="There is no namespace.", found={})
    page = client.get(url).content.decode()
    assert "There is no namespace." in page
    assert "Request the adoption" not in page
    assert client.post(f"{url}again/", {}).status_code == 303
    reading.refresh_from_db()
    assert reading.is_moving
    assert client.post(f"{url}again/", {}).status_code == 409


@pytest.mark.requirement("adoption-2.1", "adoption-2.2", "adoption-3.1")
def test_the_proposal_leads_to_a_change_request(world: World, reading: NamespaceReading) -> None:
    """A quota of theirs that counts only some pods is no limit of all: what is in use is proposed."""
    client = client_for(world.company.admin)
    url = f"/quotas/adoptions/{reading.uid}/"
    with assert_queries(20):
        page = client.get(url).content.decode()
    for text in ("team-quota", "only for PriorityClass In high", "old-admins", "existing pods violate it", "3 in use",
                 "kind: LimitRange", "LimitRange gpu-commons"):  # fmt: skip
        assert text in page, text
    form = client.get(f"{url}request/").content.decode()
    field = f"gpus_{world.flavour.slug}"
    assert f'name="{field}"' in form
    assert 'value="3"' in form
    data = {field: "60", "reason": "Finance has trained there for a year.", "version": reading.version}
    refused = client.post(f"{url}request/", data)
    assert refused.status_code == 400
    assert "more than the pool has" in refused.content.decode()
    answer = client.post(f"{url}request/", data | {field: "5"})
    assert answer.status_code == 303
    change = ChangeRequest.objects.get()
    assert answer["Location"] == f"/quotas/changes/{change.uid}/"
    assert [q["guaranteed"] for q in change.values["quotas"]] == [5]
    assert not Workspace.objects.filter(namespace="theirs").exists()
    with assert_queries(30):  # a page of one change with its evidence
        seen = client_for(world.company.vp).get(answer["Location"])
    body = seen.content.decode()
    assert "RoleBinding old-admins: stays as it is" in body
    assert "per month: " in body
    assert client_for(world["lead_marketing"]).get(answer["Location"]).status_code == 404
    assert change.title in client_for(world["lead_finance"]).get("/quotas/changes/").content.decode()
    assert client.get(f"{url}request/").status_code == 409
    assert change.title in client.get(url).content.decode()


@pytest.mark.requirement("adoption-2.3", "adoption-3.4")
def test_clashes_and_an_old_reading_offer_no_request(world: World, reading: NamespaceReading) -> None:
    client = client_for(world.company.admin)
    url = f"/quotas/adoptions/{reading.uid}/"
    held = {"field": ".spec.hard.requests.cpu", "manager": "their-tool", "message": ""}
    entry = ADDED | {
        "kind": "ResourceQuota", "operation": "update", "conflicts": [held],
        "changes": [{"path": 'spec.hard["requests.cpu"]', "before": "4", "after": "256"},
                    {"path": "spec.hard.pods", "before": None, "after": "200"}],
    }  # fmt: skip
    refused = ADDED | {"kind": "RoleBinding", "operation": "refused", "error": "cannot change roleRef"}
    NamespaceReading.objects.update(plan=[entry, refused])
    page = client.get(url).content.decode()
    assert "ResourceQuota gpu-commons spec.hard[&quot;requests.cpu&quot;] (held by their-tool)" in page
    assert "cannot change roleRef" in page
    assert "Request the adoption" not in page
    assert client.get(f"{url}request/").status_code == 409
    found = clashes([entry, refused])
    assert [(one["field"], one["manager"], one["why"]) for one in found] == [
        ('spec.hard["requests.cpu"]', "their-tool", ""), ("", "", "cannot change roleRef"),
    ]  # fmt: skip
    NamespaceReading.objects.update(plan=[ADDED], read_at=clock.now() - timedelta(hours=25))
    page = client.get(url).content.decode()
    assert "Read more than a day ago" in page
    assert client.get(f"{url}request/").status_code == 409


@pytest.mark.requirement("adoption-1.1")
def test_only_the_latest_readings_are_kept(world: World, reading: NamespaceReading) -> None:
    admin = Actor.of(world.company.admin)
    team = world.company.finance_team.pk
    for number in range(adopting.KEPT + 1):
        adopting.request_reading(world.cluster.pk, f"theirs-{number}", team, "staging", [], actor=admin)
    assert NamespaceReading.objects.count() == adopting.KEPT
    assert not NamespaceReading.objects.filter(pk=reading.pk).exists()


@pytest.mark.requirement("change-requests-1.7")
def test_the_filter_by_team_finds_adoptions_too(world: World) -> None:
    """Their workspace is only made with the grant: the team is the one that receives it."""
    for team in ("finance", "marketing"):
        ChangeRequest.objects.create(
            cluster=world.cluster, kind="adopt_namespace", title=f"Adopt a namespace of {team}", reason="It moves in.",
            change={"leaves": [], "objects": [], "settings": []}, requester=world.company.admin,
            receiver=world.company.teams[team], status="withdrawn",
        )  # fmt: skip
    client = client_for(world.company.admin)
    team = world.company.teams["finance"]
    page = client.get("/quotas/changes/", {"team": team.pk}).content.decode()
    assert "Adopt a namespace of finance" in page
    assert "Adopt a namespace of marketing" not in page
