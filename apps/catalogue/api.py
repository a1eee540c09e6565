"""The catalogue through the API. Each part of the room keeps its viewsets in `<part>_api.py` and adds a line here."""

from __future__ import annotations

from typing import Any

from apps.catalogue import core_api, evidence_api, registry_api, rules_api, signing_api

#: (prefix, viewset, basename)
routes: list[tuple[str, Any, str]] = [
    *core_api.routes,
    *evidence_api.routes,
    *registry_api.routes,
    *rules_api.routes,
    *signing_api.routes,
]
#: Single views that fit no router.
paths: list[Any] = [
    *core_api.paths,
    *evidence_api.paths,
    *registry_api.paths,
    *rules_api.paths,
]
