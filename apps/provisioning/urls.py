"""Addresses of the provisioning room."""

from django.urls import path

from apps.provisioning import drift_views, stop_views, views

app_name = "provisioning"
urlpatterns = [
    path("provisioning/declarations/", views.DeclarationList.as_view(), name="declaration-list"),
    path(
        "provisioning/declarations/<uuid:declaration_uid>/",
        views.DeclarationDetail.as_view(),
        name="declaration-detail",
    ),
    path(
        "provisioning/declarations/<uuid:declaration_uid>/retry/",
        views.DeclarationRetry.as_view(),
        name="declaration-retry",
    ),
    path("provisioning/runs/", views.RunList.as_view(), name="run-list"),
    path("provisioning/runs/<uuid:run_uid>/", views.RunDetail.as_view(), name="run-detail"),
    path("provisioning/drift/", drift_views.DriftList.as_view(), name="drift-list"),
    path("provisioning/drift/<uuid:drift_uid>/reapply/", drift_views.DriftReapply.as_view(), name="drift-reapply"),
    path("provisioning/drift/<uuid:drift_uid>/ignore/", drift_views.DriftIgnore.as_view(), name="drift-ignore"),
    path("provisioning/drift/<uuid:drift_uid>/reopen/", drift_views.DriftReopen.as_view(), name="drift-reopen"),
    path("provisioning/plans/<uuid:plan_uid>/", views.PlanDetail.as_view(), name="plan-detail"),
    path("provisioning/plans/<uuid:plan_uid>/remake/", views.PlanRemake.as_view(), name="plan-remake"),
    path("provisioning/stops/", stop_views.StopList.as_view(), name="stop-list"),
    path("provisioning/stops/<uuid:stop_uid>/", stop_views.StopDetail.as_view(), name="stop-detail"),
    path("provisioning/stops/<uuid:stop_uid>/undo/", stop_views.StopUndo.as_view(), name="stop-undo"),
]
