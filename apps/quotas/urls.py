"""Addresses of the quotas room."""

from django.urls import path

from apps.quotas import (
    adopt_views,
    baseline_views,
    change_views,
    drift_views,
    expiry_views,
    guard_views,
    idle_policy_views,
    limits_views,
    live_views,
    request_change_views,
    request_views,
    use_views,
    views,
)

app_name = "quotas"
_WORKSPACE = "quotas/workspaces/<uuid:workspace_uid>/"
_USE = f"{_WORKSPACE}use/<slug:flavour_slug>/"
_REQUEST = "quotas/requests/<uuid:request_uid>/"
urlpatterns = [
    path("quotas/workspaces/", views.WorkspaceList.as_view(), name="workspace-list"),
    path("quotas/workspaces/new/", views.WorkspaceCreate.as_view(), name="workspace-create"),
    path(_WORKSPACE, views.WorkspaceDetail.as_view(), name="workspace-detail"),
    path(f"{_WORKSPACE}live/", live_views.WorkspaceLive.as_view(), name="workspace-live"),
    path("quotas/teams/<slug:team_slug>/live/", live_views.TeamLive.as_view(), name="team-live"),
    path(f"{_REQUEST}live/", live_views.RequestLive.as_view(), name="request-live"),
    path(f"{_WORKSPACE}pending/", use_views.WhyPending.as_view(), name="workspace-pending"),
    path(f"{_WORKSPACE}idle-policy/", idle_policy_views.WorkspaceIdlePolicy.as_view(), name="workspace-idle-policy"),
    path(f"{_WORKSPACE}expiry-policy/", expiry_views.WorkspaceExpiryPolicy.as_view(), name="workspace-expiry-policy"),
    path(f"{_WORKSPACE}archive/", expiry_views.WorkspaceArchive.as_view(), name="workspace-archive"),
    path(f"{_WORKSPACE}restore/", expiry_views.WorkspaceRestore.as_view(), name="workspace-restore"),
    path(f"{_WORKSPACE}drain/", expiry_views.WorkspaceDrain.as_view(), name="workspace-drain"),
    path(f"{_WORKSPACE}limits/", limits_views.WorkspaceLimits.as_view(), name="workspace-limits"),
    path(_USE, use_views.UseIt.as_view(), name="use"),
    path(f"{_USE}kubeconfig/", use_views.Kubeconfig.as_view(), name="use-kubeconfig"),
    path(f"{_USE}<slug:shape>/", use_views.ReadyMade.as_view(), name="use-manifest"),
    path(f"{_USE}<slug:shape>/check/", use_views.Check.as_view(), name="use-check"),
    path("quotas/requests/", request_views.RequestList.as_view(), name="request-list"),
    path("quotas/requests/new/", request_views.RequestCreate.as_view(), name="request-create"),
    path("quotas/requests/estimate/", request_views.RequestEstimate.as_view(), name="request-estimate"),
    path(_REQUEST, request_views.RequestDetail.as_view(), name="request-detail"),
    path(f"{_REQUEST}withdraw/", request_change_views.RequestWithdraw.as_view(), name="request-withdraw"),
    path(f"{_REQUEST}correct/", request_change_views.RequestCorrect.as_view(), name="request-correct"),
    path(
        f"{_REQUEST}correct/estimate/", request_change_views.CorrectEstimate.as_view(), name="request-correct-estimate"
    ),
    path("quotas/baselines/<uuid:cluster_uid>/", baseline_views.BaselineRequest.as_view(), name="baseline"),
    path("quotas/clusters/<uuid:cluster_uid>/adopt/", adopt_views.AdoptNamespace.as_view(), name="adopt-namespace"),
    path("quotas/adoptions/<uuid:reading_uid>/", adopt_views.AdoptionDetail.as_view(), name="adoption"),
    path(
        "quotas/adoptions/<uuid:reading_uid>/request/", adopt_views.AdoptionRequest.as_view(), name="adoption-request"
    ),
    path("quotas/adoptions/<uuid:reading_uid>/again/", adopt_views.AdoptionAgain.as_view(), name="adoption-again"),
    path("quotas/clusters/<uuid:cluster_uid>/guard/", guard_views.ClusterGuard.as_view(), name="cluster-guard"),
    path("quotas/drift/<uuid:drift_uid>/adopt/", drift_views.AdoptDrift.as_view(), name="adopt-drift"),
    path("quotas/changes/", change_views.ChangeList.as_view(), name="change-list"),
    path("quotas/changes/<uuid:change_uid>/", change_views.ChangeDetail.as_view(), name="change-detail"),
    path("quotas/changes/<uuid:change_uid>/withdraw/", change_views.ChangeWithdraw.as_view(), name="change-withdraw"),
    path("quotas/pools/", views.PoolList.as_view(), name="pool-list"),
    path("quotas/pools/<uuid:pool_uid>/", views.PoolDetail.as_view(), name="pool-detail"),
]
