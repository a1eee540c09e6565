"""App configuration of the clusters room."""

from django.apps import AppConfig


class ClustersConfig(AppConfig):
    """Clusters, flavours, pools, inventory and their clients."""

    name = "apps.clusters"
    label = "clusters"
