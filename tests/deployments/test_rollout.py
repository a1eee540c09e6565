"""From an approved version to all traffic and back: every use asks both grants anew."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.utils import IntegrityError, InternalError

from apps.approvals.models import Grant
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.deployments import advancing, ending, rollout
from apps.deployments.choices import ReleaseStatus, StepKind
from apps.deployments.models import Endpoint, Release, RolloutStep, ServingInterval
from apps.deployments.spec import Guard
from apps.provisioning.models import Declaration, DeclaredObject
from tests.deployments.world import World, make_world
from tests.factories import Company

pytestmark = pytest.mark.django_db


@pytest.fixture
def world(company: Company, frozen_clock: Any) -> World:
    return make_world(company)


def shares(endpoint: Endpoint) -> dict[int, int]:
    """Release number → share, as the open intervals have it."""
    rows = ServingInterval.objects.filter(endpoint=endpoint, valid__endswith__isnull=True).select_related("release")
    return {row.release.number: row.traffic for row in rows}


def kinds(endpoint: Endpoint) -> list[str]:
    return list(RolloutStep.objects.filter(endpoint=endpoint).values_list("kind", flat=True))


def services(endpoint: Endpoint) -> set[str]:
    """Names of the InferenceServices that are declared (not those on their way out)."""
    rows = DeclaredObject.objects.filter(declaration__owner_uid=endpoint.uid, kind="InferenceService", removal="")
    return set(rows.values_list("name", flat=True))


def canary(world: World, environment: str = "development", **changes: Any) -> tuple[Release, Release]:
    """A live release and a candidate on its first rung."""
    first = world.live(environment)
    second = world.release(environment, version=world.next_version(), **changes)
    return first, world.load(second)


@pytest.mark.requirement("rollouts-1.1")
def test_first_release_is_declared_with_the_decision_and_live_once_loaded(world: World) -> None:
    release = world.release()
    assert release.status == ReleaseStatus.STARTING
    endpoint = world.endpoint(release)
    declaration = Declaration.objects.get(owner_uid=endpoint.uid)
    assert declaration.generation == 1
    grant = Grant.objects.get(request__subject_uid=release.uid)
    assert declaration.grant_uid == grant.uid
    assert services(endpoint) == {"fraud-r1"}
    assert shares(endpoint) == {1: 100}
    release = world.load(release)
    assert release.status == ReleaseStatus.LIVE
    assert kinds(endpoint) == [StepKind.STARTED, StepKind.PROMOTED]
    assert advancing.advance_due() == 0


@pytest.mark.requirement("rollouts-2.1")
def test_canary_climbs_by_its_hours_and_takes_over(world: World) -> None:
    first, second = canary(world)
    endpoint = world.endpoint(second)
    assert (second.status, endpoint.traffic) == (ReleaseStatus.CANARY, 10)
    assert services(endpoint) == {"fraud-r1", "fraud-r2"}
    assert shares(endpoint) == {1: 90, 2: 10}
    clock.advance(timedelta(hours=11, minutes=59))
    assert advancing.advance_due() == 0
    clock.advance(timedelta(minutes=1))
    assert advancing.advance_due() == 1
    assert advancing.advance_due() == 0
    endpoint = world.endpoint(second)
    assert endpoint.traffic == 50
    assert shares(endpoint) == {1: 50, 2: 50}
    clock.advance(timedelta(hours=12))
    advancing.advance_due()
    endpoint, second = world.endpoint(second), Release.objects.get(pk=second.pk)
    first.refresh_from_db()
    assert (endpoint.current_id, endpoint.candidate_id, endpoint.traffic) == (second.pk, None, 0)
    assert (first.status, second.status) == (ReleaseStatus.SUPERSEDED, ReleaseStatus.LIVE)
    assert shares(endpoint) == {2: 100}
    assert services(endpoint) == {"fraud-r2"}
    gone = DeclaredObject.objects.get(declaration__owner_uid=endpoint.uid, name="fraud-r1", kind="InferenceService")
    assert gone.removal == "planned"


@pytest.mark.requirement("rollouts-2.2")
def test_canary_waits_until_the_cluster_has_loaded_it(world: World) -> None:
    world.live()
    second = world.release(version=world.next_version())
    endpoint = world.endpoint(second)
    assert (endpoint.candidate_id, endpoint.traffic) == (second.pk, 0)
    with pytest.raises(Conflict, match="has not said yet"):
        rollout.step(endpoint.pk, actor=world.actor())
    assert shares(endpoint) == {1: 100, 2: 0}


@pytest.mark.requirement("rollouts-2.2")
def test_a_canary_that_its_guard_cannot_judge_climbs_by_hand_only(world: World) -> None:
    _, second = canary(world, guard=Guard(error_rate=Decimal("0.05")))
    endpoint = world.endpoint(second)
    assert endpoint.traffic == 10, "the first share is what there is to measure"
    clock.advance(timedelta(hours=13))
    assert advancing.advance_due() == 0
    assert world.endpoint(second).traffic == 10
    rollout.step(endpoint.pk, actor=world.actor(), reason="Looked at the figures elsewhere.")
    assert world.endpoint(second).traffic == 50


@pytest.mark.requirement("rollouts-2.3")
def test_production_ladder_binds_people_and_others_may_be_quicker(world: World) -> None:
    _, second = canary(world, "production")
    endpoint = world.endpoint(second)
    with pytest.raises(Conflict, match="has not run as long"):
        rollout.promote(endpoint.pk, actor=world.actor(), reason="It looks good to us.")
    with pytest.raises(Conflict, match="has not run as long"):
        rollout.step(endpoint.pk, actor=world.actor())
    clock.advance(timedelta(hours=24))
    rollout.promote(endpoint.pk, actor=world.actor(), reason="It looks good to us.")
    assert shares(world.endpoint(second)) == {2: 100}
    _, other = canary(world, "staging")
    rollout.promote(other.endpoint_id, actor=world.actor(), reason="Staging may be quicker.")
    assert world.endpoint(other).current_id == other.pk


@pytest.mark.requirement("rollouts-2.4")
def test_held_canary_stays_and_its_hours_count(world: World) -> None:
    _, second = canary(world)
    endpoint = world.endpoint(second)
    rollout.hold(endpoint.pk, actor=world.actor(), reason="Looking at a spike of errors.")
    clock.advance(timedelta(hours=30))
    assert advancing.advance_due() == 0
    assert world.endpoint(second).traffic == 10
    rollout.resume(endpoint.pk, actor=world.actor())
    assert advancing.advance_due() == 1
    assert world.endpoint(second).traffic == 50


@pytest.mark.requirement("rollouts-3.1")
def test_rolling_a_canary_back_needs_no_grant_of_the_live_one(world: World) -> None:
    first, second = canary(world)
    Grant.objects.filter(request__subject_uid=first.uid).update(expires_at=clock.now())
    endpoint = rollout.roll_back(second.endpoint_id, actor=world.actor(), reason="Errors rise with its share.")
    second.refresh_from_db()
    assert second.status == ReleaseStatus.ROLLED_BACK
    assert (endpoint.candidate_id, endpoint.traffic) == (None, 0)
    assert shares(endpoint) == {1: 100}
    assert services(endpoint) == {"fraud-r1"}


@pytest.mark.requirement("rollouts-3.2")
def test_going_back_declares_the_earlier_release_exactly_as_approved(world: World) -> None:
    first, second = canary(world)
    rollout.promote(second.endpoint_id, actor=world.actor(), reason="It looks good to us.")
    endpoint = rollout.roll_back(second.endpoint_id, actor=world.actor(), reason="Customers complain about it.")
    first.refresh_from_db()
    assert (first.status, endpoint.current_id) == (ReleaseStatus.LIVE, first.pk)
    rows = DeclaredObject.objects.filter(declaration__owner_uid=endpoint.uid, removal="")
    assert [json.loads(bytes(row.body)) for row in rows] == first.change["states"]["live"]
    assert shares(endpoint) == {1: 100}


@pytest.mark.requirement("rollouts-3.3")
@pytest.mark.parametrize("which", ["version", "release"])
def test_going_back_to_what_is_not_approved_any_more_is_refused(world: World, which: str) -> None:
    first, second = canary(world)
    rollout.promote(second.endpoint_id, actor=world.actor(), reason="It looks good to us.")
    if which == "version":
        Grant.objects.filter(scope__manifest=first.version_digest, request__subject_type="catalogue.version").update(
            revoked_at=clock.now(), revoked_reason="A defect was found."
        )
    else:
        Grant.objects.filter(request__subject_uid=first.uid).update(expires_at=clock.now())
    with pytest.raises(NotAllowed, match="emergency"):
        rollout.roll_back(second.endpoint_id, actor=world.actor(), reason="Customers complain about it.")
    assert shares(world.endpoint(second)) == {2: 100}


@pytest.mark.requirement("rollouts-1.2")
@pytest.mark.parametrize("use", ["step", "promote", "resume", "start_again"])
def test_an_expired_grant_bites_at_every_use_without_a_scheduler(world: World, use: str) -> None:
    first, second = canary(world)
    actor, reason = world.actor(), "As it was planned."
    if use == "resume":
        rollout.hold(second.endpoint_id, actor=actor, reason=reason)
    if use == "start_again":
        rollout.stop(second.endpoint_id, actor=actor, reason=reason)
    target = first if use == "start_again" else second
    Grant.objects.filter(scope__manifest=target.version_digest, request__subject_type="catalogue.version").update(
        expires_at=clock.now() + timedelta(hours=1)
    )
    clock.advance(timedelta(hours=1))
    before = Declaration.objects.get(owner_uid=second.endpoint.uid).generation
    with pytest.raises(NotAllowed, match="expired"), transaction.atomic():
        getattr(rollout, use)(second.endpoint_id, actor=actor, reason=reason)
    assert Declaration.objects.get(owner_uid=second.endpoint.uid).generation == before


@pytest.mark.requirement("rollouts-2.5")
def test_no_step_goes_beyond_the_traffic_that_is_granted(world: World) -> None:
    world.live()
    version = world.next_version("2.0.0", approved=False)
    world.approve_version(version, max_traffic=20)
    with pytest.raises(Invalid, match="at most 20 %"):
        world.ask(version=version)
    wide = world.approve_version(version)
    second = world.load(world.release(version=version))
    # What was granted for all traffic is withdrawn: the narrow grant still carries the first rung, and no more.
    Grant.objects.filter(pk=wide.pk).update(revoked_at=clock.now(), revoked_reason="Too wide.")
    with pytest.raises(NotAllowed, match="Too wide"):
        rollout.step(second.endpoint_id, actor=world.actor())
    assert world.endpoint(second).traffic == 10


@pytest.mark.requirement("rollouts-3.4")
def test_a_canary_that_does_not_load_is_taken_off_and_costs_the_standard_change(world: World) -> None:
    world.live()
    second = world.release(version=world.next_version())
    second = world.load(second, "failed")
    assert second.status == ReleaseStatus.FAILED
    endpoint = world.endpoint(second)
    assert shares(endpoint) == {1: 100}
    step = RolloutStep.objects.filter(endpoint=endpoint).last()
    assert step is not None
    assert step.automatic
    assert step.kind == StepKind.FAILED
    changed = world.release(max_replicas=3, min_replicas=3, ladder=())
    assert changed.approval is not None
    assert changed.approval.automatic_rule == "Below production"


@pytest.mark.requirement("rollouts-3.5")
def test_stop_frees_the_cluster_keeps_the_place_and_start_brings_it_back(world: World) -> None:
    _, second = canary(world)
    endpoint = rollout.stop(second.endpoint_id, actor=world.actor(), reason="Nobody uses it over the holidays.")
    second.refresh_from_db()
    assert second.status == ReleaseStatus.ROLLED_BACK
    assert shares(endpoint) == {}
    with pytest.raises(Conflict, match="stopped"):
        rollout.roll_back(endpoint.pk, actor=world.actor(), reason="Trying something else.")
    endpoint = rollout.start_again(endpoint.pk, actor=world.actor(), reason="The holidays are over.")
    assert shares(endpoint) == {1: 100}
    with pytest.raises(Conflict, match="stop it first"):
        rollout.remove(endpoint.pk, actor=world.actor(), reason="We do not need it any more.")
    rollout.stop(endpoint.pk, actor=world.actor(), reason="We do not need it any more.")
    rollout.remove(endpoint.pk, actor=world.actor(), reason="We do not need it any more.")
    assert services(endpoint) == set()
    assert set(
        DeclaredObject.objects.filter(declaration__owner_uid=endpoint.uid).values_list("removal", flat=True)
    ) == {"planned"}
    assert Release.objects.get(endpoint=endpoint, number=1).status == ReleaseStatus.ENDED
    with pytest.raises(Invalid, match="still being removed"):
        world.ask()
    DeclaredObject.objects.filter(declaration__owner_uid=endpoint.uid).delete()
    assert world.live().endpoint_id != endpoint.pk


@pytest.mark.requirement("rollouts-4.1")
@pytest.mark.parametrize("action", ["block_new", "scale_back", "alert_only"])
def test_the_end_of_a_grant_never_stops_what_serves(world: World, action: str) -> None:
    release = world.live(expiry_action=action)
    endpoint = world.endpoint(release)
    grants = Grant.objects.filter(scope__manifest=release.version_digest, request__subject_type="catalogue.version")
    grants.update(expires_at=clock.now() + timedelta(hours=1))
    clock.advance(timedelta(hours=1))
    assert advancing.advance_due() == 1
    assert advancing.advance_due() == 0
    assert shares(world.endpoint(release)) == {1: 100}
    last = kinds(endpoint)[-2:]
    assert last[-1] == StepKind.APPROVAL_ENDED
    rows = DeclaredObject.objects.filter(declaration__owner_uid=endpoint.uid, removal="")
    state = "smallest" if action == "scale_back" else "live"
    assert [json.loads(bytes(row.body)) for row in rows] == release.change["states"][state]


@pytest.mark.requirement("rollouts-4.2")
def test_scale_back_prefers_the_last_release_that_is_still_approved(world: World) -> None:
    first, second = canary(world, expiry_action="scale_back")
    rollout.promote(second.endpoint_id, actor=world.actor(), reason="It looks good to us.")
    Grant.objects.filter(scope__manifest=second.version_digest, request__subject_type="catalogue.version").update(
        revoked_at=clock.now(), revoked_reason="A defect was found."
    )
    ending.on_version_grants_changed([world.workspaces["development"].uid])
    assert shares(world.endpoint(second)) == {1: 100}
    first.refresh_from_db()
    assert first.status == ReleaseStatus.LIVE


@pytest.mark.requirement("rollouts-4.3")
def test_a_renewed_version_is_left_alone(world: World) -> None:
    release = world.live()
    old = Grant.objects.get(scope__manifest=release.version_digest, request__subject_type="catalogue.version")
    new = world.approve_version()
    Grant.objects.filter(pk=old.pk).update(expires_at=clock.now())
    assert advancing.advance_due() == 0
    release.refresh_from_db()
    assert release.model_grant_uid == new.uid


@pytest.mark.requirement("rollouts-2.6")
def test_the_log_is_append_only_and_intervals_are_only_closed(world: World) -> None:
    release = world.live()
    for statement in (
        "UPDATE deployments_rolloutstep SET reason = 'x'",
        "DELETE FROM deployments_rolloutstep",
        "DELETE FROM deployments_servinginterval",
        "UPDATE deployments_servinginterval SET traffic = 1",
    ):
        with pytest.raises((IntegrityError, InternalError)), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement)
    assert ServingInterval.objects.filter(release=release).count() == 1


@pytest.mark.requirement("rollouts-1.3")
def test_only_those_who_may_operate_do(world: World, company: Company) -> None:
    release = world.live()
    with pytest.raises(NotVisible):
        rollout.stop(release.endpoint_id, actor=Actor.of(company.lead_marketing), reason="Not mine to stop.")
    with pytest.raises(NotAllowed):
        rollout.stop(release.endpoint_id, actor=Actor.of(company.member_finance), reason="Not mine to stop.")
    with pytest.raises(Invalid, match="why"):
        rollout.stop(release.endpoint_id, actor=world.actor(), reason="x")
    endpoint = world.endpoint(release)
    with pytest.raises(Conflict, match="looking at it"):
        rollout.stop(
            endpoint.pk, actor=world.actor(), reason="Nobody uses it any more.", expected_version=endpoint.version - 1
        )


@pytest.mark.requirement("rollouts-1.4")
def test_stored_objects_that_were_changed_behind_the_portal_are_never_declared(world: World) -> None:
    _, second = canary(world)
    change = second.change
    change["states"]["canary-50"][1]["spec"]["predictor"]["maxReplicas"] = 99
    Release.objects.filter(pk=second.pk).update(change=change)
    with pytest.raises(Conflict, match="not those that were approved"):
        rollout.step(second.endpoint_id, actor=world.actor())
