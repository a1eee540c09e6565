"""Adopting drift through a change request, and the guard of what the portal owns."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import kubernetes_validate
import pytest

from apps.approvals import actions as approvals
from apps.audit.models import AuditEvent
from apps.clusters.choices import GuardMode
from apps.clusters.models import Cluster
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.provisioning import drift_actions, drifting, selectors
from apps.provisioning.choices import DeclarationStatus, DriftDecision, DriftResolution, PlanStatus
from apps.provisioning.models import ApplyRun, Declaration, Drift
from apps.provisioning.ordering import Key
from apps.quotas import baseline, changes, drift_changes, guard
from apps.quotas.choices import RequestStatus
from apps.quotas.guard_policy import CONTROLLERS, guard_manifests
from apps.quotas.models import ChangeRequest
from tests.factories import client_for
from tests.quotas.change_kinds import CHANGE_POLICY
from tests.quotas.conftest import World

pytestmark = pytest.mark.django_db
PORTAL = "system:serviceaccount:gpu-commons:portal"
LABELS = {"gpu-commons/managed": "true"}


@pytest.fixture
def held(world: World) -> World:
    """Finance holds quota, declared and applied; the policy for changes is published."""
    approvals.publish_policy("change", "Changes", "quotas.change", CHANGE_POLICY, actor=Actor.of(world.company.admin))
    world.granted("finance", 10)
    row = _declaration(world)
    row.observed_generation, row.status = row.generation, DeclarationStatus.APPLIED
    row.save(update_fields=["observed_generation", "status"])
    return world


def _declaration(world: World) -> Declaration:
    return Declaration.objects.get(owner_uid=world.workspaces["finance"].uid)


def _drift(world: World, field: str, declared: str, live: str, kind: str = "ResourceQuota") -> Drift:
    row = _declaration(world)
    found = row.declared_objects.filter(kind=kind).first()
    assert found is not None
    return Drift.objects.create(
        declaration=row, kind=kind, namespace=found.namespace, name=found.name, field=field, declared=declared,
        live=live, manager="kubectl-edit", found_at=clock.now(),
    )  # fmt: skip


def _declared(world: World, kind: str = "ResourceQuota") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(bytes(_declaration(world).declared_objects.get(kind=kind).body))
    return found


def _adopt(world: World, *drifts: Drift) -> ChangeRequest:
    return drift_changes.request_adoption(
        [drift.pk for drift in drifts], "The evaluation jobs need it.", actor=Actor.of(world.company.admin)
    )


@pytest.mark.requirement("drift-2.3")
def test_adopted_is_what_was_shown_and_nothing_else(held: World) -> None:
    """The change holds the live value of that field; once applied the drift is resolved as adopted."""
    before = _declared(held)
    drift = _drift(held, "spec.hard.pods", before["spec"]["hard"]["pods"], "400")
    change = _adopt(held, drift)
    drift.refresh_from_db()
    assert (change.status, drift.decision) == (RequestStatus.IN_REVIEW, DriftDecision.ADOPT)
    assert [leaf["path"].split("#")[1] for leaf in change.change["leaves"]] == ["/spec/hard/pods"]
    assert _declared(held) == before
    assert change.approval is not None
    approvals.decide(
        change.approval.pk, "approve", "Seen, and right.", actor=Actor.of(held.company.vp),
        expected_digest=change.approval.subject_digest,
    )  # fmt: skip
    after = _declared(held)
    assert after["spec"]["hard"] == before["spec"]["hard"] | {"pods": "400"}
    drifting.applied({drift.declaration_id: {Key(drift.kind, drift.namespace, drift.name)}}, clock.now())
    drift.refresh_from_db()
    assert (drift.resolution, drift.change_uid) == (DriftResolution.ADOPTED, change.uid)


@pytest.mark.requirement("drift-2.3")
def test_what_changed_again_is_not_approved_as_it_was(held: World) -> None:
    """Somebody edits the field once more: nobody can approve the old value."""
    drift = _drift(held, "spec.hard.pods", "200", "400")
    change = _adopt(held, drift)
    Drift.objects.filter(pk=drift.pk).update(live="500")
    assert "changed since" in drift_changes.AdoptDriftHandler().blockers(change, clock.now())[0]


@pytest.mark.requirement("drift-2.4")
@pytest.mark.parametrize(
    ("field", "declared", "live", "says"),
    [
        ('spec.hard["requests.nvidia.com/gpu"]', "10", "40", "request quota"),
        ('spec.hard["requests.nvidia.com/gpu"]', "10", "", "no limit at all"),
        ('metadata.labels["gpu-commons/managed"]', "true", "", "apply it again"),
        ("", "present", "missing", "deleted"),
    ],
)
def test_what_cannot_be_adopted_says_what_to_do(held: World, field: str, declared: str, live: str, says: str) -> None:
    """Nothing is requested; the page says it, too."""
    drift = _drift(held, field, declared, live)
    with pytest.raises(Invalid, match=says):
        _adopt(held, drift)
    assert not ChangeRequest.objects.exists()
    page = client_for(held.company.admin).get(f"/quotas/drift/{drift.uid}/adopt/")
    assert page.status_code == 409
    assert says in page.content.decode()


@pytest.mark.requirement("drift-2.4")
def test_only_what_will_be_taken_is_offered_and_the_reason_stands_beside_the_rest(held: World) -> None:
    """By what it is, and by what is asked for already."""
    gpus = _drift(held, 'spec.hard["requests.nvidia.com/gpu"]', "10", "40")
    pods = _drift(held, "spec.hard.pods", "200", "400")
    jobs = _drift(held, 'spec.hard["count/jobs.batch"]', "50", "60")
    url = f"/provisioning/declarations/{_declaration(held).uid}/"

    def offered() -> tuple[set[str], str]:
        body = client_for(held.company.admin).get(url).content.decode()
        return {str(row.uid) for row in (gpus, pods, jobs) if f"/quotas/drift/{row.uid}/adopt/" in body}, body

    links, body = offered()
    assert links == {str(pods.uid), str(jobs.uid)}
    assert "Not to be adopted: GPUs are promised by the pool&#x27;s ledger" in body
    change = _adopt(held, pods)
    links, body = offered()
    assert links == set()
    assert "It is asked for already" in body
    assert "Another adoption in this workspace waits" in body
    assert client_for(held.company.admin).get(f"/quotas/drift/{jobs.uid}/adopt/").status_code == 409
    changes.withdraw_change(change.pk, "Not needed.", actor=Actor.of(held.company.admin))
    assert offered()[0] == {str(pods.uid), str(jobs.uid)}


@pytest.mark.requirement("drift-2.7")
def test_what_is_applied_but_drifted_says_so(held: World) -> None:
    """In the list, its export, the API, on the declaration's and the workspace's page; left alone, too."""
    row, workspace = _declaration(held), held.workspaces["finance"]
    client = client_for(held.company.admin)
    pages = (
        "/provisioning/declarations/",
        "/provisioning/declarations/?export=csv",
        f"/provisioning/declarations/{row.uid}/",
        f"/quotas/workspaces/{workspace.uid}/",
    )

    def said() -> list[str]:
        found = []
        for page in pages:
            answer = client.get(page)
            body = b"".join(answer.streaming_content) if answer.streaming else answer.content
            words = ("Applied, drifted", "Applied, drift left", "Applied")
            found.append(next(word for word in words if word in body.decode()))
        return [*found, client.get(f"/api/v1/declarations/{row.uid}").json()["drift"]]

    assert said() == ["Applied"] * 4 + [""]
    drift = _drift(held, "spec.hard.pods", "200", "400")
    assert said() == ["Applied, drifted"] * 4 + ["open"]
    drift_actions.ignore(
        drift.pk, clock.now() + timedelta(days=3), "They move out on Friday.", actor=Actor.of(held.company.admin)
    )
    assert said() == ["Applied, drift left"] * 4 + ["left"]


@pytest.mark.requirement("drift-2.8", "change-requests-1.8")
def test_drift_that_is_left_says_on_every_page_that_nothing_can_be_approved(held: World) -> None:
    drift = _drift(held, "spec.hard.pods", "200", "400")
    until = clock.now() + timedelta(days=3)
    form = client_for(held.company.admin).get(f"/provisioning/drift/{drift.uid}/ignore/").content.decode()
    assert "no other change of this object can be approved" in form
    drift_actions.ignore(drift.pk, until, "They move out on Friday.", actor=Actor.of(held.company.admin))
    request = held.ask("finance", 30)
    assert request.plan is not None
    assert request.approval is not None
    conflict = {"manager": "kubectl-edit", "field": ".spec.hard.pods", "message": ""}
    entry = {"kind": drift.kind, "namespace": drift.namespace, "name": drift.name, "operation": "update",
             "server_checked": True, "changes": [], "conflicts": [conflict], "warnings": []}  # fmt: skip
    request.plan.status, request.plan.entries, request.plan.made_at = PlanStatus.READY, [entry], clock.now()
    request.plan.save()
    remake = f"/provisioning/plans/{request.plan.uid}/remake/"
    for who, page, again in (
        (held["lead_finance"], f"/quotas/requests/{request.uid}/", False),
        (held.company.admin, f"/quotas/requests/{request.uid}/", True),
        (held.company.vp, f"/approvals/requests/{request.approval.uid}/", False),
        (held.company.admin, f"/provisioning/plans/{request.plan.uid}/", True),
    ):
        body = client_for(who).get(page).content.decode()
        assert "stands in the way" in body, page
        assert "left as it lives until" in body
        assert "They move out on Friday." in body
        assert f"/provisioning/declarations/{drift.declaration.uid}/" in body
        assert (remake in body) == again
    # What a change takes over is no conflict any more: only the fields that are one are named.
    other = _drift(held, 'spec.hard["count/jobs.batch"]', "50", "60")
    assert selectors.drift_in_plans([request.plan]) == [drift]
    entry["conflicts"] = [{"manager": "kubectl-edit", "field": ".spec.hard.count/jobs.batch", "message": ""}]
    assert selectors.drift_in_plans([request.plan]) == [other]
    request.plan.entries = []
    request.plan.save()
    body = client_for(held["lead_finance"]).get(f"/quotas/requests/{request.uid}/").content.decode()
    assert "stands in the way" not in body


@pytest.mark.requirement("drift-2.6")
def test_the_team_sees_what_somebody_else_changed(held: World) -> None:
    """Read only: no decision is offered to them."""
    _drift(held, "spec.hard.pods", "200", "400")
    workspace = held.workspaces["finance"]
    body = client_for(held["lead_finance"]).get(f"/quotas/workspaces/{workspace.uid}/").content.decode()
    assert "Changed on the cluster by somebody else" in body
    assert "kubectl-edit" in body
    assert "/reapply/" not in body


def test_paths_and_lists_are_read_as_they_were_written() -> None:
    """A path of every form, an item more, an item less."""
    assert drift_changes.path_of('spec.hard["requests.nvidia.com/gpu"]') == ["spec", "hard", "requests.nvidia.com/gpu"]
    assert drift_changes.path_of("subjects[name=a].kind") == ["subjects", "name=a", "kind"]
    assert drift_changes.path_of("spec.limits[0].max") == ["spec", "limits", 0, "max"]
    binding = {"kind": "RoleBinding", "subjects": [{"kind": "Group", "name": "a"}]}
    more = drift_changes.with_field(binding, ["subjects", "name=b"], '{"kind": "User", "name": "b"}')
    assert [subject["name"] for subject in more["subjects"]] == ["a", "b"]
    assert drift_changes.with_field(more, ["subjects", "name=a"], "")["subjects"] == [{"kind": "User", "name": "b"}]
    assert binding["subjects"] == [{"kind": "Group", "name": "a"}]
    with pytest.raises(Invalid):
        drift_changes.with_field(binding, ["spec", "gone"], "x")


# -- guard ---------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("drift-3.1", "drift-3.2")
@pytest.mark.parametrize("version", ["1.30", "1.33", "1.36"])
@pytest.mark.parametrize("mode", ["audit", "deny"])
def test_the_guard_is_a_valid_policy(mode: str, version: str) -> None:
    """Against the schemas; the portal and the controllers are exempt; the label before decides."""
    policy, binding = guard_manifests(mode, PORTAL, LABELS)
    for manifest in (policy, binding):
        kubernetes_validate.validate(manifest, version, strict=True)
    assert binding["spec"]["validationActions"] == (["Audit"] if mode == "audit" else ["Deny", "Audit"])
    conditions = " ".join(one["expression"] for one in policy["spec"]["matchConditions"])
    assert all(name in conditions for name in (PORTAL, *CONTROLLERS))
    assert "oldObject.metadata.labels['gpu-commons/managed'] == 'true'" in conditions
    guarded = {
        resource for rule in policy["spec"]["matchConstraints"]["resourceRules"] for resource in rule["resources"]
    }
    assert {"namespaces", "resourcequotas", "rolebindings", "networkpolicies", "clusterqueues"} <= guarded
    assert not {"deployments", "jobs.batch", "pods", "validatingadmissionpolicies"} & guarded


@pytest.mark.requirement("drift-3.4")
def test_the_guard_needs_to_know_the_portal() -> None:
    """Else it would refuse the portal itself; off renders nothing."""
    with pytest.raises(ValueError, match="whom the cluster takes the portal for"):
        guard_manifests("deny", "", LABELS)
    assert guard_manifests("off", "", LABELS) == []


def _set(world: World, mode: str, **kwargs: Any) -> Cluster:
    return guard.set_guard_mode(
        world.cluster.pk, mode, "Others edit these objects.", actor=Actor.of(world.company.admin), **kwargs
    )


@pytest.fixture
def checked(world: World) -> World:
    """The cluster was checked: it serves admission policies and has said whom it takes the portal for."""
    world.cluster.capabilities = {"admission_policies": True, "username": PORTAL, "checked_at": clock.now().isoformat()}
    world.cluster.save(update_fields=["capabilities"])
    return world


@pytest.mark.requirement("drift-3.1", "drift-3.3", "drift-2.5")
def test_deny_comes_after_a_day_of_audit_or_a_confirmation(checked: World) -> None:
    """Counted from when the baseline with the audit was applied."""
    cluster = _set(checked, "audit")
    kinds = [manifest["kind"] for manifest in baseline.rendered_baseline(cluster)]
    assert {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"} <= set(kinds)
    with pytest.raises(Invalid, match="24 hours"):
        _set(checked, "deny")
    row = Declaration.objects.create(
        cluster=cluster, kind="baseline", owner_uid=cluster.uid, title="Baseline", generation=1, observed_generation=1
    )
    manifest = json.dumps(guard_manifests("audit", PORTAL, LABELS)).encode()
    row.revisions.create(generation=1, manifest=manifest, digest="0" * 64)
    run = ApplyRun.objects.create(
        declaration=row, generation=1, outcome="succeeded", lease_token=cluster.uid, started_at=clock.now(),
        finished_at=clock.now() - timedelta(hours=2),
    )  # fmt: skip
    assert guard.state_of(cluster).live == GuardMode.AUDIT
    with pytest.raises(Invalid, match="24 hours"):
        _set(checked, "deny")
    run.finished_at = clock.now() - timedelta(hours=25)
    run.save(update_fields=["finished_at"])
    assert _set(checked, "deny").guard_mode == GuardMode.DENY
    with pytest.raises(Conflict):
        _set(checked, "deny")
    _set(checked, "audit")
    run.delete()
    assert _set(checked, "deny", confirmed=True).guard_mode == GuardMode.DENY
    assert AuditEvent.objects.filter(action="quotas.guard.decided").count() == 4


@pytest.mark.requirement("drift-3.4", "drift-2.5")
def test_the_guard_is_refused_where_it_cannot_work(world: World) -> None:
    """Not checked yet, no right."""
    with pytest.raises(Invalid):
        _set(world, "audit")
    with pytest.raises(NotAllowed):
        guard.set_guard_mode(world.cluster.pk, "audit", "for a test", actor=Actor.of(world["lead_finance"]))
