"""The registry through which rooms add panels to each other's pages, and entries to the navigation.

A room registers in its `panels.py`, which is found by itself:

    nav("Pools", "clusters:pool-list", icon="stack-2", order=20, permission="clusters.pool.view", group="Platform")

    @panel(page="team", order=30, permission="quotas.quota.view")
    def quotas(request, team):
        rows = team_quota_rows(team)
        return {"template": "quotas/panels/team.html", "rows": rows} if rows else None

The page asks `panels_for("team", request, team)` and draws each with `{% render_panel panel %}`. This module knows no
room: the project hands it the permission gate (`set_gate`) when it starts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest

PAGES = (
    "home", "team", "unit", "cluster", "pool", "workspace", "person", "model", "model_version", "model_compare",
    "endpoint", "release", "provider", "inbox", "grant",
)  # fmt: skip

#: The groups of the sidebar, in their order; "" stands first and has no heading.
NAV_GROUPS = ("", "Work", "Models", "Money", "Platform", "Governance")

_Gate = Callable[[Any, str, Any], bool]
#: What a badge counts: rows, of which the shell asks for all badges' numbers in one statement; None: no badge.
Badge = Callable[[HttpRequest], "QuerySet[Any] | None"]
_Function = Callable[[HttpRequest, Any], Mapping[str, Any] | None]


@dataclass(frozen=True, slots=True)
class Panel:
    """A registered panel function."""

    page: str
    order: int
    permission: str | None
    function: _Function


@dataclass(frozen=True, slots=True)
class RenderedPanel:
    """A panel that has something to show: its template and context."""

    name: str
    template: str
    context: dict[str, Any] = field(default_factory=dict)
    #: As registered; a page may draw what comes first apart from the rest.
    order: int = 100


@dataclass(frozen=True, slots=True)
class NavItem:
    """An entry of the sidebar. `badge` names the rows that wait there (none: no badge)."""

    label: str
    url_name: str
    icon: str
    order: int
    permission: str | None = None
    group: str = ""
    badge: Badge | None = None


_panels: dict[str, dict[str, Panel]] = {page: {} for page in PAGES}
_nav: dict[str, NavItem] = {}
_gate: _Gate | None = None


def set_gate(gate: _Gate) -> None:
    """Install the permission gate `(user, permission, object) -> bool` (done once by the project)."""
    global _gate
    _gate = gate


def may(user: Any, permission: str | None, obj: Any) -> bool:
    """Whether the gate opens. Raises RuntimeError while no gate is installed: fail closed."""
    if permission is None:
        return True
    if _gate is None:
        raise RuntimeError("no permission gate is installed")
    return _gate(user, permission, obj)


def panel(page: str, *, order: int = 100, permission: str | None = None) -> Callable[[_Function], _Function]:
    """Register a function `(request, obj) -> {"template": …, **context} | None` as a panel of `page`.

    It is called only where the person holds `permission` for the page's object; `None` hides the panel. Raises
    ValueError for a page that does not exist.
    """
    if page not in PAGES:
        raise ValueError(f"no page {page!r}; panels go to {', '.join(PAGES)}")

    def register(function: _Function) -> _Function:
        name = f"{function.__module__}.{function.__qualname__}"
        _panels[page][name] = Panel(page, order, permission, function)
        return function

    return register


def panels_for(page: str, request: HttpRequest, obj: Any) -> list[RenderedPanel]:
    """Return the panels of `page` that this person may see and that have something to show, in order."""
    shown = []
    for name, registered in sorted(_panels[page].items(), key=lambda item: (item[1].order, item[0])):
        if not may(request.user, registered.permission, obj):
            continue
        if (content := registered.function(request, obj)) is not None:
            context = {key: value for key, value in content.items() if key != "template"}
            shown.append(RenderedPanel(name, content["template"], context, registered.order))
    return shown


def nav(
    label: str,
    url_name: str,
    icon: str,
    order: int,
    permission: str | None = None,
    group: str = "",
    badge: Badge | None = None,
) -> None:
    """Add an entry to the sidebar, shown to those who hold `permission` anywhere (None: to everybody signed in).

    `badge` returns the rows that wait there for this person, to be counted. Raises ValueError for an unknown group.
    """
    if group not in NAV_GROUPS:
        raise ValueError(f"no navigation group {group!r}; there are {', '.join(NAV_GROUPS[1:])}")
    _nav[url_name] = NavItem(label, url_name, icon, order, permission, group, badge)


def nav_items() -> list[NavItem]:
    """Return every registered entry, in order of group, order and label."""
    return sorted(_nav.values(), key=lambda item: (NAV_GROUPS.index(item.group), item.order, item.label))


__all__ = [
    "NAV_GROUPS",
    "PAGES",
    "Badge",
    "NavItem",
    "RenderedPanel",
    "may",
    "nav",
    "nav_items",
    "panel",
    "panels_for",
    "set_gate",
]
