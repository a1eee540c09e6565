"""What stands against archiving a cluster: its usage is still read. Registered with the clusters room."""

from __future__ import annotations

from apps.clusters.models import Cluster
from apps.metering.models import Source


def archive(cluster: Cluster) -> str | None:
    """Return why a cluster cannot be archived: a source of usage is in force there. One query."""
    source = Source.objects.filter(cluster=cluster).in_force().first()
    if source is None:
        return None
    return f"Usage is read from it by “{source}”: end that source first, or its hours would be missing from now on."
