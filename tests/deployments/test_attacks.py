"""Attacks on releases: grants stretched, places moved, roles swapped, rows of others guessed. Each must fail."""

from __future__ import annotations

import json
import threading
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.db import Error, connections, transaction
from django.test import Client

from apps.accounts.actions import create_token
from apps.approvals import granting as approval_grants
from apps.approvals.models import EmergencyReview, Grant
from apps.audit.models import AuditEvent
from apps.clusters.models import Cluster
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.deployments import (
    actions,
    drift_actions,
    ending,
    enforcement,
    enforcement_worker,
    placement_rules,
    rendering,
    rollout,
)
from apps.deployments.models import Endpoint, Enforcement, EnforcementNote, Release, RolloutStep
from apps.deployments.spec import Window
from apps.provisioning.models import DeclaredObject
from apps.quotas.models import Workspace
from apps.teams.choices import Role
from tests.deployments.world import REASON, World, make_world
from tests.factories import Company, client_for, forget_scopes, grant, make_company, make_member, make_user

pytestmark = pytest.mark.django_db
NIGHT = (Window(days=(0, 1, 2), start="08:00", minutes=600, replicas=2),)
WHY = "It cannot wait until Monday morning."


@pytest.fixture
def world(company: Company) -> World:
    return make_world(company)


@pytest.fixture
def health(company: Company) -> World:
    """Health data, which the rules keep on premises."""
    made = make_world(company, classes=("health",))
    placement_rules.add_starting_rules(actor=Actor.system("tests"))
    return made


def moved_to_the_cloud(world: World) -> None:
    Cluster.objects.filter(pk=world.cluster.pk).update(location="cloud", jurisdiction="US")


def declared(release: Release) -> list[Any]:
    rows = DeclaredObject.objects.filter(declaration__owner_uid=release.endpoint.uid, removal="")
    return sorted((json.loads(bytes(row.body)) for row in rows), key=_path)


def state(release: Release, name: str) -> list[Any]:
    return sorted(release.change["states"][name], key=_path)


def _path(one: Any) -> tuple[str, str]:
    return one["kind"], one["metadata"]["name"]


# ---- placement, at every use


@pytest.mark.requirement("rollouts-2.9")
def test_a_cluster_that_moves_after_the_approval_gets_no_more_of_a_health_model(health: World) -> None:
    health.live()
    second = health.load(health.release(version=health.next_version()))
    endpoint = health.endpoint(second)
    assert endpoint.traffic == 10
    moved_to_the_cloud(health)
    for act in (rollout.step, rollout.promote):
        with pytest.raises(NotAllowed, match="stays on premises"):
            act(endpoint.pk, actor=health.actor(), reason=WHY)
    rollout.hold(endpoint.pk, actor=health.actor(), reason=WHY)
    with pytest.raises(NotAllowed, match="stays on premises"):
        rollout.resume(endpoint.pk, actor=health.actor(), reason=WHY)
    rollout.roll_back(endpoint.pk, actor=health.actor(), reason=WHY)
    rollout.stop(endpoint.pk, actor=health.actor(), reason=WHY)
    with pytest.raises(NotAllowed, match="stays on premises") as refused:
        rollout.start_again(endpoint.pk, actor=health.actor(), reason=WHY)
    assert refused.value.rule == "placement"


@pytest.mark.requirement("rollouts-2.9")
def test_a_moved_cluster_takes_no_earlier_release_back_and_no_release_in_review(health: World) -> None:
    first = health.live(ladder=())
    second = health.load(health.release(version=health.next_version(), ladder=()))
    waiting = health.ask("production", version=second.model_version)
    moved_to_the_cloud(health)
    with pytest.raises(NotAllowed, match="stays on premises"):
        rollout.roll_back(first.endpoint_id, actor=health.actor(), reason=WHY)
    with pytest.raises(Conflict, match="stays on premises"):
        health.approve(waiting)
    assert not Grant.objects.filter(request__subject_uid=waiting.uid).exists()


@pytest.mark.requirement("rollouts-2.9")
def test_a_workspace_that_loses_a_data_class_takes_no_more_of_what_touches_it(health: World) -> None:
    waiting = health.ask("production")
    release = health.live()
    Workspace.objects.update(data_classes=["internal"])
    with pytest.raises(Conflict, match="not for health data"):
        health.approve(waiting)
    rollout.stop(release.endpoint_id, actor=health.actor(), reason=WHY)
    with pytest.raises(NotAllowed, match="not for health data"):
        rollout.start_again(release.endpoint_id, actor=health.actor(), reason=WHY)


@pytest.mark.requirement("rollouts-2.9")
def test_the_ladder_itself_holds_what_may_not_be_placed_any_more(health: World) -> None:
    health.live()
    second = health.load(health.release(version=health.next_version()))
    moved_to_the_cloud(health)
    Release.objects.filter(pk=second.pk).update(next_step_at=clock.now())
    health.load(second)
    assert (second.status, health.endpoint(second).traffic) == ("held", 10)


def test_a_failed_release_whose_predecessor_may_not_return_says_so_once(health: World) -> None:
    health.live(ladder=())
    second = health.release(version=health.next_version(), ladder=())
    moved_to_the_cloud(health)
    health.load(second, "failed")
    assert second.failure
    assert health.endpoint(second).current_id == second.pk


# ---- grants stretched


def test_a_grant_of_one_workspace_opens_no_other(world: World) -> None:
    narrow = world.next_version(approved=False)
    world.approve_version(narrow, environments=("development",))
    with pytest.raises(Invalid) as refused:
        world.ask("staging", version=narrow)
    assert "other environments" in str(refused.value.errors["model_version"])


def test_a_grant_that_begins_later_or_has_ended_starts_nothing(world: World) -> None:
    version = world.next_version(approved=False)
    given = world.approve_version(version)
    for moment in (given.not_before - timedelta(seconds=1), given.expires_at):
        assert moment is not None
        with clock.frozen(moment), pytest.raises(Invalid) as refused:
            world.ask(version=version)
        assert "model_version" in refused.value.errors


@pytest.mark.requirement("rollouts-2.5")
def test_a_canary_never_takes_more_than_the_grant_covers(world: World) -> None:
    world.live()
    second = world.load(world.release(version=world.next_version()))
    wide = Grant.objects.get(scope__manifest=second.version_digest, request__subject_type="catalogue.version")
    world.approve_version(second.model_version, max_traffic=20)
    Grant.objects.filter(pk=wide.pk).update(revoked_at=clock.now(), revoked_reason="Too wide.")
    for act in (rollout.step, rollout.promote):
        with pytest.raises(NotAllowed, match="not approved for this"):
            act(second.endpoint_id, actor=world.actor(), reason=WHY)
    assert world.endpoint(second).traffic == 10


@pytest.mark.requirement("rollouts-4.5")
def test_a_release_that_was_scaled_back_is_not_scaled_up_through_a_canary(world: World) -> None:
    first = world.live(expiry_action="scale_back", max_replicas=2, min_replicas=1, tier="warm", schedule=NIGHT)
    Grant.objects.filter(request__subject_uid=first.uid).update(expires_at=clock.now())
    ending.handle(first.endpoint_id)
    assert declared(first) == state(first, rendering.SMALLEST)
    second = world.load(world.release(version=world.next_version()))
    rollout.roll_back(second.endpoint_id, actor=world.actor(), reason=WHY)
    assert declared(first) == state(first, rendering.SMALLEST)


@pytest.mark.requirement("rollouts-4.5")
def test_an_end_beside_a_healthy_canary_takes_neither_of_both_off(world: World) -> None:
    first = world.live(expiry_action="scale_back", max_replicas=2, min_replicas=1, tier="warm", schedule=NIGHT)
    second = world.load(world.release(version=world.next_version()))
    Grant.objects.filter(request__subject_uid=first.uid).update(expires_at=clock.now())
    ending.handle(first.endpoint_id)
    endpoint = world.endpoint(second)
    assert (endpoint.current_id, endpoint.candidate_id, endpoint.traffic) == (first.pk, second.pk, 10)
    assert declared(first) == state(second, rendering.canary_state(10))
    assert RolloutStep.objects.filter(release=first, kind="approval_ended").exists()
    ending.handle(first.endpoint_id)
    assert RolloutStep.objects.filter(release=first, kind="approval_ended").count() == 1
    rollout.roll_back(second.endpoint_id, actor=world.actor(), reason=WHY)
    assert declared(first) == state(first, rendering.SMALLEST)


def test_bytes_changed_behind_the_portal_are_used_for_nothing(world: World) -> None:
    world.live()
    second = world.load(world.release(version=world.next_version()))
    Release.objects.filter(pk=second.pk).update(spec={**second.spec, "max_replicas": 4, "min_replicas": 4})
    with pytest.raises(NotAllowed, match="other bytes"):
        rollout.step(second.endpoint_id, actor=world.actor(), reason=WHY)
    third = world.ask("production")
    Release.objects.filter(pk=third.pk).update(estimate={**third.estimate, "amount": "0.01"})
    with pytest.raises(Conflict, match="edited"):
        world.approve(third)


def test_stored_objects_that_were_swapped_are_never_declared(world: World) -> None:
    world.live()
    second = world.load(world.release(version=world.next_version()))
    change = second.change
    change["states"]["canary-50"][0]["metadata"]["labels"]["evil"] = "yes"
    Release.objects.filter(pk=second.pk).update(change=change)
    with pytest.raises((Conflict, NotAllowed)):
        rollout.step(second.endpoint_id, actor=world.actor(), reason=WHY)
    assert world.endpoint(second).traffic == 10


# ---- who decides


def test_who_asked_wrote_or_will_use_it_does_not_decide_by_any_way_round(world: World) -> None:
    company = world.company
    release = world.ask("production")
    for person in (company.lead_finance, company.member_finance):
        grant(person, Role.UNIT_OWNER, unit=company.unit)
        forget_scopes(person)
        with pytest.raises(NotAllowed):
            world.approve(release, by=person)
    # Leaving the team between submission and decision changes nothing; nor does joining it.
    from apps.teams.models import Membership

    Membership.objects.filter(user=company.member_finance).delete()
    forget_scopes(company.member_finance)
    with pytest.raises((NotAllowed, NotVisible)):
        world.approve(release, by=company.member_finance)
    make_member(company.vp, company.finance_team)
    forget_scopes(company.vp)
    with pytest.raises(NotAllowed):
        world.approve(release, by=company.vp)


def test_an_editor_in_the_middle_does_not_decide_on_the_release(world: World) -> None:
    writer = make_user("wandering writer")
    grant(writer, Role.UNIT_OWNER, unit=world.company.unit)
    version = world.next_version(editors=[writer.pk])
    with pytest.raises(NotAllowed, match="Wrote a part of it"):
        world.approve(world.ask("production", version=version), by=writer)


def test_the_requester_does_not_decide_through_a_token_of_the_api(world: World) -> None:
    release = world.ask("production")
    grant(world.company.lead_finance, Role.UNIT_OWNER, unit=world.company.unit)
    forget_scopes(world.company.lead_finance)
    assert release.approval is not None
    until = clock.now() + timedelta(days=1)
    secret = create_token(world["lead_finance"].pk, "CI", until, False, actor=world.actor())[1]
    answer = Client(headers={"Authorization": f"Bearer {secret}"}).post(
        f"/api/v1/approval-requests/{release.approval.uid}/decide",
        {"verdict": "approve", "reason": WHY, "subject_digest": release.approval.subject_digest},
        content_type="application/json",
    )
    assert answer.status_code == 403, answer.content
    assert "requested" in answer.json()["detail"]
    release.refresh_from_db()
    assert release.status == "in_review"


# ---- break-glass


def emergency(world: World, **changes: Any) -> Release:
    release = world.ask("production", emergency=True, **changes)
    return world.approve(release, by=world.company.compliance)


def test_an_emergency_covers_one_release_for_its_hours_and_nothing_beside_it(world: World) -> None:
    version = world.next_version(approved=False)
    release = emergency(world, version=version, ladder=())
    world.load(release)
    # No normal release of these bytes, here or on another endpoint, while it lasts.
    with pytest.raises(Invalid):
        world.ask("production", version=version, name="other")
    with pytest.raises(Invalid):
        world.ask("staging", version=version)
    # The next normal request waits for the review, whatever it is about.
    with pytest.raises(Conflict, match="not been reviewed"):
        world.ask("development")
    own = Grant.objects.get(request__subject_uid=release.uid)
    assert own.expires_at == own.not_before + timedelta(hours=8)
    rollout.stop(release.endpoint_id, actor=world.actor(), reason=WHY)
    Grant.objects.filter(pk=own.pk).update(expires_at=clock.now())
    with pytest.raises(NotAllowed, match="expired"):
        rollout.start_again(release.endpoint_id, actor=world.actor(), reason=WHY)


def test_one_person_alone_breaks_no_glass_and_reviews_none(world: World) -> None:
    company = world.company
    release = world.ask("production", emergency=True, by=company.lead_finance)
    grant(company.lead_finance, Role.COMPLIANCE)
    forget_scopes(company.lead_finance)
    with pytest.raises(NotAllowed, match="nobody decides on what they requested"):
        world.approve(release, by=company.lead_finance)
    world.approve(release, by=company.compliance)
    review = EmergencyReview.objects.get(request=release.approval)
    from apps.approvals import emergencies

    for person in (company.lead_finance, company.compliance):
        with pytest.raises(NotAllowed):
            emergencies.close_review(review.uid, "justified", "All was as it should be.", actor=Actor.of(person))


# ---- foreign rows


def test_foreign_endpoints_and_releases_are_not_there(world: World) -> None:
    release = world.live()
    stranger = world.company.lead_marketing
    client = client_for(stranger)
    known = (release.uid, release.endpoint.uid)
    for uid in known:
        for pattern in ("/deployments/endpoints/{}/", "/deployments/releases/{}/", "/api/v1/endpoints/{}",
                        "/api/v1/releases/{}"):  # fmt: skip
            found, never = client.get(pattern.format(uid)), client.get(pattern.format(uuid.uuid4()))
            assert found.status_code == never.status_code == 404, pattern
            assert b"fraud" not in found.content.lower()
    for act in (rollout.step, rollout.promote, rollout.roll_back, rollout.stop, rollout.start_again, rollout.remove):
        with pytest.raises(NotVisible):
            act(release.endpoint_id, actor=Actor.of(stranger), reason=WHY)
    with pytest.raises(NotVisible):
        actions.request_release(
            release.endpoint.workspace_id, "fraud", world.version.pk, world.flavour.pk, release.spec, REASON,
            actor=Actor.of(stranger),
        )  # fmt: skip


def test_a_foreign_version_is_answered_like_one_that_is_not_there(world: World) -> None:
    own = Workspace.objects.create(
        team=world.company.marketing_team, cluster=world.cluster, environment="development", namespace="marketing-dev",
        data_classes=["internal"],
    )  # fmt: skip
    said = []
    for version_id in (world.version.pk, 2**40):
        with pytest.raises(Invalid) as refused:
            actions.request_release(
                own.pk, "scores", version_id, world.flavour.pk, {}, REASON,
                actor=Actor.of(world.company.lead_marketing),
            )  # fmt: skip
        said.append(refused.value.errors)
    assert said[0] == said[1]


# ---- enforcement


def test_the_list_of_a_workspace_loses_what_is_revoked_in_the_same_transaction(world: World) -> None:
    workspace = world.workspaces["development"]
    row = Enforcement.objects.create(workspace=workspace, mode="audit")
    enforcement.refresh(workspace.pk, actor=Actor.system("tests"))
    row.refresh_from_db()
    assert [entry["manifest"] for entry in row.entries] == [world.version.digest]
    given = Grant.objects.get(request__subject_type="catalogue.version")
    approval_grants.revoke(given.uid, "Found to be biased against older people.", actor=world.actor("compliance"))
    row.refresh_from_db()
    assert row.entries == []


def test_an_end_that_nobody_noticed_is_shown(world: World) -> None:
    workspace = world.workspaces["development"]
    release = world.live()
    row = Enforcement.objects.create(workspace=workspace, mode="audit")
    enforcement.refresh(workspace.pk, actor=Actor.system("tests"))
    Enforcement.objects.filter(pk=row.pk).update(next_expiry_at=clock.now() - timedelta(minutes=6))
    Grant.objects.filter(scope__manifest=release.version_digest).update(expires_at=clock.now() - timedelta(minutes=6))
    enforcement_worker.look()
    assert EnforcementNote.objects.filter(workspace=workspace, kind="overdue_expiry", gone_at__isnull=True).exists()


def test_a_log_of_rollouts_is_not_rewritten(world: World) -> None:
    release = world.live()
    for attack in (
        lambda: RolloutStep.objects.filter(release=release).update(reason="Nothing happened."),
        lambda: RolloutStep.objects.filter(release=release).delete(),
    ):
        with pytest.raises(Error), transaction.atomic():
            attack()


# ---- races


@pytest.mark.django_db(transaction=True)
def test_two_releases_at_once_leave_one() -> None:
    world = make_world(make_company())
    gate, found = threading.Barrier(2, timeout=20), []

    def ask() -> None:
        try:
            gate.wait()
            found.append(world.ask("production"))
        except Exception as error:  # noqa: BLE001 (handed to the test, which looks at its class)
            found.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(type(one).__name__ for one in found) == ["Conflict", "Release"]
    assert Release.objects.count() == 1
    assert Endpoint.objects.count() == 1


def test_what_is_hashed_of_a_release_names_no_model_and_quotes_nobody(world: World) -> None:
    release = world.live()
    drift_actions.post(
        release.endpoint.uid,
        [{"feature": "amount", "at": clock.now(), "values": {"psi": 0.1, "ks": 0.1}}],
        "Notebook of Erika Example", actor=world.actor("member_finance"),
    )  # fmt: skip
    about = AuditEvent.objects.filter(object_id__in=[release.uid, release.endpoint.uid])
    assert about.count() >= 4
    for event in about:
        hashed = bytes(event.canonical)
        for text in (b"Erika", REASON.encode(), world.model.name.encode() + b" 1.0.0"):
            assert text not in hashed, (event.action, text)
