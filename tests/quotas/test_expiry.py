"""The ladder at work: ends, policies, drains, archives and what leads back; limits beside GPUs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse

from apps.approvals import actions as approvals
from apps.audit.models import AuditEvent
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.models import OutboxMessage
from apps.provisioning import stopping
from apps.provisioning.models import Declaration, DeclaredObject, Observation, StopOrder
from apps.quotas import expiry, limits
from apps.quotas.assess import Extras
from apps.quotas.changes import request_change
from apps.quotas.choices import ChangeKind, RequestStatus, Rung
from apps.quotas.ladder import ANNOTATION
from apps.quotas.models import ChangeRequest, Workspace
from apps.quotas.tasks import climb_ladder, drain_workspaces, roll_quotas
from tests.factories import client_for
from tests.quotas.change_kinds import CHANGE_POLICY
from tests.quotas.conftest import World
from tests.quotas.test_granting import applied, declared, gpus

pytestmark = pytest.mark.django_db
REASON = "Agreed with the unit for the new year."
TO_ARCHIVE = {"last_rung": "archived", "drain_after_hours": 24, "archive_after_days": 30}


@pytest.fixture
def ended(world: World) -> Iterator[World]:
    """Finance holds 10 GPUs for ten days; the policy for changes is published."""
    approvals.publish_policy("change", "Changes", "quotas.change", CHANGE_POLICY, actor=Actor.of(world.company.admin))
    start = clock.now().replace(microsecond=0)
    with clock.frozen(start):
        world.granted(guaranteed=10, valid_until=start + timedelta(days=10))
        applied(world.workspaces["finance"])
        yield world


def workspace(world: World) -> Workspace:
    return Workspace.objects.select_related("team", "cluster").get(pk=world.workspaces["finance"].pk)


def uses(world: World, count: int) -> None:
    """Let the observer see how many GPUs are in use, against what is declared now."""
    place = world.workspaces["finance"]
    hard = declared(place)
    status = {"hard": hard, "used": {"requests.nvidia.com/gpu": str(count), "pods": "7"}}
    Observation.objects.update_or_create(
        cluster=world.cluster, kind="ResourceQuota", namespace=place.namespace, name="gpu-commons",
        defaults={"status": status, "observed_at": clock.now()},
    )  # fmt: skip


def change(world: World, kind: ChangeKind, values: dict[str, Any] | None = None, *, by: str = "lead_finance") -> Any:
    return request_change(
        kind, cluster_id=world.cluster.pk, workspace_id=world.workspaces["finance"].pk, values=values or {},
        reason=REASON, actor=Actor.of(world[by]),
    )  # fmt: skip


def decided(world: World, change: ChangeRequest) -> ChangeRequest:
    change.refresh_from_db()
    assert change.approval is not None
    approvals.decide(
        change.approval.pk, "approve", "Fits the plan of the quarter.", actor=Actor.of(world.company.vp),
        expected_digest=change.approval.subject_digest,
    )  # fmt: skip
    change.refresh_from_db()
    return change


def objects(world: World) -> dict[tuple[str, str], dict[str, Any]]:
    rows = DeclaredObject.objects.filter(declaration__owner_uid=world.workspaces["finance"].uid, removal="")
    return {(row.kind, row.name): json.loads(bytes(row.body)) for row in rows}


def end(world: World, **more: float) -> None:
    clock.advance(timedelta(days=10, **more))
    roll_quotas.run()
    climb_ladder.run()


@pytest.mark.requirement("quota-time-4.1", "quota-time-4.4")
def test_without_a_policy_the_end_only_stops_admitting(ended: World) -> None:
    uses(ended, 8)
    assert climb_ladder.run() == 0
    end(ended)
    assert gpus(ended.workspaces["finance"]) == "0"
    assert workspace(ended).rung == Rung.STOPPED_ADMITTING
    message = OutboxMessage.objects.get(event="quotas.workspace.rung")
    assert message.recipient_ids == [ended["lead_finance"].pk]
    assert "What runs goes on" in message.payload["text"]
    assert AuditEvent.objects.filter(action="quotas.workspace.rung").count() == 1
    clock.advance(timedelta(days=365))
    assert climb_ladder.run() == 0
    assert workspace(ended).rung == Rung.STOPPED_ADMITTING


@pytest.mark.requirement("quota-time-4.4", "quota-time-4.1", "quota-time-4.3")
def test_an_approved_policy_is_followed_rung_by_rung(ended: World, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(stopping, "drain_namespace", lambda cluster_id, name, **more: made.append(name) or 1)
    asked = change(ended, ChangeKind.EXPIRY_POLICY, TO_ARCHIVE)
    before = objects(ended)
    # Not approved is not in force.
    assert expiry.approved_policy(workspace(ended)).plain() == {}
    decided(ended, asked)
    assert workspace(ended).expiry_policy == TO_ARCHIVE
    namespace = objects(ended)["Namespace", "finance-development"]
    assert json.loads(namespace["metadata"]["annotations"][ANNOTATION]) == TO_ARCHIVE
    applied(ended.workspaces["finance"])
    uses(ended, 8)
    end(ended)
    uses(ended, 8)
    standing = expiry.standing_of(workspace(ended))
    assert standing.next is not None
    assert (standing.next.rung, standing.next.at) == (Rung.DRAINED, clock.now() + timedelta(hours=24))
    clock.advance(timedelta(hours=23))
    assert climb_ladder.run() == 0
    assert drain_workspaces.run() == 0
    clock.advance(timedelta(hours=1))
    assert climb_ladder.run() == 1
    assert workspace(ended).rung == Rung.DRAINED
    assert drain_workspaces.run() == 1
    assert made == ["finance-development"]
    clock.advance(timedelta(days=60))
    # Something still runs there: it is not archived.
    assert climb_ladder.run() == 0
    uses(ended, 0)
    assert drain_workspaces.run() == 0
    assert climb_ladder.run() == 1
    row = workspace(ended)
    assert row.rung == Rung.ARCHIVED
    assert row.archived_at == clock.now()
    after = objects(ended)
    assert before.keys() <= after.keys()
    assert after["ResourceQuota", "gpu-commons"]["spec"]["hard"]["pods"] == "0"
    declaration = Declaration.objects.get(owner_uid=row.uid)
    asked.refresh_from_db()
    assert declaration.grant_uid == asked.approval.grant.uid
    assert climb_ladder.run() == 0


@pytest.mark.requirement("quota-time-4.2")
def test_quota_that_is_granted_again_leads_back_by_itself(ended: World) -> None:
    end(ended)
    assert workspace(ended).rung == Rung.STOPPED_ADMITTING
    ended.granted(guaranteed=6)
    assert climb_ladder.run() == 1
    assert workspace(ended).rung == Rung.NONE
    assert gpus(ended.workspaces["finance"]) == "6"
    rungs = list(OutboxMessage.objects.filter(event="quotas.workspace.rung").order_by("pk"))
    assert [message.payload["rung"] for message in rungs] == ["stopped_admitting", "none"]


@pytest.mark.requirement("quota-time-4.4", "quota-time-4.2")
def test_between_the_windows_of_a_repetition_it_stands_still_without_a_word(ended: World) -> None:
    night = {"days": list(range(7)), "start": "00:00", "minutes": 60}
    ended.granted(
        guaranteed=4, valid_from=clock.now() + timedelta(days=11), valid_until=clock.now() + timedelta(days=20),
        extras=Extras(recurrence=night),
    )  # fmt: skip
    end(ended, hours=25)
    rungs = set()
    for _ in range(72):
        clock.advance(timedelta(hours=1))
        roll_quotas.run()
        climb_ladder.run()
        rungs.add(workspace(ended).rung)
    assert rungs == {Rung.NONE, Rung.STOPPED_ADMITTING}
    assert not OutboxMessage.objects.filter(event="quotas.workspace.rung").exists()
    assert AuditEvent.objects.filter(action="quotas.workspace.rung").count() >= 6


@pytest.mark.requirement("quota-time-4.1", "quota-time-5.2")
def test_less_held_than_runs_stops_nothing_by_itself(ended: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "drain_namespace", lambda *args, **more: pytest.fail("nobody asked for it"))
    decided(ended, change(ended, ChangeKind.EXPIRY_POLICY, TO_ARCHIVE))
    uses(ended, 10)
    ended.granted(guaranteed=4)
    uses(ended, 10)
    assert climb_ladder.run() == 1
    assert workspace(ended).rung == Rung.STOPPED_ADMITTING
    clock.advance(timedelta(days=9))
    uses(ended, 10)
    assert climb_ladder.run() == 0
    assert drain_workspaces.run() == 0
    uses(ended, 4)
    assert climb_ladder.run() == 1
    assert workspace(ended).rung == Rung.NONE


@pytest.mark.requirement("quota-time-5.3", "quota-time-5.2")
def test_leads_may_have_stopped_what_is_too_much(ended: World, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [0, 3]
    monkeypatch.setattr(stopping, "drain_namespace", lambda *args, **more: answers.pop(0))
    place = ended.workspaces["finance"]
    url = reverse("quotas:workspace-drain", kwargs={"workspace_uid": place.uid})
    lead = client_for(ended["lead_finance"])
    assert lead.get(url).status_code == 409
    ended.granted(guaranteed=4)
    uses(ended, 10)
    page = lead.get(reverse("quotas:workspace-detail", kwargs={"workspace_uid": place.uid})).content.decode()
    assert "More is in use than may be held" in page
    assert "Nothing new starts until use is within the limit" in page
    assert url in page
    asking = lead.get(url).content.decode()
    assert "10 GPUs are in use" in asking
    assert "Nothing is deleted" in asking
    for person, error in (("member_finance", NotAllowed), ("lead_marketing", NotVisible)):
        with pytest.raises(error):
            expiry.ask_drain(place.pk, "", actor=Actor.of(ended[person]))
    assert lead.post(url, {"reason": "They are the old runs."}).status_code == 303
    assert lead.post(url, {"reason": ""}).status_code == 409
    # The cluster does not answer at first: it is asked again.
    assert drain_workspaces.run() == 0
    assert workspace(ended).drain_asked_at is not None
    assert drain_workspaces.run() == 3
    assert workspace(ended).drain_asked_at is None
    assert AuditEvent.objects.filter(action="quotas.workspace.drain_asked").count() == 1


@pytest.mark.requirement("quota-time-4.5")
def test_archiving_deliberately_and_restoring(ended: World) -> None:
    with pytest.raises(Invalid) as refused:
        change(ended, ChangeKind.ARCHIVE)
    assert "holds quota" in refused.value.errors[""][0]
    end(ended)
    uses(ended, 2)
    with pytest.raises(Invalid) as refused:
        change(ended, ChangeKind.ARCHIVE)
    assert "2 GPUs are in use" in refused.value.errors[""][0]
    uses(ended, 0)
    before = objects(ended)
    asked = decided(ended, change(ended, ChangeKind.ARCHIVE))
    assert asked.status == RequestStatus.APPLYING
    row = workspace(ended)
    assert (row.rung, row.archived_at) == (Rung.ARCHIVED, clock.now())
    assert objects(ended)["RoleBinding", "gpu-commons-leads"]["subjects"] == []
    # It stays there, policy or not.
    clock.advance(timedelta(days=100))
    assert climb_ladder.run() == 0
    client = client_for(ended["lead_finance"])
    page = client.get(reverse("quotas:workspace-detail", kwargs={"workspace_uid": row.uid})).content.decode()
    assert "Archived" in page
    assert "Allowed when restored" in page
    assert ">Use it</a>" not in page
    back = reverse("quotas:workspace-restore", kwargs={"workspace_uid": row.uid})
    assert back in page
    done = client.post(back, {"reason": REASON})
    assert done.status_code == 303, done.content.decode()
    decided(ended, ChangeRequest.objects.get(kind=ChangeKind.RESTORE))
    row = workspace(ended)
    assert (row.rung, row.archived_at) == (Rung.STOPPED_ADMITTING, None)
    again = objects(ended)
    assert before.keys() <= again.keys()
    assert again["RoleBinding", "gpu-commons-leads"]["subjects"]
    assert again["ResourceQuota", "gpu-commons"]["spec"]["hard"]["pods"] == str(row.pods)
    assert client.get(back).status_code == 409


@pytest.mark.requirement("quota-time-4.5", "quota-time-4.2")
def test_a_granted_quota_restores_an_archived_workspace_with_every_object_approved(ended: World) -> None:
    end(ended)
    uses(ended, 0)
    decided(ended, change(ended, ChangeKind.ARCHIVE))
    request = ended.ask(guaranteed=8)
    paths = [leaf["path"] for leaf in request.change["leaves"] if "#" not in leaf["path"]]
    assert any("RoleBinding/finance-development/gpu-commons-leads" in path for path in paths)
    ended.approve(request)
    assert request.status == RequestStatus.APPLYING
    row = workspace(ended)
    assert (row.rung, row.archived_at) == (Rung.NONE, None)
    assert gpus(row) == "8"
    assert declared(row)["pods"] == str(row.pods)
    assert objects(ended)["RoleBinding", "gpu-commons-archived"]["subjects"] == []
    assert climb_ladder.run() == 0


@pytest.mark.requirement("quota-time-4.5")
def test_what_was_asked_for_before_the_archive_is_not_granted_into_it(ended: World) -> None:
    end(ended)
    uses(ended, 0)
    asked = change(ended, ChangeKind.ARCHIVE)
    request = ended.ask(guaranteed=8)
    with pytest.raises(Conflict):
        decided(ended, asked)
    ended.approve(request)
    assert request.status == RequestStatus.APPLYING


@pytest.mark.requirement("quota-time-5.1")
def test_limits_are_checked_shown_with_use_approved_and_declared_alone(ended: World) -> None:
    uses(ended, 3)
    place = ended.workspaces["finance"]
    client = client_for(ended["lead_finance"])
    url = reverse("quotas:workspace-limits", kwargs={"workspace_uid": place.uid})
    page = client.get(url).content.decode()
    assert 'name="cpu_cores" value="256"' in page
    sent = {**limits.current(place), "reason": REASON}
    for field, value in (("pods", "-1"), ("memory_gib", "1.5"), ("storage_gib", "99999999999")):
        wrong = client.post(url, sent | {field: value})
        assert wrong.status_code == 400
        assert f'id="id_{field}_error"' in wrong.content.decode()
    assert client.post(url, sent).status_code == 400, "nothing would change"
    before = declared(place)
    done = client.post(url, sent | {"pods": 5, "memory_gib": 3072}, follow=True)
    assert "7 are in use, 5 would be allowed" in done.content.decode()
    asked = ChangeRequest.objects.get(kind=ChangeKind.LIMITS)
    assert {leaf["path"].split("#")[1] for leaf in asked.change["leaves"]} == {
        "/spec/hard/pods",
        "/spec/hard/requests.memory",
    }
    decided(ended, asked)
    assert declared(place) == before | {"pods": "5", "requests.memory": "3Ti"}
    place.refresh_from_db()
    assert (place.pods, place.memory_gib) == (5, 3072)
    text = client.get(reverse("quotas:workspace-detail", kwargs={"workspace_uid": place.uid})).content.decode()
    assert "more than the limit" in text
    with pytest.raises(Invalid) as refused:
        limits.check({"pods": 1})
    assert "cpu_cores" in refused.value.errors


@pytest.mark.requirement("quota-time-4.4")
def test_the_policys_page_asks_and_the_workspace_shows_it(ended: World) -> None:
    place = ended.workspaces["finance"]
    client = client_for(ended["lead_finance"])
    url = reverse("quotas:workspace-expiry-policy", kwargs={"workspace_uid": place.uid})
    page = client.get(url).content.decode()
    assert "In force now:" in page
    wrong = client.post(url, {**TO_ARCHIVE, "drain_after_hours": 999, "archive_after_days": 2, "reason": REASON})
    assert wrong.status_code == 400
    assert "Archiving comes after draining" in wrong.content.decode()
    done = client.post(url, {**TO_ARCHIVE, "reason": REASON})
    assert done.status_code == 303, done.content.decode()
    detail = client.get(done.headers["Location"]).content.decode()
    assert "24 h later what holds GPUs is stopped" in detail
    decided(ended, ChangeRequest.objects.get())
    shown = client.get(reverse("quotas:workspace-detail", kwargs={"workspace_uid": place.uid})).content.decode()
    assert "after 30 days without quota it is archived" in shown
    assert "nothing while quota is held" in shown


@pytest.mark.requirement("quota-time-5.3")
def test_what_was_stopped_or_could_not_be_is_listed_with_the_workspace(ended: World) -> None:
    """With the reason where the cluster refused, and the way to start what was stopped again."""
    end(ended)
    uses(ended, 6)
    place = ended.workspaces["finance"]
    orders = {
        status: StopOrder.objects.create(
            cluster=place.cluster, kind="Deployment", namespace=place.namespace, name=f"work-{status}", status=status,
            team=place.team, cause="drain", requested_at=clock.now(), last_error=why,
        )
        for status, why in (("stopped", ""), ("refused", "The portal cannot stop a Pod."), ("undone", ""))
    }  # fmt: skip
    url = reverse("quotas:workspace-detail", kwargs={"workspace_uid": place.uid})
    text = client_for(ended["lead_finance"]).get(url).content.decode()
    assert "work-stopped" in text
    assert "The portal cannot stop a Pod." in text
    assert "work-undone" not in text
    assert reverse("provisioning:stop-detail", kwargs={"stop_uid": orders["stopped"].uid}) in text
    # What was drained at the end of quota is started again by platform admins.
    assert ">Start it again<" not in text
    assert client_for(ended.company.admin).get(url).content.decode().count(">Start it again<") == 1


@pytest.mark.requirement("quota-time-5.3")
def test_what_the_portal_does_not_stop_is_named_in_a_command_line(ended: World) -> None:
    """The portal deletes nothing: whose pods nothing governs ends them, each once, those of two days only."""
    end(ended)
    uses(ended, 6)
    place = ended.workspaces["finance"]
    rows = [
        ("Pod", "notebook-b", "refused", 1), ("Pod", "notebook-a", "refused", 30), ("Pod", "notebook-a", "refused", 2),
        ("Pod", "long-gone", "refused", 49), ("Deployment", "served", "refused", 1), ("Pod", "other", "stopped", 1),
        ("StatefulSet", "ring", "refused", 1), ("RayCluster", "rays", "refused", 1),
    ]  # fmt: skip
    for kind, name, status, hours in rows:
        StopOrder.objects.create(
            cluster=place.cluster, kind=kind, namespace=place.namespace, name=name, status=status, team=place.team,
            cause="drain", requested_at=clock.now() - timedelta(hours=hours), last_error="The portal deletes nothing.",
        )  # fmt: skip
    url = reverse("quotas:workspace-detail", kwargs={"workspace_uid": place.uid})
    text = client_for(ended["lead_finance"]).get(url).content.decode()
    shown = text[text.index('id="by-hand-text"') :]
    lines = shown[shown.index(">") + 1 : shown.index("</pre>")].strip().splitlines()
    assert lines == [
        f"kubectl --namespace {place.namespace} scale statefulset ring --replicas=0",
        f"kubectl --namespace {place.namespace} delete pod notebook-a notebook-b --ignore-not-found",
    ]
    assert 'data-copy="#by-hand-text"' in text
    StopOrder.objects.filter(status="refused").delete()
    assert "by-hand-text" not in client_for(ended["lead_finance"]).get(url).content.decode()
