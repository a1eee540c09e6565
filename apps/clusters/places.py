"""Where clusters stood at a time, as it was stated then: a dated history beside the cluster's present statement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from apps.clusters.models import Cluster, ClusterPlace
from apps.core import clock
from apps.core.actor import Actor


@dataclass(frozen=True, slots=True)
class Stated:
    """What was stated of a cluster; "": nothing."""

    location: str
    jurisdiction: str


class History:
    """What was stated of some clusters at any time."""

    def __init__(self, clusters: Iterable[Cluster]) -> None:
        """Read the history of `clusters`, in one query."""
        known = list(clusters)
        self._now = {one.pk: Stated(one.location, one.jurisdiction) for one in known}
        self._rows: dict[int, list[tuple[datetime | None, Stated]]] = {}
        rows = ClusterPlace.objects.filter(cluster__in=known).order_by("starts_at", "pk")
        for row in rows:
            self._rows.setdefault(row.cluster_id, []).append(
                (row.starts_at, Stated(str(row.location), row.jurisdiction))
            )

    def at(self, cluster_id: int, moment: datetime) -> Stated:
        """Return what was stated at a moment; where it never changed, what is stated now. Raises KeyError."""
        found = [stated for since, stated in self._rows.get(cluster_id, ()) if since is not None and since <= moment]
        if found:
            return found[-1]
        before = [stated for since, stated in self._rows.get(cluster_id, ()) if since is None]
        return before[0] if before else self._now[cluster_id]


def note_change(cluster: Cluster, wanted: Mapping[str, Any], *, actor: Actor) -> ClusterPlace:
    """Write down a changed place, in the caller's transaction and before the cluster's row changes.

    `wanted` holds what changes of `location` and `jurisdiction`. The first change also keeps what held before.
    """
    ClusterPlace.objects.get_or_create(
        cluster=cluster, starts_at=None, defaults={"location": cluster.location, "jurisdiction": cluster.jurisdiction}
    )
    return ClusterPlace.objects.create(
        cluster=cluster, location=wanted.get("location", cluster.location),
        jurisdiction=wanted.get("jurisdiction", cluster.jurisdiction), starts_at=clock.now(),
        stated_by_id=actor.user_id,
    )  # fmt: skip
