"""Tables of clusters."""

from __future__ import annotations

from typing import Any

import django_tables2 as tables
from django.urls import reverse
from django.utils.html import format_html

from apps.clusters.choices import Health
from apps.clusters.health import shown_health
from apps.clusters.models import Cluster
from apps.core.filters import CommonsFilterSet, SearchFilter
from apps.core.tables import AgeColumn, CommonsTable, QuantityColumn, StatusColumn

#: Words and tones of what a page may say about a cluster's health.
HEALTH_WORDS = {
    **{value: str(label) for value, label in Health.choices},
    "stale": "Not heard of lately",
    "paused": "Paused",
    "archived": "Archived",
}
HEALTH_TONES = {
    "healthy": "positive", "unreachable": "critical", "refused": "critical", "stale": "caution", "unknown": "caution",
    "paused": "neutral", "archived": "neutral",
}  # fmt: skip

_WIDE = {"cell": {"class": "d-none d-md-table-cell"}}


class HealthColumn(StatusColumn):
    """Health as it may be said now: never healthy when stale."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(tones=HEALTH_TONES, labels=HEALTH_WORDS, orderable=False, accessor="shown_health", **kwargs)


class SlugLinkColumn(tables.Column):
    """A link to a cluster's page."""

    def render(self, value: Any, record: Any) -> Any:
        """Draw the link; `record` is a cluster or has one."""
        cluster = record if isinstance(record, Cluster) else record.cluster
        url = reverse("clusters:cluster-detail", kwargs={"slug": cluster.slug})
        note = format_html(' <span class="badge">{}</span>', "simulated") if cluster.simulated else ""
        return format_html('<a href="{}">{}</a>{}', url, value, note)

    def value(self, value: Any, **_: Any) -> str:
        """Export the name."""
        return str(value)


class ClusterTable(CommonsTable):
    """Clusters with health and age."""

    name = SlugLinkColumn(verbose_name="Cluster")
    health = HealthColumn(verbose_name="Health")
    last_seen_at = AgeColumn(verbose_name="Last contact")
    kubernetes_version = tables.Column(verbose_name="Version", attrs=_WIDE)
    physical = QuantityColumn(unit=None, verbose_name="GPUs observed")
    region = tables.Column(attrs=_WIDE)

    class Meta(CommonsTable.Meta):
        model = Cluster
        fields = ("name", "health", "last_seen_at", "physical", "kubernetes_version", "region")
        order_by = ("name",)
        caption = "Clusters"


class ClusterFilter(CommonsFilterSet):
    """Search."""

    search = SearchFilter(columns=["name", "slug", "region"])

    class Meta:
        model = Cluster
        fields: list[str] = []


def health_of(cluster: Cluster) -> dict[str, str]:
    """Return value, word and tone of a cluster's health for a badge."""
    value = shown_health(cluster)
    return {"value": value, "label": HEALTH_WORDS[value], "tone": HEALTH_TONES[value]}
