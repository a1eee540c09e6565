"""From approval to the cluster: promises under lock, dated quotas, waiting for capacity, expiry; invariants in rows."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, connections

from apps.approvals import actions as approvals
from apps.clusters.models import PoolCapacity
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, NotAllowed, NotVisible
from apps.core.models import OutboxMessage
from apps.core.sweeps import registered
from apps.provisioning.models import Declaration, DeclarationRevision, Plan
from apps.quotas import granting, selectors
from apps.quotas.choices import RequestStatus
from apps.quotas.manifests import QUOTA_NAME
from apps.quotas.models import Quota, QuotaRequest, Workspace
from apps.quotas.tasks import notify_expiring, roll_quotas
from tests.factories import make_company
from tests.quotas.conftest import World, make_world


def declared(workspace: Workspace) -> dict[str, Any]:
    """The ResourceQuota's hard limits as declared by the newest generation."""
    revision = DeclarationRevision.objects.filter(declaration__owner_uid=workspace.uid).order_by("-generation").first()
    assert revision is not None
    objects = json.loads(bytes(revision.manifest))
    quota = next(o for o in objects if o["kind"] == "ResourceQuota" and o["metadata"]["name"] == QUOTA_NAME)
    return dict(quota["spec"]["hard"])


def gpus(workspace: Workspace) -> str:
    return str(declared(workspace)["requests.nvidia.com/gpu"])


def applied(workspace: Workspace) -> None:
    """Let the newest generation be applied, as the provisioning room records it."""
    declaration = Declaration.objects.get(owner_uid=workspace.uid)
    declaration.observed_generation = declaration.generation
    declaration.save()
    granting.on_applied(declaration)


def run(name: str) -> int:
    return next(sweep for sweep in registered() if sweep.name == name).run()


@pytest.mark.django_db
@pytest.mark.requirement("quotas-4.1")
def test_an_approved_request_becomes_quota_and_declaration_in_the_deciding_transaction(world: World) -> None:
    request = world.ask(guaranteed=20)
    assert request.plan is not None
    assert world.held() is None
    world.approve(request)
    assert request.status == RequestStatus.APPLYING
    assert world.held() == 20
    workspace = world.workspaces["finance"]
    assert gpus(workspace) == "20"
    declaration = Declaration.objects.get(owner_uid=workspace.uid)
    assert declaration.grant_uid == request.approval.grant.uid  # type: ignore[union-attr]  # granted, so both exist
    applied(workspace)
    request.refresh_from_db()
    assert request.status == RequestStatus.ACTIVE
    assert request.applied_at is not None
    granting.on_applied(declaration)
    events = list(OutboxMessage.objects.filter(subject_uid=request.uid).values_list("event", flat=True))
    assert events.count("quotas.request.applied") == 1


@pytest.mark.django_db
@pytest.mark.requirement("quotas-3.3")
def test_a_later_request_moves_the_limit_and_no_other_byte(world: World) -> None:
    world.granted(guaranteed=20)
    workspace = world.workspaces["finance"]
    first = declared(workspace)
    # What the portal would render anew today must not slip in: the stored objects are what was approved.
    Workspace.objects.filter(pk=workspace.pk).update(cpu_cores=999)
    world.granted(guaranteed=25)
    assert declared(workspace) == first | {"requests.nvidia.com/gpu": "25"}


@pytest.mark.django_db
@pytest.mark.requirement("quotas-4.3")
def test_a_full_pool_makes_an_approved_request_wait_and_serves_it_later(world: World) -> None:
    world.granted("marketing", 40)
    request = world.ask(guaranteed=20)
    approval = world.approve(request)
    assert (request.status, approval.status) == (RequestStatus.WAITING, "waiting_for_capacity")
    assert not hasattr(approval, "grant")
    assert world.held() is None
    assert not Declaration.objects.filter(owner_uid=world.workspaces["finance"].uid).exists()
    assert "could have 10 GPUs" in approval.conclusion
    assert run("approvals.retry_waiting") == 0
    world.granted("marketing", 30)
    assert run("approvals.retry_waiting") == 1
    request.refresh_from_db()
    assert request.status == RequestStatus.APPLYING
    assert world.held() == 20


@pytest.mark.django_db
@pytest.mark.requirement("quotas-4.3")
def test_room_counts_over_the_whole_time(world: World) -> None:
    now = clock.now()
    world.granted("marketing", 40, valid_from=now + timedelta(days=20))
    assert world.held("marketing") is None
    world.granted("research", 20, valid_until=now + timedelta(days=20))
    assert world.held("research") == 20
    request = world.ask(guaranteed=20)
    world.approve(request)
    assert request.status == RequestStatus.WAITING
    # Nobody jumps the line of a pool, even with less.
    later = world.granted("research", 5, valid_from=now + timedelta(days=30))
    assert later.status == RequestStatus.WAITING


@pytest.mark.django_db
@pytest.mark.requirement("quotas-4.5")
def test_nobody_of_the_receiving_team_decides(world: World) -> None:
    request = world.ask()
    for person in ("lead_finance", "member_finance"):
        with pytest.raises((NotAllowed, NotVisible)):
            world.approve(request, by=world[person])
    own = world.ask("marketing", by=world["vp"])
    with pytest.raises(NotAllowed):
        world.approve(own, by=world["vp"])


@pytest.mark.django_db
@pytest.mark.requirement("quotas-4.5")
def test_small_changes_are_approved_by_policy_until_thirty_days_are_used_up(world: World) -> None:
    first = world.ask(guaranteed=2)
    assert first.status == RequestStatus.APPLYING
    assert first.approval is not None
    assert first.approval.automatic
    second = world.ask(guaranteed=4)
    assert second.status == RequestStatus.APPLYING
    third = world.ask(guaranteed=5)
    assert third.status == RequestStatus.IN_REVIEW
    # Another team has a limit of its own.
    assert world.ask("marketing", 2).status == RequestStatus.APPLYING


@pytest.mark.django_db
@pytest.mark.requirement("quotas-4.7")
def test_a_quota_begins_and_ends_by_itself_and_the_one_below_shows_again(world: World) -> None:
    start = clock.now().replace(microsecond=0)
    with clock.frozen(start):
        world.granted(guaranteed=10)
        workspace = world.workspaces["finance"]
        applied(workspace)
        burst = world.granted(
            guaranteed=30, valid_from=start + timedelta(days=5), valid_until=start + timedelta(days=9)
        )
        assert burst.status == RequestStatus.SCHEDULED
        assert gpus(workspace) == "10"
        assert roll_quotas.run() == 0
        clock.advance(timedelta(days=5))
        assert roll_quotas.run() == 1
        assert roll_quotas.run() == 0
        assert gpus(workspace) == "30"
        burst.refresh_from_db()
        assert burst.status == RequestStatus.APPLYING
        applied(workspace)
        burst.refresh_from_db()
        assert burst.status == RequestStatus.ACTIVE
        clock.advance(timedelta(days=4))
        assert roll_quotas.run() == 1
        assert gpus(workspace) == "10"
        assert world.held() == 10
        assert Declaration.objects.get(owner_uid=workspace.uid).generation == 3


@pytest.mark.django_db
@pytest.mark.requirement("quotas-4.7")
def test_a_first_quota_of_the_future_brings_the_workspace_only_then(world: World) -> None:
    start = clock.now().replace(microsecond=0)
    with clock.frozen(start):
        request = world.granted(guaranteed=10, valid_from=start + timedelta(days=2))
        workspace = world.workspaces["finance"]
        assert not Declaration.objects.filter(owner_uid=workspace.uid).exists()
        clock.advance(timedelta(days=2))
        assert roll_quotas.run() == 1
        assert gpus(workspace) == "10"
        request.refresh_from_db()
        assert request.status == RequestStatus.APPLYING


@pytest.mark.django_db
@pytest.mark.requirement("quotas-4.7")
def test_leads_hear_fourteen_three_and_one_days_before_the_end_once_each(world: World) -> None:
    start = clock.now().replace(microsecond=0)
    with clock.frozen(start):
        world.granted(guaranteed=10, valid_until=start + timedelta(days=20))
        world.granted("marketing", 10)
        told = []
        for _ in range(21):
            clock.advance(timedelta(days=1))
            told.append(notify_expiring.run())
            assert notify_expiring.run() == 0
        assert [day + 1 for day, count in enumerate(told) if count] == [6, 17, 19]
        message = OutboxMessage.objects.filter(event="quotas.quota.expiring").first()
        assert message is not None
        assert message.recipient_ids == [world["lead_finance"].pk]
        assert "falls from 10 to 0" in message.payload["what"]


@pytest.mark.django_db
@pytest.mark.requirement("quotas-4.10")
def test_what_was_edited_after_approval_is_not_granted(world: World) -> None:
    request = world.ask(guaranteed=20)
    QuotaRequest.objects.filter(pk=request.pk).update(guaranteed=21)
    with pytest.raises(Conflict):
        world.approve(request)
    assert world.held() is None


@pytest.mark.django_db
@pytest.mark.requirement("quotas-4.10")
def test_open_plans_of_the_workspace_are_made_anew_when_a_request_lands(world: World) -> None:
    from tests.rates.factories import make_flavour

    slice_ = make_flavour("mig", resource_name="nvidia.com/mig-1g.10gb", sharing="mig", numerator=1, denominator=7)
    world.pool.flavours.add(slice_)
    waiting = world.ask(flavour_id=slice_.pk, guaranteed=28)
    assert waiting.status == RequestStatus.IN_REVIEW
    before = waiting.plan
    assert before is not None
    world.granted(guaranteed=20)
    waiting.refresh_from_db()
    before.refresh_from_db()
    assert waiting.plan != before
    assert before.closed_at is not None
    hard = json.loads(bytes(Plan.objects.get(pk=waiting.plan_id).manifest))
    quota = next(o for o in hard if o["kind"] == "ResourceQuota")
    assert quota["spec"]["hard"]["requests.nvidia.com/gpu"] == "20"
    assert quota["spec"]["hard"]["requests.nvidia.com/mig-1g.10gb"] == "28"
    world.approve(waiting)
    assert declared(world.workspaces["finance"])["requests.nvidia.com/mig-1g.10gb"] == "28"


@pytest.mark.django_db
@pytest.mark.requirement("quotas-2.3")
def test_reducing_works_in_a_pool_that_has_lost_capacity(world: World) -> None:
    world.granted(guaranteed=30)
    PoolCapacity.objects.filter(pool=world.pool).update(committable_gpus=20)
    assert selectors.broken_promises(world.pool)[0][1] == 10
    world.granted(guaranteed=25)
    assert world.held() == 25


@pytest.mark.django_db
@pytest.mark.requirement("quotas-5.1")
def test_best_effort_borrowing_raises_the_limit_and_nothing_is_called_guaranteed(company: Any) -> None:
    world = make_world(company, best_effort=True)
    world.granted(guaranteed=20, borrow_mode="limited", borrow_limit=10)
    workspace = world.workspaces["finance"]
    assert gpus(workspace) == "30"
    row = selectors.team_quota_rows(company.finance_team)[0]
    assert (row.guaranteed, row.maximum, row.word) == (20, 30, "share (best effort)")
    pool = selectors.pool_rows()[0]
    assert (pool.guaranteed, pool.borrowable, pool.unpromised, pool.word) == (20, 10, 30, "share (best effort)")


@pytest.mark.django_db(transaction=True)
@pytest.mark.requirement("quotas-4.3")
def test_two_approvals_race_for_the_last_gpus(db: None) -> None:
    world = make_world(make_company())
    requests = [world.ask("finance", 30), world.ask("marketing", 30)]
    barrier = threading.Barrier(2)
    failures: list[BaseException] = []

    def decide(request: QuotaRequest) -> None:
        try:
            barrier.wait(timeout=10)
            assert request.approval is not None
            approvals.decide(
                request.approval.pk,
                "approve",
                "Within the plan of the quarter.",
                actor=Actor.of(world["vp"]),
                expected_digest=request.approval.subject_digest,
            )
        except BaseException as error:  # noqa: BLE001 (reported by the test's own thread)
            failures.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=decide, args=(request,)) for request in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert not failures
    statuses = sorted(QuotaRequest.objects.values_list("status", flat=True))
    assert statuses == [RequestStatus.APPLYING, RequestStatus.WAITING]
    assert sum(Quota.objects.in_force().values_list("guaranteed", flat=True)) == 30
    assert connection.in_atomic_block is False
