"""Addresses of watching."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from apps.deployments import watch_views

_ENDPOINT = "deployments/endpoints/<uuid:endpoint_uid>"
_OBJECTIVE = "deployments/objectives/<uuid:objective_uid>"
urlpatterns: list[URLPattern | URLResolver] = [
    path(f"{_ENDPOINT}/live/", watch_views.EndpointLive.as_view(), name="endpoint-live"),
    path(f"{_ENDPOINT}/objectives/", watch_views.ObjectiveList.as_view(), name="objective-list"),
    path(f"{_ENDPOINT}/objectives/new/", watch_views.ObjectiveAdd.as_view(), name="objective-add"),
    path(f"{_OBJECTIVE}/edit/", watch_views.ObjectiveEdit.as_view(), name="objective-edit"),
    path(f"{_OBJECTIVE}/archive/", watch_views.ObjectiveArchive.as_view(), name="objective-archive"),
]
