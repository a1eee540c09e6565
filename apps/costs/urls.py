"""Addresses of the costs room."""

from django.urls import path, re_path

from apps.costs import budget_views, views

app_name = "costs"
_TEAM = r"^costs/teams/(?P<team_slug>[-a-z0-9_]+)"
_DAY = r"(?P<day>\d{4}-\d{2}-\d{2})"
urlpatterns = [
    path("costs/", views.TeamList.as_view(), name="team-list"),
    re_path(rf"{_TEAM}/(?P<month>\d{{4}}-(?:0[1-9]|1[0-2]))/$", views.TeamMonth.as_view(), name="team-month"),
    re_path(rf"{_TEAM}/{_DAY}/$", views.TeamDay.as_view(), name="team-day"),
    re_path(rf"{_TEAM}/{_DAY}/workload/$", views.WorkloadDay.as_view(), name="workload-day"),
    path("costs/teams/<slug:team_slug>/budget/", budget_views.BudgetSet.as_view(), name="budget-set"),
    path("costs/units/<slug:unit_slug>/budget/", budget_views.UnitBudgetSet.as_view(), name="unit-budget-set"),
    path("costs/facts/<uuid:fact_uid>/", views.FactDetail.as_view(), name="fact-detail"),
    path("costs/charges/", views.ChargeList.as_view(), name="charge-list"),
    path("costs/budgets/", budget_views.BudgetList.as_view(), name="budget-list"),
    path("costs/budgets/<uuid:budget_uid>/", budget_views.BudgetDetail.as_view(), name="budget-detail"),
]
