"""The shell in a browser: accessible, without sideways scrolling, in both themes, on a phone and a desk."""

from __future__ import annotations

import re
import uuid
from datetime import timedelta
from typing import Any

import pytest
from playwright.sync_api import expect

from apps.core import clock
from apps.notifications.models import Notification, SentMail
from tests.e2e.conftest import DESKTOP, PHONE
from tests.factories import grant, make_user


@pytest.fixture
def admin(transactional_db: None) -> Any:
    """A platform admin with a few pieces of news and mail."""
    user = make_user("platform-admin@example.com", display_name="Platform admin")
    grant(user, "platform_admin")
    for number in range(3):
        message_uid = uuid.uuid4()
        Notification.objects.create(
            user=user, message_uid=message_uid, event="quotas.request.submitted", title=f"Finance asks, {number}",
            body="Guaranteed 20 → 24.", path="/words/", happened_at=clock.now() - timedelta(hours=number),
        )  # fmt: skip
        SentMail.objects.create(
            user=user, message_uid=message_uid, event="quotas.request.submitted", address=user.email,
            subject=f"Finance asks, {number}", body_text="Open it", body_html="", header_id="<1@example.com>",
            status=("sent", "failed", "uncertain")[number],
        )  # fmt: skip
    return user


@pytest.fixture
def assert_good_in_both_themes(assert_accessible: Any, assert_fits: Any) -> Any:
    """Look at a page in the light and, without loading it again, in the dark."""

    def check(page: Any) -> None:
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            expect(page.locator("html")).to_have_attribute("data-bs-theme", theme)
            assert_accessible(page)
            assert_fits(page)

    return check


@pytest.mark.requirement("shell-4.1", "shell-4.2", "shell-4.3")
@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_every_component_is_accessible(admin: Any, browse: Any, assert_good_in_both_themes: Any, width: int) -> None:
    page = browse(admin, "/style/", width=width)
    page.wait_for_selector("#estimate .text-secondary")
    assert_good_in_both_themes(page)


@pytest.mark.requirement("shell-4.1", "shell-4.2")
@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_sign_in_is_accessible(browse: Any, assert_good_in_both_themes: Any, width: int) -> None:
    assert_good_in_both_themes(browse(None, "/sign-in/", width=width))


@pytest.mark.requirement("shell-4.1", "shell-4.2")
@pytest.mark.parametrize(("width", "theme"), [(PHONE, "light"), (DESKTOP, "dark")])
def test_the_pages_of_the_shell_are_accessible(
    admin: Any, browse: Any, watch: Any, assert_accessible: Any, assert_fits: Any, width: int, theme: str
) -> None:
    watch.expected = {404}
    page = browse(admin, "/notifications/", width=width, theme=theme)
    for path in ("/notifications/", "/notifications/sent-mail/", "/notifications/settings/", "/no/such/page/"):
        page.goto(path)
        assert_accessible(page)
        assert_fits(page)


@pytest.mark.requirement("shell-2.2")
def test_filtering_replaces_the_list_alone_and_the_address_says_so(admin: Any, browse: Any) -> None:
    page = browse(admin, "/notifications/sent-mail/")
    page.evaluate("document.querySelector('h1').dataset.same = '1'")
    page.get_by_label("Status").select_option("failed")
    expect(page.locator("#list tbody tr")).to_have_count(1)
    assert page.locator("h1[data-same]").count() == 1  # the page around it is the same one
    expect(page).to_have_url(re.compile("status=failed"))
    page.get_by_role("link", name="Subject").click()
    expect(page).to_have_url(re.compile("status=failed.*sort=subject"))
    expect(page.locator("th[aria-sort=ascending]")).to_contain_text("Subject")
    page.reload()
    assert page.locator("#list tbody tr").count() == 1


@pytest.mark.requirement("shell-2.2")
def test_lists_work_without_scripts(admin: Any, browse: Any, browser: Any, site: Any) -> None:
    signed_in = browse(admin, "/words/")
    context = browser.new_context(java_script_enabled=False, base_url=site.url)
    context.add_cookies(signed_in.context.cookies())
    page = context.new_page()
    page.goto("/notifications/sent-mail/")
    page.get_by_label("Status").select_option("failed")
    page.get_by_role("button", name="Apply").click()
    assert page.locator("#list tbody tr").count() == 1
    assert page.get_by_role("navigation", name="Main").get_by_role("link").first.is_visible()
    context.close()


@pytest.mark.requirement("shell-4.3")
def test_a_theme_once_chosen_stays_and_charts_follow(admin: Any, browse: Any) -> None:
    page = browse(admin, "/style/", theme="light")
    bar = page.locator("[data-chart=chart-bars] .bars path").first
    light = bar.evaluate("bar => bar.style.fill")
    page.get_by_role("button", name=re.compile("Your menu")).click()
    page.get_by_role("button", name="Dark").click()
    expect(bar).not_to_have_css("fill", light)
    assert page.evaluate("document.documentElement.dataset.bsTheme") == "dark"
    assert page.get_by_role("button", name="Dark").get_attribute("aria-pressed") == "true"
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert page.evaluate("document.documentElement.dataset.bsTheme") == "dark"
    expect(bar).not_to_have_css("fill", light)


@pytest.mark.requirement("shell-4.1")
def test_the_keyboard_reaches_content_menu_and_navigation(admin: Any, browse: Any) -> None:
    page = browse(admin, "/notifications/", width=PHONE)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    page.get_by_role("button", name="Open navigation").press("Enter")
    page.wait_for_selector("#sidebar.show:not(.showing)")
    assert page.get_by_role("link", name="Sent mail").is_visible()
    page.keyboard.press("Escape")
    page.wait_for_selector("#sidebar:not(.show):not(.hiding)", state="attached")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Open navigation"


@pytest.mark.requirement("shell-3.1")
def test_the_live_estimate_answers_while_typing(admin: Any, browse: Any) -> None:
    page = browse(admin, "/style/")
    guaranteed = page.get_by_role("spinbutton", name="Guaranteed").first
    guaranteed.fill("24")
    expect(page.locator("#estimate")).to_contain_text("24 guaranteed GPUs.")
    guaranteed.fill("")
    expect(page.locator("#estimate")).to_contain_text("Enter a number of GPUs to see the estimate.")


@pytest.mark.requirement("notifications-2.2")
def test_opening_a_notification_reads_it(admin: Any, browse: Any) -> None:
    page = browse(admin, "/notifications/")
    page.get_by_role("button", name="Finance asks, 0", exact=True).click()
    page.wait_for_url("**/words/")
    assert page.locator(".bell-count").inner_text() == "2"


@pytest.mark.requirement("shell-5.4")
def test_the_api_reader_works_under_the_content_security_policy(admin: Any, browse: Any, site: Any) -> None:
    page = browse(admin, "/words/")
    page.goto("/api/v1/docs/")
    page.wait_for_selector(".swagger-ui .opblock-tag")
    assert page.locator(".opblock").count() > 3
