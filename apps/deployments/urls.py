"""Addresses of the deployments room: each part keeps its own list."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver

from apps.deployments import core_urls, enforcement_urls, proof_urls, watch_urls

app_name = "deployments"
urlpatterns: list[URLPattern | URLResolver] = [
    *core_urls.urlpatterns,
    *enforcement_urls.urlpatterns,
    *watch_urls.urlpatterns,
    *proof_urls.urlpatterns,
]
