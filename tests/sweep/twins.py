"""API routes whose callers are those of a page: declared by pointing at the page, so that neither drifts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from tests.sweep.types import Route

#: What lets an allowed persona "through" the API: a body is missing (400), If-Match is (428), the state is another.
OK = frozenset({200, 201, 202, 204, 400, 409, 428})


def of(name: str) -> Callable[[Any], Mapping[str, Any]]:
    """Return the `uid` of `world.<name>` as what builds an address."""
    return lambda world: {"uid": getattr(world, name).uid}


def twin(page: Route, name: str = "", method: str = "GET", **changes: Any) -> Route:
    """Return an API route for the personas of a page, about `world.<name>` (empty: a collection), without a body."""
    route = Route(allowed=page.allowed, method=method, ok=OK, note=page.note)
    if name:
        route = replace(route, kwargs=of(name))
    return replace(route, **changes)


def post(page: Route, name: str = "", **changes: Any) -> Route:
    """Return `twin` as a POST."""
    return twin(page, name, "POST", **changes)
