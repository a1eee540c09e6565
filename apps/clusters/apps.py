"""App configuration of the clusters room."""

from django.apps import AppConfig


class ClustersConfig(AppConfig):
    """Clusters, flavours, pools, inventory and their clients."""

    name = "apps.clusters"
    label = "clusters"

    def ready(self) -> None:
        """Lend the guard of outgoing calls to the rooms below."""
        from apps.clusters import outgoing

        outgoing.install()
