"""Addresses of sign-in at identity providers, and of keeping them."""

from django.urls import path

from apps.accounts import openid_admin_views as admin
from apps.accounts import openid_views as doors

_PROVIDER = "identity-providers/<uuid:provider_uid>/"

urlpatterns = [
    path("sign-in/at/<slug:slug>/", doors.Start.as_view(), name="openid-start"),
    path("sign-in/at/<slug:slug>/callback/", doors.Callback.as_view(), name="openid-callback"),
    path("sign-in/at/<slug:slug>/prove/", doors.Prove.as_view(), name="openid-prove"),
    path("sign-in/at/<slug:slug>/try/", doors.Try.as_view(), name="openid-try"),
    path("sign-in/at/<slug:slug>/back-channel-logout/", doors.BackChannel.as_view(), name="openid-back-channel"),
    path("sign-in/at/<slug:slug>/front-channel-logout/", doors.FrontChannel.as_view(), name="openid-front-channel"),
    path(
        "people/identities/<uuid:identity_uid>/disconnect/",
        admin.IdentityDisconnect.as_view(),
        name="identity-disconnect",
    ),
    path("identity-providers/", admin.ProviderList.as_view(), name="provider-list"),
    path("identity-providers/new/", admin.ProviderCreate.as_view(), name="provider-create"),
    path(_PROVIDER, admin.ProviderDetail.as_view(), name="provider-detail"),
    path(f"{_PROVIDER}edit/", admin.ProviderEdit.as_view(), name="provider-edit"),
    path(f"{_PROVIDER}test/", admin.ProviderTest.as_view(), name="provider-test"),
    path(f"{_PROVIDER}enable/", admin.ProviderEnable.as_view(), name="provider-enable"),
    path(f"{_PROVIDER}disable/", admin.ProviderDisable.as_view(), name="provider-disable"),
    path(f"{_PROVIDER}archive/", admin.ProviderArchive.as_view(), name="provider-archive"),
]
