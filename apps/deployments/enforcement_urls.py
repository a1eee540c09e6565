"""Addresses of enforcement."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from apps.deployments import enforcement_views as views

_ONE = "deployments/enforcement/<uuid:workspace_uid>"
urlpatterns: list[URLPattern | URLResolver] = [
    path("deployments/enforcement/", views.EnforcementList.as_view(), name="enforcement-list"),
    path(f"{_ONE}/", views.EnforcementDetail.as_view(), name="enforcement-detail"),
    path(f"{_ONE}/set/", views.EnforcementSet.as_view(), name="enforcement-set"),
]
