"""Signing in and out, session end, limits."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.hashers import get_hasher
from django.contrib.sessions.backends.db import SessionStore
from django.test import Client

from apps.accounts import actions, addresses, sessions, sign_in
from apps.accounts.models import SignInAttempt, SignInSession, User
from apps.audit.models import AuditEvent
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Invalid
from tests.factories import PASSWORD, Company, client_for, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def person() -> User:
    return make_user("lead@example.com", password=PASSWORD)


def _post(client: Client, email: str, password: str, **extra: Any) -> Any:
    return client.post("/sign-in/", {"email": email, "password": password, **extra})


@pytest.mark.requirement("accounts-1.1")
def test_right_password_opens_a_session_whatever_the_case_of_the_address(person: User) -> None:
    client = Client(headers={"user-agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"})
    answer = _post(client, "LEAD@Example.com", PASSWORD, next="/account/")
    assert (answer.status_code, answer["Location"]) == (303, "/account/")
    session = SignInSession.objects.get(user=person)
    assert session.device == "Firefox on Linux"
    assert "Where you are signed in" in client.get("/account/").content.decode()
    event = AuditEvent.objects.get(action="accounts.session.opened", actor_id=str(person.uid))
    opened = {"network": "loopback", "method": "password", "provider": "", "second_factor": False}
    assert event.data["changes"] == opened


@pytest.mark.requirement("accounts-1.2")
@pytest.mark.parametrize("case", ["wrong password", "unknown account", "deactivated"])
def test_refusals_look_the_same(person: User, case: str) -> None:
    if case == "deactivated":
        User.objects.filter(pk=person.pk).update(is_active=False)
    email = "nobody@example.com" if case == "unknown account" else person.email
    answer = _post(Client(), email, PASSWORD if case == "deactivated" else "wrong password!")
    assert answer.status_code == 400
    text = answer.content.decode()
    assert sign_in.WRONG in text
    assert "wrong password!" not in text, "a typed password never comes back"
    assert not SignInSession.objects.exists()
    event = AuditEvent.objects.filter(action="accounts.session.refused").latest("occurred_at")
    assert event.data["changes"]["cause"] == "wrong"
    assert email not in bytes(event.canonical).decode()
    assert event.actor_type == "anonymous"


@pytest.mark.requirement("accounts-1.2")
def test_unknown_account_costs_one_password_hash_like_a_known_one(
    person: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[str] = []
    hasher = type(get_hasher())
    original = hasher.encode

    def encode(self: Any, password: str, salt: str) -> str:
        counted.append(password)
        return str(original(self, password, salt))

    monkeypatch.setattr(hasher, "encode", encode)
    for email in (person.email, "nobody@example.com"):
        counted.clear()
        with pytest.raises(Invalid):
            sign_in.sign_in(email, "wrong", SessionStore(), address="192.0.2.1")
        assert counted == ["wrong"], email


@pytest.mark.requirement("accounts-1.3")
@pytest.mark.parametrize("email", ["lead@example.com", "nobody@example.com"])
def test_sixth_try_within_fifteen_minutes_is_refused_unseen(person: User, email: str, frozen_clock: datetime) -> None:
    for _ in range(sign_in.ACCOUNT_LIMIT):
        with pytest.raises(Invalid, match="not right"):
            sign_in.sign_in(email, "wrong", SessionStore(), address="192.0.2.1")
    with pytest.raises(Invalid, match="Wait 15 minutes"):
        sign_in.sign_in(email, PASSWORD, SessionStore(), address="192.0.2.1")
    if email == person.email:
        sign_in.sign_in(email, PASSWORD, SessionStore(), address="192.0.2.2")
    clock.advance(timedelta(minutes=15, seconds=1))
    if email == person.email:
        assert sign_in.sign_in(email, PASSWORD, SessionStore(), address="192.0.2.1").user_id == person.pk
    else:
        with pytest.raises(Invalid, match="not right"):
            sign_in.sign_in(email, "wrong", SessionStore(), address="192.0.2.1")


@pytest.mark.requirement("accounts-1.3")
def test_success_forgets_the_failures_before_it(person: User) -> None:
    for _ in range(sign_in.ACCOUNT_LIMIT - 1):
        with pytest.raises(Invalid):
            sign_in.sign_in(person.email, "wrong", SessionStore(), address="192.0.2.1")
    sign_in.sign_in(person.email, PASSWORD, SessionStore(), address="192.0.2.1")
    with pytest.raises(Invalid, match="not right"):
        sign_in.sign_in(person.email, "wrong", SessionStore(), address="192.0.2.1")


@pytest.mark.requirement("accounts-1.3")
def test_one_address_trying_many_accounts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sign_in, "ADDRESS_LIMIT", 3)
    for number in range(3):
        with pytest.raises(Invalid, match="not right"):
            sign_in.sign_in(f"n{number}@example.com", "x", SessionStore(), address="192.0.2.9")
    with pytest.raises(Invalid, match="Too many"):
        sign_in.sign_in("n9@example.com", "x", SessionStore(), address="192.0.2.9")


@pytest.mark.requirement("accounts-1.3")
def test_attempts_hold_neither_address_nor_account_and_are_forgotten(frozen_clock: datetime) -> None:
    with pytest.raises(Invalid):
        sign_in.sign_in("nobody@example.com", "x", SessionStore(), address="192.0.2.1")
    row = SignInAttempt.objects.get()
    assert "nobody" not in row.account_key
    assert "192.0.2.1" not in row.address_key
    assert sign_in.forget_old_attempts() == 0
    clock.advance(timedelta(days=1, seconds=1))
    assert sign_in.forget_old_attempts() == 1


@pytest.mark.requirement("accounts-1.4")
@pytest.mark.parametrize("wanted", ["https://example.org/", "//example.org", "javascript:alert(1)", "/\\example.org"])
def test_next_leads_nowhere_else(person: User, wanted: str) -> None:
    assert _post(Client(), person.email, PASSWORD, next=wanted)["Location"] == "/"


@pytest.mark.requirement("accounts-1.4")
def test_visitor_is_led_to_sign_in_and_back() -> None:
    answer = Client().get("/account/?x=1")
    assert (answer.status_code, answer["Location"]) == (302, "/sign-in/?next=%2Faccount%2F%3Fx%3D1")


@pytest.mark.requirement("accounts-1.5")
def test_sign_out_needs_post_and_ends_the_session(person: User) -> None:
    client = client_for(person)
    assert client.get("/sign-out/").status_code == 405
    assert client.post("/sign-out/").status_code == 303
    assert SignInSession.objects.get(user=person).closed_at is not None
    assert client.get("/account/").status_code == 302
    assert AuditEvent.objects.filter(action="accounts.session.closed", actor_id=str(person.uid)).count() == 1


@pytest.mark.requirement("accounts-1.5")
def test_sign_out_needs_the_csrf_token(person: User) -> None:
    client = client_for(person)
    client.handler.enforce_csrf_checks = True
    assert client.post("/sign-out/").status_code == 403
    assert SignInSession.objects.get(user=person).closed_at is None


@pytest.mark.requirement("accounts-1.6")
def test_expired_session_is_explained_and_leads_back(person: User) -> None:
    with clock.frozen(datetime.now(UTC) - timedelta(hours=9)):
        client = client_for(person)
    answer = client.get("/account/")
    assert answer["Location"] == "/sign-in/?next=%2Faccount%2F&ended=1"
    assert "Your session has ended" in client.get(answer["Location"]).content.decode()


@pytest.mark.requirement("accounts-1.6")
def test_first_visit_is_not_told_of_an_ended_session() -> None:
    assert "session has ended" not in Client().get("/sign-in/?next=/account/").content.decode()


@pytest.mark.requirement("accounts-1.7")
def test_session_key_changes_at_sign_in(person: User) -> None:
    client = Client()
    session = client.session
    session["before"] = "visitor"
    session.save()
    before = session.session_key
    client.cookies["sessionid"] = before
    _post(client, person.email, PASSWORD)
    after = client.cookies["sessionid"].value
    assert after != before
    assert not SessionStore(before).exists(before)


@pytest.mark.requirement("accounts-2.1")
def test_deactivated_person_is_signed_out_at_the_next_request(company: Company) -> None:
    client = client_for(company.lead_finance)
    assert client.get("/account/").status_code == 200
    actions.deactivate_user(company.lead_finance.pk, "left", actor=Actor.of(company.admin))
    assert client.get("/account/").status_code == 302


@pytest.mark.requirement("accounts-2.1")
def test_even_a_deactivation_past_the_action_signs_out(person: User) -> None:
    client = client_for(person)
    User.objects.filter(pk=person.pk).update(is_active=False)
    assert client.get("/account/").status_code == 302


@pytest.mark.requirement("accounts-1.7")
@pytest.mark.parametrize("value", ["", "no uid", "00000000-0000-0000-0000-000000000000", 17])
def test_store_without_a_session_row_is_nobody(value: Any) -> None:
    store = SessionStore()
    store[sessions.SESSION_KEY] = value
    assert sessions.session_of(store) is None


@pytest.mark.parametrize(
    ("address", "expected"),
    [("127.0.0.1", "loopback"), ("::1", "loopback"), ("10.1.2.3", "private"), ("8.8.8.8", "public"), ("?", "unknown")],
)
def test_network_class(address: str, expected: str) -> None:
    assert addresses.network_class(address) == expected


def test_address_behind_a_proxy_is_the_one_the_proxy_saw(rf: Any, settings: Any) -> None:
    request = rf.get("/", headers={"x-forwarded-for": "203.0.113.9, 198.51.100.4"})
    assert addresses.client_address(request) == "127.0.0.1", "nobody is believed without a trusted proxy"
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    assert addresses.client_address(request) == "198.51.100.4"


def test_sign_in_page_stores_nothing_about_the_visitor() -> None:
    answer = Client().get("/sign-in/")
    assert answer.status_code == 200
    assert "sessionid" not in answer.cookies
    assert json.dumps(answer.headers["Cache-Control"])
