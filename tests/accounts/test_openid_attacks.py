"""Sign-in against providers and answers that lie: nothing is opened, and the page says what to do."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwk

from apps.accounts import openid, openid_flow, openid_metadata, openid_tokens
from apps.accounts.models import ExternalIdentity, IdentityProvider, SignInSession, User
from apps.audit.models import AuditEvent
from apps.core import clock, outgoing
from tests.accounts.openid_provider import BASE, OTHER_RSA, RSA, Double, make_provider, unsigned

Forger = Callable[[Double], Callable[[dict[str, Any]], str]]


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Double:
    """A provider that may lie."""
    settings.COMMONS_BASE_URL = BASE
    openid_metadata.forget()
    found = Double()
    monkeypatch.setattr(outgoing, "_call", found)
    return found


@pytest.fixture
def provider(db: None, double: Double) -> IdentityProvider:
    """The portal's row for it."""
    return make_provider(double.issuer)


def _causes() -> list[str]:
    events = AuditEvent.objects.filter(action="accounts.openid.refused").order_by("occurred_at")
    return [event.data["changes"]["cause"] for event in events]


def _nothing_opened() -> bool:
    return not SignInSession.objects.exists() and not User.objects.exists() and not ExternalIdentity.objects.exists()


def _with_public_key_as_secret(claims: dict[str, Any]) -> str:
    """Return a token signed with HS256, its secret the provider's public key: what a careless reader would believe."""
    signed = unsigned(claims, {"alg": "HS256", "kid": "first"}).rstrip(".")
    made = hmac.digest(RSA.as_pem(private=False), signed.encode(), "sha256")
    return f"{signed}.{base64.urlsafe_b64encode(made).rstrip(b'=').decode()}"


FORGED: dict[str, Forger] = {
    "alg none": lambda double: lambda claims: unsigned(claims, {"alg": "none", "kid": "first"}),
    "alg none with a signature's place": lambda double: (
        lambda claims: unsigned(claims, {"alg": "RS256", "kid": "first"})
    ),
    "HS256 with the public key": lambda double: _with_public_key_as_secret,
    "another key under a published id": lambda double: lambda claims: double.signed(claims, OTHER_RSA, kid="first"),
    "another key without an id": lambda double: lambda claims: double.signed(claims, OTHER_RSA, kid=None),
    "an id that nobody publishes": lambda double: lambda claims: double.signed(claims, OTHER_RSA, kid="unknown"),
    "its own key in the header": lambda double: (
        lambda claims: double.signed(claims, OTHER_RSA, kid=None, jwk=OTHER_RSA.as_dict(private=False))
    ),
    "an address of keys in the header": lambda double: (
        lambda claims: double.signed(claims, OTHER_RSA, kid=None, jku="https://evil.example/jwks")
    ),
    "another algorithm than the key's": (
        lambda double: lambda claims: double.signed(claims, _unbound(), "RS512", kid="first")
    ),
    "a log-out token's type": lambda double: lambda claims: double.signed(claims, typ="logout+jwt"),
    "an access token's type": lambda double: lambda claims: double.signed(claims, typ="at+jwt"),
    "a name that stands twice": lambda double: lambda claims: _twice(double, claims),
    "three dots and nothing": lambda double: lambda claims: "..",
    "no token": lambda double: lambda claims: "hello",
}


def _unbound() -> jwk.RSAKey:
    """The provider's key without the algorithm it is for."""
    return jwk.RSAKey.import_key(RSA.as_pem(private=True))


def _twice(double: Double, claims: dict[str, Any]) -> str:
    from joserfc import jws

    text = json.dumps(claims)[:-1] + ', "sub": "somebody-else"}'
    return jws.serialize_compact({"alg": "RS256", "kid": "first"}, text, RSA, algorithms=["RS256"])


@pytest.mark.requirement("openid-sign-in-1.4")
@pytest.mark.parametrize("name", FORGED)
def test_a_forged_id_token_opens_nothing(double: Double, provider: IdentityProvider, name: str) -> None:
    double.sign = FORGED[name](double)
    answer = double.sign_in(Client(), provider)
    assert answer.status_code == 502
    assert _nothing_opened()
    assert _causes() == ["token"]


_NOW = 1_700_000_000
WRONG_CLAIMS: dict[str, dict[str, Any]] = {
    "issuer": {"iss": "https://evil.example"},
    "issuer with a slash": {"iss": "https://id.example.com/"},
    "audience": {"aud": "another-client"},
    "several audiences without a party": {"aud": ["gpu-commons", "another-client"]},
    "another party": {"azp": "another-client"},
    "no audience": {"aud": None},
    "expired": {"exp": _NOW},
    "no expiry": {"exp": None},
    "expiry as text": {"exp": "2099-01-01"},
    "issued long ago": {"iat": _NOW},
    "issued later": {"iat": 4_000_000_000},
    "not yet": {"nbf": 4_000_000_000},
    "nonce of another attempt": {"nonce": "A" * 43},
    "no nonce": {"nonce": None},
    "no subject": {"sub": ""},
    "a subject that is a number": {"sub": 7},
    "hash of another access token": {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"},
}


@pytest.mark.requirement("openid-sign-in-1.4")
@pytest.mark.parametrize("name", WRONG_CLAIMS)
def test_a_signed_token_that_is_not_for_this_attempt_opens_nothing(
    double: Double, provider: IdentityProvider, name: str
) -> None:
    double.claims = WRONG_CLAIMS[name]
    assert double.sign_in(Client(), provider).status_code == 502
    assert _nothing_opened()
    assert _causes() == ["token"]


@pytest.mark.requirement("openid-sign-in-1.2")
def test_a_right_answer_opens_a_session_with_proof_key_and_secret(double: Double, provider: IdentityProvider) -> None:
    browser = Client(HTTP_USER_AGENT="Mozilla/5.0 (X11; Linux) Firefox/140.0")
    double.claims = {"amr": ["pwd", "otp"], "auth_time": int(clock.now().timestamp()) - 3600}
    sent = double.begin(browser, provider)
    assert (sent["response_type"], sent["code_challenge_method"], sent["redirect_uri"]) == (
        "code", "S256", f"{BASE}/sign-in/at/example/callback/",
    )  # fmt: skip
    answer = double.answer(browser, provider, sent)
    assert answer.status_code == 302
    redeemed = double.redeemed[0]
    challenge = openid_flow.create_s256_code_challenge(redeemed["code_verifier"])
    assert challenge == sent["code_challenge"]
    session = SignInSession.objects.get()
    assert (session.method, session.provider_session, session.second_factor) == ("openid", "session-1", True)
    assert session.proved_at is not None
    assert 3590 < (session.opened_at - session.proved_at).total_seconds() < 3620
    assert openid.crypto.decrypt(session.id_token).count(".") == 2
    opened = AuditEvent.objects.get(action="accounts.session.opened")
    assert (opened.data["changes"]["method"], opened.data["changes"]["provider"]) == ("openid", str(provider.uid))


@pytest.mark.requirement("openid-sign-in-1.2")
def test_a_provider_that_does_not_say_when_proves_nothing_recent(double: Double, provider: IdentityProvider) -> None:
    double.claims = {"auth_time": None}
    assert double.sign_in(Client(), provider).status_code == 302
    session = SignInSession.objects.get()
    assert session.proved_at is not None
    assert clock.now() - session.proved_at > timedelta(days=1)


def _other_provider(provider: IdentityProvider) -> IdentityProvider:
    return make_provider("https://evil.example", slug="evil", name="Evil Identity")


@pytest.mark.requirement("openid-sign-in-1.3")
@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"state": "A" * 43}, "expired"),
        ({"state": None}, "expired"),
        ({"iss": "https://evil.example"}, "issuer"),
        ({"iss": None}, "issuer"),
        ({"state": ["one", "two"]}, "expired"),
        ({"code": "x" * 5000}, "expired"),
    ],
)
def test_a_wrong_answer_asks_the_provider_nothing(
    double: Double, provider: IdentityProvider, changes: dict[str, Any], cause: str
) -> None:
    browser = Client()
    sent = double.begin(browser, provider)
    double.calls.clear()
    answer = double.answer(browser, provider, sent, **changes)
    assert answer.status_code == 400
    assert double.calls == []
    assert _causes() == [cause]
    assert _nothing_opened()


@pytest.mark.requirement("openid-sign-in-1.3")
def test_an_attempt_belongs_to_its_browser_its_provider_and_its_ten_minutes(
    double: Double, provider: IdentityProvider
) -> None:
    browser, victim = Client(), Client()
    sent = double.begin(browser, provider)
    # Log-in forgery: the attacker's own answer, given to somebody else's browser.
    assert double.answer(victim, provider, sent).status_code == 400
    # Mix-up: the attempt of one provider, answered at the address of another.
    evil = _other_provider(provider)
    assert double.answer(browser, evil, sent, iss=evil.issuer).status_code == 400
    at = clock.now()
    with clock.frozen(at + timedelta(minutes=11)):
        assert double.answer(browser, provider, sent).status_code == 400
    assert double.redeemed == []
    assert _nothing_opened()
    assert double.answer(browser, provider, sent).status_code == 302
    assert SignInSession.objects.count() == 1


@pytest.mark.requirement("openid-sign-in-1.3")
def test_a_changed_or_foreign_cookie_is_no_attempt(double: Double, provider: IdentityProvider) -> None:
    browser = Client()
    sent = double.begin(browser, provider)
    name = openid_flow.cookie_name(sent["state"])
    kept = browser.cookies[name].value
    browser.cookies[name] = kept[:-2] + ("AA" if not kept.endswith("AA") else "BB")
    assert double.answer(browser, provider, sent).status_code == 400
    assert double.redeemed == []


@pytest.mark.requirement("openid-sign-in-1.3")
def test_an_answer_is_used_up_even_if_it_fails(double: Double, provider: IdentityProvider) -> None:
    browser = Client()
    sent = double.begin(browser, provider)
    kept = {name: morsel.value for name, morsel in browser.cookies.items()}
    double.token_answer = (503, {})
    assert double.answer(browser, provider, sent).status_code == 503
    double.token_answer = None
    browser.cookies.load(kept)
    assert double.answer(browser, provider, sent).status_code == 400
    assert _causes() == ["unavailable", "expired"]


@pytest.mark.requirement("openid-sign-in-1.3")
def test_going_back_to_an_answer_while_signed_in_does_nothing(double: Double, provider: IdentityProvider) -> None:
    browser = Client()
    sent = double.begin(browser, provider)
    assert double.answer(browser, provider, sent).status_code == 302
    again = double.answer(browser, provider, sent)
    assert again.status_code == 302
    assert again["Location"] == "/"
    assert SignInSession.objects.count() == 1
    assert len(double.redeemed) == 1


@pytest.mark.requirement("openid-sign-in-1.3")
def test_a_browser_keeps_few_attempts(double: Double, provider: IdentityProvider) -> None:
    browser = Client()
    for _ in range(12):
        double.begin(browser, provider)
    kept = [name for name, morsel in browser.cookies.items() if "openid" in name and morsel.value]
    assert len(kept) == openid_flow.AT_ONCE
    begun = browser.get(openid.start_url(provider), HTTP_SEC_FETCH_DEST="image")
    assert begun.status_code == 400


@pytest.mark.requirement("openid-sign-in-1.1")
@pytest.mark.parametrize(
    "wanted",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "javascript:alert(1)",
        "account/",
        "/" + "a" * 2000,
    ],
)
def test_signing_in_leads_to_no_other_site(double: Double, provider: IdentityProvider, wanted: str) -> None:
    answer = double.sign_in(Client(), provider, wanted)
    assert answer.status_code == 302
    assert answer["Location"] == "/"


@pytest.mark.requirement("openid-sign-in-1.1")
def test_the_sign_in_page_offers_enabled_providers_alone(double: Double, provider: IdentityProvider) -> None:
    make_provider("https://off.example.com", slug="off", name="Closed Identity", enabled=False)
    make_provider("https://old.example.com", slug="old", name="Old Identity", archived_at=clock.now())
    page = Client().get("/sign-in/?next=/quotas/").content.decode()
    assert "/sign-in/at/example/?next=%2Fquotas%2F" in page
    assert "Closed Identity" not in page
    assert "Old Identity" not in page
    assert Client().get("/sign-in/at/off/").status_code == 403
    assert Client().get("/sign-in/at/old/").status_code == 404
    assert Client().get("/sign-in/at/none/").status_code == 404


@pytest.mark.requirement("openid-sign-in-1.5")
@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({}, 403),
        ({"amr": ["pwd"]}, 403),
        ({"amr": "mfa"}, 403),
        ({"acr": "1"}, 403),
        ({"amr": ["pwd", "mfa"]}, 302),
        ({"amr": ["pwd", "hwk"]}, 302),
        ({"acr": "phr"}, 302),
    ],
)
def test_a_second_factor_is_demanded(
    double: Double, provider: IdentityProvider, claims: dict[str, Any], status: int
) -> None:
    IdentityProvider.objects.update(second_factor_there=True)
    double.claims = claims
    answer = double.sign_in(Client(), provider)
    assert answer.status_code == status
    assert SignInSession.objects.exists() == (status == 302)


@pytest.mark.requirement("openid-sign-in-1.6")
@pytest.mark.parametrize(
    ("given_back", "token_answer", "status", "words"),
    [
        ({"error": "access_denied", "code": None}, None, 403, "did not sign you in"),
        ({"error": "server_error", "code": None}, None, 502, "could not sign you in"),
        ({"error": "<script>alert(1)</script>", "code": None}, None, 502, "could not sign you in"),
        ({"code": None}, None, 502, "could not sign you in"),
        ({}, (400, {"error": "invalid_grant"}), 400, "sign in again"),
        ({}, (401, {"error": "invalid_client"}), 502, "not set up rightly"),
        ({}, (503, {}), 503, "cannot be reached"),
        ({}, (200, {"access_token": "a", "token_type": "Bearer"}), 502, "could not be checked"),
        ({}, (200, {"id_token": 7, "token_type": "Bearer"}), 502, "could not be checked"),
    ],
)
def test_each_failure_has_its_page(
    double: Double, provider: IdentityProvider, given_back: Any, token_answer: Any, status: int, words: str
) -> None:
    double.token_answer = token_answer
    answer = double.sign_in(Client(), provider, error_description="Call 555-0100 now", **given_back)
    text = answer.content.decode()
    assert answer.status_code == status
    assert words in text
    assert "555-0100" not in text
    assert "alert(1)" not in text
    assert answer["Cache-Control"].find("no-store") >= 0
    assert _nothing_opened()
    assert len(_causes()) == 1


@pytest.mark.requirement("openid-sign-in-1.6")
def test_a_provider_that_is_down_gives_a_page(
    double: Double, provider: IdentityProvider, caplog: pytest.LogCaptureFixture
) -> None:
    double.down = True
    begun = Client().get(openid.start_url(provider))
    assert begun.status_code == 503
    assert "cannot be reached" in begun.content.decode()
    double.down = False
    browser = Client()
    sent = double.begin(browser, provider)
    double.down = True
    answer = double.answer(browser, provider, sent, code="a-secret-code")
    assert answer.status_code == 503
    # What is logged of it holds neither the code nor the state.
    assert "a-secret-code" not in caplog.text
    assert sent["state"] not in caplog.text


@pytest.mark.requirement("openid-sign-in-1.6")
@pytest.mark.parametrize(
    "discovery",
    [
        {"issuer": "https://evil.example"},
        {"token_endpoint": None},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"jwks_uri": "ftp://id.example.com/jwks"},
    ],
)
def test_a_discovery_document_that_cannot_be_right_is_not_used(
    double: Double, provider: IdentityProvider, discovery: dict[str, Any]
) -> None:
    double.discovery = discovery
    begun = Client().get(openid.start_url(provider))
    assert begun.status_code == 502
    assert "not set up rightly" in begun.content.decode()


@pytest.mark.requirement("openid-sign-in-1.7")
def test_new_keys_are_found_and_forged_ids_do_not_make_the_portal_ask_each_time(
    double: Double, provider: IdentityProvider
) -> None:
    assert double.sign_in(Client(), provider).status_code == 302
    asked = double.calls.count(("GET", "https://id.example.com/jwks"))
    double.sign = lambda claims: double.signed(claims, OTHER_RSA)
    for _ in range(3):
        assert double.sign_in(Client(), provider).status_code == 502
    assert double.calls.count(("GET", "https://id.example.com/jwks")) == asked
    double.keys = [OTHER_RSA]
    with clock.frozen(clock.now() + timedelta(minutes=1)):
        assert double.sign_in(Client(), provider).status_code == 302


@pytest.mark.requirement("openid-sign-in-1.8")
def test_an_address_that_fails_fifty_times_waits(
    double: Double, provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apps.accounts.openid_people.ADDRESS_LIMIT", 3)
    browser = Client()
    # Answers to nothing slow nobody down, and fill no audit trail.
    for _ in range(5):
        assert browser.get("/sign-in/at/example/callback/?state=x&code=y").status_code == 400
    assert len(_causes()) == 3
    # A provider that is away is nobody's fault.
    double.token_answer = (503, {})
    for _ in range(4):
        assert double.sign_in(browser, provider).status_code == 503
    double.token_answer = None
    double.sign = lambda claims: "forged"
    for _ in range(3):
        assert double.sign_in(browser, provider).status_code == 502
    assert browser.get(openid.start_url(provider)).status_code == 429
    assert browser.get("/sign-in/at/example/callback/?state=x&code=y").status_code == 429
    assert Client(REMOTE_ADDR="192.0.2.7").get(openid.start_url(provider)).status_code == 302
    with clock.frozen(clock.now() + timedelta(minutes=16)):
        assert browser.get(openid.start_url(provider)).status_code == 302


@pytest.mark.requirement("openid-sign-in-3.2")
@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, 200),
        ({"sub": "subject-1", "sid": None}, 200),
        ({"aud": "another-client"}, 400),
        ({"iss": "https://evil.example"}, 400),
        ({"events": {}}, 400),
        ({"events": None}, 400),
        ({"nonce": "x"}, 400),
        ({"jti": None}, 400),
        ({"sid": None}, 400),
        ({"iat": _NOW}, 400),
        ({"exp": _NOW}, 400),
        ({"sid": "another-session"}, 200),
        ({"sub": "somebody-else"}, 200),
    ],
)
def test_a_back_channel_notice_is_checked(
    double: Double, provider: IdentityProvider, changes: dict[str, Any], status: int
) -> None:
    double.sign_in(Client(), provider)
    now = int(clock.now().timestamp())
    claims = {
        "iss": double.issuer, "aud": "gpu-commons", "iat": now, "exp": now + 120, "jti": "notice-1", "sid": "session-1",
        "events": {openid_tokens.LOGOUT_EVENT: {}}, **changes,
    }  # fmt: skip
    token = double.signed({name: value for name, value in claims.items() if value is not None}, typ="logout+jwt")
    browser = Client(enforce_csrf_checks=True)
    answer = browser.post("/sign-in/at/example/back-channel-logout/", {"logout_token": token})
    assert answer.status_code == status
    ends = status == 200 and changes.get("sid", "") in ("", None) and changes.get("sub") != "somebody-else"
    assert SignInSession.objects.open().exists() != ends


@pytest.mark.requirement("openid-sign-in-3.2")
def test_an_id_token_is_no_log_out_notice_and_a_forged_one_neither(double: Double, provider: IdentityProvider) -> None:
    double.sign_in(Client(), provider)
    now = int(clock.now().timestamp())
    claims = {
        "iss": double.issuer, "aud": "gpu-commons", "iat": now, "jti": "n", "sid": "session-1",
        "events": {openid_tokens.LOGOUT_EVENT: {}},
    }  # fmt: skip
    for token in (
        double.signed(double.id_claims()), unsigned(claims, {"alg": "none"}), double.signed(claims, OTHER_RSA),
        _with_public_key_as_secret(claims), "", "x.y.z",
    ):  # fmt: skip
        answer = Client().post("/sign-in/at/example/back-channel-logout/", {"logout_token": token})
        assert answer.status_code == 400
    assert SignInSession.objects.open().count() == 1


@pytest.mark.requirement("openid-sign-in-3.2")
def test_a_front_channel_notice_needs_issuer_and_session(double: Double, provider: IdentityProvider) -> None:
    double.sign_in(Client(), provider)
    frame = Client()
    for query in ("", "?sid=session-1", "?iss=https://id.example.com", "?iss=https://evil.example&sid=session-1"):
        assert frame.get(f"/sign-in/at/example/front-channel-logout/{query}").status_code == 200
        assert SignInSession.objects.open().count() == 1
    answer = frame.get("/sign-in/at/example/front-channel-logout/?iss=https://id.example.com&sid=session-1")
    assert "frame-ancestors https://id.example.com" in answer["Content-Security-Policy"]
    assert "X-Frame-Options" not in answer
    assert not SignInSession.objects.open().exists()
    assert AuditEvent.objects.get(action="accounts.openid.ended").data["changes"]["how"] == "front_channel"


@pytest.mark.requirement("openid-sign-in-3.3")
@pytest.mark.parametrize("auth_time", [None, -600])
def test_a_proof_without_a_new_sign_in_does_not_count(
    double: Double, provider: IdentityProvider, auth_time: int | None
) -> None:
    browser = Client()
    double.claims = {"auth_time": int(clock.now().timestamp()) - 7200}
    double.sign_in(browser, provider)
    session = SignInSession.objects.get()
    before = session.proved_at
    sent = double.sent(browser.get(openid.reauthenticate_url(session, "/account/")).context["url"])
    assert (sent["prompt"], sent["max_age"]) == ("login", "0")
    double.claims = {"auth_time": int(clock.now().timestamp()) + auth_time if auth_time is not None else None}
    answer = double.answer(browser, provider, sent)
    assert answer.status_code == 403
    assert "did not ask you again" in answer.content.decode()
    session.refresh_from_db()
    assert session.proved_at == before


@pytest.mark.requirement("openid-sign-in-3.3")
def test_only_the_session_that_was_asked_is_proved(double: Double, provider: IdentityProvider) -> None:
    browser = Client()
    double.sign_in(browser, provider)
    session = SignInSession.objects.get()
    sent = double.sent(browser.get(openid.reauthenticate_url(session, "/account/")).context["url"])
    browser.post("/sign-out/")
    assert double.answer(browser, provider, sent).status_code == 400
    assert not SignInSession.objects.open().exists()
    assert Client().get("/sign-in/at/example/prove/").status_code == 302


# -- Tokens alone: no database

_claims = {
    "iss": "https://id.example.com", "aud": "gpu-commons", "sub": "s", "iat": _NOW, "exp": _NOW + 300, "nonce": "n",
}  # fmt: skip
_token = Double().signed(_claims)
_keys = [RSA.as_dict(private=False)]


def _read(token: str, keys: Any = None) -> dict[str, Any]:
    from datetime import UTC, datetime

    return openid_tokens.read_id_token(
        token, keys or _keys, openid_tokens.Expected("https://id.example.com", "gpu-commons"),
        now=datetime.fromtimestamp(_NOW, UTC), nonce="n",
    )  # fmt: skip


@pytest.mark.requirement("openid-sign-in-1.4")
@given(st.integers(0, len(_token) - 1), st.sampled_from("ABCdef012-_."))
def test_changing_any_character_of_a_token_ends_its_life(index: int, letter: str) -> None:
    changed = _token[:index] + letter + _token[index + 1 :]
    if _bytes(changed) == _bytes(_token):
        assert _read(_token)["sub"] == "s"
        return
    with pytest.raises(openid_tokens.BadToken):
        _read(changed)


def _bytes(token: str) -> list[bytes]:
    """Decode the parts: the last letter of one may carry bits that stand for nothing."""
    try:
        return [base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in token.split(".")]
    except ValueError:
        return []


def _weak() -> dict[str, Any]:
    """Return a key of 1024 bits."""
    number = base64.urlsafe_b64encode((2**1023 + 12345).to_bytes(128, "big")).rstrip(b"=").decode()
    return {"kty": "RSA", "kid": "weak", "n": number, "e": "AQAB"}


@pytest.mark.requirement("openid-sign-in-1.4")
def test_keys_that_are_no_use_are_left_out() -> None:
    public = RSA.as_dict(private=False)
    ec = jwk.ECKey.generate_key("P-256", {"kid": "curve"})
    weak = _weak()
    found = openid_tokens.usable_keys(
        {
            "keys": [
                {**public, "use": "enc"}, {**public, "key_ops": ["encrypt"]}, {"kty": "oct", "k": "c2VjcmV0"},
                weak, {"kty": "RSA", "n": "!"}, "no key", ec.as_dict(private=False), public,
            ]
        }
    )  # fmt: skip
    assert [key["kid"] for key in found] == ["curve", "first"]
    assert openid_tokens.usable_keys([]) == openid_tokens.usable_keys({"keys": {}}) == []
    assert _read(Double().signed(_claims, ec, "ES256"), found)["sub"] == "s"
