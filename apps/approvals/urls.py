"""Addresses of the approvals room."""

from django.urls import path

from apps.approvals import policy_views, views

app_name = "approvals"
urlpatterns = [
    path("approvals/requests/", views.RequestList.as_view(), name="request-list"),
    path("approvals/requests/<uuid:request_uid>/", views.RequestDetail.as_view(), name="request-detail"),
    path("approvals/requests/<uuid:request_uid>/decide/", views.RequestDecide.as_view(), name="request-decide"),
    path("approvals/requests/<uuid:request_uid>/withdraw/", views.RequestWithdraw.as_view(), name="request-withdraw"),
    path("approvals/requests/<uuid:request_uid>/retry/", views.RequestRetry.as_view(), name="request-retry"),
    path("approvals/policies/", policy_views.PolicyList.as_view(), name="policy-list"),
    path("approvals/new-policy/", policy_views.PolicyCreate.as_view(), name="policy-create"),
    path("approvals/policy-preview/", policy_views.PolicyPreview.as_view(), name="policy-preview"),
    path("approvals/policies/<slug:slug>/", policy_views.PolicyDetail.as_view(), name="policy-detail"),
    path("approvals/policies/<slug:slug>/publish/", policy_views.PolicyPublish.as_view(), name="policy-publish"),
    path(
        "approvals/policies/<slug:slug>/versions/<int:number>/",
        policy_views.PolicyDetail.as_view(),
        name="policy-version",
    ),
]
