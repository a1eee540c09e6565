"""How a room declares its routes for the URL × role sweep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

#: Everybody the sweep signs in as; "anonymous" is the visitor without a session.
PERSONAS = (
    "anonymous",
    "member_finance",
    "lead_finance",
    "lead_marketing",
    "vp",
    "vp_other",
    "compliance",
    "finance",
    "admin",
    "auditor",
    "expired",
    "deactivated",
)
#: Who calls with a token, the API alone: to a page the header says nothing, so "anonymous" stands for them there.
#: `token_narrow` is a platform admin's token that carries `NARROW` and nothing else; `service` the Finance team's
#: program, which may read what its members may.
TOKENS = ("token_narrow", "service")
NARROW = "audit.hold.view"
#: Who holds a role for one unit that most people hold for the whole installation: reads pages and the API, and must
#: find nothing of other units. No route declares for them who gets through; only what they are shown is judged.
READERS = ("auditor_other",)


@dataclass(frozen=True)
class Route:
    """One named route. `kwargs` builds its URL from the sweep's world; `allowed` are the personas that get through.

    All others must get 404 or 403 (`hidden=True` demands 404 for those outside the tenant), the anonymous visitor a
    redirect to sign-in (pages) or 401 (API). `public=True`: open to everybody.
    """

    allowed: frozenset[str] | set[str]
    kwargs: Callable[[Any], Mapping[str, Any]] = field(default=lambda world: {})
    method: str = "GET"
    data: Callable[[Any], Mapping[str, Any]] = field(default=lambda world: {})
    query: str = ""
    public: bool = False
    #: Statuses that count as "through" for an allowed persona (a POST with empty data may well be 400).
    ok: frozenset[int] = frozenset({200, 201, 202, 204, 302, 303, 400, 409})
    note: str = ""


EVERYBODY = frozenset(PERSONAS) - {"anonymous", "deactivated"}
ALL = (*PERSONAS, *TOKENS, *READERS)
