"""Addresses of the clusters room."""

from django.urls import path

from apps.clusters import flavour_views, onboarding_views, pool_views, removal_views, views

app_name = "clusters"
urlpatterns = [
    path("clusters/", views.ClusterList.as_view(), name="cluster-list"),
    path("clusters/new/", views.ClusterCreate.as_view(), name="cluster-create"),
    path("clusters/needs/", onboarding_views.ClusterNeeds.as_view(), name="cluster-needs"),
    path(
        "clusters/maintenance/<uuid:window_uid>/cancel/",
        onboarding_views.MaintenanceCancel.as_view(),
        name="maintenance-cancel",
    ),
    path("clusters/pools/", pool_views.PoolList.as_view(), name="pool-list"),
    path("clusters/pools/new/", pool_views.PoolCreate.as_view(), name="pool-create"),
    path("clusters/pools/<uuid:pool_uid>/", pool_views.PoolDetail.as_view(), name="pool-detail"),
    path("clusters/pools/<uuid:pool_uid>/capacity/", pool_views.PoolCapacitySet.as_view(), name="pool-capacity"),
    path("clusters/pools/<uuid:pool_uid>/edit/", pool_views.PoolEdit.as_view(), name="pool-edit"),
    path("clusters/nodes/", pool_views.NodeList.as_view(), name="node-list"),
    path("clusters/flavours/", flavour_views.FlavourList.as_view(), name="flavour-list"),
    path("clusters/flavours/new/", flavour_views.FlavourCreate.as_view(), name="flavour-create"),
    path("clusters/<slug:slug>/", views.ClusterDetail.as_view(), name="cluster-detail"),
    path("clusters/<slug:slug>/credentials/", views.ClusterCredentials.as_view(), name="cluster-credentials"),
    path("clusters/<slug:slug>/proposals/", pool_views.Proposals.as_view(), name="proposals"),
    path("clusters/<slug:slug>/check/", onboarding_views.ClusterCheckRequest.as_view(), name="cluster-check"),
    path("clusters/<slug:slug>/edit/", onboarding_views.ClusterEdit.as_view(), name="cluster-edit"),
    path("clusters/<slug:slug>/kueue/", onboarding_views.ClusterKueue.as_view(), name="cluster-kueue"),
    path("clusters/<slug:slug>/maintenance/", onboarding_views.MaintenanceCreate.as_view(), name="maintenance-create"),
    path("clusters/<slug:slug>/pause/", views.ClusterPause.as_view(), name="cluster-pause"),
    path("clusters/<slug:slug>/remove/", removal_views.ClusterRemove.as_view(), name="cluster-remove"),
    path("clusters/<slug:slug>/archive/", removal_views.ClusterArchive.as_view(), name="cluster-archive"),
    path("clusters/<slug:slug>/restore/", removal_views.ClusterRestore.as_view(), name="cluster-restore"),
    path("clusters/<slug:slug>/resume/", views.ClusterResume.as_view(), name="cluster-resume"),
]
