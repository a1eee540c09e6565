"""The pages of the portal in a browser: accessible, no sideways scrolling, charts drawn, no errors in the console."""

from __future__ import annotations

import itertools
import re
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
#: Forms that only confirm are one template: a few of them stand for all.
_CONFIRM = re.compile(r"-(withdraw|revoke|remove|deactivate|reactivate|pause|resume|end|retry|remake|close-others)$")
_SAMPLES = {"quotas:request-withdraw", "teams:grant-revoke"}
#: Plain forms, each of fields that other forms have, too; and pages that `test_shell` looks at.
_LIKE_OTHERS = {
    "accounts:user-create", "accounts:user-password-reset", "accounts:token-create", "accounts:password-change",
    "approvals:policy-create", "clusters:cluster-credentials", "clusters:flavour-create", "clusters:pool-capacity",
    "clusters:pool-create", "metering:source-create", "notifications:bell", "notifications:list",
    "notifications:mail-detail", "notifications:mail-list", "notifications:sent-mail-list", "notifications:settings",
    "portal:start", "portal:style", "provisioning:drift-list", "provisioning:plan-detail", "quotas:request-correct",
    "quotas:workspace-create", "rates:card-create", "teams:member-add", "teams:team-create", "teams:unit-create",
    "approvals:policy-version", "costs:budget-list",
    # Lists like other lists, details like other details; `make test-full` looks at every one.
    "costs:bill-list", "costs:correction-list", "costs:credit-list", "costs:dispute-list", "costs:cross-check-list",
    "costs:class-list", "costs:file-list", "costs:charge-list", "costs:distribution-list",
    "metering:claim-list", "metering:rule-list", "metering:namespace-list", "metering:run-list", "insights:idle-list",
    "rates:capex-list", "rates:proposal-list", "costs:distribution-detail", "costs:credit-detail",
    "costs:budget-detail", "metering:rule-create", "metering:claim-create", "costs:bill-detail",
}  # fmt: skip


#: Parts of pages.
_FRAGMENTS = {
    "notifications:bell", "quotas:workspace-live", "quotas:team-live", "quotas:request-live",
    "deployments:endpoint-live",
}  # fmt: skip

#: Side by side, processes divide the pages.
_SHARES = 2


def _wanted(name: str, route: Route, *, every: bool) -> bool:
    if route.method != "GET" or route.public or name in _FRAGMENTS or name.startswith("api:") or "#" in name:
        return False
    return every or (name not in _LIKE_OTHERS and (name in _SAMPLES or not _CONFIRM.search(name)))


@dataclass(frozen=True)
class Page:
    """A page to look at: who opens it, and the templates that draw it, down to components and form widgets."""

    who: str
    url: str
    templates: frozenset[str]


def pages_of(world: SimpleNamespace, *, every: bool, share: int, shares: int) -> list[Page]:
    """Return a share of the pages that the sweep declares; files and redirects are no pages."""
    clients = {name: client_for(world.people[name]) for name in PERSONAS}
    wanted = [(name, route) for name, route in worlds.declared().items() if _wanted(name, route, every=every)]
    found = []
    for name, route in wanted[share::shares]:
        who = next((persona for persona in PERSONAS if persona in route.allowed), None)
        if who is None:
            continue
        url = reverse(name, kwargs=route.kwargs(world)) + route.query
        response = clients[who].get(url)
        if response.status_code == 200 and response.headers["Content-Type"].startswith("text/html"):
            found.append(Page(who, url, frozenset(str(template.name) for template in response.templates)))
    return found


def _look_at_all(
    every: bool, browse: Any, assert_accessible: Any, assert_fits: Any, *, share: int = 0, shares: int = 1
) -> int:
    """Open each page on a phone or a desk in turn, light or dark in turn; axe at one width, overflow at both.

    Unless `every`, a page of which every template was seen is left out: one more plain list, one more plain form.
    """
    world = worlds.build()
    pages: dict[str, Any] = {}
    problems: list[str] = []
    seen: set[str] = set()
    looked = 0
    looks = itertools.cycle([(PHONE, "light"), (DESKTOP, "dark"), (PHONE, "dark"), (DESKTOP, "light")])
    # Pages of many templates first: fewer of them show all there is.
    for one in sorted(pages_of(world, every=every, share=share, shares=shares), key=lambda page: -len(page.templates)):
        if not every and one.templates <= seen:
            continue
        seen |= one.templates
        looked += 1
        width, theme = next(looks)
        if one.who not in pages:
            pages[one.who] = browse(world.people[one.who], "/words/")
        page = pages[one.who]
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=theme)
        page.goto(one.url)
        for check in (_ready, assert_accessible, assert_fits):
            problems += _problem(check, page, f"{one.who} {width} {theme}")
        page.set_viewport_size({"width": PHONE if width == DESKTOP else DESKTOP, "height": 900})
        problems += _problem(assert_fits, page, f"{one.who} at the other width")
    assert not problems, f"{len(problems)} problems:\n" + "\n\n".join(problems)
    return looked


def _ready(page: Any) -> None:
    try:
        page.wait_for_selector("body[data-ready]", timeout=30_000)
    except PlaywrightTimeout as error:
        raise AssertionError(f"{page.url} is not ready: a script or a chart did not finish") from error


def _problem(check: Any, page: Any, where: str) -> list[str]:
    try:
        check(page)
    except AssertionError as error:
        return [f"{where}: {error}"]
    return []


@pytest.mark.requirement("shell-4.1", "shell-4.2")
@pytest.mark.parametrize(
    "share", [pytest.param(share, marks=pytest.mark.xdist_group(f"pages {share}")) for share in range(_SHARES)]
)
def test_pages_are_accessible_and_fit(
    transactional_db: None, browse: Any, assert_accessible: Any, assert_fits: Any, share: int
) -> None:
    """Home, lists, details, reports and the forms that differ."""
    assert _look_at_all(False, browse, assert_accessible, assert_fits, share=share, shares=_SHARES) >= 20


@pytest.mark.full
@pytest.mark.requirement("shell-4.1", "shell-4.2")
def test_every_page_is_accessible_and_fits(
    transactional_db: None, browse: Any, assert_accessible: Any, assert_fits: Any
) -> None:
    """Every page that the sweep knows."""
    assert _look_at_all(True, browse, assert_accessible, assert_fits) >= 70
