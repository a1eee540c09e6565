"""The sidebar of a person: the entries that rooms registered (`portal.panels.nav`), cut to what the person may open."""

from __future__ import annotations

from dataclasses import dataclass

from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse

from portal import panels


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


def groups_for(request: HttpRequest) -> list[Group]:
    """Return the sidebar. The entry whose address is the longest beginning of the present path is the active one.

    Entries whose room has no such page (yet) are left out. Costs no query beyond the person's scope, and what the
    badges ask.
    """
    if not request.user.is_authenticated:
        return []
    shown: list[tuple[panels.NavItem, str]] = []
    for item in panels.nav_items():
        if not panels.may(request.user, item.permission, None):
            continue
        try:
            shown.append((item, reverse(item.url_name)))
        except NoReverseMatch:
            continue
    matching = [url for _, url in shown if url != "/" and request.path.startswith(url)]
    active = max(matching, key=len) if matching else request.path
    groups: dict[str, list[Entry]] = {}
    for item, url in shown:
        badge = item.badge(request) if item.badge is not None else 0
        groups.setdefault(item.group, []).append(Entry(item.label, url, item.icon, url == active, badge))
    return [Group(label, groups[label]) for label in panels.NAV_GROUPS if label in groups]


def active_item(request: HttpRequest, groups: list[Group]) -> Entry | None:
    """Return the active entry, from which the breadcrumbs of a page without its own start."""
    return next((entry for group in groups for entry in group.entries if entry.active), None)
