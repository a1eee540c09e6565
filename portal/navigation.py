"""The sidebar of a person: the entries that rooms registered (`portal.panels.nav`), cut to what the person may open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from django.db.models import Count, QuerySet, Value
from django.http import HttpRequest
from django.urls import NoReverseMatch, get_urlconf, reverse

from apps.notifications.selectors import unread
from portal import panels

#: Under this name stands what the bell counts.
BELL = "bell"


@dataclass(frozen=True, slots=True)
class Entry:
    """One drawn entry."""

    label: str
    url: str
    icon: str
    active: bool
    badge: int = 0


@dataclass(frozen=True, slots=True)
class Group:
    """Entries under one heading ("" has none)."""

    label: str
    entries: list[Entry]


def counts_of(rows: Mapping[str, QuerySet[Any]]) -> dict[str, int]:
    """Return how many rows each queryset has, in one statement for all of them."""
    each = [
        found.order_by().annotate(_of=Value(name)).values("_of").annotate(_rows=Count("pk")).values_list("_of", "_rows")
        for name, found in rows.items()
    ]
    counted = dict(each[0].union(*each[1:], all=True)) if each else {}
    return {name: counted.get(name, 0) for name in rows}


def counts_for(request: HttpRequest) -> dict[str, int]:
    """Return what the shell counts for this person: a number per badge (by its entry's URL name) and the bell's.

    Asked once a request, whichever part of the shell is drawn first.
    """
    known: dict[str, int] | None = getattr(request, "_commons_counts", None)
    if known is None:
        rows: dict[str, QuerySet[Any]] = {BELL: unread(request.user)}
        for item in panels.nav_items():
            if item.badge is not None and panels.may(request.user, item.permission, None):
                waiting = item.badge(request)
                if waiting is not None:
                    rows[item.url_name] = waiting
        known = counts_of(rows)
        request._commons_counts = known  # type: ignore[attr-defined]  # HttpRequest takes attributes; stubs do not know ours
    return known


@cache
def _address(name: str, urlconf: str | None) -> str | None:
    """Return an entry's address, looked up once a process; None where its room has no such page."""
    try:
        return reverse(name, urlconf=urlconf)
    except NoReverseMatch:
        return None


def groups_for(request: HttpRequest) -> list[Group]:
    """Return the sidebar. The entry whose address is the longest beginning of the present path is the active one.

    Entries whose room has no such page (yet) are left out. Costs one query beyond the person's scope: what the
    badges and the bell count.
    """
    if not request.user.is_authenticated:
        return []
    shown: list[tuple[panels.NavItem, str]] = []
    for item in panels.nav_items():
        if not panels.may(request.user, item.permission, None):
            continue
        url = _address(item.url_name, get_urlconf())
        if url is not None:
            shown.append((item, url))
    matching = [url for _, url in shown if url != "/" and request.path.startswith(url)]
    active = max(matching, key=len) if matching else request.path
    groups: dict[str, list[Entry]] = {}
    for item, url in shown:
        badge = counts_for(request).get(item.url_name, 0)
        groups.setdefault(item.group, []).append(Entry(item.label, url, item.icon, url == active, badge))
    return [Group(label, groups[label]) for label in panels.NAV_GROUPS if label in groups]


def active_item(request: HttpRequest, groups: list[Group]) -> Entry | None:
    """Return the active entry, from which the breadcrumbs of a page without its own start."""
    return next((entry for group in groups for entry in group.entries if entry.active), None)
