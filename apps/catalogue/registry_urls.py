"""Addresses of registries."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from apps.catalogue import registry_entry_views as entries
from apps.catalogue import registry_views as views

_ONE = "catalogue/registries/<uuid:registry_uid>"
urlpatterns: list[URLPattern | URLResolver] = [
    path("catalogue/registries/", views.RegistryList.as_view(), name="registry-list"),
    path("catalogue/registries/new/", views.RegistryCreate.as_view(), name="registry-create"),
    path(f"{_ONE}/", views.RegistryDetail.as_view(), name="registry-detail"),
    path(f"{_ONE}/edit/", views.RegistryEdit.as_view(), name="registry-edit"),
    path(f"{_ONE}/test/", views.RegistryTest.as_view(), name="registry-test"),
    path(f"{_ONE}/poll/", views.RegistryPoll.as_view(), name="registry-poll"),
    path(f"{_ONE}/enable/", views.RegistryEnable.as_view(), name="registry-enable"),
    path(f"{_ONE}/disable/", views.RegistryDisable.as_view(), name="registry-disable"),
    path("catalogue/registered-models/", entries.EntryList.as_view(), name="registry-model-list"),
    path(
        "catalogue/registered-models/<uuid:entry_uid>/assign/",
        entries.EntryAssign.as_view(),
        name="registry-model-assign",
    ),
    path("catalogue/registry-findings/", entries.FindingList.as_view(), name="registry-finding-list"),
    path(
        "catalogue/registry-findings/<uuid:finding_uid>/acknowledge/",
        entries.FindingAcknowledge.as_view(),
        name="registry-finding-acknowledge",
    ),
]
