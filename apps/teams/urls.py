"""Addresses of the teams room."""

from django.urls import path

from apps.teams import change_urls, import_views, mapping_urls, review_urls, role_views, service_urls, views

app_name = "teams"
urlpatterns = [
    path("units/", views.UnitTree.as_view(), name="unit-list"),
    path("units/new/", views.UnitCreate.as_view(), name="unit-create"),
    path("units/<slug:unit_slug>/", views.UnitDetail.as_view(), name="unit-detail"),
    path("units/<slug:unit_slug>/teams/new/", views.TeamCreate.as_view(), name="team-create"),
    path("teams/<slug:team_slug>/people/", views.MemberList.as_view(), name="member-list"),
    path("teams/<slug:team_slug>/people/add/", views.MemberAdd.as_view(), name="member-add"),
    path("teams/<slug:team_slug>/people/<uuid:user_uid>/remove/", views.MemberRemove.as_view(), name="member-remove"),
    path("roles/", role_views.GrantList.as_view(), name="grant-list"),
    path("roles/new/", role_views.GrantCreate.as_view(), name="grant-create"),
    path("roles/<uuid:grant_uid>/revoke/", role_views.GrantRevoke.as_view(), name="grant-revoke"),
    path("roles/<uuid:grant_uid>/extend/", role_views.GrantExtend.as_view(), name="grant-extend"),
    path("people-import/", import_views.Import.as_view(), name="import"),
    path("people/<uuid:user_uid>/why/", role_views.Why.as_view(), name="why"),
]
urlpatterns += review_urls.urlpatterns
urlpatterns += change_urls.urlpatterns
urlpatterns += mapping_urls.urlpatterns
urlpatterns += service_urls.urlpatterns
