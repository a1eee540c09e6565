"""Addresses of the catalogue. Each part of the room keeps its own list in `<part>_urls.py` and adds a line here."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver

from apps.catalogue import core_urls, evidence_urls, registry_urls

app_name = "catalogue"
urlpatterns: list[URLPattern | URLResolver] = [
    *core_urls.urlpatterns,
    *evidence_urls.urlpatterns,
    *registry_urls.urlpatterns,
]
