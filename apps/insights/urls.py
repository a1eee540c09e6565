"""Addresses of the insights room."""

from django.urls import path

from apps.insights import idle_views, views, workload_views

app_name = "insights"
_FINDING = "insights/findings/<uuid:finding_uid>/"
_CASE = "insights/idle/<uuid:case_uid>/"
urlpatterns = [
    path("insights/findings/", views.FindingList.as_view(), name="finding-list"),
    path("insights/findings/look/", views.Look.as_view(), name="look"),
    path(_FINDING, views.FindingDetail.as_view(), name="finding-detail"),
    path(f"{_FINDING}give-back/", views.GiveBack.as_view(), name="finding-give-back"),
    path(f"{_FINDING}snooze/", views.Snooze.as_view(), name="finding-snooze"),
    path(f"{_FINDING}dismiss/", views.Dismiss.as_view(), name="finding-dismiss"),
    path("insights/workloads/", workload_views.WorkloadList.as_view(), name="workload-list"),
    path("insights/idle/", idle_views.IdleList.as_view(), name="idle-list"),
    path(_CASE, idle_views.IdleDetail.as_view(), name="idle-detail"),
    path(f"{_CASE}keep/", idle_views.Keep.as_view(), name="idle-keep"),
    path(f"{_CASE}stop/", idle_views.StopNow.as_view(), name="idle-stop"),
    path(f"{_CASE}start/", idle_views.StartAgain.as_view(), name="idle-start"),
]
