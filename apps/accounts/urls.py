"""Addresses of the accounts room."""

from django.urls import path

from apps.accounts import (
    admin_views,
    erasure_urls,
    factor_urls,
    impersonation_urls,
    merge_views,
    openid_urls,
    scim_urls,
    session_urls,
    views,
)

app_name = "accounts"
urlpatterns = [
    path("sign-in/", views.SignIn.as_view(), name="sign-in"),
    path("sign-out/", views.SignOut.as_view(), name="sign-out"),
    path("account/", views.Profile.as_view(), name="profile"),
    path("account/password/", views.PasswordChange.as_view(), name="password-change"),
    path("account/sessions/close-others/", views.SessionsCloseOthers.as_view(), name="session-close-others"),
    path("account/tokens/new/", views.TokenCreate.as_view(), name="token-create"),
    path("account/tokens/<uuid:token_uid>/revoke/", views.TokenRevoke.as_view(), name="token-revoke"),
    path("people/", admin_views.UserList.as_view(), name="user-list"),
    path("people/new/", admin_views.UserCreate.as_view(), name="user-create"),
    path("people/<uuid:user_uid>/", admin_views.UserDetail.as_view(), name="user-detail"),
    path("people/<uuid:user_uid>/deactivate/", admin_views.UserDeactivate.as_view(), name="user-deactivate"),
    path("people/<uuid:user_uid>/reactivate/", admin_views.UserReactivate.as_view(), name="user-reactivate"),
    path("people/<uuid:user_uid>/merge/", merge_views.UserMerge.as_view(), name="user-merge"),
    path("people/<uuid:user_uid>/password/", admin_views.UserPasswordReset.as_view(), name="user-password-reset"),
]
urlpatterns += impersonation_urls.urlpatterns
urlpatterns += factor_urls.urlpatterns + session_urls.urlpatterns
urlpatterns += openid_urls.urlpatterns
urlpatterns += scim_urls.urlpatterns
urlpatterns += erasure_urls.urlpatterns
