"""The pages of the portal in a browser: accessible, no sideways scrolling, charts drawn, no errors in the console."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from django.urls import reverse
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from tests.e2e.conftest import DESKTOP, PHONE
from tests.factories import client_for
from tests.sweep import world as worlds
from tests.sweep.types import Route

#: Who opens a page: the first of these that the sweep says may.
PERSONAS = ("admin", "vp", "auditor", "lead_finance", "finance", "compliance", "member_finance")
#: Templates of which every one is looked at: lists, reports, the home page.
_OWN = re.compile(r"_list\.html$|_month\.html$|^reports/|inbox")
#: Parts of pages.
_FRAGMENTS = {
    "notifications:bell", "quotas:workspace-live", "quotas:team-live", "quotas:request-live",
    "deployments:endpoint-live",
}  # fmt: skip

#: Of `make test-full`: side by side, processes divide the pages.
_SHARES = 2


def _wanted(name: str, route: Route) -> bool:
    return not (route.method != "GET" or route.public or name in _FRAGMENTS or name.startswith("api:") or "#" in name)


@dataclass(frozen=True)
class Page:
    """A page to look at: its room, who opens it, and the templates that draw it, down to components and widgets."""

    room: str
    who: str
    url: str
    templates: frozenset[str]


def pages_of(world: SimpleNamespace) -> list[Page]:
    """Return the pages that the sweep declares; files and redirects are no pages."""
    clients = {name: client_for(world.people[name]) for name in PERSONAS}
    found = []
    for name, route in worlds.declared().items():
        who = next((persona for persona in PERSONAS if persona in route.allowed), None)
        if who is None or not _wanted(name, route):
            continue
        url = reverse(name, kwargs=route.kwargs(world)) + route.query
        response = clients[who].get(url)
        if response.status_code == 200 and response.headers["Content-Type"].startswith("text/html"):
            drawn = frozenset(str(template.name) for template in response.templates)
            found.append(Page(name.partition(":")[0], who, url, drawn))
    return found


def telling(pages: Sequence[Page]) -> list[Page]:
    """Return few pages that show all that pages have in common: components, widgets, panels, layouts.

    The page of each room that is made of most, every list and report, and of the others whichever shows most of what
    was not seen yet. What only one page has, `make test-full` looks at.
    """
    times = Counter(template for page in pages for template in page.templates)
    needed = {template for template, count in times.items() if count > 1 or _OWN.search(template)}
    chosen: list[Page] = []
    for room in sorted({page.room for page in pages}):
        chosen.append(max((page for page in pages if page.room == room), key=lambda page: len(page.templates)))
    seen = frozenset[str]().union(*(page.templates for page in chosen))
    while missing := needed - seen:
        most = max(pages, key=lambda page: len(page.templates & missing))
        chosen.append(most)
        seen |= most.templates
    return chosen


def _look_at(
    pages: Sequence[Page], world: SimpleNamespace, browse: Any, assert_accessible: Any, assert_fits: Any
) -> None:
    """Open each page on a phone or a desk in turn, light or dark in turn; axe at one width, overflow at both."""
    tabs: dict[str, Any] = {}
    problems: list[str] = []
    looks = itertools.cycle([(PHONE, "light"), (DESKTOP, "dark"), (PHONE, "dark"), (DESKTOP, "light")])
    for one in pages:
        width, theme = next(looks)
        if one.who not in tabs:
            tabs[one.who] = browse(world.people[one.who], "/words/")
        page = tabs[one.who]
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=theme)
        page.goto(one.url)
        for check in (_ready, assert_accessible, assert_fits):
            problems += _problem(check, page, f"{one.who} {width} {theme}")
        page.set_viewport_size({"width": PHONE if width == DESKTOP else DESKTOP, "height": 900})
        problems += _problem(assert_fits, page, f"{one.who} at the other width")
    assert not problems, f"{len(problems)} problems:\n" + "\n\n".join(problems)


def _ready(page: Any) -> None:
    try:
        page.wait_for_selector("body[data-ready]")
    except PlaywrightTimeout as error:
        raise AssertionError(f"{page.url} is not ready: a script or a chart did not finish") from error


def _problem(check: Any, page: Any, where: str) -> list[str]:
    try:
        check(page)
    except AssertionError as error:
        return [f"{where}: {error}"]
    return []


@pytest.mark.requirement("shell-4.1", "shell-4.2")
def test_pages_are_accessible_and_fit(
    transactional_db: None, browse: Any, assert_accessible: Any, assert_fits: Any
) -> None:
    """Home, lists, reports, each room's fullest page, and every part that more than one page has."""
    world = worlds.build()
    pages = telling(pages_of(world))
    assert len(pages) >= 30
    _look_at(pages, world, browse, assert_accessible, assert_fits)


@pytest.mark.full
@pytest.mark.parametrize("share", range(_SHARES))
@pytest.mark.requirement("shell-4.1", "shell-4.2")
def test_every_page_is_accessible_and_fits(
    transactional_db: None, browse: Any, assert_accessible: Any, assert_fits: Any, share: int
) -> None:
    """Every page that the sweep knows."""
    world = worlds.build()
    pages = pages_of(world)
    assert len(pages) >= 250
    _look_at(pages[share::_SHARES], world, browse, assert_accessible, assert_fits)
