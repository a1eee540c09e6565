"""Sessions: when they end, what counts as use, ending one's own and those of others."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.test import Client

from apps.accounts import actions, factor_actions, session_actions, sessions
from apps.accounts.choices import SignInMethod
from apps.accounts.models import SignInSession, User
from apps.accounts.sign_in import sign_in
from apps.audit.models import AuditEvent
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.core.testing import assert_queries
from tests.factories import PASSWORD, Company, client_for, make_user

pytestmark = pytest.mark.django_db

POLL = {"hx-request": "true"}
BY_HAND = {"hx-request": "true", "x-commons-active": "1"}


@pytest.fixture(autouse=True)
def _idle_after_an_hour(settings: Any) -> None:
    settings.COMMONS_SESSION_IDLE_SECONDS = 3600


@pytest.fixture
def person(frozen_clock: datetime) -> User:
    return make_user("lead@example.com", password=PASSWORD)


def _row(user: User) -> SignInSession:
    return SignInSession.objects.filter(user=user).latest("pk")


def _in(client: Client) -> bool:
    return client.get("/account/").status_code == 200


@pytest.mark.requirement("sessions-1.1", "sessions-1.8")
def test_idle_session_ends_by_itself_for_pages_and_api(person: User) -> None:
    client = client_for(person)
    clock.advance(timedelta(minutes=59))
    assert _in(client)
    clock.advance(timedelta(minutes=59))
    assert _in(client), "using it keeps it open"
    clock.advance(timedelta(minutes=60))
    assert client.get("/api/v1/me").status_code == 401
    answer = client.get("/account/")
    assert answer["Location"] == "/sign-in/?next=%2Faccount%2F&ended=1"
    assert not SignInSession.objects.open().exists()
    assert client.post("/account/seen/").status_code == 401
    assert not _in(client), "nothing revives it"


@pytest.mark.requirement("sessions-1.1")
def test_session_in_use_all_day_ends_all_the_same(person: User) -> None:
    client = client_for(person)
    for _ in range(16):
        assert _in(client)
        clock.advance(timedelta(minutes=30))
    assert not _in(client)


@pytest.mark.requirement("sessions-1.2")
def test_polling_keeps_nothing_open(person: User) -> None:
    client = client_for(person)
    opened = clock.now()
    for _ in range(59):
        clock.advance(timedelta(minutes=1))
        assert client.get("/notifications/bell/", headers=POLL).status_code == 200
    assert _row(person).last_seen_at == opened
    clock.advance(timedelta(minutes=1))
    ended = client.get("/notifications/bell/", headers=POLL)
    assert ended["X-Commons-Session"] == "ended"
    assert not _in(client)


@pytest.mark.requirement("sessions-1.2")
@pytest.mark.parametrize("kind", ["page", "form", "fragment by hand", "typing"])
def test_what_a_person_does_counts(person: User, kind: str) -> None:
    client = client_for(person)
    clock.advance(timedelta(minutes=30))
    if kind == "page":
        client.get("/account/")
    elif kind == "form":
        client.post("/account/tokens/new/", {})
    elif kind == "fragment by hand":
        client.get("/notifications/bell/", headers=BY_HAND)
    else:
        assert client.post("/account/seen/").status_code == 204
    assert _row(person).last_seen_at == clock.now()


@pytest.mark.requirement("sessions-1.2")
def test_typing_is_reported_with_the_csrf_token_only(person: User) -> None:
    client = client_for(person)
    client.handler.enforce_csrf_checks = True
    assert client.post("/account/seen/").status_code == 403
    assert client.get("/account/seen/").status_code == 405


@pytest.mark.requirement("sessions-1.3")
def test_use_is_written_once_a_minute_and_never_revives(person: User) -> None:
    client = client_for(person)
    seen = []
    for seconds in (20, 20, 20, 20):
        clock.advance(timedelta(seconds=seconds))
        client.get("/account/")
        seen.append((_row(person).last_seen_at - _row(person).opened_at).seconds)  # type: ignore[operator]  # is set
    assert seen == [0, 0, 60, 60]
    row = _row(person)
    SignInSession.objects.update(closed_at=clock.now())
    clock.advance(timedelta(minutes=5))
    sessions.note_use(row)
    assert _row(person).last_seen_at == row.opened_at + timedelta(seconds=60)


@pytest.mark.requirement("sessions-1.4")
def test_own_sessions_are_listed_and_ended_one_by_one(person: User) -> None:
    agent = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
    there = Client(headers={"user-agent": agent})
    there.post("/sign-in/", {"email": person.email, "password": PASSWORD})
    row = _row(person)
    here, stranger = client_for(person), client_for(make_user())
    page = here.get("/account/").content.decode()
    for shown in ("Firefox on Linux", "Test client", "loopback", "Password", "(this one)"):
        assert shown in page
    close = f"/account/sessions/{row.uid}/close/"
    assert close in page
    assert stranger.get(close).status_code == 404
    assert stranger.post(close).status_code == 404
    assert _in(there)
    assert here.post(close).status_code == 303
    assert (_in(there), _in(here)) == (False, True)
    assert here.post(close).status_code == 404, "it has ended"


@pytest.mark.requirement("sessions-1.4", "sessions-1.5")
def test_the_page_for_ones_own_sessions_takes_no_others_from_an_admin(company: Company) -> None:
    client_for(company.vp)
    row = _row(company.vp)
    admin = client_for(company.admin)
    assert admin.post(f"/account/sessions/{row.uid}/close/").status_code == 404
    assert admin.get("/account/").content.decode().count("Test client") == 1


@pytest.mark.requirement("sessions-1.5")
def test_admin_ends_sessions_of_others_with_a_reason(company: Company) -> None:
    lead = company.lead_finance
    one, two, admin = client_for(lead), client_for(lead), client_for(company.admin)
    with assert_queries(20):
        listed = admin.get("/people/sessions/").content.decode()
    assert lead.display_name in listed
    for query, shown in (("second_factor=false", True), ("second_factor=true", False), ("method=openid", False)):
        page = admin.get(f"/people/sessions/?{query}&q={lead.email}").content.decode()
        assert (f"/people/{lead.uid}/" in page) is shown, query
    row = _row(lead)
    end = f"/people/sessions/{row.uid}/end/"
    for name in ("auditor", "lead_finance", "compliance"):
        assert client_for(company[name]).get("/people/sessions/").status_code == 403
    assert client_for(company.auditor).post(end, {"reason": "x"}).status_code == 404
    assert admin.post(end, {"reason": " "}).status_code == 400
    assert admin.post(end, {"reason": "left unattended"}).status_code == 303
    assert (_in(one), _in(two)) == (True, False)
    event = AuditEvent.objects.filter(action="accounts.session.closed").latest("occurred_at")
    assert event.data["changes"] == {"cause": "ended_by_admin", "sessions": 1}
    assert event.actor_id == str(company.admin.uid)
    assert admin.post(end, {"reason": "again"}).status_code == 409
    SignInSession.objects.filter(user=lead).update(closed_at=None)
    everywhere = f"/people/{lead.uid}/sessions/end/"
    assert admin.post(everywhere, {"reason": "lost laptop"}).status_code == 303
    assert not _in(one)
    with pytest.raises(Conflict):
        session_actions.end_all(lead.pk, "x", actor=Actor.of(company.admin))
    for call in (session_actions.end_all, session_actions.end_session):
        with pytest.raises(NotAllowed):
            call(lead.pk, "x", actor=Actor.of(company.auditor))
        with pytest.raises(Invalid):
            call(lead.pk, "", actor=Actor.of(company.admin))


@pytest.mark.requirement("sessions-1.5")
def test_sessions_through_the_api(company: Company) -> None:
    lead, admin = client_for(company.lead_finance), client_for(company.admin)
    mine = _row(company.lead_finance)
    theirs = _row(company.admin)
    found = lead.get("/api/v1/sessions").json()["results"]
    assert [one["uid"] for one in found] == [str(mine.uid)]
    assert len(admin.get("/api/v1/sessions").json()["results"]) == 2
    assert lead.post(f"/api/v1/sessions/{theirs.uid}/end", {}, content_type="application/json").status_code == 404
    assert admin.post(f"/api/v1/sessions/{mine.uid}/end", {}, content_type="application/json").status_code == 400
    ended = admin.post(f"/api/v1/sessions/{mine.uid}/end", {"reason": "x"}, content_type="application/json")
    assert ended.json()["closed_at"]
    assert not _in(lead)
    assert admin.post(f"/api/v1/sessions/{theirs.uid}/end", {}, content_type="application/json").status_code == 200
    assert not _in(admin)


@pytest.mark.requirement("sessions-1.6")
def test_poll_of_an_ended_session_leads_nowhere_but_says_so(person: User) -> None:
    client = client_for(person)
    actions.close_other_sessions(person.pk, None, actor=Actor.of(person))
    for path in ("/notifications/bell/", "/account/"):
        poll = client.get(path, headers=POLL)
        assert (poll["X-Commons-Session"], poll["HX-Reswap"]) == ("ended", "none")
        assert not poll.has_header("HX-Redirect")
    assert not Client().get("/notifications/bell/", headers=POLL).has_header("X-Commons-Session")
    by_hand = client.get("/account/", headers=BY_HAND)
    assert by_hand["HX-Redirect"].startswith("/sign-in/")


@pytest.mark.requirement("sessions-1.7")
def test_switching_a_password_off_ends_what_it_opened(company: Company) -> None:
    lead = company.lead_finance
    by_password, by_provider, admin = client_for(lead), client_for(lead), client_for(company.admin)
    SignInSession.objects.filter(pk=_row(lead).pk).update(method=SignInMethod.OPENID)
    path = f"/people/{lead.uid}/password-use/"
    assert admin.post(path, {"reason": ""}).status_code == 400
    assert admin.post(path, {"reason": "has the identity provider now"}).status_code == 303
    assert (_in(by_password), _in(by_provider)) == (False, True)
    event = AuditEvent.objects.get(action="accounts.password.use_changed")
    assert event.data["changes"] == {"allowed": False, "sessions_closed": 1}
    with pytest.raises(Conflict):
        factor_actions.set_password_use(lead.pk, False, "x", actor=Actor.of(company.admin))
    with pytest.raises(NotAllowed):
        factor_actions.set_password_use(company.admin.pk, False, "x", actor=Actor.of(company.admin))
    assert admin.post(path, {"reason": "the provider is away"}).status_code == 303
    lead.refresh_from_db()
    assert lead.may_use_password


@pytest.mark.requirement("sessions-1.8")
def test_openid_session_is_not_held_up_by_a_password_to_change(person: User) -> None:
    client = client_for(person)
    User.objects.update(must_change_password=True)
    assert client.get("/account/")["Location"].startswith("/account/password/")
    assert client.get("/api/v1/me").status_code == 401
    SignInSession.objects.update(method=SignInMethod.OPENID)
    assert _in(client)


def test_sign_in_says_network_and_proof(person: User) -> None:
    session = sign_in(person.email, PASSWORD, Client().session, address="10.1.2.3", device="x")
    assert session is not None
    assert (session.network, sessions.proved_at(session), session.second_factor) == ("private", clock.now(), False)
