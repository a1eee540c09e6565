"""What pages do beside being opened, asked though no room declared it: taking a form, leaving as a file, searching."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from django.urls import URLPattern, URLResolver, get_resolver

from apps.core.filters import SearchFilter
from apps.core.views import ListView
from tests.sweep.types import Route

#: Forms that are not sent here, with the reason; public ones belong to nobody.
NOT_SENT = {
    "accounts:provider-test": "asks another host, which no transaction waits for; tests/accounts/test_openid_admin.py",
}
#: Ends the names of what leaves as a file; whoever sees every tenant is not asked for them: nothing there is foreign.
AS_FILE = "#as a file"
#: Ends the names of lists that are searched, for a letter that nearly every name holds.
SEARCHED, LETTER = "#searched", "e"


def _patterns(patterns: Iterable[Any], namespace: str = "") -> Iterator[tuple[str, URLPattern]]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            inner = f"{namespace}{pattern.namespace}:" if pattern.namespace else namespace
            yield from _patterns(pattern.url_patterns, inner)
        else:
            yield f"{namespace}{pattern.name}", pattern


def api_methods() -> set[tuple[str, str]]:
    """Return (route, method) of everything that the API answers to."""
    return {
        (name, verb.upper())
        for name, pattern in _patterns(get_resolver().url_patterns)
        if name.startswith("api:")
        for verb in getattr(pattern.callback, "actions", {})
        if verb not in ("head", "options")
    }


def _search_of(view: type[ListView]) -> str:
    """Return the parameter of a list's search, "" for one without."""
    filters: Mapping[str, Any] = getattr(view.filterset_class, "base_filters", {})
    return next((name for name, one in filters.items() if isinstance(one, SearchFilter)), "")


def implied(declared: Mapping[str, Route]) -> dict[str, Route]:
    """Return an empty form for every page that takes one, a file and a search for every list that has them.

    Forms and files only where they are not declared.

    All for whom the page is: who may not open it gets no further by another way.
    """
    asked = {(name.partition("#")[0], route.method) for name, route in declared.items()}
    files = {name.partition("#")[0] for name, route in declared.items() if "export=" in route.query}
    found = {}
    for name, pattern in _patterns(get_resolver().url_patterns):
        view = getattr(pattern.callback, "view_class", None)
        route = declared.get(name)
        if view is None or route is None or route.public or route.method != "GET" or name in NOT_SENT:
            continue
        if hasattr(view, "post") and (name, "POST") not in asked:
            # A page may inherit the method and refuse it.
            found[f"{name}#empty form"] = replace(route, method="POST", ok=route.ok | {405})
        if issubclass(view, ListView) and view.exportable and name not in files:
            found[name + AS_FILE] = replace(route, query="?export=csv")
        if issubclass(view, ListView) and (field := _search_of(view)):
            found[name + SEARCHED] = replace(route, query=f"?{field}={LETTER}")
    return found
