"""Addresses of seeing the portal as somebody else."""

from django.urls import path

from apps.accounts import impersonation_views as views

urlpatterns = [
    path("people/<uuid:user_uid>/see-as/", views.ImpersonationStart.as_view(), name="impersonation-start"),
    path("see-as/end/", views.ImpersonationEnd.as_view(), name="impersonation-end"),
]
