"""The line of a pool: nobody jumps, everybody sees their own place, nobody sees anybody else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from fractions import Fraction
from typing import Any

import pytest
from django.db import connections
from django.urls import reverse

from apps.approvals import actions as approvals
from apps.approvals.tasks import retry_waiting
from apps.core import clock
from apps.core.actor import Actor
from apps.quotas import waitlist
from apps.quotas.choices import RequestStatus
from apps.quotas.models import QuotaRequest
from apps.quotas.waiting import ordinal, range_of
from tests.factories import make_company
from tests.quotas.conftest import World, make_world

LINE = RequestStatus.WAITING


def _waiting(world: World, team: str, guaranteed: int, **terms: Any) -> QuotaRequest:
    request = world.granted(team, guaranteed, **terms)
    request.refresh_from_db()
    assert request.status == LINE
    return request


@pytest.mark.django_db
@pytest.mark.requirement("feasibility-2.1", "approvals-4.2")
def test_a_smaller_later_request_that_would_fit_does_not_overtake(world: World) -> None:
    world.granted("marketing", 40)
    first = _waiting(world, "finance", 20)
    later = _waiting(world, "research", 5)
    assert later.approval is not None
    assert "1 earlier request for the same capacity must be served first" in later.approval.conclusion
    assert retry_waiting() == 0
    world.granted("marketing", 30)
    assert retry_waiting() == 1
    first.refresh_from_db()
    later.refresh_from_db()
    assert (first.status, later.status) == (RequestStatus.APPLYING, LINE)


@pytest.mark.django_db
@pytest.mark.requirement("feasibility-2.1")
def test_whoever_wants_another_time_takes_nothing_and_passes(world: World) -> None:
    """The first wants 20 from the 30th day on, when others hold 40; the second ends on that very day."""
    now = clock.now().replace(microsecond=0)
    turn = now + timedelta(days=30)
    world.granted("marketing", 40)
    first = _waiting(world, "finance", 20, valid_from=turn)
    before = world.granted("research", 8, valid_until=turn)
    before.refresh_from_db()
    assert before.status == RequestStatus.APPLYING
    assert world.held("research") == 8
    # A second longer, and it would take what the first could use.
    _waiting(world, "research", 9, valid_until=turn + timedelta(seconds=1))
    first.refresh_from_db()
    assert first.status == LINE


@pytest.mark.django_db
@pytest.mark.requirement("feasibility-2.1")
def test_a_sweep_serves_those_of_another_time_behind_one_that_still_waits(world: World) -> None:
    now = clock.now().replace(microsecond=0)
    world.granted("marketing", 40, valid_until=now + timedelta(days=20))
    long = _waiting(world, "finance", 60 - 15, valid_from=now + timedelta(days=10))
    short = _waiting(world, "research", 11, valid_until=now + timedelta(days=5))
    world.granted("marketing", 39, valid_until=now + timedelta(days=20))
    assert retry_waiting() == 1
    long.refresh_from_db()
    short.refresh_from_db()
    assert (long.status, short.status) == (LINE, RequestStatus.APPLYING)


@pytest.mark.django_db(transaction=True)
@pytest.mark.requirement("feasibility-2.1")
def test_a_decision_that_races_with_the_sweep_does_not_overtake(db: None) -> None:
    """GPUs come free; a sweep serves the line while somebody approves a later request that would fit."""
    world = make_world(make_company())
    world.granted("marketing", 40)
    first = _waiting(world, "finance", 20)
    later = world.ask("research", 15)
    world.granted("marketing", 25)
    barrier = threading.Barrier(2)
    failures: list[BaseException] = []

    def at_once(act: Callable[[], object]) -> None:
        try:
            barrier.wait(timeout=10)
            act()
        except BaseException as error:  # noqa: BLE001 (reported by the test's own thread)
            failures.append(error)
        finally:
            connections.close_all()

    def approve() -> None:
        assert later.approval is not None
        approvals.decide(
            later.approval.pk,
            "approve",
            "Within the plan of the quarter.",
            actor=Actor.of(world["vp"]),
            expected_digest=later.approval.subject_digest,
        )

    later.refresh_from_db()
    threads = [threading.Thread(target=at_once, args=(act,)) for act in (approve, retry_waiting)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert not failures
    retry_waiting()
    first.refresh_from_db()
    later.refresh_from_db()
    assert (first.status, later.status) == (RequestStatus.APPLYING, LINE)
    assert (world.held("finance"), world.held("research")) == (20, None)


@pytest.mark.django_db
@pytest.mark.requirement("feasibility-2.2", "feasibility-2.4")
def test_everybody_sees_their_own_place_and_nobody_elses(world: World) -> None:
    now = clock.now().replace(microsecond=0)
    ends = now + timedelta(days=10)
    world.granted("marketing", 40, valid_until=ends)
    first = _waiting(world, "finance", 20)
    second = _waiting(world, "research", 30)
    seen = waitlist.for_pool(world.pool, world["lead_research"])
    assert (seen.total, seen.total_gpus, seen.names) == (2, 50, False)
    (place,) = seen.places
    assert (place.rank, place.ahead, place.gpus_ahead, place.mine) == (2, 1, 20, True)
    assert place.request == second
    assert place.expected == ends
    assert seen.facts == [f"40 GPUs come free on {ends:%Y-%m-%d %H:%M} UTC, when quota of others ends."]
    assert "No history yet" in seen.history.words
    everything = waitlist.for_pool(world.pool, world["admin"])
    assert [one.request for one in everything.places] == [first, second]
    world.pool.open_names = True
    world.pool.save()
    assert len(waitlist.for_pool(world.pool, world["lead_research"]).places) == 2
    own = waitlist.place_of(second)
    assert own is not None
    assert (own.place.rank, own.total, own.place.expected) == (2, 2, ends)
    assert waitlist.place_of(QuotaRequest.objects.get(workspace=world.workspaces["marketing"])) is None


@pytest.mark.django_db
@pytest.mark.requirement("feasibility-2.4")
def test_the_forecast_serves_those_in_front_first(world: World) -> None:
    """20 come free on day 10, the rest on day 20: the first gets the 20, so the second has to wait for day 20."""
    now = clock.now().replace(microsecond=0)
    world.granted("marketing", 20, valid_until=now + timedelta(days=10))
    world.granted("research", 30, valid_until=now + timedelta(days=20))
    _waiting(world, "finance", 20)
    third = _waiting(world, "marketing", 25, valid_from=now + timedelta(days=11))
    place = waitlist.place_of(third)
    assert place is not None
    assert place.place.expected == now + timedelta(days=20)
    forever = waitlist.for_pool(world.pool, world["admin"])
    assert [one.expected for one in forever.places] == [now + timedelta(days=10), now + timedelta(days=20)]


@pytest.mark.django_db
@pytest.mark.requirement("feasibility-2.4")
def test_the_range_comes_from_the_pools_own_waits_of_like_requests(world: World) -> None:
    now = clock.now()
    for days in range(1, 7):
        request = world.granted("finance", 4 + days)
        # Decisions are never edited: the grant's time is moved instead.
        QuotaRequest.objects.filter(pk=request.pk).update(granted_at=now + timedelta(days=days), status="active")
    flavours = [world.flavour]
    found = waitlist.history(world.pool, flavours)
    assert found.count == 6
    assert found.low is not None
    assert timedelta(days=1) < found.low < timedelta(days=3)
    # Each added one GPU but the first: nothing like a request for 40 ever waited.
    assert waitlist.history(world.pool, flavours, Fraction(40)).count == 0


@pytest.mark.requirement("feasibility-2.4", "feasibility-3.3")
def test_a_range_needs_five_waits_and_counts_the_newest_twenty() -> None:
    minutes = [timedelta(minutes=count) for count in range(1, 31)]
    assert not range_of(minutes[:4]).known
    assert "only 4" in range_of(minutes[:4]).words
    found = range_of(minutes)
    assert (found.count, found.low, found.high) == (
        20,
        timedelta(minutes=4, seconds=48),
        timedelta(minutes=16, seconds=12),
    )
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 21, 102, 111)] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "21st", "102nd", "111th",
    ]  # fmt: skip


@pytest.mark.django_db
@pytest.mark.requirement("feasibility-2.2", "feasibility-2.3")
def test_pages_show_the_place_and_hide_the_others(world: World, client_for: Any) -> None:
    world.granted("marketing", 40)
    first = _waiting(world, "finance", 20)
    second = _waiting(world, "research", 30)
    lead = client_for(world["lead_research"])
    pool = lead.get(reverse("quotas:pool-detail", kwargs={"pool_uid": world.pool.uid})).content.decode()
    assert "Whoever submitted first is served first" in pool
    assert "2 approved requests wait for 50 GPUs" in pool
    assert str(second.uid) in pool
    assert str(first.uid) not in pool
    assert "Finance" not in pool
    own = lead.get(reverse("quotas:request-detail", kwargs={"request_uid": second.uid})).content.decode()
    assert "2nd of 2" in own
    assert "1 request for 20 GPUs is in front" in own
    team = lead.get(reverse("reports:team", kwargs={"team_slug": "research"})).content.decode()
    assert "2nd in line for 30 A100-80GB" in team
    # Who only holds quota in the pool sees how many wait, but nobody.
    holder = client_for(world["lead_marketing"])
    seen = holder.get(reverse("quotas:pool-detail", kwargs={"pool_uid": world.pool.uid})).content.decode()
    assert "2 approved requests wait for 50 GPUs" in seen
    assert str(first.uid) not in seen
    assert str(second.uid) not in seen
    admin = client_for(world["admin"])
    everything = admin.get(reverse("clusters:pool-detail", kwargs={"pool_uid": world.pool.uid})).content.decode()
    assert str(first.uid) in everything
    assert str(second.uid) in everything


@pytest.mark.django_db
@pytest.mark.requirement("feasibility-2.3")
def test_nobody_without_a_part_in_the_pool_sees_its_line(world: World, client_for: Any) -> None:
    world.granted("marketing", 40)
    _waiting(world, "finance", 20)
    url = reverse("quotas:pool-detail", kwargs={"pool_uid": world.pool.uid})
    assert client_for(world["lead_research"]).get(url).status_code == 404
