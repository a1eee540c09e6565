"""Addresses of the audit room."""

from django.urls import path

from apps.audit import integrity_views, views

app_name = "audit"
urlpatterns = [
    path("audit/", views.EventList.as_view(), name="event-list"),
    path("audit/integrity/", integrity_views.Integrity.as_view(), name="integrity"),
    path("audit/bundle/", integrity_views.Bundle.as_view(), name="bundle"),
    path("audit/<uuid:event_uid>/", views.EventDetail.as_view(), name="event-detail"),
]
