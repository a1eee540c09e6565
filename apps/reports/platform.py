"""The state of the platform in a few figures, for the people who run it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from django.db.models import F, Q

from apps.clusters.choices import Health
from apps.clusters.models import Cluster
from apps.core import clock
from apps.metering.selectors import Completeness, completeness
from apps.provisioning.choices import DeclarationStatus
from apps.provisioning.models import Declaration, Drift

#: How far back the ingest figure looks: the span that is read again and again.
WINDOW = timedelta(hours=48)


@dataclass(frozen=True, slots=True)
class PlatformState:
    """Counts of what is well and what is not; `hours` covers the last 48."""

    clusters: int
    unhealthy: list[Cluster]
    stopped: int
    behind: int
    drifts: int
    hours: Completeness

    @property
    def calm(self) -> bool:
        """Whether nothing needs a person."""
        return not (self.unhealthy or self.stopped or self.drifts or self.hours.open)


def state() -> PlatformState:
    """Read the figures (four queries). Platform-wide: the caller has checked the permission."""
    clusters = list(Cluster.objects.order_by("name"))
    stopped = Q(status=DeclarationStatus.STOPPED)
    behind = Q(generation__gt=F("observed_generation"))
    rows = Declaration.objects.filter(stopped | behind).values_list("status", flat=True)
    statuses = list(rows)
    at = clock.now()
    return PlatformState(
        clusters=len(clusters),
        unhealthy=[cluster for cluster in clusters if cluster.health != Health.HEALTHY],
        stopped=sum(1 for status in statuses if status == DeclarationStatus.STOPPED),
        behind=sum(1 for status in statuses if status != DeclarationStatus.STOPPED),
        drifts=Drift.objects.filter(resolved_at__isnull=True).count(),
        hours=completeness(None, at - WINDOW, at),
    )
