"""Addresses of the audit room."""

from django.urls import path

from apps.audit import integrity_views, keeping_views, views

app_name = "audit"
urlpatterns = [
    path("audit/", views.EventList.as_view(), name="event-list"),
    path("audit/integrity/", integrity_views.Integrity.as_view(), name="integrity"),
    path("audit/bundle/", integrity_views.Bundle.as_view(), name="bundle"),
    path("audit/retention/", keeping_views.Retention.as_view(), name="retention"),
    path("audit/retention/propose/", keeping_views.PurgePropose.as_view(), name="purge-propose"),
    path("audit/retention/<uuid:proposal_uid>/approve/", keeping_views.PurgeApprove.as_view(), name="purge-approve"),
    path("audit/retention/<uuid:proposal_uid>/reject/", keeping_views.PurgeReject.as_view(), name="purge-reject"),
    path("audit/retention/<uuid:proposal_uid>/withdraw/", keeping_views.PurgeWithdraw.as_view(), name="purge-withdraw"),
    path("audit/holds/new/", keeping_views.HoldPlace.as_view(), name="hold-place"),
    path("audit/holds/<uuid:hold_uid>/release/", keeping_views.HoldRelease.as_view(), name="hold-release"),
    path("audit/reconciliation/", keeping_views.Reconciliation.as_view(), name="reconciliation"),
    path("audit/<uuid:event_uid>/", views.EventDetail.as_view(), name="event-detail"),
]
