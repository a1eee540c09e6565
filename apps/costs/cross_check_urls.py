"""Addresses of cross-checks and bills."""

from django.urls import path

from apps.costs import bills_views, cross_check_views

urlpatterns = [
    path("costs/cross-checks/", cross_check_views.CrossCheckList.as_view(), name="cross-check-list"),
    path("costs/cross-checks/endpoints/", cross_check_views.CheckSettingList.as_view(), name="check-setting-list"),
    path(
        "costs/cross-checks/endpoints/<slug:cluster_slug>/",
        cross_check_views.CheckSettingEdit.as_view(),
        name="check-setting-edit",
    ),
    path(
        "costs/cross-checks/<uuid:check_uid>/", cross_check_views.CrossCheckDetail.as_view(), name="cross-check-detail"
    ),
    path(
        "costs/cross-checks/<uuid:check_uid>/explain/",
        cross_check_views.CrossCheckExplain.as_view(),
        name="cross-check-explain",
    ),
    path("costs/bills/", bills_views.BillList.as_view(), name="bill-list"),
    path("costs/bills/import/", bills_views.BillImport.as_view(), name="bill-import"),
    path("costs/bills/<uuid:bill_uid>/", bills_views.BillDetail.as_view(), name="bill-detail"),
    path("costs/bills/<uuid:bill_uid>/withdraw/", bills_views.BillWithdraw.as_view(), name="bill-withdraw"),
]
