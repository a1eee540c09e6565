"""Sign-in against a real OpenID provider over HTTP: oidc-provider in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from apps.accounts import openid, openid_checks, openid_metadata, sessions
from apps.accounts.models import ExternalIdentity, IdentityProvider, SignInSession, User
from apps.core import clock
from apps.core.actor import Actor
from tests.accounts.openid_provider import BASE, Browser, RealProvider, make_provider, running

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def real() -> Iterator[RealProvider]:
    """The provider, started once."""
    with running([f"{BASE}/sign-in/at/example/callback/"]) as provider:
        yield provider


@pytest.fixture
def provider(real: RealProvider, settings: Any) -> IdentityProvider:
    """The portal's row for it."""
    settings.COMMONS_BASE_URL = BASE
    openid_metadata.forget()
    return make_provider(real.issuer, extra_scopes=["groups"])


def _session(user: User) -> SignInSession:
    return SignInSession.objects.open().get(user=user)


@pytest.mark.requirement("openid-sign-in-1.2")
@pytest.mark.requirement("openid-sign-in-2.2")
@pytest.mark.requirement("openid-sign-in-2.6")
def test_a_person_signs_in_and_is_known_again(real: RealProvider, provider: IdentityProvider) -> None:
    real.knows("kim", email="kim@example.com", email_verified=True, name="Risk analyst", groups=["gpu-users", "risk"])
    browser = Browser("kim")
    answer = browser.sign_in(provider, "/account/?tab=1")
    assert answer.status_code == 302
    assert answer["Location"] == "/account/?tab=1"
    user = User.objects.get(email="kim@example.com")
    assert (user.display_name, user.may_use_password, user.has_usable_password()) == ("Risk analyst", False, False)
    identity = ExternalIdentity.objects.get(user=user)
    assert (identity.subject, identity.token_groups) == ("kim", ["gpu-users", "risk"])
    session = _session(user)
    assert session.method == "openid"
    assert session.provider_id == provider.pk
    assert session.provider_session
    assert browser.portal.get("/account/").status_code == 200
    # The address changed hands at the provider: the subject alone says who it is.
    real.knows("kim", email="new.name@example.com", email_verified=True, name="Risk analyst", groups=[])
    again = Browser("kim")
    assert again.sign_in(provider).status_code == 302
    identity.refresh_from_db()
    user.refresh_from_db()
    assert identity.user_id == user.pk
    assert identity.token_groups == []
    assert user.email == "new.name@example.com"


@pytest.mark.requirement("openid-sign-in-1.3")
def test_an_answer_counts_once_and_in_its_own_browser(real: RealProvider, provider: IdentityProvider) -> None:
    real.knows("ann", email="ann@example.com", email_verified=True, name="Analyst")
    browser, thief = Browser("ann"), Browser()
    back = browser.go(browser.portal.get(openid.start_url(provider))["Location"])
    assert thief.portal.get(back).status_code == 400
    assert not SignInSession.objects.exists()
    kept = {name: morsel.value for name, morsel in browser.portal.cookies.items()}
    assert browser.portal.get(back).status_code == 302
    replay = Browser()
    replay.portal.cookies.load(kept)
    assert replay.portal.get(back).status_code == 400
    assert SignInSession.objects.count() == 1


@pytest.mark.requirement("openid-sign-in-1.6")
def test_stopping_at_the_provider_says_so(provider: IdentityProvider) -> None:
    answer = Browser("").sign_in(provider)
    assert answer.status_code == 403
    assert "Example Identity did not sign you in" in answer.content.decode()


@pytest.mark.requirement("openid-sign-in-3.1")
@pytest.mark.requirement("openid-sign-in-3.2")
def test_signing_out_here_and_there(real: RealProvider, provider: IdentityProvider) -> None:
    real.knows("out", email="out@example.com", email_verified=True, name="Leaver")
    browser, elsewhere = Browser("out"), Browser("out")
    browser.sign_in(provider)
    elsewhere.sign_in(provider)
    mine = SignInSession.objects.order_by("-pk").last()
    page = browser.portal.post("/sign-out/")
    assert page.status_code == 200
    assert mine is not None
    url = page.context["url"]
    query = parse_qs(urlsplit(url).query)
    assert query["post_logout_redirect_uri"] == [f"{BASE}/sign-in/"]
    assert query["id_token_hint"]
    mine.refresh_from_db()
    assert mine.closed_at is not None
    # At the provider: its page asks, its form confirms, and it notifies the portal in the back channel.
    asked = browser.there.get(url, timeout=10)
    secret = asked.text.split('name="xsrf" value="')[1].split('"')[0]
    done = browser.there.post(
        f"{real.issuer}/session/end/confirm", data={"xsrf": secret, "logout": "yes"}, allow_redirects=False, timeout=10
    )
    assert done.headers["Location"].startswith(f"{BASE}/sign-in/")
    deadline = time.monotonic() + 30
    while not real.notices and time.monotonic() < deadline:
        time.sleep(0.02)
    notice = real.notices.pop()
    SignInSession.objects.filter(pk=mine.pk).update(closed_at=None)
    address = openid.back_channel_url(provider).removeprefix(BASE)
    assert elsewhere.portal.post(address, {"logout_token": notice}).status_code == 200
    mine.refresh_from_db()
    assert mine.closed_at is not None
    # Another browser's session at the provider is another one; a repeated notice ends nothing.
    assert SignInSession.objects.open().count() == 1
    SignInSession.objects.filter(pk=mine.pk).update(closed_at=None)
    assert elsewhere.portal.post(address, {"logout_token": notice}).status_code == 200
    assert SignInSession.objects.open().count() == 2


@pytest.mark.requirement("openid-sign-in-3.3")
def test_proving_again_takes_a_new_sign_in_of_the_same_person(real: RealProvider, provider: IdentityProvider) -> None:
    for name in ("pat", "eve"):
        real.knows(name, email=f"{name}@example.com", email_verified=True, name=name)
    Browser("eve").sign_in(provider)
    browser = Browser("pat")
    browser.sign_in(provider)
    session = _session(User.objects.get(email="pat@example.com"))
    SignInSession.objects.filter(pk=session.pk).update(proved_at=clock.now() - sessions.timedelta(hours=5))
    url = openid.reauthenticate_url(session, "/account/")
    # A page, no redirect: a form may have led here, and no form leads to another site.
    onward = browser.portal.get(url).context["url"]
    assert "prompt=login" in onward
    assert "max_age=0" in onward
    answer = browser.portal.get(browser.go(onward))
    assert answer.status_code == 302
    assert answer["Location"] == "/account/"
    session.refresh_from_db()
    assert abs((clock.now() - sessions.proved_at(session)).total_seconds()) < 30
    before = session.proved_at
    # Somebody else at the provider proves nothing for this session.
    browser.there.cookies.clear()
    browser.become("eve")
    answer = browser.portal.get(browser.go(browser.portal.get(url).context["url"]))
    assert answer.status_code == 403
    assert "somebody else" in answer.content.decode()
    session.refresh_from_db()
    assert session.proved_at == before
    assert SignInSession.objects.open().filter(pk=session.pk).exists()


@pytest.mark.requirement("openid-sign-in-4.3")
def test_the_test_says_what_works_and_what_does_not(company: Any, provider: IdentityProvider) -> None:
    actor = Actor.of(company.admin)
    IdentityProvider.objects.filter(pk=provider.pk).update(enabled=False, checked_at=None)
    steps = {step.name: step for step in openid_checks.run(provider.pk, actor=actor)}
    assert {name for name, step in steps.items() if step.state == "failed"} == set()
    assert steps["Client id and secret"].state == steps["Groups"].state == steps["Signing out"].state == "passed"
    provider.refresh_from_db()
    assert provider.checked_at is not None
    assert provider.check_error == ""
    provider.client_secret = openid.crypto.encrypt("not-the-secret")
    provider.save()
    steps = {step.name: step for step in openid_checks.run(provider.pk, actor=actor)}
    assert steps["Client id and secret"].state == "failed"
    provider.refresh_from_db()
    assert provider.check_error.startswith("Client id and secret")
