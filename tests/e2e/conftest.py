"""Chromium against the real WSGI application, on the test database as the portal's own role.

`browse(user)` opens a page of a signed-in person; `assert_accessible(page)` runs axe on it. A test whose page logs an
error to the console, throws, or asks another host for anything fails by itself.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler, get_internal_wsgi_application
from django.db import connections
from playwright.sync_api import expect

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or ""
AXE = Path(settings.BASE_DIR) / "tests_vendor" / "axe.min.js"
VENDOR = Path(settings.BASE_DIR) / "static_vendor" / "tabler.min.css"
AXE_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
PHONE, DESKTOP = 390, 1440
#: How long a page may take for what it is waited for: nothing waits longer than it takes, and machines are shared.
PATIENCE_MS = 90_000
expect.set_options(timeout=PATIENCE_MS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything here as a browser test, and say why it is skipped where it cannot run."""
    here = Path(__file__).parent
    reason = (
        "Chromium is not installed (make deps)"
        if not CHROMIUM
        else "the front-end files are not there (make setup)"
        if not (AXE.exists() and VENDOR.exists())
        else ""
    )
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    """Use the machine's Chromium: nothing is downloaded."""
    return {**browser_type_launch_args, "executable_path": CHROMIUM}


@pytest.fixture(scope="session", autouse=True)
def _sync_playwright_runs_a_loop() -> Iterator[None]:
    """Playwright's loop runs in this thread; Django would refuse its database calls there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        yield


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a failed request shows in the page."""


@dataclass
class Site:
    """The running portal."""

    url: str


@pytest.fixture
def site(transactional_db: None, settings: Any) -> Iterator[Site]:
    """Serve the portal from threads of this process until the test ends."""
    # As in production, where names carry a digest: the browser asks for a style sheet once, not once a page.
    settings.WHITENOISE_MAX_AGE = 3600
    server = ThreadedWSGIServer(("127.0.0.1", 0), _QuietHandler)
    server.daemon_threads = True
    server.set_app(get_internal_wsgi_application())
    url = f"http://127.0.0.1:{server.server_address[1]}"
    settings.COMMONS_BASE_URL = url
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield Site(url)
    server.shutdown()
    server.server_close()
    thread.join(timeout=5)
    connections.close_all()


@dataclass
class Watch:
    """What a page must not do: errors in the console, exceptions, requests to other hosts."""

    site: Site
    #: Statuses of the page's own address that the test expects (a 404 page logs its 404 to the console).
    expected: set[int] = field(default_factory=set)
    seen: list[str] = field(default_factory=list)

    def on(self, page: Any) -> None:
        """Listen to a page."""
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.seen.append(f"exception: {error}"))
        page.on("request", self._request)

    def _console(self, message: Any) -> None:
        if message.type != "error":
            return
        if any(f"status of {status}" in message.text for status in self.expected):
            return
        # A look at live figures that was under way when the person went on to another page.
        if message.text.startswith(("htmx:sendAbort", "htmx:afterRequest")):
            return
        self.seen.append(f"console: {message.text} ({message.location})")

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.site.url, "data:", "blob:", "about:")):
            self.seen.append(f"left the portal: {request.url}")


@pytest.fixture
def watch(site: Site) -> Iterator[Watch]:
    """Fail the test for what its pages must not do."""
    found = Watch(site)
    yield found
    assert not found.seen, "\n".join(found.seen)


Browse = Callable[..., Any]


@pytest.fixture
def browse(site: Site, watch: Watch, browser: Any) -> Iterator[Browse]:
    """`browse(user, "/path/", width=1440, theme="dark")` returns a Playwright page there; `user=None`: a visitor."""
    contexts: list[Any] = []

    def open_page(user: Any, path: str = "/", *, width: int = DESKTOP, theme: str = "light") -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, base_url=site.url, reduced_motion="reduce"
        )
        contexts.append(context)
        if user is not None:
            from tests.factories import client_for

            name = settings.SESSION_COOKIE_NAME
            context.add_cookies([{"name": name, "value": client_for(user).cookies[name].value, "url": site.url}])
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        watch.on(page)
        page.goto(path)
        page.wait_for_selector("body[data-ready]")
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def axe_source() -> str:
    """The source of axe-core."""
    return AXE.read_text(encoding="utf-8")


@pytest.fixture
def assert_accessible(axe_source: str) -> Callable[[Any], None]:
    """`assert_accessible(page)` fails with every rule of WCAG 2.2 AA and axe's best practice that the page breaks."""

    def check(page: Any) -> None:
        # Injected once: later pages of the same tab find it there without its half megabyte being sent again.
        if page.evaluate("typeof window.axe") == "undefined":
            page.add_init_script(axe_source)
            page.evaluate(axe_source)
        options = json.dumps({"runOnly": AXE_RULES, "resultTypes": ["violations"]})
        result = page.evaluate(f"axe.run(document, {options})")
        broken = [
            f"{rule['id']} ({rule['impact']}): {rule['help']}\n    "
            + "\n    ".join(f"{node['target']}: {node['failureSummary']}" for node in rule["nodes"][:6])
            for rule in result["violations"]
        ]
        assert not broken, f"{page.url}\n" + "\n".join(broken)

    return check


@pytest.fixture
def assert_fits() -> Callable[[Any], None]:
    """`assert_fits(page)` fails where the page is wider than its window."""

    def check(page: Any) -> None:
        wide = page.evaluate(
            """() => {
                const room = document.documentElement.clientWidth;
                if (document.documentElement.scrollWidth <= room) return [];
                return [...document.querySelectorAll("body *")]
                    .filter((one) => one.getBoundingClientRect().right > room + 1 && !one.closest(".table-responsive"))
                    .slice(0, 8)
                    .map((one) => `${one.tagName}.${one.className}`);
            }"""
        )
        assert not wide, f"{page.url} scrolls sideways: {wide}"

    return check
