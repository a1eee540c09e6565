"""URLs of home, overviews and the monthly report."""

from django.urls import path

from apps.reports import file_views, views

app_name = "reports"

urlpatterns = [
    path("", views.HomeView.as_view(), name="home"),
    path("teams/<slug:team_slug>/", views.TeamView.as_view(), name="team"),
    path("units/<slug:unit_slug>/overview/", views.UnitView.as_view(), name="unit"),
    path("reports/monthly/", views.LatestReportView.as_view(), name="monthly-latest"),
    path("reports/monthly/<slug:unit_slug>/", views.LatestReportView.as_view(), name="monthly-unit"),
    path("reports/monthly/<slug:unit_slug>/<str:month>/pdf/", file_views.PdfView.as_view(), name="monthly-pdf"),
    path("reports/monthly/<slug:unit_slug>/<str:month>/print/", file_views.PrintView.as_view(), name="monthly-print"),
    path("reports/monthly/<slug:unit_slug>/<str:month>/", views.MonthlyReportView.as_view(), name="monthly"),
]
