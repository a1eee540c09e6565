"""Addresses of statements of placement and of the time machine."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from apps.deployments import proof_views as views

_ONE = "deployments/placement/<uuid:statement_uid>"
urlpatterns: list[URLPattern | URLResolver] = [
    path("deployments/placement/", views.StatementList.as_view(), name="placement-list"),
    path(f"{_ONE}/", views.StatementDetail.as_view(), name="placement-detail"),
    path(f"{_ONE}/file/", views.StatementFile.as_view(), name="placement-file"),
    path("deployments/time-machine/", views.TimeMachine.as_view(), name="time-machine"),
]
