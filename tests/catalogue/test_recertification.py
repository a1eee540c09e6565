"""Approvals of versions that end: the draft that is opened, who makes it a request, and what settles it."""

from __future__ import annotations

import contextvars
import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.approvals import granting, tasks
from apps.approvals import recertifying as ending
from apps.approvals.models import Grant
from apps.audit.selectors import events_for
from apps.catalogue import recertifying
from apps.catalogue import requests as asks
from apps.catalogue.models import ModelRequest, Recertification
from apps.catalogue.version_actions import retire_version
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.models import OutboxMessage
from tests.catalogue.evidence_world import REASON, World, later, make_world
from tests.factories import Company, client_for, forget_scopes

pytestmark = pytest.mark.django_db
SWEEP = Actor.system("approvals.attend_grants")


@pytest.fixture
def world(company: Company, frozen_clock: Any) -> World:
    """An approval of finance's model for 90 days, with an evaluation that is valid for 80."""
    made = make_world(company)
    made.add("evaluation", valid_until=later(80))
    made.approved()
    return made


def wait(days: float) -> None:
    clock.advance(timedelta(days=days))
    tasks.attend_grants()


def draft() -> Recertification:
    return Recertification.objects.select_related("model_version__model__team", "request").get()


def told() -> set[int]:
    """Who heard of the latest notice."""
    row = OutboxMessage.objects.filter(event="approvals.grant.ending").latest("pk")
    return set(row.recipient_ids)


@pytest.mark.requirement("recertification-1.1")
def test_a_draft_is_opened_with_the_first_notice_once_and_asks_for_nothing(world: World) -> None:
    wait(59)
    assert not Recertification.objects.exists()
    wait(1.1)
    row = draft()
    assert (row.status, row.grant, row.due_at) == ("open", Grant.objects.get(), Grant.objects.get().expires_at)
    assert ModelRequest.objects.count() == 1
    notice = OutboxMessage.objects.filter(event="approvals.grant.ending").get()
    assert notice.payload["renewal_path"] == recertifying.url_of(row)
    assert events_for(row.uid).filter(action="catalogue.recertification.drafted").count() == 1
    for _ in range(3):
        tasks.attend_grants()
    wait(23)
    assert Recertification.objects.count() == 1
    assert OutboxMessage.objects.filter(event="approvals.grant.ending").count() == 2


@pytest.mark.requirement("recertification-1.1")
def test_no_draft_where_something_covers_it_or_the_version_is_retired(world: World, company: Company) -> None:
    first = ModelRequest.objects.get()
    asks.renew(first.pk, REASON, actor=world.actor("lead_finance"), valid_days=120)
    world.decide(ModelRequest.objects.latest("pk"))
    wait(61)
    assert not Recertification.objects.exists()
    retire_version(world.version.pk, "Replaced by the next one.", actor=world.actor("lead_finance"))
    wait(40)
    assert not Recertification.objects.exists()


@pytest.mark.requirement("recertification-1.2")
def test_what_will_have_expired_is_listed_in_notice_and_page(world: World) -> None:
    wait(61)
    row = draft()
    found = recertifying.outlook(row)
    assert [one.title for one in found.evidence] == ["The evaluation"]
    assert "house-evaluation" in {one.code for one in found.controls}
    notice = OutboxMessage.objects.filter(event="approvals.grant.ending").get()
    assert "The evaluation" in notice.payload["note"]
    text = client_for(world["lead_finance"]).get(recertifying.url_of(row)).content.decode()
    assert "Controls that will be open" in text
    assert "The evaluation" in text
    world.add("evaluation", valid_until=later(300))
    assert "house-evaluation" not in {one.code for one in recertifying.outlook(row).controls}


@pytest.mark.requirement("recertification-1.3")
def test_seven_days_before_those_above_hear_of_what_nobody_took_up(world: World) -> None:
    wait(61)
    above = {world["vp"].pk, world["compliance"].pk, world["admin"].pk}
    assert world["lead_finance"].pk in told()
    assert world["vp"].pk not in told()
    wait(23)
    assert above <= told()
    assert draft().escalated_at == clock.now()
    assert events_for(draft().uid).filter(action="catalogue.recertification.escalated").count() == 1


@pytest.mark.requirement("recertification-1.3")
def test_nobody_above_hears_of_what_is_asked_for_or_shall_end(world: World) -> None:
    wait(61)
    recertifying.decline(draft().pk, "The model is replaced in spring.", actor=world.actor("lead_finance"))
    wait(23)
    assert world["vp"].pk not in told()
    assert draft().escalated_at is None
    assert "It shall end" in OutboxMessage.objects.filter(event="approvals.grant.ending").latest("pk").payload["note"]


@pytest.mark.requirement("recertification-2.1")
def test_who_confirms_is_the_requester_and_cannot_decide(world: World, company: Company) -> None:
    wait(61)
    row = draft()
    for name, refusal in (("member_finance", NotAllowed), ("lead_marketing", NotVisible), ("compliance", NotAllowed)):
        with pytest.raises(refusal):
            recertifying.confirm(row.pk, REASON, actor=world.actor(name))
    with pytest.raises(NotAllowed):
        recertifying.confirm(row.pk, REASON, actor=SWEEP)
    with pytest.raises(Invalid):
        recertifying.confirm(row.pk, " ", actor=world.actor("lead_finance"))
    made = recertifying.confirm(row.pk, REASON, actor=world.actor("lead_finance"))
    assert made.requester == company.lead_finance
    assert made.renews == row.request
    assert made.scope == row.request.scope
    row.refresh_from_db()
    assert (row.status, row.renewal, row.confirmed_by) == ("submitted", made, company.lead_finance)
    forget_scopes(company.lead_finance)
    with pytest.raises(NotAllowed):
        world.decide(made, by=company.lead_finance)
    with pytest.raises(Conflict, match="nothing to confirm"):
        recertifying.confirm(row.pk, REASON, actor=world.actor("lead_finance"))
    world.decide(made)
    row.refresh_from_db()
    assert row.status == "renewed"
    wait(23)
    assert OutboxMessage.objects.filter(event="approvals.grant.ending").count() == 1


@pytest.mark.requirement("recertification-2.1")
def test_who_confirms_waits_for_no_turn_with_the_draft_in_hand(world: World) -> None:
    wait(61)
    with CaptureQueriesContext(connection) as seen:
        recertifying.confirm(draft().pk, REASON, actor=world.actor("lead_finance"))
    locks = [one["sql"] for one in seen if "advisory" in one["sql"] or "UPDATE OF" in one["sql"]]
    turn = next(number for number, sql in enumerate(locks) if "advisory" in sql)
    held = next(number for number, sql in enumerate(locks) if 'OF "catalogue_recertification"' in sql)
    # A grant holds the team's turn when it comes for the draft: the other way round they would wait for each other.
    assert turn < held


@pytest.mark.requirement("recertification-2.2", "recertification-3.1")
def test_a_correction_that_a_policy_grants_at_once_renews_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    wait(61)
    row, lead = draft(), world.actor("lead_finance")
    made = recertifying.confirm(row.pk, REASON, actor=lead)
    # Granted within `submit`, a correction is known to its draft only by the grant.
    monkeypatch.setattr(recertifying, "asked", lambda row: None)
    corrected = asks.correct(made.pk, asks.Asked([world.production.pk], 100, 200, REASON), actor=lead)
    world.decide(corrected)
    row.refresh_from_db()
    assert (row.status, row.renewal) == ("renewed", corrected)


@pytest.mark.requirement("recertification-2.2")
def test_a_rejected_or_withdrawn_request_opens_the_draft_again_and_a_correction_takes_it_along(world: World) -> None:
    wait(61)
    row = draft()
    lead = world.actor("lead_finance")
    world.decide(recertifying.confirm(row.pk, REASON, actor=lead), "reject")
    row.refresh_from_db()
    assert (row.status, row.renewal, row.confirmed_by) == ("open", None, None)
    made = recertifying.confirm(row.pk, REASON, actor=lead)
    corrected = asks.correct(made.pk, asks.Asked([world.production.pk], 50, 60, REASON), actor=lead)
    row.refresh_from_db()
    assert (row.status, row.renewal) == ("submitted", corrected)
    asks.withdraw(corrected.pk, "Not yet.", actor=lead)
    row.refresh_from_db()
    assert row.status == "open"
    by_hand = asks.renew(row.request_id, REASON, actor=lead)
    row.refresh_from_db()
    assert (row.status, row.renewal) == ("submitted", by_hand)


@pytest.mark.requirement("recertification-2.3")
def test_what_shall_end_can_still_be_confirmed_until_it_has(world: World) -> None:
    wait(61)
    row, lead = draft(), world.actor("lead_finance")
    with pytest.raises(Invalid):
        recertifying.decline(row.pk, "", actor=lead)
    with pytest.raises(NotAllowed):
        recertifying.decline(row.pk, "It is not mine to say.", actor=world.actor("member_finance"))
    recertifying.decline(row.pk, "The model is replaced in spring.", actor=lead)
    row.refresh_from_db()
    assert (row.status, row.closed_reason) == ("declined", "The model is replaced in spring.")
    recertifying.confirm(row.pk, REASON, actor=lead)
    row.refresh_from_db()
    assert (row.status, row.closed_at) == ("submitted", None)


@pytest.mark.requirement("recertification-3.1")
def test_another_approval_of_the_same_scope_settles_it_unless_it_ends_sooner(world: World) -> None:
    wait(61)
    row = draft()
    world.approved([world.production, world.staging], valid_days=10)
    row.refresh_from_db()
    assert row.status == "open"
    world.approved([world.production, world.staging], valid_days=200)
    row.refresh_from_db()
    assert row.status == "superseded"
    assert "Covered by the approval" in row.closed_reason


@pytest.mark.requirement("recertification-3.1", "recertification-2.3")
def test_another_approval_settles_what_somebody_let_end_too(world: World) -> None:
    wait(61)
    row = draft()
    recertifying.decline(row.pk, "The model is replaced in spring.", actor=world.actor("lead_finance"))
    world.approved([world.production, world.staging], valid_days=200)
    row.refresh_from_db()
    assert row.status == "superseded"


@pytest.mark.requirement("recertification-3.1")
def test_a_renewal_that_ends_sooner_leaves_it_to_be_confirmed(world: World) -> None:
    wait(61)
    row = draft()
    world.decide(recertifying.confirm(row.pk, REASON, actor=world.actor("lead_finance"), valid_days=3))
    row.refresh_from_db()
    assert (row.status, row.renewal) == ("open", None)


@pytest.mark.requirement("recertification-3.2")
@pytest.mark.parametrize("revoked", [True, False])
def test_the_end_closes_it_with_the_reason(world: World, revoked: bool) -> None:
    wait(61)
    row = draft()
    if revoked:
        granting.revoke(row.grant.uid, "A flaw was found in the labels.", actor=world.actor("compliance"))
    else:
        wait(30)
    row.refresh_from_db()
    assert row.status == "ended"
    assert row.closed_reason == (
        "The approval was revoked: A flaw was found in the labels." if revoked else "The approval ended."
    )
    with pytest.raises(Conflict):
        recertifying.confirm(row.pk, REASON, actor=world.actor("lead_finance"))


@pytest.mark.requirement("recertification-1.1", "recertification-2.1")
def test_it_is_found_from_home_inbox_version_and_approval_and_confirmed_there(world: World, query_limit: Any) -> None:
    wait(61)
    row = draft()
    here = recertifying.url_of(row)
    lead, decides = client_for(world["lead_finance"]), client_for(world["compliance"])
    for client, path in (
        (lead, "/"),
        (decides, "/approvals/inbox/"),
        (lead, f"/catalogue/versions/{world.version.uid}/"),
        (lead, f"/catalogue/requests/{row.request.uid}/"),
        (lead, f"/approvals/requests/{row.request.approval.uid}/"),
        (decides, "/catalogue/recertifications/"),
    ):
        assert here in client.get(path).content.decode(), path
    with query_limit(20):
        lead.get("/catalogue/recertifications/")
    assert here not in client_for(world["lead_marketing"]).get("/catalogue/recertifications/").content.decode()
    answer = lead.post(f"{here}confirm/", {"version": row.version, "valid_days": "90", "reason": REASON})
    assert answer.status_code == 303
    made = ModelRequest.objects.latest("pk")
    assert answer["Location"] == f"/catalogue/requests/{made.uid}/"
    assert made.requester == world["lead_finance"]
    export = decides.get("/catalogue/recertifications/?export=csv").getvalue().decode()
    assert "Asked for" in export


@pytest.mark.requirement("recertification-1.1")
@pytest.mark.django_db(transaction=True)
def test_two_workers_at_once_open_one_draft(company: Company, frozen_clock: Any) -> None:
    world = make_world(company)
    world.add("evaluation")
    world.approved()
    clock.advance(timedelta(days=61))
    held, done, gate = Grant.objects.get(), list[bool](), threading.Barrier(2)

    def work() -> None:
        try:
            gate.wait(10)
            done.append(ending.attend(held.pk, actor=SWEEP))
        finally:
            connection.close()

    # Each thread sees the frozen clock of this one.
    threads = [threading.Thread(target=contextvars.copy_context().run, args=(work,)) for _ in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(30)
    assert sorted(done) == [False, True]
    assert Recertification.objects.count() == 1
