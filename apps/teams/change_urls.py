"""Addresses of changes of units and teams."""

from django.urls import path

from apps.teams import change_views as views

urlpatterns = [
    path("units/<slug:unit_slug>/change/", views.UnitChange.as_view(), name="unit-change"),
    path("units/<slug:unit_slug>/archive/", views.UnitArchive.as_view(), name="unit-archive"),
    path("units/<slug:unit_slug>/restore/", views.UnitRestore.as_view(), name="unit-restore"),
    path("teams/<slug:team_slug>/change/", views.TeamChange.as_view(), name="team-change"),
    path("teams/<slug:team_slug>/archive/", views.TeamArchive.as_view(), name="team-archive"),
    path("teams/<slug:team_slug>/restore/", views.TeamRestore.as_view(), name="team-restore"),
    path("planned-changes/<uuid:change_uid>/cancel/", views.ChangeCancel.as_view(), name="change-cancel"),
]
