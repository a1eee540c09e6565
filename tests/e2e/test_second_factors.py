"""A security key in a real browser (Chromium's virtual authenticator), and a form that outlives its session."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from playwright.sync_api import expect

from apps.accounts.models import SecondFactor, SignInSession
from apps.core import clock
from tests.e2e.conftest import PHONE
from tests.factories import PASSWORD, grant, make_user


@pytest.fixture
def person(transactional_db: None) -> Any:
    return make_user("lead@example.com", display_name="Finance team lead", password=PASSWORD)


def _virtual_key(page: Any) -> Any:
    session = page.context.new_cdp_session(page)
    session.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2", "transport": "usb", "hasResidentKey": False, "hasUserVerification": True,
        "isUserVerified": True, "automaticPresenceSimulation": True,
    }  # fmt: skip
    session.send("WebAuthn.addVirtualAuthenticator", {"options": options})
    return session


def _sign_in(page: Any, email: str = "lead@example.com") -> None:
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()


@pytest.mark.requirement("second-factors-1.2", "second-factors-2.1", "second-factors-2.4")
def test_a_key_is_added_and_signs_in(
    person: Any, site: Any, browse: Any, settings: Any, assert_accessible: Any, assert_fits: Any
) -> None:
    # Browsers know no keys at bare addresses.
    site.url = settings.COMMONS_BASE_URL = site.url.replace("127.0.0.1", "localhost")
    page = browse(None, "/sign-in/?next=/account/second-factors/", width=PHONE)
    _virtual_key(page)
    _sign_in(page)
    for name in ("Add an authenticator app", "Add a security key or passkey"):
        assert_accessible(page)
        assert_fits(page)
        page.goto("/account/second-factors/")
        page.get_by_role("link", name=name).click()
    assert_accessible(page)
    assert_fits(page)
    page.get_by_label("Name").fill("Key ring")
    page.get_by_role("button", name="Add key").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Your recovery codes")
    key = SecondFactor.objects.get(kind="webauthn")
    assert key.name == "Key ring"
    page.get_by_role("link", name="I have it").click()
    expect(page.get_by_role("cell", name="Key ring", exact=True)).to_be_visible()
    page.context.clear_cookies()
    page.goto("/sign-in/?next=/account/")
    _sign_in(page)
    expect(page.get_by_role("heading", level=1)).to_have_text("Second step")
    assert_accessible(page)
    page.get_by_role("button", name="Use your security key").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Your account")
    assert SignInSession.objects.latest("pk").second_factor is True
    used = SecondFactor.objects.get(pk=key.pk)
    assert used.last_used_at is not None
    assert used.sign_count > key.sign_count


@pytest.mark.requirement("sessions-1.2", "sessions-1.6")
def test_what_was_typed_outlives_the_session(person: Any, browse: Any, watch: Any) -> None:
    watch.expected = {401}
    page = browse(person, "/account/tokens/new/")
    first = SignInSession.objects.get()
    page.get_by_label("Name").fill("Nightly pipeline")
    first.closed_at = clock.now()
    first.save()
    page.evaluate("window.htmx.trigger('#bell', 'poll'); window.htmx.ajax('GET', '/notifications/bell/', '#bell')")
    notice = page.get_by_text("Your session has ended.")
    expect(notice).to_be_visible()
    assert page.url.endswith("/account/tokens/new/")
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Sign in again in a new tab").click()
    other = opened.value
    _sign_in(other)
    expect(other.get_by_role("heading", level=1)).to_be_visible()
    other.close()
    expect(page.get_by_label("Name")).to_have_value("Nightly pipeline")
    page.get_by_role("button", name="Make token").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Your new API token")


@pytest.mark.requirement("sessions-1.9")
def test_a_form_that_was_not_taken_comes_back_with_what_was_typed(person: Any, browse: Any) -> None:
    grant(person, "platform_admin")
    page = browse(person, "/roles/new/")
    reason = "Covers for the finance lead until March"
    page.locator("[name=reason]").fill(reason)
    page.locator("[name=role]").select_option("auditor")

    def send() -> None:
        page.get_by_role("button", name="Give role").click()

    # The proof of who it is has run out: it is asked for, and leads back.
    SignInSession.objects.update(proved_at=clock.now() - timedelta(hours=1))
    send()
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Go on", exact=True).click()
    expect(page.locator("[data-kept-notice]")).to_contain_text("Nothing was sent")
    expect(page.locator("[name=reason]")).to_have_value(reason)
    expect(page.locator("[name=role]")).to_have_value("auditor")
    # The session has ended, and nothing on the page could know it.
    SignInSession.objects.update(closed_at=clock.now())
    for secret in (
        "<input type=password name=a value='tell nobody'>",
        "<textarea name=b autocomplete=off>tell nobody</textarea>",
    ):
        page.locator("main form").evaluate("(form, secret) => form.insertAdjacentHTML('beforeend', secret)", secret)
    send()
    kept = page.evaluate("sessionStorage.getItem('commons-kept')")
    assert reason in kept
    assert "tell nobody" not in kept
    _sign_in(page)
    expect(page.locator("[data-kept-notice]")).to_be_visible()
    expect(page.locator("[name=reason]")).to_have_value(reason)
    assert page.evaluate("sessionStorage.getItem('commons-kept')") is None
    # Another person at the same tab gets nothing of it.
    SignInSession.objects.update(closed_at=clock.now())
    send()
    other = make_user("other@example.com", password=PASSWORD)
    grant(other, "platform_admin")
    _sign_in(page, other.email)
    expect(page.locator("[name=reason]")).to_have_value("")
    assert page.evaluate("sessionStorage.getItem('commons-kept')") is None
