"""Recurring requests from asking to the last window: room, money, grant in the middle of a window, rolling, races."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connections
from django.urls import reverse

from apps.approvals import actions as approvals
from apps.approvals.models import Grant
from apps.approvals.tasks import retry_waiting
from apps.core import clock
from apps.core.actor import Actor
from apps.core.canonical import canonical_bytes, digest
from apps.core.errors import Invalid
from apps.core.events import plain
from apps.core.models import OutboxMessage
from apps.quotas import actions, assess, recurrence, selectors, windows
from apps.quotas.assess import Extras
from apps.quotas.choices import RequestStatus
from apps.quotas.ledger import breaches
from apps.quotas.models import Quota, QuotaRequest
from apps.quotas.records import asked_of
from apps.quotas.subjects import QuotaRequestSubject
from apps.quotas.tasks import notify_expiring, roll_quotas
from tests.factories import client_for, make_company
from tests.quotas.conftest import REASON, World, make_world
from tests.quotas.test_granting import applied, gpus

#: A Monday, noon.
MONDAY = datetime(2027, 1, 4, 12, tzinfo=UTC)
NIGHTS = recurrence.PRESETS["nights"].plain()
WEEKEND = recurrence.PRESETS["weekends"].plain()


@pytest.fixture
def monday(world: World) -> Iterator[World]:
    with clock.frozen(MONDAY):
        yield world


def weekly(world: World, team: str = "finance", guaranteed: int = 30, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "valid_until": clock.now() + timedelta(days=28),
        "extras": Extras(recurrence=changes.pop("recurrence", NIGHTS)),
    }
    return values | changes


@pytest.mark.django_db
@pytest.mark.requirement("quota-time-1.1")
@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        ({"valid_until": None}, "valid_until", "needs an end"),
        ({"valid_until": MONDAY + timedelta(days=367)}, "valid_until", "within 366 days"),
        ({"valid_until": MONDAY + timedelta(hours=5)}, "recurrence", "No window"),
        ({"recurrence": {"days": [], "start": "18:00", "minutes": 5}}, "recurrence", "at least one day"),
        ({"recurrence": {"days": [0], "start": "18:00", "minutes": 10_080}}, "recurrence", "never pauses"),
    ],
)
def test_what_a_repetition_cannot_be(monday: World, changes: dict[str, Any], field: str, says: str) -> None:
    with pytest.raises(Invalid) as refused:
        monday.ask(guaranteed=10, **weekly(monday, **changes))
    assert list(refused.value.errors) == [field]
    assert says in refused.value.errors[field][0]
    assert not QuotaRequest.objects.exists()


@pytest.mark.django_db
@pytest.mark.requirement("quota-time-1.3")
def test_room_is_asked_for_in_every_window_and_cost_counts_its_hours(monday: World) -> None:
    request = monday.ask(guaranteed=20, **weekly(monday))
    # 20 × 261 h × 3.85
    assert request.estimate["amount"] == "20097.00"
    assert request.estimate["hours_per_month"] == 261
    assert "in every window" in request.estimate["basis"]
    burst = monday.granted(
        "marketing", 45, valid_from=MONDAY + timedelta(days=8), valid_until=MONDAY + timedelta(days=9)
    )
    assert burst.status == RequestStatus.SCHEDULED
    facts = QuotaRequestSubject().facts(request.uid)
    assert facts["fits_now"] == "no"
    evidence = selectors.request_evidence(request)
    room = evidence["room"]
    # Tuesday night of the second week is the tightest window.
    assert (room.fits, room.worst_at, room.free_at_worst) == (False, MONDAY + timedelta(days=8, hours=6), 5)
    # That night has ended before the promise does: it fits from the next one on.
    assert room.first_fit_from == MONDAY + timedelta(days=9, hours=6)
    # A daytime promise is in nobody's way.
    monday.granted(
        "research", 30, valid_from=MONDAY + timedelta(days=1), valid_until=MONDAY + timedelta(days=1, hours=5)
    )
    other = selectors.request_evidence(request)["room"]
    assert other.worst_at == room.worst_at


@pytest.mark.django_db
@pytest.mark.requirement("quota-time-1.6")
def test_a_repetition_is_part_of_what_is_approved_and_its_absence_changes_no_byte(monday: World) -> None:
    request = monday.ask(guaranteed=8, **weekly(monday))
    subject = QuotaRequestSubject()
    assert digest(subject.canonical(request.uid)) == request.digest
    paths = [leaf["path"] for leaf in request.change["leaves"] if "#" in leaf["path"]]
    assert len(paths) == 1
    assert paths[0].endswith("/weekly")
    QuotaRequest.objects.filter(pk=request.pk).update(recurrence=WEEKEND)
    assert digest(subject.canonical(request.uid)) != request.digest
    # The bytes of a request without windows are those of the days before windows were known.
    without = monday.ask("marketing", 8)
    asked = asked_of(without)
    old = {name: value for name, value in plain(asked).items() if name not in _LATER}
    was = canonical_bytes(
        {"subject": "quotas.request", "request": old, "estimate": without.estimate, "change": without.change}
    )
    assert digest(was) == without.digest
    lines = QuotaRequestSubject().diff(request.uid)
    assert any("every Saturday" in line.note for line in lines)


_LATER = ("recurrence", "lend_mode", "lend_limit", "serving")


@pytest.mark.django_db
@pytest.mark.requirement("quota-time-1.4")
def test_a_grant_in_the_middle_of_a_window_begins_at_once_and_rolls_at_every_switch_over(world: World) -> None:
    with clock.frozen(MONDAY):
        world.granted(guaranteed=5)
        workspace = world.workspaces["finance"]
        applied(workspace)
        request = world.ask(guaranteed=30, **weekly(world))
        clock.advance(timedelta(hours=8))
        # Monday, 20:00: two hours into the window.
        world.approve(request)
        assert request.status == RequestStatus.APPLYING
        assert world.held() == 30
        assert gpus(workspace) == "30"
        rows = Quota.objects.filter(request=request)
        assert rows.count() == 20
        first = rows.order_by("valid").first()
        assert first is not None
        assert (first.valid.lower, first.valid.upper) == (clock.now(), MONDAY + timedelta(hours=18))
        applied(workspace)
        request.refresh_from_db()
        assert request.status == RequestStatus.ACTIVE
        shown = windows.of(request)
        assert shown is not None
        assert "In its window now, until" in shown.state
        seen = []
        for _ in range(7 * 24):
            clock.advance(timedelta(hours=1))
            roll_quotas.run()
            seen.append(gpus(workspace))
        # Hour by hour: 30 in the windows, 5 between them.
        now = MONDAY + timedelta(hours=8)
        parsed = recurrence.parse(NIGHTS)
        assert parsed is not None
        expected = [
            "30" if recurrence.covers(parsed, now + timedelta(hours=hour + 1)) else "5" for hour in range(7 * 24)
        ]
        assert seen == expected
        assert "Between windows" in (windows.of(request) or shown).state or recurrence.covers(parsed, clock.now())
        assert roll_quotas.run() == 0


@pytest.mark.django_db
@pytest.mark.requirement("quota-time-1.4")
def test_granted_between_windows_it_waits_for_the_next_one(monday: World) -> None:
    request = monday.granted(guaranteed=30, **weekly(monday))
    assert request.status == RequestStatus.SCHEDULED
    assert monday.held() is None
    assert roll_quotas.run() == 0
    clock.advance(timedelta(hours=6))
    assert roll_quotas.run() == 1
    request.refresh_from_db()
    assert request.status == RequestStatus.APPLYING
    assert gpus(monday.workspaces["finance"]) == "30"
    clock.advance(timedelta(hours=12))
    assert roll_quotas.run() == 1
    assert gpus(monday.workspaces["finance"]) == "0"


@pytest.mark.django_db
@pytest.mark.requirement("quota-time-1.7")
def test_windows_under_a_grant_that_has_expired_do_not_begin(monday: World) -> None:
    monday.granted(guaranteed=4)
    request = monday.granted(guaranteed=30, **weekly(monday))
    workspace = monday.workspaces["finance"]
    clock.advance(timedelta(hours=6))
    roll_quotas.run()
    assert gpus(workspace) == "30"
    applied(workspace)
    assert request.approval is not None
    Grant.objects.filter(request=request.approval).update(expires_at=clock.now() + timedelta(hours=10))
    clock.advance(timedelta(hours=12))
    roll_quotas.run()
    # The next night.
    clock.advance(timedelta(hours=12))
    roll_quotas.run()
    assert gpus(workspace) != "30"
    assert not Quota.objects.filter(request=request, valid__endswith__gt=clock.now()).exists()
    assert OutboxMessage.objects.filter(event="quotas.request.expired", subject_uid=request.uid).count() == 1


@pytest.mark.django_db
@pytest.mark.requirement("quota-time-3.1")
def test_only_the_end_of_the_whole_repetition_is_announced(monday: World) -> None:
    monday.granted(guaranteed=30, **weekly(monday, valid_until=MONDAY + timedelta(days=35)))
    told = []
    for day in range(1, 37):
        clock.advance(timedelta(days=1))
        if notify_expiring.run():
            told.append(day)
    # The last window ends on Saturday of the fifth week, 06:00, 32 days and 18 hours on.
    assert told == [19, 30, 32]
    message = OutboxMessage.objects.filter(event="quotas.quota.expiring").order_by("pk").first()
    assert message is not None
    assert "every weekday 18:00–06:00 UTC" in message.payload["what"]
    assert "falls from 30 to 0" in message.payload["what"]


@pytest.mark.django_db
@pytest.mark.requirement("quota-time-3.1")
def test_what_a_window_lies_over_is_no_end_either(monday: World) -> None:
    monday.granted(guaranteed=20)
    # Nights with less: every evening a piece of the quota around the clock ends.
    monday.granted(guaranteed=5, **weekly(monday))
    told = 0
    for _ in range(7):
        clock.advance(timedelta(days=1))
        told += notify_expiring.run()
    assert told == 0


@pytest.mark.django_db
@pytest.mark.requirement("quota-time-1.6")
def test_form_correction_list_and_export(monday: World, query_limit: Any) -> None:
    client = client_for(monday["lead_finance"])
    sent = {
        "workspace": monday.workspaces["finance"].pk,
        "flavour": monday.flavour.pk,
        "guaranteed": 10,
        "borrow_mode": "none",
        "valid_until": "2027-02-01T00:00",
        "recurrence": "custom",
        "repeat_days": ["5", "6"],
        "repeat_start": "22:30",
        "repeat_hours": "2",
        "repeat_minutes": "15",
        "reason": REASON,
    }
    page = client.get(reverse("quotas:request-create")).content.decode()
    assert "Only at certain hours of the week" in page
    assert "Not offered here:" in page
    assert 'name="serving"' not in page
    wrong = client.post(reverse("quotas:request-create"), sent | {"repeat_days": []})
    assert wrong.status_code == 400
    text = wrong.content.decode()
    assert "at least one day" in text
    assert '<details class="field" open>' in text
    estimate = client.post(reverse("quotas:request-estimate"), sent)
    assert "h (a month)" in estimate.content.decode()
    assert "every Saturday and Sunday 22:30–00:45 UTC:" in estimate.content.decode()
    done = client.post(reverse("quotas:request-create"), sent)
    assert done.status_code == 303, done.content.decode()
    request = QuotaRequest.objects.get()
    assert request.recurrence == {"days": [5, 6], "start": "22:30", "minutes": 135}
    detail = client.get(done.headers["Location"]).content.decode()
    assert "every Saturday and Sunday 22:30–00:45 UTC" in detail
    corrected = client.get(reverse("quotas:request-correct", kwargs={"request_uid": request.uid})).content.decode()
    assert 'value="22:30"' in corrected
    again = sent | {"recurrence": "weekends", "version": request.version}
    assert client.post(reverse("quotas:request-correct", kwargs={"request_uid": request.uid}), again).status_code == 303
    newest = QuotaRequest.objects.order_by("-pk").first()
    assert newest is not None
    assert newest.recurrence == WEEKEND
    with query_limit(20):
        exported = client.get(reverse("quotas:request-list"), {"export": "csv"})
        body = b"".join(exported.streaming_content) if exported.streaming else exported.content
    assert "every Saturday from 00:00 UTC for 48 h" in body.decode()
    actions.withdraw_request(newest.pk, actor=Actor.of(monday["lead_finance"]))


@pytest.mark.django_db
@pytest.mark.requirement("quota-time-1.6")
def test_many_windows_are_a_line_on_the_workspaces_page(monday: World) -> None:
    monday.granted(guaranteed=4)
    monday.granted(guaranteed=30, **weekly(monday, valid_until=MONDAY + timedelta(days=360)))
    assert Quota.objects.filter(workspace=monday.workspaces["finance"]).count() > 500
    url = reverse("quotas:workspace-detail", kwargs={"workspace_uid": monday.workspaces["finance"].uid})
    text = client_for(monday["lead_finance"]).get(url).content.decode()
    assert "every weekday 18:00–06:00 UTC" in text
    assert text.count(">Renew<") == 1
    assert "more like it" in text


@pytest.mark.django_db(transaction=True)
@pytest.mark.requirement("quota-time-1.5")
def test_two_approvals_of_repetitions_race_for_the_same_nights(db: None) -> None:
    world = make_world(make_company())
    until = clock.now() + timedelta(days=60)
    extras = Extras(recurrence=NIGHTS)
    # The weekends come first in the line: they never stand behind whoever of the others finds no room, and which of
    # the decisions lands first changes nothing for them.
    requests = [
        world.ask("research", 20, valid_until=until, extras=Extras(recurrence=WEEKEND)),
        world.ask("finance", 30, valid_until=until, extras=extras),
        world.ask("marketing", 30, valid_until=until, extras=extras),
    ]
    barrier = threading.Barrier(len(requests))
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
        thread.join(timeout=60)
    assert not failures
    statuses = {
        request.workspace.team.slug: request.status
        for request in QuotaRequest.objects.select_related("workspace__team")
    }
    # Friday night meets Saturday: 30 and 20 fit, the second 30 does not.
    waiting = [team for team, status in statuses.items() if status == RequestStatus.WAITING]
    assert waiting in (["finance"], ["marketing"])
    from apps.quotas import book

    view = book.load(world.pool, clock.now())
    assert not breaches(view.capacity, view.all_promises(), clock.now())


@pytest.mark.django_db
@pytest.mark.requirement("quota-time-1.5", "feasibility-2.1")
@pytest.mark.parametrize("decided_first", ["finance", "marketing"])
def test_weekends_that_fit_stand_behind_nights_that_wait(monday: World, decided_first: str) -> None:
    """Whoever waits of two that want the same nights holds back a later request for hours that these nights touch."""
    until = clock.now() + timedelta(days=60)
    nights = {
        team: monday.ask(team, 30, valid_until=until, extras=Extras(recurrence=NIGHTS))
        for team in ("finance", "marketing")
    }
    later = monday.ask("research", 20, valid_until=until, extras=Extras(recurrence=WEEKEND))
    second = "marketing" if decided_first == "finance" else "finance"
    monday.approve(nights[decided_first])
    monday.approve(nights[second])
    approval = monday.approve(later)
    waiting = RequestStatus.WAITING
    assert (nights[decided_first].status, nights[second].status, later.status) == ("scheduled", waiting, waiting)
    assert "1 earlier request for the same capacity must be served first" in approval.conclusion
    actions.withdraw_request(nights[second].pk, actor=Actor.of(monday[f"lead_{second}"]))
    retry_waiting()
    later.refresh_from_db()
    assert later.status == RequestStatus.SCHEDULED


@pytest.mark.django_db
@pytest.mark.requirement("quota-time-2.1", "quota-time-2.2")
def test_lending_serving_and_borrowing_need_kueue(world: World) -> None:
    for extras, field in ((Extras(lend_mode="none"), "lend_mode"), (Extras(serving=2), "serving")):
        with pytest.raises(Invalid) as refused:
            world.ask(guaranteed=10, extras=extras)
        assert "only where Kueue hands them out" in refused.value.errors[field][0]
    world.cluster.kueue_mode = "jobs"
    world.cluster.save()
    for extras, field, says in (
        (Extras(lend_mode="limited"), "lend_limit", "Say how many"),
        (Extras(lend_limit=3), "lend_limit", "goes only with"),
        (Extras(lend_mode="some"), "lend_mode", "Choose"),
        (Extras(serving=11), "serving", "At most the 10"),
        (Extras(lend_mode="limited", lend_limit=9, serving=4), "lend_limit", "At most 6"),
        (Extras(serving=-1), "serving", "negative"),
    ):
        with pytest.raises(Invalid) as refused:
            world.ask(guaranteed=10, extras=extras)
        assert says in refused.value.errors[field][0]
    request = world.ask(
        guaranteed=10,
        borrow_mode="limited",
        borrow_limit=5,
        extras=Extras(lend_mode="limited", lend_limit=6, serving=4),
    )
    assert (request.lend_mode, request.lend_limit, request.serving, request.maximum) == ("limited", 6, 4, 15)
    lines = [(line.path, line.before, line.after) for line in QuotaRequestSubject().diff(request.uid)]
    assert ("kept for serving", "0", "4") in lines
    assert ("lend", "lends all that is idle", "lends up to 6") in lines
    page = client_for(world["lead_finance"]).get(reverse("quotas:request-create")).content.decode()
    assert 'name="serving"' in page
    assert assess.guaranteed_word(world.pool) == "guaranteed"


@pytest.mark.django_db
@pytest.mark.requirement("quota-time-2.2")
def test_in_production_only_batch_work_borrows(world: World) -> None:
    world.cluster.kueue_mode = "jobs"
    world.cluster.save()
    workspace = actions.create_workspace(
        world.company.finance_team.pk, world.cluster.pk, "production", ["internal"], actor=Actor.of(world["admin"])
    )
    draft = actions.checked_draft(
        workspace.pk, world.flavour.pk, 5, "limited", 5, None, None, user=world["lead_finance"]
    )
    assert any("only batch work borrows" in text for text in assess.assess(draft).warnings)
