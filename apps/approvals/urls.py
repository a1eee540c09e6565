"""Addresses of the approvals room."""

from django.urls import path

from apps.approvals import (
    comment_views,
    delegation_views,
    emergency_views,
    inbox_views,
    integrity_views,
    policy_views,
    views,
)

app_name = "approvals"
urlpatterns = [
    path("approvals/inbox/", inbox_views.Inbox.as_view(), name="inbox"),
    path("approvals/requests/", views.RequestList.as_view(), name="request-list"),
    path("approvals/requests/<uuid:request_uid>/", views.RequestDetail.as_view(), name="request-detail"),
    path("approvals/requests/<uuid:request_uid>/decide/", views.RequestDecide.as_view(), name="request-decide"),
    path("approvals/requests/<uuid:request_uid>/withdraw/", views.RequestWithdraw.as_view(), name="request-withdraw"),
    path("approvals/requests/<uuid:request_uid>/retry/", views.RequestRetry.as_view(), name="request-retry"),
    path(
        "approvals/requests/<uuid:request_uid>/comment/", comment_views.CommentCreate.as_view(), name="comment-create"
    ),
    path(
        "approvals/comments/<uuid:comment_uid>/resolve/", comment_views.CommentResolve.as_view(), name="comment-resolve"
    ),
    path("approvals/delegations/", delegation_views.DelegationList.as_view(), name="delegation-list"),
    path("approvals/new-delegation/", delegation_views.DelegationCreate.as_view(), name="delegation-create"),
    path(
        "approvals/delegations/<uuid:delegation_uid>/end/",
        delegation_views.DelegationRevoke.as_view(),
        name="delegation-revoke",
    ),
    path("approvals/reviews/", emergency_views.ReviewList.as_view(), name="review-list"),
    path("approvals/reviews/<uuid:review_uid>/", emergency_views.ReviewDetail.as_view(), name="review-detail"),
    path("approvals/reviews/<uuid:review_uid>/close/", emergency_views.ReviewClose.as_view(), name="review-close"),
    path("approvals/standard-changes/", emergency_views.LossList.as_view(), name="standard-list"),
    path(
        "approvals/standard-changes/<uuid:loss_uid>/restore/",
        emergency_views.LossRestore.as_view(),
        name="standard-restore",
    ),
    path("approvals/integrity/", integrity_views.Integrity.as_view(), name="integrity"),
    path("approvals/policies/", policy_views.PolicyList.as_view(), name="policy-list"),
    path("approvals/new-policy/", policy_views.PolicyCreate.as_view(), name="policy-create"),
    path("approvals/policy-preview/", policy_views.PolicyPreview.as_view(), name="policy-preview"),
    path("approvals/policy-rehearsal/", policy_views.PolicyRehearsal.as_view(), name="policy-rehearsal"),
    path("approvals/policies/<slug:slug>/", policy_views.PolicyDetail.as_view(), name="policy-detail"),
    path("approvals/policies/<slug:slug>/publish/", policy_views.PolicyPublish.as_view(), name="policy-publish"),
    path(
        "approvals/policies/<slug:slug>/versions/<int:number>/",
        policy_views.PolicyDetail.as_view(),
        name="policy-version",
    ),
]
