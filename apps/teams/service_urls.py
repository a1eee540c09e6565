"""Addresses of accounts of programs."""

from django.urls import path

from apps.teams import service_views as views

_ONE = "service-accounts/<uuid:account_uid>/"
urlpatterns = [
    path("service-accounts/", views.ServiceList.as_view(), name="service-list"),
    path("service-accounts/new/", views.ServiceCreate.as_view(), name="service-create"),
    path(_ONE, views.ServiceDetail.as_view(), name="service-detail"),
    path(f"{_ONE}role/", views.ServiceRole.as_view(), name="service-role"),
    path(f"{_ONE}end/", views.ServiceEnd.as_view(), name="service-end"),
    path(f"{_ONE}tokens/new/", views.ServiceTokenCreate.as_view(), name="service-token-create"),
    path(f"{_ONE}tokens/<uuid:token_uid>/rotate/", views.ServiceTokenRotate.as_view(), name="service-token-rotate"),
    path(f"{_ONE}tokens/<uuid:token_uid>/revoke/", views.ServiceTokenRevoke.as_view(), name="service-token-revoke"),
]
