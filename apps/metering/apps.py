"""App configuration of the metering room."""

from django.apps import AppConfig


class MeteringConfig(AppConfig):
    """Sources, ingest runs, hourly facts, capacity lines."""

    name = "apps.metering"
    label = "metering"

    def ready(self) -> None:
        """Register what stands against archiving a cluster, and where secrets are stored."""
        from apps.clusters.removing import register_archive_objection
        from apps.core.crypto import register_secrets
        from apps.metering import cluster_objection

        register_archive_objection(cluster_objection.archive)
        register_secrets("metering.Source", "credentials", "usage sources")
