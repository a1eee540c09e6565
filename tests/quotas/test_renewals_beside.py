"""A renewal beside another open request: either order, either refused, what is held, what the pool never promises."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from django.urls import reverse
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.approvals import actions as approvals
from apps.clusters.models import Pool
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid
from apps.quotas import actions, book, expiry, feasibility_reader, renewal
from apps.quotas.choices import RequestStatus, Rung
from apps.quotas.feasibility import Verdict
from apps.quotas.granting import OVERTAKEN
from apps.quotas.ledger import Holding, Step, beyond, breaches, overlay_all
from apps.quotas.models import Quota, QuotaRequest
from apps.quotas.subjects import QuotaRequestSubject
from apps.quotas.tasks import close_overtaken_renewals, roll_quotas
from tests.factories import client_for
from tests.quotas.conftest import REASON, World

START = datetime(2027, 2, 1, 9, tzinfo=UTC)
END = START + timedelta(days=30)
LATER = END + timedelta(days=30)


@pytest.fixture
def held(world: World) -> Iterator[World]:
    """Finance holds 30 of 50 for 30 days; five days are left."""
    with clock.frozen(START):
        world.granted(guaranteed=30, valid_until=END)
        clock.advance(timedelta(days=25))
        yield world


def rows(world: World) -> list[tuple[int, datetime, datetime | None]]:
    """What finance holds from the end of its quota on."""
    found = Quota.objects.filter(workspace=world.workspaces["finance"], valid__endswith__gt=END)
    found |= Quota.objects.filter(workspace=world.workspaces["finance"], valid__upper_inf=True)
    return [(row.guaranteed, max(row.valid.lower, END), row.valid.upper) for row in found.order_by("valid")]


def free_for_marketing(world: World, at: datetime) -> int:
    view = book.load(world.pool, clock.now())
    workspace = world.workspaces["marketing"]
    return int(view.room(workspace.pk, world.flavour, 1, at, at + timedelta(hours=1)).free_at_worst)


def renew(world: World, guaranteed: int = 30, **changes: Any) -> QuotaRequest:
    clock.advance(timedelta(minutes=1))
    return world.ask(guaranteed=guaranteed, **{"valid_from": END, "valid_until": LATER, **changes})


def reject(world: World, request: QuotaRequest) -> None:
    request.refresh_from_db()
    assert request.approval is not None
    approvals.decide(
        request.approval.pk, "reject", "Not in this quarter's plan.", actor=Actor.of(world.company.vp),
        expected_digest=request.approval.subject_digest,
    )  # fmt: skip
    request.refresh_from_db()


def settle(world: World, request: QuotaRequest, fate: str) -> None:
    """Decide a request a minute later."""
    clock.advance(timedelta(minutes=1))
    if fate == "approve":
        world.approve(request)
    elif fate == "reject":
        reject(world, request)
    else:
        actions.withdraw_request(request.pk, actor=Actor.of(world["lead_finance"]))
    request.refresh_from_db()


MID = END + timedelta(days=10)
#: What another request of the workspace asks for, and what is then held after the end where both are granted.
OTHERS = [
    ((40, None, MID), [(40, END, MID), (30, MID, LATER)]),
    ((40, None, None), [(40, END, None)]),
    ((20, END + timedelta(days=5), MID), [
        (30, END, END + timedelta(days=5)), (20, END + timedelta(days=5), MID), (30, MID, LATER)]),
    ((35, None, END - timedelta(days=1)), [(30, END, LATER)]),
    ((45, END, MID), [(45, END, MID), (30, MID, LATER)]),
]  # fmt: skip


@pytest.mark.django_db
@pytest.mark.requirement("quota-time-3.5", "quotas-1.7")
@pytest.mark.parametrize("case", range(len(OTHERS)))
def test_both_are_granted_in_either_order_with_the_same_result(world: World, case: int) -> None:
    (units, start, until), expected = OTHERS[case]
    for first in ("renewal", "other"):
        with clock.frozen(START):
            Quota.objects.all().delete()
            world.granted(guaranteed=30, valid_until=END)
            clock.advance(timedelta(days=25))
            other = world.ask(guaranteed=units, valid_from=start, valid_until=until)
            request = renew(world)
            assert (request.is_renewal, other.is_renewal) == (True, False)
            for one in (request, other) if first == "renewal" else (other, request):
                if one is request and case == 1 and first == "other":
                    continue  # nothing of it is left: see below
                settle(world, one, "approve")
                assert one.status in (RequestStatus.SCHEDULED, RequestStatus.APPLYING), (first, one.status)
            assert rows(world) == expected, first
            close_overtaken_renewals.run()
            request.refresh_from_db()
            overtaken = case == 1 and first == "other"
            assert (request.status == RequestStatus.WITHDRAWN) == overtaken


@pytest.mark.django_db
@pytest.mark.requirement("quota-time-3.5")
@pytest.mark.parametrize("fate", ["reject", "withdraw"])
@pytest.mark.parametrize("refused", ["renewal", "other"])
def test_refusing_one_leaves_the_other_as_it_was(held: World, refused: str, fate: str) -> None:
    other = held.ask(guaranteed=40, valid_until=MID)
    request = renew(held)
    gone, stays = (request, other) if refused == "renewal" else (other, request)
    before = QuotaRequestSubject().canonical(stays.uid)
    settle(held, gone, fate)
    assert QuotaRequestSubject().canonical(stays.uid) == before
    settle(held, stays, "approve")
    assert rows(held) == ([(40, END, MID)] if refused == "renewal" else [(30, END, LATER)])


@pytest.mark.django_db
@pytest.mark.requirement("quota-time-3.5", "quotas-1.7")
def test_only_one_renewal_and_only_a_plain_one_is_taken_beside(held: World) -> None:
    other = held.ask(guaranteed=40)
    with pytest.raises(Conflict) as refused:
        renew(held, 31)
    assert refused.value.current["request"] == str(other.uid)
    assert "asks for at most 30" in refused.value.message
    request = renew(held)
    with pytest.raises(Conflict) as again:
        renew(held, 20)
    assert again.value.current["request"] == str(request.uid)
    assert "renewal of this is open already" in again.value.message
    # A correction that makes it something else needs the other place, which is taken; nothing is lost by trying.
    with pytest.raises(Conflict):
        actions.correct_request(
            request.pk, held.flavour.pk, 45, "none", 0, END, LATER, REASON, actor=Actor.of(held["lead_finance"])
        )
    request.refresh_from_db()
    assert request.is_open
    # What asks for the very numbers that are held, from now on, is a renewal: it changes nothing sooner.
    actions.withdraw_request(request.pk, actor=Actor.of(held["lead_finance"]))
    same = held.ask(guaranteed=30, valid_until=LATER)
    assert (same.is_renewal, same.valid_from) == (True, END)


@pytest.mark.django_db
@pytest.mark.requirement("quota-time-3.6")
def test_the_second_is_planned_anew_and_what_is_overtaken_is_withdrawn_with_the_reason(held: World) -> None:
    other, request = held.ask(guaranteed=40, valid_until=MID), renew(held)
    planned = request.plan_id
    assert planned is not None
    settle(held, other, "approve")
    request.refresh_from_db()
    assert request.plan_id != planned, "one landed: the plan of the other is made anew"
    assert close_overtaken_renewals.run() == 0
    settle(held, held.ask(guaranteed=41), "approve")
    assert QuotaRequestSubject().blockers(request.uid, clock.now()) == [OVERTAKEN]
    assert close_overtaken_renewals.run() == 1
    request.refresh_from_db()
    assert request.status == RequestStatus.WITHDRAWN
    assert request.approval is not None
    assert request.approval.conclusion == OVERTAKEN
    assert close_overtaken_renewals.run() == 0
    assert rows(held) == [(41, END, None)]


@pytest.mark.django_db
@pytest.mark.requirement("quota-time-3.5")
def test_what_is_granted_while_a_renewal_waits_for_the_pool_stands(
    held: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two people decide at once: the renewal is laid over what the other left when it has the lock, not before."""
    other, request = held.ask(guaranteed=40, valid_until=MID), renew(held)
    locked, due = Pool.objects.locked, [other]

    def after_the_other(pk: int, **more: Any) -> Pool:
        if due:
            held.approve(due.pop())
        return locked(pk, **more)

    monkeypatch.setattr(Pool.objects, "locked", after_the_other)
    settle(held, request, "approve")
    assert not due
    assert rows(held) == [(40, END, MID), (30, MID, LATER)]


@pytest.mark.django_db
@pytest.mark.requirement("quota-time-3.5")
def test_a_renewal_is_in_force_once_the_rest_of_its_time_begins(held: World) -> None:
    """Limits change in the workspace while the other request still speaks: that is no start of the renewal."""
    other, request = held.ask(guaranteed=40, valid_until=MID), renew(held)
    settle(held, other, "approve")
    settle(held, request, "approve")
    held.granted(guaranteed=20, valid_from=END + timedelta(days=2), valid_until=END + timedelta(days=4))
    for at, status in ((END + timedelta(days=3), RequestStatus.SCHEDULED), (MID, RequestStatus.APPLYING)):
        clock.advance(at - clock.now() + timedelta(minutes=1))
        roll_quotas.run()
        request.refresh_from_db()
        assert request.status == status, at
    assert held.held() == 30


@pytest.mark.django_db
@pytest.mark.requirement("quota-time-3.3", "quota-time-3.4")
def test_a_pending_change_holds_what_was_held_and_never_for_ever(held: World) -> None:
    """Nobody renewed, the increase is undecided: what was held stays held for a fortnight, and it alone."""
    increase = held.ask(guaranteed=45)
    assert not increase.is_renewal
    assert renewal.place_of(increase) is None, "it asks for more: it waits its turn"
    after = END + timedelta(days=1)
    assert free_for_marketing(held, after) == 20
    # A renewal beside it holds the same GPUs, not as many again.
    request = renew(held)
    assert free_for_marketing(held, after) == 20
    settle(held, request, "withdraw")
    clock.advance(END - clock.now() + timedelta(minutes=1))
    roll_quotas.run()
    assert held.held() is None
    assert free_for_marketing(held, clock.now() + timedelta(days=1)) == 20
    clock.advance(timedelta(days=14))
    assert free_for_marketing(held, clock.now() + timedelta(days=1)) == 50


@pytest.mark.django_db
@pytest.mark.requirement("quota-time-3.3")
def test_a_hold_does_not_count_beside_what_is_promised_anyway(held: World) -> None:
    """The increase is granted, the renewal still open: others are not refused the same GPUs twice."""
    other, request = held.ask(guaranteed=40, valid_until=MID), renew(held)
    settle(held, other, "approve")
    assert request.is_open
    assert free_for_marketing(held, END + timedelta(days=1)) == 10
    assert free_for_marketing(held, MID + timedelta(days=1)) == 20


@pytest.mark.django_db
@pytest.mark.requirement("feasibility-1.2", "quota-time-3.3")
def test_a_renewal_for_more_is_told_that_it_stands_in_line(held: World) -> None:
    """It has room, but somebody waits for the time that it wants: granting lets it wait, and so it was said."""
    held.granted("marketing", 15)
    waiting = held.granted("research", 45, valid_from=END + timedelta(days=1), valid_until=LATER)
    assert waiting.status == RequestStatus.WAITING
    for units, verdict in ((30, Verdict.FITS_NOW), (32, Verdict.IN_LINE)):
        draft = actions.checked_draft(
            held.workspaces["finance"].pk, held.flavour.pk, units, "none", 0, END + timedelta(seconds=30), LATER,
            user=held["lead_finance"],
        )  # fmt: skip
        assert feasibility_reader.of_draft(draft).verdict == verdict
        request = held.granted(guaranteed=units, valid_from=END, valid_until=LATER)
        request.refresh_from_db()
        assert (request.status == RequestStatus.WAITING) == (verdict != Verdict.FITS_NOW)
        if request.is_open:
            actions.withdraw_request(request.pk, actor=Actor.of(held["lead_finance"]))
        else:
            Quota.objects.filter(request=request).delete()


@pytest.mark.django_db
@pytest.mark.requirement("feasibility-1.6", "feasibility-2.1")
def test_keeping_beyond_its_end_what_is_held_until_then_adds_all_of_it(world: World) -> None:
    """It would have passed the line, the limits of the policy and the estimate as a change of nothing."""
    with clock.frozen(START):
        world.granted(guaranteed=30, valid_until=END)
        waiting = world.granted("marketing", 45, valid_from=END + timedelta(days=2))
        assert waiting.status != RequestStatus.WAITING
        Quota.objects.filter(request=waiting).delete()
        waiting = world.granted("marketing", 48, valid_from=START + timedelta(days=1))
        assert waiting.status == RequestStatus.WAITING
        clock.advance(timedelta(minutes=1))
        draft = actions.checked_draft(
            world.workspaces["finance"].pk, world.flavour.pk, 20, "none", 0, None, None, user=world["lead_finance"]
        )
        found = feasibility_reader.of_draft(draft)
        assert (found.verdict, found.ahead) == (Verdict.IN_LINE, 1)
        request = world.ask(guaranteed=20)
        assert request.status == RequestStatus.IN_REVIEW, "no rule for small changes takes it"
        assert request.estimate["delta_units"] == 20
        page = client_for(world.company.vp).get(reverse("approvals:request-detail", args=[request.approval.uid]))
        assert "From then on this adds 20: its cost" in page.content.decode()
        assert request.cost is not None
        assert request.cost.amount > 0
        world.approve(request)
        assert request.status == RequestStatus.WAITING


@pytest.mark.django_db
@pytest.mark.requirement("quota-time-4.1")
def test_the_ladder_neither_stops_nor_archives_what_an_open_renewal_holds(held: World) -> None:
    workspace = held.workspaces["finance"]
    request = renew(held)
    clock.advance(END - clock.now() + timedelta(minutes=1))
    workspace.refresh_from_db()
    workspace.rung, workspace.rung_at = Rung.STOPPED_ADMITTING, END
    policy = expiry.ExpiryPolicy(Rung.ARCHIVED, drain_after_hours=2, archive_after_days=1)
    decide = lambda: expiry.ladder.decide(policy, expiry.facts_of(workspace, clock.now()), clock.now())  # noqa: E731  # asked four times
    clock.advance(timedelta(days=3))
    assert decide() == Rung.STOPPED_ADMITTING
    coming = expiry.ladder.upcoming(policy, expiry.facts_of(workspace, clock.now()))
    assert coming is not None
    assert coming.at == END + renewal.HOLD_AFTER
    clock.advance(timedelta(days=11))
    assert decide() == Rung.DRAINED, "never for ever"
    clock.advance(timedelta(days=-5))
    assert decide() == Rung.STOPPED_ADMITTING
    actions.withdraw_request(request.pk, actor=Actor.of(held["lead_finance"]))
    assert decide() == Rung.DRAINED


@pytest.mark.django_db
@pytest.mark.requirement("quota-time-3.7")
def test_pages_say_what_is_held_until_when_and_why(held: World) -> None:
    other, request = held.ask(guaranteed=40), renew(held)
    client = client_for(held["lead_finance"])
    ends = "2027-03-17 09:00"
    page = client.get(reverse("quotas:request-detail", kwargs={"request_uid": request.uid})).content.decode()
    assert "nobody else is promised 30 of those" in page
    assert ends in page
    assert "what that one is granted stands" in page
    assert reverse("quotas:request-detail", kwargs={"request_uid": other.uid}) in page
    page = client.get(reverse("quotas:request-detail", kwargs={"request_uid": other.uid})).content.decode()
    assert "waits its turn in the pool" in page
    assert reverse("quotas:request-detail", kwargs={"request_uid": request.uid}) in page
    workspace = held.workspaces["finance"]
    page = client.get(reverse("quotas:workspace-detail", kwargs={"workspace_uid": workspace.uid})).content.decode()
    assert "Held for what comes after" in page
    assert ends in page
    approver = client_for(held.company.vp)
    assert request.approval is not None
    url = reverse("approvals:request-detail", kwargs={"request_uid": request.approval.uid})
    page = approver.get(url).content.decode()
    assert "what another request is granted meanwhile stands" in page
    assert "nobody else is promised 30 of those" in page
    sent = {
        "workspace": workspace.pk, "flavour": held.flavour.pk, "guaranteed": 45, "borrow_mode": "none",
        "reason": REASON,
    }  # fmt: skip
    shown = client.post(reverse("quotas:request-estimate"), sent).content.decode()
    assert "Only a renewal may be open beside it" in shown


# -- the arithmetic -------------------------------------------------------------------------------------------------

HOURS = st.integers(0, 40)


def at(hour: int) -> datetime:
    return START + timedelta(hours=hour)


windows = st.lists(st.tuples(HOURS, st.integers(1, 12)), max_size=5).map(
    lambda found: [
        (at(start), at(min(start + length, following)))
        for (start, length), following in zip(
            sorted(dict(found).items()),
            [*sorted({start for start, _ in found})[1:], 99],
            strict=False,
        )
    ]
)


@pytest.mark.requirement("quota-time-3.5")
@settings(max_examples=150)
@given(base=windows, mine=windows, other=windows, open_end=st.booleans())
def test_giving_way_leaves_the_same_in_either_order(base: Any, mine: Any, other: Any, open_end: bool) -> None:
    """Laying the other over the renewal, or what is left of the renewal over the other, holds the same at all times."""
    if open_end and other:
        other = [*other[:-1], (other[-1][0], None)]

    def laid(start: list[Holding], spans: Any, units: int) -> list[Holding]:
        return overlay_all(start, [Holding(low, high, units) for low, high in spans])

    def seen(holdings: list[Holding]) -> list[int]:
        return [
            next((item.guaranteed for item in holdings if item.covers(at(hour) + timedelta(minutes=30))), 0)
            for hour in range(60)
        ]

    below = [Holding(low, high, 7) for low, high in base]
    renewal_first = laid(laid(below, mine, 3), other, 5)
    left = renewal.left_over(mine, other)
    assert all(low < (high or at(99)) for low, high in left)
    assert seen(laid(laid(below, other, 5), left, 3)) == seen(renewal_first)


@pytest.mark.requirement("quota-time-3.3", "quotas-2.1")
@settings(max_examples=150)
@given(
    wanted=st.lists(st.lists(st.tuples(HOURS, st.integers(1, 20), st.integers(1, 9)), max_size=4), max_size=3),
    own=st.lists(st.tuples(HOURS, st.integers(1, 20), st.integers(1, 9)), max_size=4),
)
def test_what_is_kept_is_the_larger_of_promise_and_hold(wanted: Any, own: Any) -> None:
    def steps(found: Any) -> list[Step]:
        return [Step(at(start), at(start + length), Fraction(units)) for start, length, units in found]

    def total(series: list[Step], moment: datetime) -> Fraction:
        return sum((step.gpus for step in series if step.covers(moment)), Fraction(0))

    kept = beyond([steps(one) for one in wanted], steps(own))
    for hour in range(70):
        moment = at(hour) + timedelta(minutes=1)
        held = max((total(steps(one), moment) for one in wanted), default=Fraction(0))
        assert total(kept, moment) + total(steps(own), moment) == max(held, total(steps(own), moment))
    assert all(one.gpus > 0 for one in kept)
    assert all(before.until <= after.start for before, after in itertools.pairwise(kept))


@pytest.mark.django_db
@pytest.mark.requirement("quotas-2.1", "quota-time-3.5")
@pytest.mark.parametrize("seed", range(2))
def test_the_pool_is_never_over_committed_by_requests_beside_each_other(world: World, seed: int) -> None:
    """Random changes, renewals and decisions in any order: at no instant more is promised than there is."""
    dice = random.Random(seed)
    with clock.frozen(START):
        teams = ["finance", "marketing"]
        for team in teams:
            world.granted(team, dice.randint(10, 25), valid_until=START + timedelta(days=2))
        for _ in range(6):
            clock.advance(timedelta(hours=dice.randint(1, 8)))
            team = dice.choice(teams)
            ends = [
                row.valid.upper
                for row in Quota.objects.filter(workspace=world.workspaces[team]).order_by("valid")
                if row.valid.upper and row.valid.upper > clock.now()
            ]
            begin = dice.choice([None, *ends])
            until = (begin or clock.now()) + timedelta(days=dice.randint(1, 20))
            # One may be open already, or nothing would change: then the next throw of the dice goes on.
            with contextlib.suppress(Conflict, Invalid):
                world.ask(team, dice.randint(3, 40), valid_from=begin, valid_until=until)
            open_ones = list(QuotaRequest.objects.filter(status=RequestStatus.IN_REVIEW).order_by("pk"))
            for request in dice.sample(open_ones, len(open_ones)):
                if dice.random() < 0.6 and not QuotaRequestSubject().blockers(request.uid, clock.now()):
                    world.approve(request)
            view = book.load(world.pool, clock.now())
            assert breaches(view.capacity, view.all_promises(), clock.now()) == []
