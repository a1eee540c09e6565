"""Accounts, passwords, tokens: actions, pages, API."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.test import Client

from apps.accounts import actions, sessions
from apps.accounts.models import ApiToken, SignInSession, User
from apps.audit.models import AuditEvent
from apps.audit.selectors import events_for, note_of
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.testing import assert_queries
from tests.factories import PASSWORD, Company, client_for, make_user

pytestmark = pytest.mark.django_db


def _text(answer: Any) -> str:
    return str(answer.content.decode())


def _token(user: User, *, read_only: bool = True, days: int = 30) -> tuple[ApiToken, str]:
    return actions.create_token(
        user.pk, "pipeline", clock.now() + timedelta(days=days), read_only, actor=Actor.of(user)
    )


def _bearer(secret: str) -> Client:
    return Client(headers={"authorization": f"Bearer {secret}"})


# -- accounts


@pytest.mark.requirement("accounts-2.2")
def test_admin_makes_an_account_whose_password_is_shown_once_and_changed_at_first_sign_in(company: Company) -> None:
    client = client_for(company.admin)
    answer = client.post("/people/new/", {"email": "New-Hire@example.com", "display_name": " New  hire "})
    assert answer.status_code == 200
    user = User.objects.get(email__iexact="new-hire@example.com")
    assert (user.display_name, user.must_change_password) == ("New hire", True)
    initial = answer.context["secret"]
    assert initial in _text(answer)
    assert answer["Cache-Control"].startswith("no-store")
    assert initial not in _text(client.get(f"/people/{user.uid}/"))

    person = Client()
    assert person.post("/sign-in/", {"email": user.email, "password": initial}).status_code == 303
    assert person.get("/account/")["Location"] == "/account/password/?next=%2Faccount%2F"
    assert "Somebody else set your present password" in _text(person.get("/account/password/"))
    form = {"current": initial, "new": PASSWORD, "again": PASSWORD}
    assert person.post("/account/password/?next=/account/", form)["Location"] == "/account/"
    assert person.get("/account/").status_code == 200, "this session goes on"
    event = AuditEvent.objects.get(action="accounts.user.created", object_id=user.uid)
    assert "example.com" not in event.canonical_text
    assert note_of(event)["details"]["email"] == "New-Hire@example.com"


@pytest.mark.requirement("accounts-2.2")
@pytest.mark.parametrize(
    ("email", "name", "field"),
    [("no address", "Name", "email"), ("LEAD-FINANCE@example.com", "Name", "email"),
     ("a@example.com", "  ", "display_name"), ("a@example.com", "x" * 201, "display_name")],
)  # fmt: skip
def test_wrong_account_input_is_named_beside_its_field(company: Company, email: str, name: str, field: str) -> None:
    before = User.objects.count()
    with pytest.raises(Invalid) as refused:
        actions.create_user(email, name, actor=Actor.of(company.admin))
    assert list(refused.value.errors) == [field]
    assert User.objects.count() == before


@pytest.mark.requirement("accounts-2.3")
@pytest.mark.parametrize("who", ["lead_finance", "vp", "auditor", "finance"])
def test_only_platform_admins_manage_accounts(company: Company, who: str) -> None:
    actor = Actor.of(company[who])
    for call in (
        lambda: actions.create_user("x@example.com", "X", actor=actor),
        lambda: actions.deactivate_user(company.member_finance.pk, "r", actor=actor),
        lambda: actions.reactivate_user(company.member_finance.pk, "r", actor=actor),
        lambda: actions.reset_password(company.member_finance.pk, actor=actor),
    ):
        with pytest.raises(NotAllowed):
            call()


@pytest.mark.requirement("accounts-2.1")
def test_switching_off_ends_sessions_and_tokens_and_is_undone_without_them(company: Company) -> None:
    person, admin = company.lead_finance, Actor.of(company.admin)
    client_for(person)
    token, secret = _token(person)
    with pytest.raises(Invalid):
        actions.deactivate_user(person.pk, " ", actor=admin)
    actions.deactivate_user(person.pk, "left the company", actor=admin)
    with pytest.raises(Conflict):
        actions.deactivate_user(person.pk, "again", actor=admin)
    assert _bearer(secret).get("/api/v1/me").status_code == 401
    actions.reactivate_user(person.pk, "came back", actor=admin)
    assert _bearer(secret).get("/api/v1/me").status_code == 401, "revoked for good"
    assert not SignInSession.objects.open().filter(user=person).exists()
    event = events_for(person.uid).get(action="accounts.user.deactivated")
    assert event.data["changes"] == {"sessions_closed": 1, "tokens_revoked": 1}
    assert note_of(event) == {"reason": "left the company"}
    token.refresh_from_db()
    assert token.revoked_at is not None


@pytest.mark.requirement("accounts-2.3")
def test_nobody_switches_off_or_resets_their_own_account(company: Company) -> None:
    admin = Actor.of(company.admin)
    for call in (
        lambda: actions.deactivate_user(company.admin.pk, "r", actor=admin),
        lambda: actions.reset_password(company.admin.pk, actor=admin),
    ):
        with pytest.raises(NotAllowed):
            call()
    assert client_for(company.admin).get(f"/people/{company.admin.uid}/deactivate/").status_code == 403


@pytest.mark.requirement("accounts-2.4")
def test_list_of_people_is_for_those_who_may_and_costs_the_same_at_any_size(company: Company) -> None:
    for _ in range(60):
        make_user()
    client = client_for(company.admin)
    with assert_queries(20):
        text = _text(client.get("/people/"))
    assert "1–50 of 70" in text
    assert "lead-finance@example.com" in _text(client.get("/people/?q=lead-fin"))
    assert client_for(company.lead_finance).get("/people/").status_code == 403
    assert client_for(company.lead_finance).get(f"/people/{company.vp.uid}/").status_code == 404
    assert client_for(company.auditor).get(f"/people/{company.vp.uid}/").status_code == 200


# -- passwords


@pytest.mark.requirement("accounts-3.1")
def test_password_change_ends_every_other_session() -> None:
    person = make_user(password=PASSWORD)
    here, there = client_for(person), client_for(person)
    new = "another long enough pass phrase"
    answer = here.post("/account/password/", {"current": PASSWORD, "new": new, "again": new})
    assert answer.status_code == 303
    assert here.get("/account/").status_code == 200
    assert there.get("/account/").status_code == 302
    person.refresh_from_db()
    assert person.check_password(new)


@pytest.mark.requirement("accounts-3.1")
@pytest.mark.parametrize(
    ("current", "new", "again", "message"),
    [
        ("wrong", "another long enough", "another long enough", "not your password"),
        (PASSWORD, "short", "short", "too short"),
        (PASSWORD, "password1234", "password1234", "too common"),
        (PASSWORD, PASSWORD, PASSWORD, "differs from the present"),
        (PASSWORD, "another long enough", "another long enouf", "do not match"),
    ],
)
def test_wrong_password_input_changes_nothing(current: str, new: str, again: str, message: str) -> None:
    person = make_user(password=PASSWORD)
    answer = client_for(person).post("/account/password/", {"current": current, "new": new, "again": again})
    assert answer.status_code == 400
    assert message in _text(answer)
    person.refresh_from_db()
    assert person.check_password(PASSWORD)


@pytest.mark.requirement("accounts-3.2")
def test_signing_out_everywhere_else_keeps_this_session() -> None:
    person = make_user()
    here, there = client_for(person), client_for(person)
    assert here.post("/account/sessions/close-others/").status_code == 303
    assert (here.get("/account/").status_code, there.get("/account/").status_code) == (200, 302)
    with pytest.raises(NotAllowed):
        actions.close_other_sessions(person.pk, None, actor=Actor.of(make_user()))


@pytest.mark.requirement("accounts-3.2")
def test_nobody_closes_a_foreign_session_or_revokes_a_foreign_token() -> None:
    owner, other = make_user(), make_user()
    client_for(owner)
    token, _ = _token(owner)
    with pytest.raises(NotVisible):
        actions.close_session(SignInSession.objects.get(user=owner).pk, actor=Actor.of(other))
    with pytest.raises(NotVisible):
        actions.revoke_token(token.pk, actor=Actor.of(other))
    assert client_for(other).get(f"/account/tokens/{token.uid}/revoke/").status_code == 404


@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/140.0 Safari/537.36 Edg/140.0", "Edge on Windows"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15) AppleWebKit/605 Version/18 Safari/605", "Safari on macOS"),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox on Linux"),
        ("curl/8.0", "Unknown device"),
    ],
)
def test_device_name(agent: str, expected: str) -> None:
    assert sessions.device_name(agent) == expected


@pytest.mark.requirement("accounts-1.6")
def test_browser_state_of_expired_sessions_is_deleted() -> None:
    with clock.frozen(datetime.now(UTC) - timedelta(days=2)):
        client_for(make_user())
    client_for(make_user())
    Session.objects.filter(pk=Session.objects.order_by("expire_date").values("pk")[:1]).update(
        expire_date=datetime.now(UTC) - timedelta(days=1)
    )
    assert sessions.clear_expired() == 1
    assert Session.objects.count() == 1


# -- tokens and the API


@pytest.mark.requirement("accounts-4.1")
def test_token_is_shown_once_and_only_its_digest_is_kept() -> None:
    person = make_user()
    client = client_for(person)
    expires = (datetime.now(UTC) + timedelta(days=10)).strftime("%Y-%m-%dT%H:%M")
    answer = client.post("/account/tokens/new/", {"name": "ci", "expires_at": expires, "access": "read"})
    secret = answer.context["secret"]
    assert secret.startswith(actions.TOKEN_PREFIX)
    token = ApiToken.objects.get(user=person)
    assert bytes(token.digest) == actions.token_digest(secret)
    page = _text(client.get("/account/"))
    assert token.prefix in page
    assert secret not in page
    event = events_for(token.uid).get()
    assert secret not in event.canonical_text + str(note_of(event))
    assert _bearer(secret).get("/api/v1/me").json()["uid"] == str(person.uid)


@pytest.mark.requirement("accounts-4.2")
@pytest.mark.parametrize(
    ("days", "name", "field"), [(366, "x", "expires_at"), (-1, "x", "expires_at"), (1, " ", "name")]
)
def test_token_input_is_checked(days: int, name: str, field: str) -> None:
    person = make_user()
    with pytest.raises(Invalid) as refused:
        actions.create_token(person.pk, name, clock.now() + timedelta(days=days), True, actor=Actor.of(person))
    assert list(refused.value.errors) == [field]
    with pytest.raises(NotAllowed):
        actions.create_token(make_user().pk, "x", clock.now() + timedelta(days=1), True, actor=Actor.of(person))


@pytest.mark.requirement("accounts-4.2")
def test_tokens_per_person_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "TOKENS_PER_PERSON", 2)
    person = make_user()
    first, _ = _token(person)
    _token(person)
    with pytest.raises(Invalid, match="Revoke one"):
        _token(person)
    actions.revoke_token(first.pk, actor=Actor.of(person))
    _token(person)


@pytest.mark.requirement("accounts-4.3")
@pytest.mark.parametrize("case", ["none", "unknown", "revoked", "expired", "not ours", "initial password", "basic"])
def test_call_without_a_usable_token_is_challenged(case: str) -> None:
    person = make_user()
    token, secret = _token(person)
    header = f"Bearer {secret}"
    if case == "none":
        header = ""
    elif case == "unknown":
        header = f"Bearer {secret}x"
    elif case == "not ours":
        header = "Bearer ünlesbar"
    elif case == "basic":
        header = "Basic eDp5"
    elif case == "revoked":
        actions.revoke_token(token.pk, actor=Actor.of(person))
    elif case == "expired":
        ApiToken.objects.filter(pk=token.pk).update(expires_at=clock.now())
    elif case == "initial password":
        User.objects.filter(pk=person.pk).update(must_change_password=True)
    answer = Client(headers={"authorization": header} if header else {}).get("/api/v1/me")
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"].startswith("Bearer")
    assert answer["Content-Type"] == "application/problem+json"
    assert answer.json()["status"] == 401


@pytest.mark.requirement("accounts-4.4")
def test_read_only_token_reads_and_changes_nothing(company: Company) -> None:
    _, read = _token(company.admin)
    _, write = _token(company.admin, read_only=False)
    body = {"email": "x@example.com", "display_name": "X"}
    assert _bearer(read).get("/api/v1/users").status_code == 200
    refused = _bearer(read).post("/api/v1/users", body, content_type="application/json")
    assert (refused.status_code, refused.json()["rule"]) == (403, "read_only_token")
    assert not User.objects.filter(email="x@example.com").exists()
    assert AuditEvent.objects.filter(action="audit.access.refused", actor_id=str(company.admin.uid)).count() == 1
    made = _bearer(write).post("/api/v1/users", body, content_type="application/json")
    assert made.status_code == 201
    event = AuditEvent.objects.get(action="accounts.user.created")
    assert (event.actor_id, event.channel) == (str(company.admin.uid), "api")
    off = f"/api/v1/users/{made.json()['uid']}/deactivate"
    assert _bearer(write).post(off, {"reason": "mistake"}, content_type="application/json").json()["is_active"] is False


@pytest.mark.requirement("accounts-4.5")
def test_last_use_is_kept_to_five_minutes(frozen_clock: datetime) -> None:
    token, secret = _token(make_user())
    seen = []
    for minutes in (0, 4, 5):
        with clock.frozen(frozen_clock + timedelta(minutes=minutes)):
            assert _bearer(secret).get("/api/v1/me").status_code == 200
        token.refresh_from_db()
        seen.append(token.last_used_at)
    assert seen == [frozen_clock, frozen_clock, frozen_clock + timedelta(minutes=5)]


@pytest.mark.requirement("accounts-4.6")
def test_browser_session_reads_the_api_and_changes_it_only_with_the_csrf_token() -> None:
    person = make_user()
    client = client_for(person)
    client.handler.enforce_csrf_checks = True
    assert client.get("/api/v1/me").json()["email"] == person.email
    body = {"name": "x", "expires_at": (clock.now() + timedelta(days=1)).isoformat()}
    assert client.post("/api/v1/api-tokens", body, content_type="application/json").status_code == 403
    assert not ApiToken.objects.exists()
    client.get("/account/tokens/new/")
    token = client.cookies["csrftoken"].value
    made = client.post("/api/v1/api-tokens", body, content_type="application/json", headers={"x-csrftoken": token})
    assert made.status_code == 201
    assert _bearer(made.json()["secret"]).get("/api/v1/api-tokens").json()["results"][0]["name"] == "x"
    uid = made.json()["uid"]
    assert client_for(make_user()).post(f"/api/v1/api-tokens/{uid}/revoke").status_code == 404
    assert client_for(person).post(f"/api/v1/api-tokens/{uid}/revoke").status_code == 200
