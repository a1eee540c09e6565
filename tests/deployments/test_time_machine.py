"""What stood at a time, and that replaying the log gives the state that made it (P15)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st

from apps import audit
from apps.approvals.models import Grant
from apps.core import clock
from apps.core.actor import Actor
from apps.core.testing import assert_queries
from apps.deployments import events, moving, rollout, time_machine
from apps.deployments.models import RolloutStep, ServingInterval
from apps.deployments.time_machine_replay import Logged, replay
from tests.deployments.world import World, make_world
from tests.factories import Company, client_for

MOVES = ("start", "step", "promote", "back", "fail", "stop", "again", "hold", "end")


def _walk(moves: list[str]) -> tuple[list[Logged], dict[str, int]]:
    """Walk an endpoint as the rollout actions would and keep the shares directly: the oracle of `replay`."""
    log: list[Logged] = []
    shares: dict[str, int] = {}
    past: list[str] = []
    stopped, count = "", 0
    for move in moves:
        canary = next((one for one, _ in list(shares.items())[1:]), "") if len(shares) == 2 else ""
        live = next(iter(shares), "")
        if move == "start" and not canary and not stopped:
            count += 1
            new = f"r{count}"
            if live:
                shares = {live: 100, new: 0}
                log.append(Logged("started", new, 0))
            else:
                shares = {new: 100}
                log.append(Logged("started", new, 100))
        elif move == "step" and canary:
            share = min(shares[canary] + 30, 90)
            shares = {live: 100 - share, canary: share}
            log.append(Logged("canary", canary, share))
        elif move == "promote" and canary:
            past.append(live)
            shares = {canary: 100}
            log.append(Logged("promoted", canary, 100))
        elif move in ("back", "fail") and canary:
            shares = {live: 100}
            log.append(Logged("rolled_back" if move == "back" else "failed", canary, 0, live))
        elif move in ("back", "fail") and live and past:
            target = past.pop()
            shares = {target: 100}
            log.append(Logged("rolled_back" if move == "back" else "failed", live, 0, target))
        elif move == "stop" and live:
            if canary:
                log.append(Logged("rolled_back", canary, 0, live))
            shares, stopped = {}, live
            log.append(Logged("stopped", live, 0))
        elif move == "again" and stopped:
            shares, stopped = {stopped: 100}, ""
            log.append(Logged("started_again", next(iter(shares)), 100))
        elif move == "hold" and canary:
            log.append(Logged("held", canary, shares[canary]))
        elif move == "end" and stopped:
            log.append(Logged("removed", stopped, 0))
            break
    return log, shares


@pytest.mark.requirement("placement-2.2")
@given(st.lists(st.sampled_from(MOVES), max_size=40))
def test_replaying_a_log_gives_the_state_that_made_it(moves: list[str]) -> None:
    log, shares = _walk(moves)
    assert replay(log) == shares
    assert not shares or sum(shares.values()) == 100


@pytest.fixture
def world(company: Company, frozen_clock: Any) -> World:
    return make_world(company)


def _answer(world: World, at: datetime, **asked: Any) -> time_machine.Answer:
    return time_machine.ask(world.company.auditor, at, **asked).answers[0]


def _shares(answer: time_machine.Answer) -> dict[int, int]:
    return {one.release.number: one.traffic for one in answer.served}


@pytest.mark.django_db
@pytest.mark.requirement("placement-2.1", "placement-2.2")
def test_the_whole_story_is_told_for_each_moment(world: World) -> None:
    moments: list[tuple[datetime, dict[int, int]]] = []

    def later(shares: dict[int, int]) -> None:
        clock.advance(timedelta(hours=1))
        moments.append((clock.now(), shares))
        clock.advance(timedelta(hours=1))

    before = clock.now() - timedelta(hours=1)
    first = world.live("production")
    later({1: 100})
    second = world.load(world.release("production", version=world.next_version()))
    later({1: 90, 2: 10})
    clock.advance(timedelta(hours=24))
    rollout.promote(first.endpoint_id, actor=world.actor(), reason="It looks good to us.")
    later({2: 100})
    rollout.roll_back(first.endpoint_id, actor=world.actor(), reason="Complaints of customers.")
    later({1: 100})
    rollout.stop(first.endpoint_id, actor=world.actor(), reason="Nobody needs it now.")
    later({})
    rollout.start_again(first.endpoint_id, actor=world.actor(), reason="It is needed again.")
    later({1: 100})
    assert time_machine.ask(world.company.auditor, before).answers == []
    for at, shares in moments:
        answer = _answer(world, at, model=world.model.slug, cluster=world.cluster.slug)
        assert (_shares(answer), answer.differences, answer.checked) == (shares, [], True)
    canary = _answer(world, moments[1][0], endpoint=first.endpoint.uid)
    assert canary.step is not None
    assert canary.step.kind == "canary"
    approvals = canary.served[1].approvals
    assert [one.in_force for one in approvals] == [True, True]
    assert any(str(world.company.vp) in who for one in approvals for who in one.by)
    assert canary.served[1].release == second
    at = moments[1][0]
    Grant.objects.filter(uid=canary.served[0].approvals[0].uid).update(revoked_at=at - timedelta(minutes=1))
    assert _answer(world, at).served[0].approvals[0].in_force is False
    assert _answer(world, moments[0][0]).served[0].approvals[0].in_force is True


@pytest.mark.django_db
@pytest.mark.requirement("placement-2.2")
def test_a_trail_that_says_otherwise_is_shown_as_a_difference(world: World) -> None:
    release = world.live()
    clock.advance(timedelta(hours=1))
    assert _answer(world, clock.now()).differences == []
    endpoint = world.endpoint(release)
    payload = moving.payload_of(endpoint, release, "stopped", 0, automatic=False, detail="")
    audit.record(
        events.ROLLOUT_STEPPED, payload, actor=Actor.system("test"), subject_type="deployments.endpoint",
        subject_uid=endpoint.uid,
    )  # fmt: skip
    clock.advance(timedelta(hours=1))
    found = _answer(world, clock.now()).differences
    assert found == ["the audit trail says nothing served; the rows say release 1 100 %."]
    page = client_for(world.company.auditor).get(
        reverse("deployments:time-machine"), {"at": f"{clock.now():%Y-%m-%dT%H:%M}"}
    )
    assert "Log and rows differ" in page.content.decode()
    assert RolloutStep.objects.filter(endpoint=endpoint).count() == 2
    assert ServingInterval.objects.get().traffic == 100


@pytest.mark.django_db
@pytest.mark.requirement("placement-2.3")
def test_people_see_their_own_endpoints_and_the_page_keeps_to_its_queries(world: World) -> None:
    world.live("development")
    world.live("staging")
    clock.advance(timedelta(hours=1))
    at = f"{clock.now():%Y-%m-%dT%H:%M}"
    client = client_for(world.company.lead_finance)
    with assert_queries(20):
        page = client.get(reverse("deployments:time-machine"), {"at": at}).content.decode()
    assert page.count("release 1") >= 2
    other = client_for(world.company.lead_marketing)
    assert "finance-staging" not in other.get(reverse("deployments:time-machine"), {"at": at}).content.decode()
    answer = client.get("/api/v1/time-machine", {"at": f"{at}:00Z"})
    assert len(answer.json()["results"]) == 2
    assert other.get("/api/v1/time-machine", {"at": f"{at}:00Z"}).json()["results"] == []
    assert client.get("/api/v1/time-machine", {"at": "2026-01-01"}).status_code == 400
    later = client.get(reverse("deployments:time-machine"), {"at": "2030-01-01T00:00"}).content.decode()
    assert "still to come" in later
