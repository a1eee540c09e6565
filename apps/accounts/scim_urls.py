"""Addresses of the provisioning interface and of its pages."""

from django.urls import path

from apps.accounts import scim_pages, scim_views

_SCIM = "api/scim/v2/<slug:provider_slug>"
_PAGES = "identity-providers/<uuid:provider_uid>/provisioning"

urlpatterns = [
    path(f"{_SCIM}/Users", scim_views.Users.as_view(), name="scim-users"),
    path(f"{_SCIM}/Users/<str:resource_id>", scim_views.User.as_view(), name="scim-user"),
    path(f"{_SCIM}/Groups", scim_views.Groups.as_view(), name="scim-groups"),
    path(f"{_SCIM}/Groups/<str:resource_id>", scim_views.Group.as_view(), name="scim-group"),
    path(f"{_SCIM}/ServiceProviderConfig", scim_views.Config.as_view(), name="scim-config"),
    path(f"{_SCIM}/ResourceTypes", scim_views.ResourceTypes.as_view(), name="scim-types"),
    path(f"{_SCIM}/ResourceTypes/<str:name>", scim_views.ResourceTypes.as_view(), name="scim-type"),
    path(f"{_SCIM}/Schemas", scim_views.Schemas.as_view(), name="scim-schemas"),
    path(f"{_SCIM}/Schemas/<str:name>", scim_views.Schemas.as_view(), name="scim-schema"),
    path(f"{_PAGES}/", scim_pages.Provisioning.as_view(), name="provisioning"),
    path(f"{_PAGES}/tokens/new/", scim_pages.TokenCreate.as_view(), name="scim-token-create"),
    path(f"{_PAGES}/tokens/<uuid:token_uid>/rotate/", scim_pages.TokenRotate.as_view(), name="scim-token-rotate"),
    path(f"{_PAGES}/tokens/<uuid:token_uid>/revoke/", scim_pages.TokenRevoke.as_view(), name="scim-token-revoke"),
    path(f"{_PAGES}/release/", scim_pages.Release.as_view(), name="provisioning-release"),
    path(f"{_PAGES}/keep/", scim_pages.Keep.as_view(), name="provisioning-keep"),
]
