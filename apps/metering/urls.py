"""Addresses of the metering room."""

from django.urls import path

from apps.metering import fact_views, source_views, views

app_name = "metering"
urlpatterns = [
    path("usage/sources/", views.SourceList.as_view(), name="source-list"),
    path("usage/sources/new/", views.SourceCreate.as_view(), name="source-create"),
    path("usage/sources/<uuid:source_uid>/", views.SourceDetail.as_view(), name="source-detail"),
    path("usage/sources/<uuid:source_uid>/retry/", views.SourceRetry.as_view(), name="source-retry"),
    path("usage/sources/<uuid:source_uid>/end/", views.SourceEnd.as_view(), name="source-end"),
    path("usage/sources/<uuid:source_uid>/change/", source_views.SourceChange.as_view(), name="source-change"),
    path("usage/sources/<uuid:source_uid>/test/", source_views.SourceTest.as_view(), name="source-test"),
    path("usage/sources/<uuid:source_uid>/tests/", source_views.CheckList.as_view(), name="source-check-list"),
    path("usage/sources/<uuid:source_uid>/waive/", source_views.SourceWaive.as_view(), name="source-waive"),
    path("usage/self-tests/<uuid:check_uid>/", source_views.CheckDetail.as_view(), name="source-check"),
    path("usage/waivers/<uuid:waiver_uid>/revoke/", source_views.WaiverRevoke.as_view(), name="waiver-revoke"),
    path("usage/runs/", views.RunList.as_view(), name="run-list"),
    path("usage/runs/<uuid:run_uid>/", views.RunDetail.as_view(), name="run-detail"),
    path("usage/resources/", fact_views.RuleList.as_view(), name="rule-list"),
    path("usage/resources/new/", fact_views.RuleCreate.as_view(), name="rule-create"),
    path("usage/resources/<uuid:rule_uid>/end/", fact_views.RuleEnd.as_view(), name="rule-end"),
    path("usage/namespaces/", fact_views.NamespaceList.as_view(), name="namespace-list"),
    path("usage/namespaces/claim/", fact_views.ClaimCreate.as_view(), name="claim-create"),
    path("usage/namespaces/claims/", fact_views.ClaimList.as_view(), name="claim-list"),
    path("usage/namespaces/claims/<uuid:claim_uid>/end/", fact_views.ClaimEnd.as_view(), name="claim-end"),
    path(
        "usage/namespaces/claims/<uuid:claim_uid>/withdraw/", fact_views.ClaimWithdraw.as_view(), name="claim-withdraw"
    ),
    path("usage/capacity/", fact_views.CapacityList.as_view(), name="capacity-list"),
    path("usage/import/", views.ImportCreate.as_view(), name="import-create"),
]
