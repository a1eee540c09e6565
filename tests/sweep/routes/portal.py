"""Routes of the shell: probes, start page, style page, words, API description."""

from __future__ import annotations

from tests.sweep.types import EVERYBODY, Route

ROUTES: dict[str, Route] = {
    "health": Route(allowed=EVERYBODY, public=True),
    "ready": Route(allowed=EVERYBODY, public=True, ok=frozenset({200}), note="degraded without a broker is 200, too"),
    "portal:start": Route(allowed=EVERYBODY),
    "portal:words": Route(allowed=EVERYBODY),
    "portal:style": Route(allowed={"admin"}, note="outside the demo for platform admins only"),
    "portal:style-estimate": Route(allowed={"admin"}, method="POST"),
    "api:root": Route(allowed=EVERYBODY),
    "api:schema": Route(allowed=EVERYBODY),
    "api:docs": Route(allowed=EVERYBODY),
}
