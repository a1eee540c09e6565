"""Addresses of the costs room."""

from django.urls import path, re_path

from apps.costs import (
    adjusting_urls,
    budget_views,
    cross_check_urls,
    distribution_views,
    period_views,
    preview_views,
    resource_views,
    running_views,
    service_class_views,
    spare_views,
    statement_views,
    views,
    whatif_views,
)

app_name = "costs"
_TEAM = r"^costs/teams/(?P<team_slug>[-a-z0-9_]+)"
_DAY = r"(?P<day>\d{4}-\d{2}-\d{2})"
urlpatterns = [
    path("costs/", views.TeamList.as_view(), name="team-list"),
    re_path(rf"{_TEAM}/(?P<month>\d{{4}}-(?:0[1-9]|1[0-2]))/$", views.TeamMonth.as_view(), name="team-month"),
    re_path(rf"{_TEAM}/{_DAY}/$", views.TeamDay.as_view(), name="team-day"),
    re_path(rf"{_TEAM}/{_DAY}/workload/$", views.WorkloadDay.as_view(), name="workload-day"),
    re_path(rf"{_TEAM}/{_DAY}/resources/$", resource_views.ResourceDay.as_view(), name="resource-day"),
    path("costs/facts/<str:hour>/<uuid:fact_uid>/", resource_views.ResourceFactDetail.as_view(), name="resource-fact"),
    re_path(
        r"^costs/unallocated/(?P<month>\d{4}-(?:0[1-9]|1[0-2]))/$",
        spare_views.UnallocatedMonth.as_view(),
        name="unallocated-month",
    ),
    re_path(rf"^costs/unallocated/{_DAY}/$", spare_views.UnallocatedDay.as_view(), name="unallocated-day"),
    re_path(rf"^costs/unallocated/{_DAY}/hours/$", spare_views.UnallocatedHours.as_view(), name="unallocated-hours"),
    path("costs/capacity/<slug:cluster_slug>/<str:hour>/", spare_views.CapacityHour.as_view(), name="capacity-hour"),
    path("costs/teams/<slug:team_slug>/budget/", budget_views.BudgetSet.as_view(), name="budget-set"),
    path("costs/units/<slug:unit_slug>/budget/", budget_views.UnitBudgetSet.as_view(), name="unit-budget-set"),
    path("costs/facts/<uuid:fact_uid>/", views.FactDetail.as_view(), name="fact-detail"),
    path("costs/service-classes/", service_class_views.ClassList.as_view(), name="class-list"),
    path("costs/service-classes/<uuid:workspace_uid>/", service_class_views.ClassAssign.as_view(), name="class-assign"),
    path("costs/what-if/", whatif_views.WhatIfPage.as_view(), name="whatif"),
    path("costs/what-if/<uuid:run_uid>/", whatif_views.WhatIfRunPage.as_view(), name="whatif-run"),
    path("costs/charges/", views.ChargeList.as_view(), name="charge-list"),
    path("costs/budgets/", budget_views.BudgetList.as_view(), name="budget-list"),
    path("costs/budgets/<uuid:budget_uid>/", budget_views.BudgetDetail.as_view(), name="budget-detail"),
    path("costs/periods/", period_views.PeriodList.as_view(), name="period-list"),
    path("costs/periods/<str:month>/", period_views.PeriodDetail.as_view(), name="period-detail"),
    path("costs/periods/<str:month>/checklist/", period_views.PeriodChecklist.as_view(), name="period-checklist"),
    path("costs/periods/<str:month>/preview/", preview_views.PeriodPreview.as_view(), name="period-preview"),
    path(
        "costs/periods/<str:month>/preview/make/",
        preview_views.PeriodPreviewMake.as_view(),
        name="period-preview-make",
    ),
    path("costs/periods/<str:month>/start/", period_views.PeriodStart.as_view(), name="period-start"),
    path("costs/periods/<str:month>/back/", period_views.PeriodBack.as_view(), name="period-back"),
    path("costs/periods/<str:month>/waive/", period_views.PeriodWaive.as_view(), name="period-waive"),
    path("costs/periods/<str:month>/close/", preview_views.PeriodClose.as_view(), name="period-close"),
    path("costs/periods/<str:month>/running/", running_views.RunningList.as_view(), name="running-list"),
    path(
        "costs/periods/<str:month>/running/<slug:number>/",
        running_views.RunningDetail.as_view(),
        name="running-detail",
    ),
    path("costs/statements/", statement_views.StatementList.as_view(), name="statement-list"),
    path("costs/statements/<uuid:statement_uid>/", statement_views.StatementDetail.as_view(), name="statement-detail"),
    path("costs/distribution/", distribution_views.PolicyList.as_view(), name="distribution-list"),
    path("costs/distribution/new/", distribution_views.PolicyPropose.as_view(), name="distribution-propose"),
    path("costs/distribution/try/", distribution_views.PolicyTry.as_view(), name="distribution-try"),
    path(
        "costs/distribution/<uuid:policy_uid>/", distribution_views.PolicyDetail.as_view(), name="distribution-detail"
    ),
    path(
        "costs/distribution/<uuid:policy_uid>/approve/",
        distribution_views.PolicyApprove.as_view(),
        name="distribution-approve",
    ),
    path(
        "costs/distribution/<uuid:policy_uid>/reject/",
        distribution_views.PolicyReject.as_view(),
        name="distribution-reject",
    ),
    path(
        "costs/distribution/<uuid:policy_uid>/withdraw/",
        distribution_views.PolicyWithdraw.as_view(),
        name="distribution-withdraw",
    ),
    *adjusting_urls.urlpatterns,
    *cross_check_urls.urlpatterns,
]
