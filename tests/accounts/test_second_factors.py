"""Second factors: setting up, the second step, its limits, the rules of the installation; with real cryptography."""

from __future__ import annotations

import re
import threading
from datetime import datetime, timedelta
from typing import Any

import pyotp
import pytest
from django.contrib.sessions.backends.db import SessionStore
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client

from apps.accounts import factor_actions, factor_resets, factors, second_step, sessions
from apps.accounts.actions import reset_password
from apps.accounts.choices import FactorKind, UserKind
from apps.accounts.models import ApiToken, SecondFactor, SignInSession, User
from apps.accounts.second_step import Proof
from apps.audit.models import AuditEvent
from apps.core import clock, crypto
from apps.core.actor import Actor
from apps.core.errors import Invalid, NotAllowed
from apps.core.models import OutboxMessage
from apps.core.testing import settle
from apps.notifications.actions import set_preferences
from apps.notifications.models import SentMail
from apps.notifications.selectors import mail_groups
from tests.accounts.authenticator import Key
from tests.factories import PASSWORD, Company, client_for, make_user

pytestmark = pytest.mark.django_db

ADDRESS = "192.0.2.1"


@pytest.fixture
def person(frozen_clock: datetime) -> User:
    return make_user("lead@example.com", display_name="Finance team lead", password=PASSWORD)


def _code(secret: str, *, steps: int = 0) -> str:
    return str(pyotp.TOTP(secret).at(clock.now() + timedelta(seconds=30 * steps)))


def _session(user: User) -> SignInSession:
    return SignInSession.objects.filter(user=user).latest("pk")


def give_app(user: User, name: str = "Phone") -> tuple[str, list[str]]:
    """Set an app up as the page does; returns its key and the recovery codes. The present code is used by that."""
    client_for(user)
    secret = factors.new_secret()
    _, codes = factor_actions.add_app(
        user.pk, secret, _code(secret), name, actor=Actor.of(user), proved_at=clock.now(), session_id=_session(user).pk
    )
    clock.advance(timedelta(seconds=90))
    return secret, codes


def give_key(user: User, **options: Any) -> Key:
    """Register a key as the page does."""
    key = Key(**options)
    client_for(user)
    asked, state = factors.begin_registration(user.uid, user.email, user.display_name, [])
    made = factors.complete_registration(state, key.create(asked))
    factor_actions.add_key(
        user.pk, made, "Key", actor=Actor.of(user), proved_at=clock.now(), session_id=_session(user).pk
    )
    return key


def first_step(user: User, client: Client | None = None) -> Client:
    client = client or Client()
    answer = client.post("/sign-in/", {"email": user.email, "password": PASSWORD, "next": "/account/"})
    assert (answer.status_code, answer["Location"]) == (303, "/sign-in/second-step/?next=%2Faccount%2F")
    return client


def second(client: Client, **given: str) -> Any:
    return client.post("/sign-in/second-step/", {"next": "/account/", **given})


def half(user: User) -> SessionStore:
    store = SessionStore()
    second_step.begin(user, store)
    return store


def signed_in(client: Client) -> bool:
    return client.get("/account/").status_code == 200


# -- Setting up


@pytest.mark.requirement("second-factors-1.1", "second-factors-1.3")
def test_app_counts_once_its_code_was_typed(person: User) -> None:
    other, here = client_for(person), client_for(person)
    page = here.get("/account/second-factors/app/").content.decode()
    secret = re.search(r"<code>([A-Z2-7 ]+)</code>", page)[1].replace(" ", "")  # type: ignore[index]  # fails if missing
    assert "data:image/svg+xml" in page
    assert secret in here.get("/account/second-factors/app/").content.decode().replace(" ", ""), "a reload keeps it"
    refused = here.post("/account/second-factors/app/", {"code": "000000", "name": ""})
    assert (refused.status_code, SecondFactor.objects.count()) == (400, 0)
    shown = here.post("/account/second-factors/app/", {"code": _code(secret), "name": "Work phone"})
    codes = shown.context["secret"].split("\n")
    assert len(set(codes)) == factors.RECOVERY_CODES
    app = SecondFactor.objects.get(kind=FactorKind.TOTP)
    assert (app.name, crypto.decrypt(app.secret)) == ("Work phone", secret)
    assert secret.encode() not in bytes(app.secret)
    kept = SecondFactor.objects.get(kind=FactorKind.RECOVERY)
    assert kept.codes == [factors.recovery_digest(code) for code in codes]
    assert signed_in(here)
    assert not signed_in(other), "what was open without it is closed"
    assert _session(person).second_factor is True
    listed = here.get("/account/second-factors/").content.decode()
    assert "Work phone" in listed
    assert secret not in listed


@pytest.mark.requirement("second-factors-1.2")
@pytest.mark.parametrize(
    "lie",
    [
        {"challenge": b"0" * 32},
        {"origin": "http://localhost:8001"},
        {"origin": "http://evil.localhost:8000"},
        {"rp_id": "example.com"},
        {},
    ],
    ids=["challenge", "port", "subdomain", "relying party", "none"],
)
def test_key_is_registered_for_this_portal_only(person: User, lie: dict[str, Any]) -> None:
    client = client_for(person)
    asked = client.get("/account/second-factors/key/").context["key_options"]
    key = Key()
    answer = client.post("/account/second-factors/key/", {"name": "Ring", "key_answer": key.create(asked, **lie)})
    if lie:
        assert answer.status_code == 400
        assert "was not accepted" in answer.content.decode()
        assert not SecondFactor.objects.exists()
        return
    assert len(answer.context["secret"].split()) == factors.RECOVERY_CODES
    row = SecondFactor.objects.get(kind=FactorKind.WEBAUTHN)
    assert (bytes(row.credential_id or b""), row.sign_count) == (key.credential_id, 1)
    again = client.post("/account/second-factors/key/", {"name": "Ring", "key_answer": key.create(asked)})
    assert again.status_code == 400
    assert "took too long" in again.content.decode(), "a challenge is answered once"
    asked = client.get("/account/second-factors/key/").context["key_options"]
    assert len(asked["publicKey"]["excludeCredentials"]) == 1
    twice = client.post("/account/second-factors/key/", {"name": "Ring", "key_answer": key.create(asked)})
    assert "registered already" in twice.content.decode()


@pytest.mark.requirement("second-factors-1.2")
@pytest.mark.parametrize("answer", ["", "null", "[]", "{}", '{"id": 1}', "x" * 20_001, '{"rawId":"AA","response":{}}'])
def test_nonsense_instead_of_a_key_is_refused(person: User, answer: str) -> None:
    _, state = factors.begin_registration(person.uid, person.email, "x", [])
    with pytest.raises(factors.NotAccepted):
        factors.complete_registration(state, answer)
    with pytest.raises(factors.NotAccepted):
        factors.complete_assertion(state, [], answer)


@pytest.mark.requirement("second-factors-1.4")
def test_new_recovery_codes_void_the_old(person: User) -> None:
    _, old = give_app(person)
    client = client_for(person)
    new = client.post("/account/second-factors/codes/").context["secret"].split("\n")
    assert second(first_step(person), code=old[0]).status_code == 400
    assert second(first_step(person), code=new[0].upper().replace("-", " ")).status_code == 303


@pytest.mark.requirement("second-factors-1.5")
@pytest.mark.parametrize(
    "path",
    [
        "/account/second-factors/app/",
        "/account/second-factors/key/",
        "/account/second-factors/codes/",
        "/account/second-factors/{}/remove/",
        "/account/password/",
        "/account/tokens/new/",
    ],
)
def test_old_proof_changes_nothing_until_it_is_given_anew(person: User, path: str) -> None:
    secret, _ = give_app(person)
    path = path.format(SecondFactor.objects.get(kind=FactorKind.TOTP).uid)
    client = client_for(person)
    clock.advance(timedelta(minutes=16))
    for answer in (client.get(path), client.post(path, {"code": "1", "current": PASSWORD, "name": "x"})):
        assert (answer.status_code, answer["Location"]) == (303, "/account/confirm/?next=" + path.replace("/", "%2F"))
    confirm = f"/account/confirm/?next={path}"
    page = client.get(confirm)
    assert {"password", "code"} <= set(page.context["form"].fields)
    assert client.post(confirm, {"password": PASSWORD, "code": "000000"}).status_code == 400
    assert client.post(confirm, {"password": "wrong", "code": _code(secret)}).status_code == 400
    assert client.get(path).status_code == 303
    proved = client.post(confirm, {"password": PASSWORD, "code": _code(secret)})
    assert (proved.status_code, proved["Location"]) == (303, path)
    assert client.get(path).status_code == 200


@pytest.mark.requirement("second-factors-1.5")
def test_api_makes_no_token_from_a_browser_left_open(person: User) -> None:
    client = client_for(person)
    body = {"name": "x", "expires_at": (clock.now() + timedelta(days=1)).isoformat()}
    clock.advance(timedelta(minutes=16))
    refused = client.post("/api/v1/api-tokens", body, content_type="application/json")
    assert (refused.status_code, refused.json()["rule"]) == (403, "fresh_proof")
    assert not ApiToken.objects.exists()
    for call in (
        lambda: factor_actions.renew_codes(
            person.pk, actor=Actor.of(person), proved_at=clock.now() - timedelta(hours=1)
        ),
        lambda: factor_actions.renew_codes(make_user().pk, actor=Actor.of(person), proved_at=clock.now()),
    ):
        with pytest.raises(NotAllowed):
            call()


@pytest.mark.requirement("second-factors-1.6", "second-factors-2.7")
def test_removed_app_signs_nobody_in_and_leaves_no_secret(person: User) -> None:
    secret, _ = give_app(person, "Old phone")
    kept, _ = give_app(person, "New phone")
    client = client_for(person)
    old = SecondFactor.objects.get(name="Old phone")
    assert client.post(f"/account/second-factors/{old.uid}/remove/").status_code == 303
    assert second(first_step(person), code=_code(secret)).status_code == 400
    assert second(first_step(person), code=_code(kept)).status_code == 303
    last = SecondFactor.objects.get(name="New phone")
    assert "your password alone" in client.get(f"/account/second-factors/{last.uid}/remove/").content.decode()
    assert client.post(f"/account/second-factors/{last.uid}/remove/").status_code == 303
    assert not SecondFactor.objects.in_use().exists()
    assert {bytes(row.secret) for row in SecondFactor.objects.all()} == {b""}
    assert [row.codes for row in SecondFactor.objects.all()] == [[]] * 3
    assert Client().post("/sign-in/", {"email": person.email, "password": PASSWORD})["Location"] == "/"


@pytest.mark.requirement("second-factors-1.6")
def test_nobody_removes_a_foreign_factor(person: User) -> None:
    give_app(person)
    app = SecondFactor.objects.get(kind=FactorKind.TOTP)
    other = make_user()
    assert client_for(other).post(f"/account/second-factors/{app.uid}/remove/").status_code == 404
    codes = SecondFactor.objects.get(kind=FactorKind.RECOVERY)
    assert client_for(person).post(f"/account/second-factors/{codes.uid}/remove/").status_code == 404


@pytest.mark.requirement("second-factors-1.7")
def test_last_factor_stays_where_one_is_required(person: User, settings: Any) -> None:
    give_app(person)
    settings.COMMONS_SECOND_FACTOR = "required"
    app = SecondFactor.objects.get(kind=FactorKind.TOTP)
    client = client_for(person)
    SignInSession.objects.update(second_factor=True)
    assert client.post(f"/account/second-factors/{app.uid}/remove/").status_code == 403
    app.refresh_from_db()
    assert app.removed_at is None


# -- Signing in


@pytest.mark.requirement("second-factors-2.1")
def test_half_signed_in_browser_is_a_visitor_everywhere(company: Company, frozen_clock: datetime) -> None:
    admin = company.admin
    admin.set_password(PASSWORD)
    admin.save()
    secret, _ = give_app(admin)
    before = SignInSession.objects.count()
    client = first_step(admin)
    assert SignInSession.objects.count() == before
    assert not AuditEvent.objects.filter(action="accounts.session.opened").exists()
    for path in ("/", "/account/", "/people/", "/account/second-factors/app/", "/account/confirm/"):
        answer = client.get(path)
        assert (answer.status_code, answer["Location"].split("?")[0]) == (302, "/sign-in/"), path
    assert client.get("/api/v1/me").status_code == 401
    assert client.post("/account/password/", {"current": PASSWORD}).status_code == 303
    key = client.cookies["sessionid"].value
    assert second(client, code=_code(secret))["Location"] == "/account/"
    assert client.cookies["sessionid"].value != key, "no fixation"
    assert not SessionStore(key).exists(key)
    assert client.get("/people/").status_code == 200
    assert _session(admin).second_factor is True
    event = AuditEvent.objects.get(action="accounts.factor.used")
    assert event.data["changes"] == {"kind": "totp", "purpose": "sign_in", "left": 0}


@pytest.mark.requirement("second-factors-2.1")
def test_second_step_without_a_first_leads_to_sign_in(person: User) -> None:
    secret, _ = give_app(person)
    assert Client().get("/sign-in/second-step/")["Location"] == "/sign-in/"
    assert second(Client(), code=_code(secret))["Location"] == "/sign-in/"
    with pytest.raises(Invalid, match="Begin again"):
        second_step.finish(SessionStore(), Proof(code=_code(secret)), address=ADDRESS)


@pytest.mark.requirement("second-factors-2.2")
def test_code_counts_once_and_within_its_time(person: User) -> None:
    secret, _ = give_app(person)
    code = _code(secret)
    assert second(first_step(person), code=f"{code[:3]} {code[3:]}").status_code == 303
    assert second(first_step(person), code=code).status_code == 400, "replayed"
    assert second(first_step(person), code=_code(secret, steps=-1)).status_code == 400, "older than the last"
    assert second(first_step(person), code=_code(secret, steps=2)).status_code == 400, "too early"
    assert second(first_step(person), code=_code(secret, steps=1)).status_code == 303, "a clock 30 seconds ahead"
    clock.advance(timedelta(minutes=5))
    assert second(first_step(person), code=_code(secret, steps=-2)).status_code == 400, "too late"
    assert second(first_step(person), code=_code(secret, steps=-1)).status_code == 303


@pytest.mark.django_db(transaction=True)
@pytest.mark.requirement("second-factors-2.2")
def test_two_requests_at_once_use_a_code_once(frozen_clock: datetime) -> None:
    person = make_user("lead@example.com", password=PASSWORD)
    secret, _ = give_app(person)
    code, at = _code(secret), clock.now()
    results: list[str] = []
    gate = threading.Barrier(2)

    def run() -> None:
        with clock.frozen(at):
            store = half(person)
            gate.wait(timeout=10)
            try:
                second_step.finish(store, Proof(code=code), address=ADDRESS)
                results.append("in")
            except Invalid:
                results.append("refused")
        connection.close()

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert sorted(results) == ["in", "refused"]


@pytest.mark.requirement("second-factors-2.3", "second-factors-3.4")
def test_recovery_code_counts_once_and_the_person_is_told(person: User) -> None:
    _, codes = give_app(person)
    assert second(first_step(person), code=codes[3]).status_code == 303
    assert second(first_step(person), code=codes[3]).status_code == 400
    assert second(first_step(person), code=codes[4]).status_code == 303
    told = OutboxMessage.objects.filter(event="accounts.factor.recovered").order_by("pk")
    assert [(one.recipient_ids, one.payload["left"]) for one in told] == [([person.pk], 9), ([person.pk], 8)]


_LIES: dict[str, dict[str, Any]] = {
    "challenge": {"challenge": b"1" * 32},
    "origin": {"origin": "https://localhost:8000"},
    "relying party": {"rp_id": "localhost.example.com"},
    "kind": {"type": "webauthn.create"},
    "signature": {"signer": Key().private},
    "counter": {"counter": 1},
}


@pytest.mark.requirement("second-factors-2.4")
@pytest.mark.parametrize("lie", sorted(_LIES))
def test_key_that_lies_is_refused(person: User, lie: str) -> None:
    key = give_key(person)
    client = first_step(person)
    asked = client.get("/sign-in/second-step/").context["key_options"]
    answer = second(client, key_answer=key.get(asked, **_LIES[lie]))
    assert answer.status_code == 400
    assert second_step.WRONG_KEY in answer.content.decode()
    assert not signed_in(client)
    event = AuditEvent.objects.get(action="accounts.factor.refused")
    assert event.data["changes"]["cause"] == ("copied" if lie == "counter" else "key")


@pytest.mark.requirement("second-factors-2.4")
def test_key_signs_in_once_per_challenge(person: User) -> None:
    key = give_key(person)
    client = first_step(person)
    asked = client.get("/sign-in/second-step/").context["key_options"]
    said = key.get(asked)
    assert second(client, key_answer=said).status_code == 303
    assert signed_in(client)
    other = first_step(person)
    other.get("/sign-in/second-step/")
    assert second(other, key_answer=said).status_code == 400, "replayed in another browser"
    third = first_step(person)
    asked = third.get("/sign-in/second-step/").context["key_options"]
    stranger = Key()
    assert second(third, key_answer=stranger.get(asked)).status_code == 400
    assert second(third, key_answer=key.get(asked)).status_code == 400, "a refused answer uses the challenge up"
    late = first_step(person)
    asked = late.get("/sign-in/second-step/").context["key_options"]
    clock.advance(timedelta(minutes=10, seconds=1))
    assert second(late, key_answer=key.get(asked)).status_code == 303
    assert not signed_in(late)


@pytest.mark.requirement("second-factors-2.4")
def test_passkey_without_a_counter_works_again_and_a_foreign_key_does_not(person: User) -> None:
    key = give_key(person, counts=False)
    stranger = make_user("member@example.com", password=PASSWORD)
    theirs = give_key(stranger)
    for _ in range(2):
        client = first_step(person)
        asked = client.get("/sign-in/second-step/").context["key_options"]
        assert second(client, key_answer=key.get(asked)).status_code == 303
    client = first_step(person)
    asked = client.get("/sign-in/second-step/").context["key_options"]
    assert second(client, key_answer=theirs.get(asked)).status_code == 400


@pytest.mark.requirement("second-factors-2.5")
def test_guessing_is_stopped_over_addresses_and_sign_ins(person: User) -> None:
    secret, codes = give_app(person)
    key = give_key(person)
    for number in range(5):
        with pytest.raises(Invalid, match="not right"):
            second_step.finish(half(person), Proof(code="000000"), address=f"192.0.2.{number}")
    with pytest.raises(Invalid, match="Wait 15 minutes"):
        second_step.finish(half(person), Proof(code=_code(secret)), address="198.51.100.7")
    with pytest.raises(Invalid, match="Wait 15 minutes"):
        second_step.finish(half(person), Proof(code=codes[0]), address="198.51.100.7")
    told = OutboxMessage.objects.get(event="accounts.factor.guessed")
    assert (told.recipient_ids, told.payload) == ([person.pk], {"tries": 5})
    client = first_step(person)
    asked = client.get("/sign-in/second-step/").context["key_options"]
    assert second(client, key_answer=key.get(asked)).status_code == 303, "a key cannot be guessed"
    with pytest.raises(Invalid, match="Wait"):
        second_step.finish(half(person), Proof(code=_code(secret)), address=ADDRESS)
    for _ in range(3):
        clock.advance(timedelta(minutes=16))
        for _ in range(5):
            with pytest.raises(Invalid, match="not right"):
                second_step.finish(half(person), Proof(code="000000"), address=ADDRESS)
    clock.advance(timedelta(minutes=16))
    with pytest.raises(Invalid, match=r"Wait 1[0-9]{3} minutes"):
        second_step.finish(half(person), Proof(code=_code(secret)), address=ADDRESS)
    clock.advance(timedelta(days=1))
    assert second_step.finish(half(person), Proof(code=_code(secret)), address=ADDRESS).user_id == person.pk


@pytest.mark.requirement("second-factors-2.5")
def test_new_password_gives_a_person_their_codes_back(person: User) -> None:
    secret, _ = give_app(person)
    for _ in range(5):
        with pytest.raises(Invalid, match="not right"):
            second_step.finish(half(person), Proof(code="000000"), address=ADDRESS)
    with pytest.raises(Invalid, match="Wait"):
        second_step.finish(half(person), Proof(code=_code(secret)), address=ADDRESS)
    reset_password(person.pk, actor=Actor.system("test"))
    person.refresh_from_db()
    assert second_step.finish(half(person), Proof(code=_code(secret)), address=ADDRESS).user_id == person.pk


@pytest.mark.requirement("second-factors-2.5")
def test_right_password_does_not_forget_wrong_passwords_before_the_second_step(person: User) -> None:
    give_app(person)
    client = Client()
    for _ in range(4):
        assert client.post("/sign-in/", {"email": person.email, "password": "wrong"}).status_code == 400
    first_step(person)
    assert client.post("/sign-in/", {"email": person.email, "password": "wrong"}).status_code == 400
    limited = client.post("/sign-in/", {"email": person.email, "password": PASSWORD})
    assert "Too many failed attempts" in limited.content.decode()


@pytest.mark.requirement("second-factors-2.6")
@pytest.mark.parametrize("change", ["time", "password", "deactivated", "reset", "forged"])
def test_second_step_begins_anew_when_something_changed(person: User, change: str) -> None:
    secret, _ = give_app(person)
    client = first_step(person)
    if change == "time":
        clock.advance(timedelta(minutes=10, seconds=1))
    elif change == "password":
        person.set_password("another long enough")
        person.save()
    elif change == "deactivated":
        User.objects.filter(pk=person.pk).update(is_active=False)
    elif change == "reset":
        factor_resets.reset_factors(person.pk, "lost", actor=Actor.system("test"), proved_at=None)
    else:
        store = client.session
        store[sessions.HALF_KEY] = {"person": str(person.uid), "at": "no time", "password": "x"}
        store.save()
    answer = second(client, code=_code(secret))
    assert (answer.status_code, answer["Location"]) == (303, "/sign-in/")
    assert not signed_in(client)
    assert not AuditEvent.objects.filter(action="accounts.session.opened").exists()


# -- Rules of the installation


@pytest.mark.requirement("second-factors-3.1")
def test_password_alone_opens_only_the_pages_that_set_one_up(company: Company, settings: Any) -> None:
    settings.COMMONS_SECOND_FACTOR = "required"
    admin = company.admin
    client = client_for(admin)
    for path in ("/", "/people/", "/account/", "/account/tokens/new/", "/account/second-factors/codes/"):
        answer = client.get(path)
        assert (answer.status_code, answer["Location"].split("?")[0]) == (302, "/account/second-factors/"), path
    assert client.post(f"/people/{company.vp.uid}/deactivate/", {"reason": "x"}).status_code == 302
    company.vp.refresh_from_db()
    assert company.vp.is_active
    fragment = client.get("/people/", headers={"hx-request": "true", "x-commons-active": "1"})
    assert (fragment.status_code, fragment["HX-Redirect"]) == (401, "/account/second-factors/")
    assert client.get("/api/v1/users").status_code == 401
    assert "Set up a second factor to go on" in client.get("/account/second-factors/").content.decode()
    page = client.get("/account/second-factors/app/?next=/people/").content.decode()
    secret = re.search(r"<code>([A-Z2-7 ]+)</code>", page)[1].replace(" ", "")  # type: ignore[index]  # fails if missing
    at = {"code": str(pyotp.TOTP(secret).now()), "name": "", "next": "/people/"}
    assert client.post("/account/second-factors/app/", at).context["back_url"] == "/people/"
    assert client.get("/people/").status_code == 200
    assert client.get("/api/v1/users").status_code == 200


@pytest.mark.requirement("second-factors-3.1")
def test_session_without_the_factor_its_person_has_must_give_it(person: User, settings: Any) -> None:
    secret, _ = give_app(person)
    client = client_for(person)
    settings.COMMONS_SECOND_FACTOR = "required"
    for path in ("/account/", "/account/second-factors/app/"):
        assert client.get(path)["Location"].split("?")[0] == "/account/confirm/", path
    proved = client.post("/account/confirm/?next=/account/", {"password": PASSWORD, "code": _code(secret)})
    assert proved["Location"] == "/account/"
    assert signed_in(client)


@pytest.mark.requirement("second-factors-3.2")
@pytest.mark.parametrize(
    ("rule", "who", "through"),
    [
        ("all", "person", True),
        ("admins", "person", False),
        ("admins", "admin", True),
        ("off", "admin", False),
        ("misspelt", "admin", False),
        ("all", "refused", False),
        ("all", "service", False),
    ],
)
def test_who_signs_in_with_a_password(company: Company, settings: Any, rule: str, who: str, through: bool) -> None:
    settings.COMMONS_LOCAL_SIGN_IN = rule
    user = company.admin if who == "admin" else make_user("someone@example.com")
    user.set_password(PASSWORD)
    user.may_use_password = who != "refused"
    user.kind = UserKind.SERVICE if who == "service" else UserKind.PERSON
    user.save()
    answer = Client().post("/sign-in/", {"email": user.email, "password": PASSWORD})
    assert answer.status_code == (303 if through else 400)
    if not through:
        assert "is not right" in answer.content.decode(), "the same as for a wrong password"
        event = AuditEvent.objects.get(action="accounts.session.refused")
        assert event.data["changes"]["cause"] == ("no_password" if who in ("refused", "service") else "provider_only")


@pytest.mark.requirement("second-factors-3.3", "second-factors-3.4")
def test_reset_needs_a_reason_and_a_fresh_proof_and_tells_the_person(company: Company, frozen_clock: datetime) -> None:
    person = company.member_finance
    give_app(person)
    theirs, admin = client_for(person), client_for(company.admin)
    path = f"/people/{person.uid}/factors/reset/"
    assert client_for(company.auditor).post(path, {"reason": "x"}).status_code == 403
    assert admin.post(path, {"reason": " "}).status_code == 400
    clock.advance(timedelta(minutes=16))
    assert admin.post(path, {"reason": "lost"})["Location"].startswith("/account/confirm/")
    with pytest.raises(NotAllowed):
        factor_resets.reset_factors(person.pk, "lost", actor=Actor.of(company.admin), proved_at=None)
    admin = client_for(company.admin)
    assert admin.post(path, {"reason": "lost the phone, seen in person"}).status_code == 303
    assert not SecondFactor.objects.in_use().filter(user=person).exists()
    assert not signed_in(theirs)
    told = OutboxMessage.objects.get(event="accounts.factor.reset")
    assert told.recipient_ids == [person.pk]
    event = AuditEvent.objects.get(action="accounts.factor.reset")
    assert "phone" not in bytes(event.canonical).decode()
    assert admin.post(path, {"reason": "x"}).status_code == 409
    own = factor_resets.reset_factors
    with pytest.raises(NotAllowed):
        own(company.admin.pk, "x", actor=Actor.of(company.admin), proved_at=clock.now())
    assert client_for(person).post(path, {"reason": "x"}).status_code in (403, 404)


@pytest.mark.requirement("second-factors-3.4")
def test_nobody_silences_mail_about_their_account(person: User) -> None:
    with pytest.raises(Invalid):
        set_preferences({"accounts": "none"}, actor=Actor.of(person))
    assert "Your account" not in [label for _, label in mail_groups()]
    give_app(person)
    settle()
    subjects = list(SentMail.objects.filter(user=person).values_list("subject", flat=True))
    assert any("authenticator app was added" in subject for subject in subjects), subjects


@pytest.mark.requirement("second-factors-3.3")
def test_last_admin_gets_back_in_from_the_command_line(person: User) -> None:
    give_app(person)
    with pytest.raises(CommandError, match="no account"):
        call_command("reset_second_factors", "nobody@example.com", "lost")
    with pytest.raises(CommandError, match="Say why"):
        call_command("reset_second_factors", person.email, " ")
    call_command("reset_second_factors", "LEAD@example.com", "lost, asked in person")
    assert not second_step.needed(person)
    assert AuditEvent.objects.get(action="accounts.factor.reset").actor_type == "system"
    with pytest.raises(CommandError, match="no second factor"):
        call_command("reset_second_factors", person.email, "again")


@pytest.mark.requirement("second-factors-3.4")
def test_trail_and_mail_tell_what_happened_without_secrets(person: User) -> None:
    secret, codes = give_app(person, "Quokka handset")
    client = client_for(person)
    app = SecondFactor.objects.get(kind=FactorKind.TOTP)
    client.post(f"/account/second-factors/{app.uid}/remove/")
    trail = " ".join(
        bytes(event.canonical).decode() for event in AuditEvent.objects.filter(action__startswith="accounts.factor.")
    )
    assert {"accounts.factor.added", "accounts.factor.codes_made", "accounts.factor.removed"} == set(
        OutboxMessage.objects.filter(recipient_ids=[person.pk]).values_list("event", flat=True)
    )
    for hidden in (secret, codes[0], factors.recovery_digest(codes[0]), "Quokka", person.email):
        assert hidden not in trail


@pytest.mark.requirement("second-factors-3.5")
def test_proof_given_once_more_asks_for_both_and_failing_half_moves_nothing(person: User) -> None:
    secret, _ = give_app(person)
    client = client_for(person)
    session = _session(person)
    before = sessions.proved_at(session)
    clock.advance(timedelta(minutes=20))
    assert client.post("/account/confirm/", {"password": PASSWORD}).status_code == 400
    session.refresh_from_db()
    assert sessions.proved_at(session) == before
    assert client.post("/account/confirm/", {"password": PASSWORD, "code": _code(secret)}).status_code == 303
    session.refresh_from_db()
    assert sessions.proved_at(session) == clock.now()
    assert sessions.prove(session, at=clock.now() - timedelta(hours=1)) == clock.now(), "a proof never moves back"
    assert sessions.prove(session, at=clock.now() + timedelta(hours=1)) == clock.now(), "nor lies in the future"


# -- Passwords


@pytest.mark.requirement("second-factors-4.1")
@pytest.mark.parametrize(
    ("new", "message"),
    [
        ("finance-lead", "does not hold your name"),
        ("Lead@Example.com", "does not hold your name"),
        ("finance12345", "does not hold your name"),
        ("short", "too short"),
        ("password1234", "too common"),
    ],
)
def test_password_that_others_would_try_is_refused(new: str, message: str) -> None:
    person = make_user("finance.lead@example.com", display_name="Finance team lead", password=PASSWORD)
    answer = client_for(person).post("/account/password/", {"current": PASSWORD, "new": new, "again": new})
    assert answer.status_code == 400
    assert message in answer.content.decode()


@pytest.mark.requirement("second-factors-4.1")
def test_guessing_the_present_password_in_an_open_browser_is_limited(person: User) -> None:
    client = client_for(person)
    new = "another long enough pass phrase"
    for _ in range(5):
        client.post("/account/password/", {"current": "wrong", "new": new, "again": new})
    answer = client.post("/account/password/", {"current": PASSWORD, "new": new, "again": new})
    assert "Too many failed attempts" in answer.content.decode()
    person.refresh_from_db()
    assert person.check_password(PASSWORD)


@pytest.mark.requirement("second-factors-4.2")
def test_old_password_opens_the_page_that_changes_it(person: User, settings: Any) -> None:
    settings.COMMONS_PASSWORD_MAX_AGE_DAYS = 90
    User.objects.update(password_changed_at=clock.now() - timedelta(days=91))
    client = Client()
    assert client.post("/sign-in/", {"email": person.email, "password": PASSWORD}).status_code == 303
    assert client.get("/account/")["Location"] == "/account/password/?next=%2Faccount%2F"
    assert "too old" in client.get("/account/password/").content.decode()
    new = "another long enough pass phrase"
    client.post("/account/password/", {"current": PASSWORD, "new": new, "again": new})
    told = OutboxMessage.objects.get(event="accounts.password.changed")
    assert (told.recipient_ids, told.payload) == ([person.pk], {"initial": False})
    assert signed_in(client)
    assert Client().post("/sign-in/", {"email": person.email, "password": new})["Location"] == "/"
