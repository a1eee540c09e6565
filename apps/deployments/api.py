"""The room's API: each part keeps its own routes and paths."""

from __future__ import annotations

from typing import Any

from apps.deployments import core_api, enforcement_api, proof_api, watch_api

routes: list[tuple[str, Any, str]] = [
    *core_api.routes,
    *enforcement_api.routes,
    *watch_api.routes,
    *proof_api.routes,
]
paths: list[Any] = [
    *core_api.paths,
    *enforcement_api.paths,
    *watch_api.paths,
    *proof_api.paths,
]
