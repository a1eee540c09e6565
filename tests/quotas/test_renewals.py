"""Renewals: the hold that keeps GPUs from others while one is open, the place in line, notices, the button."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from django.urls import reverse

from apps.clusters.models import PoolCapacity
from apps.core import clock
from apps.core.actor import Actor
from apps.core.models import OutboxMessage
from apps.quotas import actions, assess, book, renewal, selectors
from apps.quotas.assess import Extras
from apps.quotas.choices import RequestStatus
from apps.quotas.models import Quota, QuotaRequest
from apps.quotas.recurrence import PRESETS
from apps.quotas.tasks import notify_expiring, roll_quotas
from tests.factories import client_for
from tests.quotas.conftest import REASON, World
from tests.quotas.test_granting import gpus, run

pytestmark = pytest.mark.django_db
START = datetime(2027, 2, 1, 9, 0, 30, tzinfo=UTC)
#: With seconds, as the API takes it; the form has minutes.
END = START + timedelta(days=30)
NIGHTS = PRESETS["nights"].plain()


@pytest.fixture
def held(world: World) -> Iterator[World]:
    """Finance holds 30 of 50 for 30 days; five days are left."""
    with clock.frozen(START):
        world.granted(guaranteed=30, valid_until=END)
        clock.advance(timedelta(days=25))
        yield world


def renew(world: World, guaranteed: int = 30, **changes: Any) -> QuotaRequest:
    values = {"valid_from": END.replace(second=0), "valid_until": END + timedelta(days=30), **changes}
    return world.ask(guaranteed=guaranteed, **values)


def free_for_marketing(world: World, at: datetime) -> int:
    view = book.load(world.pool, clock.now())
    workspace = world.workspaces["marketing"]
    return int(view.room(workspace.pk, world.flavour, 1, at, at + timedelta(hours=1)).free_at_worst)


@pytest.mark.requirement("quota-time-3.3")
def test_an_open_renewal_keeps_its_gpus_from_others_and_waits_behind_nobody(held: World) -> None:
    request = renew(held)
    assert request.valid_from == END
    found = renewal.read(request.change)
    assert found is not None
    assert (found.until, found.guaranteed) == (END, 30)
    assert free_for_marketing(held, END + timedelta(days=1)) == 20
    # Approved, but refused the room that is held: it waits in the pool's line.
    other = held.granted("marketing", 40, valid_from=END + timedelta(hours=1))
    assert other.status == RequestStatus.WAITING
    # The renewal is decided after it, for the same time, and goes first all the same.
    held.approve(request)
    assert request.status == RequestStatus.SCHEDULED
    assert held.held(at=END + timedelta(days=29)) == 30
    assert run("approvals.retry_waiting") == 0


@pytest.mark.requirement("quota-time-3.4")
def test_the_quota_ends_on_time_and_the_hold_outlives_it_for_a_fortnight(held: World) -> None:
    request = renew(held)
    workspace = held.workspaces["finance"]
    clock.advance(timedelta(days=5, minutes=1))
    roll_quotas.run()
    assert gpus(workspace) == "0"
    assert held.held() is None
    now = clock.now()
    assert free_for_marketing(held, now + timedelta(days=1)) == 20
    # A correction keeps the place, also after the end.
    new = actions.correct_request(
        request.pk, held.flavour.pk, 25, "none", 0, None, END + timedelta(days=20), REASON,
        actor=Actor.of(held["lead_finance"]),
    )  # fmt: skip
    first, again = renewal.read(request.change), renewal.read(new.change)
    assert first is not None
    assert again == first
    assert free_for_marketing(held, now + timedelta(days=1)) == 25
    clock.advance(timedelta(days=13, hours=23))
    assert free_for_marketing(held, clock.now() + timedelta(hours=1)) == 25
    clock.advance(timedelta(hours=1))
    assert free_for_marketing(held, clock.now() + timedelta(hours=1)) == 50
    # The hold is over; the request is not, and stands like any other.
    assert renewal.place_of(new) is None


@pytest.mark.requirement("quota-time-3.3")
def test_no_hold_long_before_the_end_for_more_than_was_held_or_once_decided(world: World) -> None:
    with clock.frozen(START):
        world.granted(guaranteed=30, valid_until=END)
        request = renew(world, 45)
        assert free_for_marketing(world, END + timedelta(days=1)) == 50
        clock.advance(timedelta(days=17))
        # As much as was held, not as much as is asked for.
        assert free_for_marketing(world, END + timedelta(days=1)) == 20
        assert renewal.place_of(request) is None
        actions.withdraw_request(request.pk, actor=Actor.of(world["lead_finance"]))
        assert free_for_marketing(world, END + timedelta(days=1)) == 50
        # What begins later, or was asked for after the end, renews nothing.
        later = renew(world, 10, valid_from=END + timedelta(minutes=2))
        assert renewal.read(later.change) is None
        actions.withdraw_request(later.pk, actor=Actor.of(world["lead_finance"]))
        clock.advance(timedelta(days=13, seconds=1))
        late = renew(world, 10)
        assert renewal.read(late.change) is None


@pytest.mark.requirement("quota-time-3.3")
def test_of_two_renewals_the_earlier_goes_first_when_capacity_was_lost(held: World) -> None:
    held.granted("marketing", 20, valid_until=END)
    first = renew(held)
    clock.advance(timedelta(hours=1))
    second = held.ask("marketing", 20, valid_from=END, valid_until=END + timedelta(days=30))
    PoolCapacity.objects.filter(pool=held.pool).update(committable_gpus=40)
    held.approve(second)
    assert second.status == RequestStatus.WAITING
    held.approve(first)
    assert first.status == RequestStatus.SCHEDULED


@pytest.mark.requirement("quota-time-3.3")
def test_a_repetition_is_held_in_its_windows_only(world: World) -> None:
    monday = datetime(2027, 2, 1, 12, tzinfo=UTC)
    end = monday + timedelta(days=14)
    with clock.frozen(monday):
        world.granted(guaranteed=30, valid_until=end, extras=Extras(recurrence=NIGHTS))
        clock.advance(timedelta(days=10))
        later = end + timedelta(days=28)
        request = world.ask(guaranteed=30, valid_from=end, valid_until=later, extras=Extras(recurrence=NIGHTS))
        assert renewal.read(request.change) is not None
        assert free_for_marketing(world, end + timedelta(hours=8)) == 20
        assert free_for_marketing(world, end + timedelta(hours=1)) == 50
        actions.withdraw_request(request.pk, actor=Actor.of(world["lead_finance"]))
        # Around the clock is more than was held.
        whole = world.ask(guaranteed=30, valid_from=end, valid_until=later)
        assert renewal.read(whole.change) is None


@pytest.mark.requirement("quota-time-3.1")
def test_notices_say_how_to_renew_and_what_is_asked_for_already(held: World) -> None:
    # Five days are left: the first notice is due.
    assert notify_expiring.run() == 1
    message = OutboxMessage.objects.get(event="quotas.quota.expiring")
    quota = Quota.objects.get(workspace=held.workspaces["finance"])
    assert message.payload["quota_uid"] == str(quota.uid)
    assert message.payload["renewal_uid"] is None
    assert "admits nothing new" in message.payload["then"]
    request = renew(held)
    clock.advance(timedelta(days=2))
    assert notify_expiring.run() == 1
    second = OutboxMessage.objects.filter(event="quotas.quota.expiring").order_by("-pk").first()
    assert second is not None
    assert second.payload["renewal_uid"] == str(request.uid)
    assert "in review" in second.payload["renewal"]
    assert "nobody else is promised" in second.payload["renewal"]
    held.approve(request)
    clock.advance(timedelta(days=2))
    assert notify_expiring.run() == 0, "what comes after is granted: nothing falls"


@pytest.mark.requirement("quota-time-3.2")
def test_the_renew_button_fills_the_form_in(held: World) -> None:
    client = client_for(held["lead_finance"])
    workspace = held.workspaces["finance"]
    page = client.get(reverse("quotas:workspace-detail", kwargs={"workspace_uid": workspace.uid})).content.decode()
    quota = Quota.objects.get(workspace=workspace)
    link = f"{reverse('quotas:request-create')}?renews={quota.uid}"
    assert link in page
    form = client.get(link).content.decode()
    assert 'name="guaranteed" value="30"' in form
    assert f'value="{END:%Y-%m-%dT%H:%M}"' in form
    sent = {
        "workspace": workspace.pk, "flavour": held.flavour.pk, "guaranteed": 30, "borrow_mode": "none",
        "valid_from": f"{END:%Y-%m-%dT%H:%M}", "reason": REASON,
    }  # fmt: skip
    shown = client.post(reverse("quotas:request-estimate"), sent).content.decode()
    assert "This renews what ends on" in shown
    assert client.post(reverse("quotas:request-create"), sent).status_code == 303
    request = QuotaRequest.objects.order_by("-pk").first()
    assert request is not None
    assert request.valid_from == END
    # Nobody else's quota is shown through it.
    foreign = client_for(held["lead_marketing"]).get(link).content.decode()
    assert 'value="30"' not in foreign


@pytest.mark.requirement("monthly-report-3.6")
@pytest.mark.parametrize(
    ("change", "shown"), [("-3", "27"), ("1", "31"), ("-99", "0"), ("-3; drop", None), ("", None), ("9999999", None)]
)
def test_a_link_fills_in_the_number_held_after_a_change(held: World, change: str, shown: str | None) -> None:
    query = {
        "workspace": held.workspaces["finance"].uid, "flavour": held.flavour.slug, "change": change,
        "reason": "train in finance-dev needs 1 of 4 GPUs",
    }  # fmt: skip
    link = f"{reverse('quotas:request-create')}?{urlencode(query)}"
    form = client_for(held["lead_finance"]).get(link).content.decode()
    found = re.search(r'name="guaranteed" value="(\d+)"', form)
    assert (found.group(1) if found else None) == shown
    assert "train in finance-dev needs 1 of 4 GPUs" in form
    # Nobody else's numbers are shown through it.
    foreign = client_for(held["lead_marketing"]).get(link).content.decode()
    assert not re.search(r'name="guaranteed" value="(27|31)"', foreign)


@pytest.mark.requirement("quota-time-3.2")
def test_a_repetition_is_renewed_for_as_long_again_as_far_as_one_may_ask(world: World) -> None:
    """A repetition needs an end: the form comes with one that will be taken."""
    with clock.frozen(START):
        for days, expected in ((60, 120), (300, 366)):
            until = START + timedelta(days=days)
            extras = Extras(recurrence=PRESETS["nights"].plain())
            request = world.granted("finance", 10, valid_until=until, extras=extras)
            quota = Quota.objects.filter(request=request).order_by("valid").first()
            assert quota is not None
            link = f"{reverse('quotas:request-create')}?renews={quota.uid}"
            form = client_for(world["lead_finance"]).get(link).content.decode()
            fields = dict(re.findall(r'name="(valid_from|valid_until)" value="([^"]+)"', form))
            assert fields["valid_from"] == f"{until:%Y-%m-%dT%H:%M}"
            assert fields["valid_until"] == f"{START + timedelta(days=expected):%Y-%m-%dT%H:%M}"


@pytest.mark.requirement("quota-time-5.2")
def test_a_draft_below_use_says_what_it_means(held: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from apps.quotas import cluster_side

    workspace = held.workspaces["finance"]
    seen = cluster_side.Usage({"nvidia.com/gpu": 30}, {"nvidia.com/gpu": 12}, clock.now())
    monkeypatch.setattr(cluster_side, "usage", lambda rows: {row.pk: seen for row in rows})
    draft = actions.checked_draft(workspace.pk, held.flavour.pk, 8, "none", 0, None, None, user=held["lead_finance"])
    assert any("uses 12 and would hold 8" in text for text in assess.assess(draft).warnings)
    row = selectors.quota_rows([workspace])[0]
    assert not row.over
    held.granted(guaranteed=8)
    assert gpus(workspace) == "8"
