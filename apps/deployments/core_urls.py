"""Addresses of endpoints, releases and placement rules."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from apps.deployments import release_views, rule_views, views

_ENDPOINT = "deployments/endpoints/<uuid:endpoint_uid>"
_RELEASE = "deployments/releases/<uuid:release_uid>"
urlpatterns: list[URLPattern | URLResolver] = [
    path("deployments/", views.EndpointList.as_view(), name="endpoint-list"),
    path(f"{_ENDPOINT}/", views.EndpointDetail.as_view(), name="endpoint-detail"),
    path(f"{_ENDPOINT}/step/", views.EndpointStep.as_view(), name="endpoint-step"),
    path(f"{_ENDPOINT}/promote/", views.EndpointPromote.as_view(), name="endpoint-promote"),
    path(f"{_ENDPOINT}/hold/", views.EndpointHold.as_view(), name="endpoint-hold"),
    path(f"{_ENDPOINT}/resume/", views.EndpointResume.as_view(), name="endpoint-resume"),
    path(f"{_ENDPOINT}/roll-back/", views.EndpointRollBack.as_view(), name="endpoint-roll-back"),
    path(f"{_ENDPOINT}/stop/", views.EndpointStop.as_view(), name="endpoint-stop"),
    path(f"{_ENDPOINT}/start/", views.EndpointStart.as_view(), name="endpoint-start"),
    path(f"{_ENDPOINT}/remove/", views.EndpointRemove.as_view(), name="endpoint-remove"),
    path("deployments/releases/", release_views.ReleaseList.as_view(), name="release-list"),
    path("deployments/releases/new/", release_views.ReleaseCreate.as_view(), name="release-create"),
    path("deployments/releases/new/estimate/", release_views.ReleaseEstimate.as_view(), name="release-estimate"),
    path(f"{_RELEASE}/", release_views.ReleaseDetail.as_view(), name="release-detail"),
    path(f"{_RELEASE}/withdraw/", release_views.ReleaseWithdraw.as_view(), name="release-withdraw"),
    path("deployments/rules/", rule_views.RuleList.as_view(), name="rule-list"),
    path("deployments/rules/new/", rule_views.RuleAdd.as_view(), name="rule-add"),
    path("deployments/rules/<uuid:rule_uid>/end/", rule_views.RuleEnd.as_view(), name="rule-end"),
]
