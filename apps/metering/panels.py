"""The metering room in the navigation, and the completeness of a cluster's usage on its page."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.http import HttpRequest

from apps.clusters.models import Cluster
from apps.core import clock
from apps.metering import selectors
from apps.metering.models import Source
from portal.panels import nav, panel

nav(
    "Usage sources", "metering:source-list", icon="database", order=60, permission="metering.run.view", group="Platform"
)
nav("Ingest runs", "metering:run-list", icon="activity", order=65, permission="metering.run.view", group="Platform")

nav("Capacity lines", "metering:capacity-list", icon="scale", order=70, permission="metering.run.view", group="Money")
nav(
    "Unowned namespaces", "metering:namespace-list", icon="tag", order=75, permission="metering.namespace.claim",
    group="Money",
)  # fmt: skip
nav(
    "Resources and shares",
    "metering:rule-list",
    icon="list-check",
    order=70,
    permission="metering.run.view",
    group="Platform",
)


@panel(page="cluster", order=60, permission="metering.run.view")
def usage(request: HttpRequest, cluster: Cluster) -> dict[str, Any]:
    """Show how complete the last 30 days of this cluster's usage are."""
    now = clock.hour_floor(clock.now())
    source = Source.objects.in_force().filter(cluster=cluster).first()
    return {
        "template": "metering/panels/cluster.html",
        "cluster": cluster,
        "source": source,
        "run": selectors.last_run(source) if source else None,
        "found": selectors.completeness(cluster.pk, now - timedelta(days=30), now, named=5),
    }
