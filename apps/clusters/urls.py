"""Addresses of the clusters room."""

from django.urls import path

from apps.clusters import flavour_views, pool_views, views

app_name = "clusters"
urlpatterns = [
    path("clusters/", views.ClusterList.as_view(), name="cluster-list"),
    path("clusters/new/", views.ClusterCreate.as_view(), name="cluster-create"),
    path("clusters/pools/", pool_views.PoolList.as_view(), name="pool-list"),
    path("clusters/pools/new/", pool_views.PoolCreate.as_view(), name="pool-create"),
    path("clusters/pools/<uuid:pool_uid>/", pool_views.PoolDetail.as_view(), name="pool-detail"),
    path("clusters/pools/<uuid:pool_uid>/capacity/", pool_views.PoolCapacitySet.as_view(), name="pool-capacity"),
    path("clusters/flavours/", flavour_views.FlavourList.as_view(), name="flavour-list"),
    path("clusters/flavours/new/", flavour_views.FlavourCreate.as_view(), name="flavour-create"),
    path("clusters/<slug:slug>/", views.ClusterDetail.as_view(), name="cluster-detail"),
    path("clusters/<slug:slug>/credentials/", views.ClusterCredentials.as_view(), name="cluster-credentials"),
    path("clusters/<slug:slug>/pause/", views.ClusterPause.as_view(), name="cluster-pause"),
    path("clusters/<slug:slug>/resume/", views.ClusterResume.as_view(), name="cluster-resume"),
]
