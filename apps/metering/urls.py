"""Addresses of the metering room."""

from django.urls import path

from apps.metering import views

app_name = "metering"
urlpatterns = [
    path("usage/sources/", views.SourceList.as_view(), name="source-list"),
    path("usage/sources/new/", views.SourceCreate.as_view(), name="source-create"),
    path("usage/sources/<uuid:source_uid>/", views.SourceDetail.as_view(), name="source-detail"),
    path("usage/sources/<uuid:source_uid>/retry/", views.SourceRetry.as_view(), name="source-retry"),
    path("usage/sources/<uuid:source_uid>/end/", views.SourceEnd.as_view(), name="source-end"),
    path("usage/runs/", views.RunList.as_view(), name="run-list"),
    path("usage/runs/<uuid:run_uid>/", views.RunDetail.as_view(), name="run-detail"),
    path("usage/import/", views.ImportCreate.as_view(), name="import-create"),
]
