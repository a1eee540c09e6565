"""Addresses of the audit room."""

from django.urls import path

from apps.audit import views

app_name = "audit"
urlpatterns = [
    path("audit/", views.EventList.as_view(), name="event-list"),
    path("audit/<uuid:event_uid>/", views.EventDetail.as_view(), name="event-detail"),
]
