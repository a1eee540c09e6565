"""Enforcement of workspaces: who decides it, what goes to the cluster and when, what is overdue, what pages show."""

from __future__ import annotations

import dataclasses
import json
from datetime import timedelta
from typing import Any

import pytest

from apps.approvals.models import Grant
from apps.catalogue import ports
from apps.clusters.capabilities import as_json
from apps.clusters.models import Cluster
from apps.core import clock
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.deployments import enforcement, enforcement_probe, enforcement_worker, verifying
from apps.deployments.choices import EnforcementMode
from apps.deployments.models import Enforcement, EnforcementNote, Release
from apps.provisioning.choices import DeclarationKind
from apps.provisioning.models import Declaration, DeclaredObject
from apps.quotas import baseline, book, enforcing
from apps.quotas.manifests import workspace_manifests
from apps.quotas.models import Workspace
from tests.deployments.samples import STANDARD, TOOL_IMAGE
from tests.deployments.world import World, make_world
from tests.factories import Company, client_for

pytestmark = pytest.mark.django_db
WHY = "Health data are scored there."
STRANGE = "registry.example.com/shell@sha256:" + "9" * 64


@pytest.fixture
def world(company: Company) -> World:
    """A workspace of health data on a cluster that can enforce, and a version approved in it."""
    able = dataclasses.replace(STANDARD, checked_at=clock.now())
    return make_world(company, capabilities=able, classes=("health",))


def decide(world: World, mode: str = "audit", *, by: str = "compliance", **kwargs: Any) -> Enforcement:
    """Decide for the production workspace."""
    workspace = world.workspaces["production"]
    return enforcement.set_mode(workspace.pk, mode, kwargs.pop("reason", WHY), actor=world.actor(by), **kwargs)


def declared(world: World) -> dict[str, Any]:
    """The ApprovedModels object as last declared."""
    row = DeclaredObject.objects.get(kind="ApprovedModels", namespace="finance-production")
    found: dict[str, Any] = json.loads(bytes(row.body))
    return found


@pytest.mark.requirement("enforcement-3.1")
def test_a_decision_declares_what_is_usable(world: World) -> None:
    """One object per workspace with an entry per usable grant, and what the platform itself puts into pods."""
    row = decide(world)
    spec = declared(world)["spec"]
    assert row.mode == EnforcementMode.AUDIT
    assert spec["mode"] == "audit"
    assert [entry["manifest"] for entry in spec["entries"]] == [world.version.digest]
    assert spec["platformImages"] == [TOOL_IMAGE]
    declaration = Declaration.objects.get(kind=DeclarationKind.ENFORCEMENT)
    assert declaration.owner_uid == world.workspaces["production"].uid
    assert row.next_expiry_at is not None


@pytest.mark.requirement("enforcement-3.2")
def test_deny_comes_after_audit_and_with_a_confirmation(world: World) -> None:
    """As does taking it back; each with a reason."""
    with pytest.raises(Invalid, match="Begin with audit"):
        decide(world, "deny", confirmed=True)
    decide(world)
    with pytest.raises(Invalid, match="Confirm"):
        decide(world, "deny")
    with pytest.raises(Invalid, match="few words"):
        decide(world, "deny", confirmed=True, reason=" ")
    with pytest.raises(Invalid, match="off, audit or deny"):
        decide(world, "maybe")
    with pytest.raises(Conflict, match="already"):
        decide(world)
    assert decide(world, "deny", confirmed=True).mode == EnforcementMode.DENY
    with pytest.raises(Invalid, match="Confirm"):
        decide(world, "off")


@pytest.mark.requirement("enforcement-3.3")
def test_only_compliance_and_platform_admins_decide(world: World) -> None:
    """The team's lead sees it and may not; a foreign tenant does not see it."""
    assert decide(world, by="admin").mode == EnforcementMode.AUDIT
    with pytest.raises(NotAllowed):
        decide(world, "off", by="lead_finance")
    with pytest.raises(NotVisible):
        enforcement.set_mode(0, "audit", WHY, actor=world.actor("admin"))
    row = Enforcement.objects.get(workspace=world.workspaces["production"])
    with pytest.raises(Conflict):
        decide(world, "off", expected_version=row.version + 1)


@pytest.mark.requirement("enforcement-3.4")
def test_a_cluster_that_cannot_says_why(world: World) -> None:
    """Kubernetes before 1.30 has no stable policies: nothing is offered, nothing comes into its baseline."""
    old = dataclasses.replace(STANDARD, kubernetes_version="v1.29.4", checked_at=clock.now())
    Cluster.objects.filter(pk=world.cluster.pk).update(capabilities=as_json(old))
    with pytest.raises(Invalid, match=r"came with\s+1\.30"):
        decide(world)
    Enforcement.objects.create(workspace=world.workspaces["production"], mode="audit")
    assert enforcement.contribution(Cluster.objects.get(pk=world.cluster.pk)) == []


@pytest.mark.requirement("enforcement-3.5")
def test_the_baseline_brings_policies_label_and_roles(world: World, settings: Any) -> None:
    """Only once somebody decided; in deny the team's roles hold no right to create pods or workloads."""
    cluster, workspace = world.cluster, world.workspaces["production"]
    assert not [m for m in baseline.rendered_baseline(cluster) if "approved" in m["metadata"]["name"]]
    decide(world)
    kinds = [m["kind"] for m in baseline.rendered_baseline(cluster)]
    assert kinds.count("ValidatingAdmissionPolicyBinding") == 8
    assert "ClusterStorageContainer" not in kinds
    settings.COMMONS_VERIFIER_IMAGE = "registry.example.com/verifier@sha256:" + "a" * 64
    assert "ClusterStorageContainer" in [m["kind"] for m in baseline.rendered_baseline(cluster)]
    spec = book.spec_of(workspace, {"nvidia.com/gpu": 8})
    assert _label_and_roles(spec) == ("audit", {"edit", "view"})
    decide(world, "deny", confirmed=True)
    assert enforcing.modes([workspace]) == {workspace.pk: "deny"}
    assert _label_and_roles(book.spec_of(workspace, {"nvidia.com/gpu": 8})) == ("deny", {"view"})
    settings.COMMONS_VERIFIER_IMAGE = "registry.example.com/verifier:1"
    with pytest.raises(Invalid, match="no digest"):
        baseline.rendered_baseline(cluster)


def _label_and_roles(spec: Any) -> tuple[str | None, set[str]]:
    found = workspace_manifests(spec)
    label = found[0]["metadata"]["labels"].get("gpu-commons/enforcement")
    return label, {m["roleRef"]["name"] for m in found if m["kind"] == "RoleBinding"}


@pytest.mark.requirement("enforcement-3.6")
def test_the_worker_withdraws_what_ended(world: World) -> None:
    """In its next turn; twice changes nothing; a grant that begins comes in."""
    decide(world)
    Grant.objects.update(expires_at=clock.now() + timedelta(hours=1))
    later = clock.now() + timedelta(hours=1)
    Enforcement.objects.update(next_expiry_at=later)
    assert enforcement_worker.withdraw() == 1  # the entry's end moved
    with clock.frozen(later):
        assert enforcement_worker.withdraw() == 1
        assert declared(world)["spec"]["entries"] == []
        assert enforcement_worker.withdraw() == 0
        world.approve_version()
        assert enforcement_worker.withdraw() == 1
    assert len(declared(world)["spec"]["entries"]) == 1


@pytest.mark.requirement("enforcement-3.7")
def test_a_revoked_grant_leaves_at_once(world: World) -> None:
    """In the transaction of the revocation: the catalogue tells, the list is declared anew."""
    decide(world)
    Grant.objects.update(revoked_at=clock.now(), revoked_reason="Found to be biased.")
    ports.tell_grant_change([world.workspaces["production"].uid])
    assert declared(world)["spec"]["entries"] == []


@pytest.mark.requirement("enforcement-watch-1.1")
def test_an_end_that_the_cluster_has_not_taken_in_is_noted_and_told(world: World) -> None:
    """After the stated window; the note ends once it is applied."""
    decide(world)
    late = clock.now() + enforcement_worker.WINDOW + timedelta(seconds=1)
    with clock.frozen(late):
        assert enforcement_worker.look() == 1
        assert enforcement_worker.look() == 0
        note = EnforcementNote.objects.get()
        assert (note.kind, note.gone_at) == ("overdue_expiry", None)
        row = Declaration.objects.get(kind=DeclarationKind.ENFORCEMENT)
        Declaration.objects.filter(pk=row.pk).update(observed_generation=row.generation)
        assert enforcement_worker.look() == 1
    note.refresh_from_db()
    assert note.gone_at == late


@pytest.mark.requirement("enforcement-watch-1.1")
def test_what_serves_without_a_grant_is_noted_not_stopped(world: World) -> None:
    """Never silently: the endpoint goes on, and the page and the team's leads know that nothing new begins."""
    release = world.live("production", version=world.version, ladder=())
    decide(world)
    Declaration.objects.update(observed_generation=1)
    Grant.objects.filter(request__subject_type="catalogue.version").update(revoked_at=clock.now())
    ports.tell_grant_change([world.workspaces["production"].uid])
    enforcement_worker.look()
    note = EnforcementNote.objects.get(kind="serving_expired")
    assert "still serves" in note.detail
    release.refresh_from_db()
    assert release.status == "live"
    # A node may fail: the pods of that release are replaced, whatever would begin anew is covered by nothing.
    spec = declared(world)["spec"]
    assert spec["entries"] == []
    assert [(one["release"], one["manifest"]) for one in spec["serving"]] == [(str(release.uid), world.version.digest)]
    enforcement_worker.withdraw()
    assert declared(world)["spec"]["serving"]
    Release.objects.filter(pk=release.pk).update(status="superseded")
    enforcement_worker.withdraw()
    assert declared(world)["spec"]["serving"] == []


@pytest.mark.requirement("enforcement-3.6")
def test_a_release_that_came_before_its_list_is_applied_again(world: World) -> None:
    """Once for each list that the cluster takes in; what is refused for another reason waits for a person."""
    release = world.release("production")
    decide(world)
    at = clock.now()
    row = Declaration.objects.get(kind=DeclarationKind.RELEASE, owner_uid=release.endpoint.uid)
    refused = {"status": "stopped", "last_error": "denied by 'gpu-commons-approved-models'", "updated_at": at}
    Declaration.objects.filter(pk=row.pk).update(**refused)
    assert enforcement_worker.resume_refused() == 0  # the list is not taken in yet
    mine = Declaration.objects.get(kind=DeclarationKind.ENFORCEMENT)
    later = at + timedelta(seconds=5)
    Declaration.objects.filter(pk=mine.pk).update(observed_generation=mine.generation, applied_at=later)
    assert enforcement_worker.resume_refused() == 1
    row.refresh_from_db()
    assert row.status == "applying"
    Declaration.objects.filter(pk=row.pk).update(**refused | {"updated_at": later})
    assert enforcement_worker.resume_refused() == 0
    Declaration.objects.filter(pk=row.pk).update(**refused | {"last_error": "quota exceeded"})
    assert enforcement_worker.resume_refused() == 0


class _Api:
    """What the probe asks of a cluster."""

    def __init__(self, pods: list[dict[str, Any]]) -> None:
        self.pods = pods

    def list(self, kind: str, namespace: str = "") -> Any:
        from types import SimpleNamespace

        return SimpleNamespace(items=self.pods if kind == "Pod" else [])


def _pod(name: str, image: str, first: str = "") -> dict[str, Any]:
    before = [{"image": first}] if first else []
    return {"metadata": {"name": name}, "spec": {"containers": [{"image": image}], "initContainers": before}}


@pytest.mark.requirement("enforcement-watch-1.2")
def test_what_would_be_refused_now_is_noted(world: World) -> None:
    """Pods by their images, those of init containers among them; gone once they are."""
    decide(world)
    own = json.loads(bytes(world.version.manifest))["image"]
    pods = [
        _pod("fine", own, TOOL_IMAGE),
        _pod("shell", own, STRANGE),
        _pod("done", STRANGE) | {"status": {"phase": "Succeeded"}},
    ]
    workspace = Workspace.objects.select_related("cluster").get(pk=world.workspaces["production"].pk)
    api: Any = _Api(pods)
    found = enforcement_probe.probe(workspace, api)
    assert [one.object for one in found] == ["Pod shell"]
    assert enforcement_probe.record(workspace.pk, found, clock.now()) == 1
    assert enforcement_probe.record(workspace.pk, found, clock.now()) == 0
    assert enforcement_probe.record(workspace.pk, [], clock.now()) == 1
    assert not EnforcementNote.objects.filter(gone_at__isnull=True).exists()


@pytest.mark.requirement("enforcement-watch-2.4")
def test_the_catalogue_asks_here_whether_a_cluster_verifies(world: World) -> None:
    """By the last check of the cluster."""
    assert not ports.verifies(world.cluster.slug)
    kserve = dataclasses.replace(STANDARD.kserve, verifying=True)
    Cluster.objects.update(capabilities=as_json(dataclasses.replace(STANDARD, kserve=kserve)))
    assert ports.verifies(world.cluster.slug)
    assert not verifying.verifies_slug("nowhere")


@pytest.mark.requirement("enforcement-watch-1.3")
def test_pages_show_and_decide(world: World, django_assert_max_num_queries: Any) -> None:
    """List, page and form for compliance; the lead looks and finds no form; a foreign lead finds nothing."""
    workspace = world.workspaces["production"]
    page = f"/deployments/enforcement/{workspace.uid}/"
    client = client_for(world["compliance"])
    with django_assert_max_num_queries(20):
        assert "finance-production" in client.get("/deployments/enforcement/").content.decode()
    assert "Nothing is enforced here" in client.get(page).content.decode()
    form = {"mode": "audit", "reason": WHY, "before": "off", "version": workspace.version}
    assert client.post(f"{page}set/", form).status_code in (302, 303)
    assert client.post(f"{page}set/", form).status_code == 409
    text = client.get(page).content.decode()
    assert "Audit" in text
    assert "What the cluster takes" in text
    lead = client_for(world["lead_finance"])
    assert lead.get(page).status_code == 200
    assert lead.get(f"{page}set/").status_code == 403
    assert client_for(world["lead_marketing"]).get(page).status_code == 404
