"""Asking for a release: what refuses it, what it waits for, who decides, and what is approved exactly."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from apps.approvals import actions as approvals
from apps.approvals.models import EmergencyReview, Grant
from apps.catalogue.manifest import parse
from apps.clusters.administering import update_cluster
from apps.clusters.models import Cluster
from apps.core import clock
from apps.core.actor import Actor
from apps.core.canonical import digest
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.deployments import actions, advancing, placement_rules, records, rollout, starting_policies
from apps.deployments.choices import ReleaseKind, ReleaseStatus
from apps.deployments.models import Endpoint, Release
from apps.deployments.subject import ReleaseSubject
from apps.provisioning.models import Declaration
from apps.quotas.models import Quota
from tests.catalogue.world import make_model, make_sealed
from tests.deployments.samples import PLAIN
from tests.deployments.world import POLICY, REASON, SPEC, World, make_world
from tests.factories import Company
from tests.quotas.conftest import make_rate
from tests.rates.factories import make_flavour, make_pool

pytestmark = pytest.mark.django_db


@pytest.fixture
def world(company: Company, frozen_clock: Any) -> World:
    return make_world(company)


@pytest.mark.requirement("releases-2.7")
def test_a_version_that_nobody_approved_is_refused_with_the_reason(world: World) -> None:
    with pytest.raises(Invalid, match="never approved") as found:
        world.ask(version=world.next_version(approved=False))
    assert "model_version" in found.value.errors
    assert Endpoint.objects.count() == 0


@pytest.mark.requirement("releases-2.1")
def test_what_never_fits_is_refused_and_what_others_hold_waits(world: World) -> None:
    with pytest.raises(Invalid, match="Guaranteed quota of A100"):
        world.ask("production", max_replicas=9, min_replicas=9)
    other = world.live("production", name="other", max_replicas=7, min_replicas=7)
    waiting = world.ask("production")
    assert waiting.status == ReleaseStatus.IN_REVIEW
    world.approve(waiting)
    waiting.refresh_from_db()
    assert waiting.status == ReleaseStatus.WAITING
    assert not Grant.objects.filter(request__subject_uid=waiting.uid).exists()
    rollout.stop(other.endpoint_id, actor=world.actor(), reason="Makes room for the other one.")
    assert waiting.approval is not None
    approvals.retry_waiting(waiting.approval.pk, actor=Actor.system("approvals.retry_waiting"))
    waiting.refresh_from_db()
    # Stopped is not gone: its place is kept, so that it can come back.
    assert waiting.status == ReleaseStatus.WAITING
    rollout.remove(other.endpoint_id, actor=world.actor(), reason="Makes room for the other one.")
    approvals.retry_waiting(waiting.approval.pk, actor=Actor.system("approvals.retry_waiting"))
    waiting.refresh_from_db()
    assert waiting.status == ReleaseStatus.STARTING


@pytest.mark.requirement("releases-2.1")
def test_a_canary_counts_beside_the_live_release(world: World) -> None:
    world.live(max_replicas=5, min_replicas=5)
    with pytest.raises(Invalid, match="during the rollout"):
        world.ask(version=world.next_version(), max_replicas=5, min_replicas=5)
    assert world.ask(version=world.next_version(), max_replicas=3, min_replicas=3).status == ReleaseStatus.STARTING


@pytest.mark.requirement("releases-2.4")
def test_ruled_data_goes_only_where_the_rule_holds(company: Company, frozen_clock: Any) -> None:
    world = make_world(company, classes=("health",), location="cloud")
    placement_rules.add_starting_rules(actor=Actor.system("demo"))
    with pytest.raises(Invalid, match="stays on premises"):
        world.ask()
    Cluster.objects.filter(pk=world.cluster.pk).update(location="")
    with pytest.raises(Invalid, match="platform admin states it"):
        world.ask()
    Cluster.objects.filter(pk=world.cluster.pk).update(location="on_premises")
    assert world.ask().change["placement"]["ok"] is True


@pytest.mark.requirement("releases-2.4")
def test_a_rule_that_came_meanwhile_stops_the_approval(company: Company, frozen_clock: Any) -> None:
    world = make_world(company, classes=("health",), location="cloud")
    release = world.ask("production")
    placement_rules.add_starting_rules(actor=Actor.system("demo"))
    with pytest.raises(Conflict, match="stays on premises"):
        world.approve(release)


@pytest.mark.requirement("releases-2.8")
def test_regulated_data_needs_verified_bytes(company: Company, frozen_clock: Any) -> None:
    world = make_world(company, classes=("personal",))
    loose = world.next_version(scheme="s3")
    with pytest.raises(Invalid, match="verifies the bytes"):
        world.ask(version=loose)
    assert world.ask().name_bound is False


@pytest.mark.requirement("releases-2.5")
def test_the_policys_terms_bind_the_ladder(world: World) -> None:
    world.live("production")
    version = world.next_version()
    with pytest.raises(Invalid, match="at least 24 h"):
        world.ask("production", version=version, ladder=SPEC.ladder[:1])
    with pytest.raises(Invalid, match="canary of at least 24 h"):
        world.ask("production", version=version, ladder=())
    assert world.ask("production", version=version).change["terms"]["canary_hours_max"] == 48


@pytest.mark.requirement("releases-2.9")
def test_production_waits_for_its_hours_in_staging(company: Company, frozen_clock: Any) -> None:
    policy = POLICY | {"terms": [{"name": "staging_hours", "value": 24, "when": [["environment", "eq", "production"]]}]}
    world = make_world(company, policy=policy)
    release = world.ask("production")
    with pytest.raises(Conflict, match="24 h in staging"):
        world.approve(release)
    world.live("staging")
    clock.advance(timedelta(hours=23))
    with pytest.raises(Conflict, match="1 h are missing"):
        world.approve(release)
    clock.advance(timedelta(hours=1))
    assert world.approve(release).status == ReleaseStatus.STARTING


@pytest.mark.requirement("releases-2.10")
def test_a_canary_is_refused_where_the_cluster_would_ignore_it(company: Company, frozen_clock: Any) -> None:
    world = make_world(company, capabilities=PLAIN)
    world.live()
    version = world.next_version()
    with pytest.raises(Invalid, match="ignored silently"):
        world.ask(version=version)
    second = world.ask(version=version, ladder=())
    assert world.endpoint(second).current_id == second.pk
    world.load(second, "failed")
    first = Release.objects.get(endpoint=second.endpoint, number=1)
    assert (first.status, world.endpoint(second).current_id) == (ReleaseStatus.LIVE, first.pk)


@pytest.mark.requirement("releases-2.3")
def test_going_from_gpu_to_cpu_is_a_release_with_cost_before_and_after(world: World) -> None:
    cpu = make_flavour(
        "cpu-large", device_class="cpu", resource_name="cpu", gpu_model="cpu-large", node_labels={"class": "large"},
        tolerations=[],
    )  # fmt: skip
    make_rate(make_pool(world.cluster, cpu, gpus=500, device_class="cpu"), "0.05")
    Quota.objects.create(
        workspace=world.workspaces["development"], flavour=cpu, guaranteed=64,
        valid=DateTimeTZRange(clock.now() - timedelta(days=1), None, "[)"),
    )  # fmt: skip
    world.live()
    changed = world.ask(flavour=cpu, units_per_replica=8, cpu=8)
    assert changed.kind == ReleaseKind.CHANGE
    # 2 × 3.85 × 730 before; 2 × 8 × 0.05 × 730 after.
    assert changed.estimate["before"]["maximum"] == "5621.00"
    assert changed.estimate["after"]["maximum"] == "584.00"
    assert changed.estimate["amount"] == "-5037.00"
    lines = {line.path: (line.before, line.after) for line in records.diff_of(changed)}
    assert lines["flavour"] == ("A100-80GB", "CPU-LARGE")
    with pytest.raises(Invalid, match="both numbers are the same"):
        actions.assessed(
            actions.drafted(
                world.workspaces["development"].pk, "scores", world.version.pk, cpu.pk, SPEC,
                user=world.company.lead_finance,
            )
        )  # fmt: skip


@pytest.mark.requirement("releases-3.1")
def test_what_is_approved_is_exactly_what_is_declared(world: World) -> None:
    release = world.ask("production")
    assert release.digest == digest(records.canonical(release))
    before = digest(records.canonical(release))
    release.spec = release.spec | {"max_replicas": 3}
    assert digest(records.canonical(release)) != before
    Release.objects.filter(pk=release.pk).update(spec=release.spec)
    with pytest.raises(Conflict, match="edited"):
        world.approve(release)
    assert not Declaration.objects.filter(owner_uid=release.endpoint.uid).exists()


@pytest.mark.requirement("releases-3.2")
def test_nobody_of_the_team_decides(world: World, company: Company) -> None:
    release = world.ask("production")
    side = ReleaseSubject().requester_side(release.uid)
    assert {company.lead_finance.pk, company.member_finance.pk} <= side
    assert company.vp.pk not in side
    with pytest.raises((NotAllowed, NotVisible)):
        world.approve(release, by=company.member_finance)


@pytest.mark.requirement("releases-3.3")
def test_one_release_of_an_endpoint_at_a_time(world: World) -> None:
    first = world.ask("production")
    with pytest.raises(Conflict) as found:
        world.ask("production")
    assert found.value.current["release"] == str(first.uid)
    actions.withdraw_release(first.pk, actor=world.actor())
    first.refresh_from_db()
    assert first.status == ReleaseStatus.WITHDRAWN
    assert world.ask("production").number == 2
    with pytest.raises(Conflict, match="no longer be withdrawn"):
        actions.withdraw_release(first.pk, actor=world.actor())


@pytest.mark.requirement("releases-3.4")
def test_an_approval_given_for_another_live_release_is_void(world: World) -> None:
    first = world.live("production")
    second = world.ask("production", version=world.next_version())
    rollout.stop(first.endpoint_id, actor=world.actor(), reason="Stopped over the weekend.")
    with pytest.raises(Conflict, match="What is live"):
        world.approve(second)


@pytest.mark.requirement("releases-3.5")
def test_a_name_belongs_to_one_model_and_foreigners_see_nothing(world: World, company: Company) -> None:
    world.live()
    other = make_sealed(make_model(company.finance_team, "Churn"), company.member_finance, scheme="oci")
    world.approve_version(other)
    with pytest.raises(Invalid, match="endpoint of its own"):
        world.ask(version=other)
    with pytest.raises(NotVisible):
        world.ask(by=company.lead_marketing)
    with pytest.raises(NotAllowed):
        world.ask(by=company.member_finance)
    with pytest.raises(Invalid, match="Begin with a letter"):
        world.ask(name="2fast")
    draft = dataclasses.replace(SPEC, max_replicas=1)
    with pytest.raises(Invalid):
        actions.request_release(
            world.workspaces["development"].pk, "fraud", world.version.pk, world.flavour.pk, draft, REASON,
            actor=world.actor(),
        )  # fmt: skip


@pytest.mark.requirement("rollouts-3.6")
def test_an_emergency_takes_two_people_some_hours_and_a_review(world: World, company: Company) -> None:
    first = world.live("production")
    version = world.next_version(approved=False)
    release = world.ask("production", version=version, emergency=True, ladder=())
    assert release.status == ReleaseStatus.IN_REVIEW
    world.approve(release, by=company.compliance)
    assert release.status == ReleaseStatus.STARTING
    assert EmergencyReview.objects.filter(request=release.approval).count() == 1
    grant = Grant.objects.get(request__subject_uid=release.uid)
    assert grant.expires_at == clock.now() + timedelta(hours=8)
    world.load(release)
    with pytest.raises(Conflict, match="review"):
        world.ask("production", version=world.next_version())
    clock.advance(timedelta(hours=8))
    advancing.advance_due()
    endpoint = world.endpoint(first)
    assert endpoint.current_id == release.pk
    rollout.stop(endpoint.pk, actor=world.actor(), reason="Stopped to see what happens.")
    with pytest.raises(NotAllowed, match="expired"):
        rollout.start_again(endpoint.pk, actor=world.actor(), reason="It may not come back.")


@pytest.mark.requirement("rollouts-3.7")
def test_a_failed_standard_change_loses_its_status(world: World) -> None:
    world.live("production")
    changed = world.ask("production", max_replicas=3, min_replicas=3, ladder=())
    assert changed.status == ReleaseStatus.STARTING
    assert changed.approval is not None
    assert changed.approval.kind == "standard"
    world.load(changed, "failed")
    again = world.ask("production", max_replicas=3, min_replicas=3, ladder=())
    assert again.status == ReleaseStatus.IN_REVIEW


def test_manifest_of_the_version_is_what_is_rendered(world: World) -> None:
    release = world.ask()
    manifest = parse(bytes(world.version.manifest))
    services = [one for one in release.change["states"]["live"] if one["kind"] == "InferenceService"]
    assert services[0]["spec"]["predictor"]["model"]["storageUri"] == manifest.storage_uri


@pytest.mark.requirement("releases-2.5")
def test_the_starting_policy_asks_nobody_below_production_and_binds_above(company: Company, frozen_clock: Any) -> None:
    world = make_world(company, policy=starting_policies.RELEASES)
    assert world.ask().status == ReleaseStatus.STARTING
    release = world.ask("production")
    assert release.status == ReleaseStatus.IN_REVIEW
    assert release.change["terms"]["staging_hours"] == 24
    assert release.spec["expiry_action"] == "block_new"


@pytest.mark.requirement("releases-2.4")
def test_a_platform_admin_states_where_a_cluster_stands(world: World, company: Company) -> None:
    admin = Actor.of(company.admin)
    update_cluster(world.cluster.pk, location="cloud", jurisdiction="us", actor=admin)
    world.cluster.refresh_from_db()
    assert (world.cluster.location, world.cluster.jurisdiction) == ("cloud", "US")
    with pytest.raises(Invalid) as found:
        update_cluster(world.cluster.pk, location="moon", jurisdiction="Europe", actor=admin)
    assert found.value.errors.keys() == {"location", "jurisdiction"}
