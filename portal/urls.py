"""All addresses: probes, the shell's own pages, every room's pages at the root, every room's API under /api/v1/."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from django.conf import settings
from django.urls import URLPattern, URLResolver, include, path
from rest_framework.routers import SimpleRouter

from portal import api, health

handler400 = "portal.errors.bad_request"
handler403 = "portal.errors.not_allowed"
handler404 = "portal.errors.not_found"
handler500 = "portal.errors.server_error"


def _rooms_with(module: str) -> list[str]:
    """The rooms that have this module, without importing it."""
    return [f"{room}.{module}" for room in settings.ROOMS if find_spec(f"{room}.{module}") is not None]


def _api_router() -> SimpleRouter:
    """Register what every room's `api.routes` names: (prefix, viewset, basename)."""
    router = SimpleRouter(trailing_slash=False, use_regex_path=False)
    for module in _rooms_with("api"):
        for prefix, viewset, basename in getattr(import_module(module), "routes", []):
            router.register(prefix, viewset, basename=basename)
    return router


def _api_paths() -> list[URLPattern | URLResolver]:
    """Single API views that fit no router: a room's `api.paths`."""
    return [pattern for module in _rooms_with("api") for pattern in getattr(import_module(module), "paths", [])]


_api: list[URLPattern | URLResolver] = [
    path("", api.root, name="root"),
    path("schema/", api.Schema.as_view(), name="schema"),
    path("docs/", api.Docs.as_view(url_name="api:schema"), name="docs"),
    *_api_paths(),
    *_api_router().urls,
]

urlpatterns: list[URLPattern | URLResolver] = [
    path("health", health.health, name="health"),
    path("ready", health.ready, name="ready"),
    path("api/v1/", include((_api, "api"))),
    *(path("", include(module)) for module in _rooms_with("urls")),
    path("", include(("portal.shell_urls", "portal"))),
]
