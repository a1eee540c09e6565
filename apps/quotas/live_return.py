"""What a cluster takes back of work beyond its own quota, by how Kueue is used there. At most one query.

Kueue evicts only what it manages. With its pod integration that is every pod of a namespace that has a queue; where it
manages jobs alone, pods beside it keep their GPUs until they end, and only what a queue itself reports as borrowed is
known to be managed (docs/kueue.md).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

from apps.clusters.choices import KueueMode
from apps.clusters.models import Cluster
from apps.clusters.quantities import parse
from apps.provisioning.choices import DeclarationKind, Removal
from apps.provisioning.models import DeclaredObject, Observation
from apps.provisioning.selectors import current_at, vouched

#: Said beside a guarantee that waits although the cluster has Kueue.
JOBS_ALONE = "Kueue takes back only what runs in its queues here: jobs, and no other pods."
NOT_QUEUED = "Kueue takes back only what runs in its queues: some of these namespaces have none yet."


class Excess(NamedTuple):
    """Units of one resource that a namespace uses beyond its own quota, in one pool. `share`: whole devices a unit."""

    pool_id: int
    namespace: str
    resource: str
    units: int
    share: Fraction
    slugs: frozenset[str]
    ended: bool = False

    @property
    def gpus(self) -> Fraction:
        """How many whole devices that is."""
        return self.units * self.share


def returned(cluster: Cluster, excess: Sequence[Excess], at: datetime, fresh: timedelta) -> dict[int, Fraction]:
    """Return per pool how many GPUs of the excess the cluster takes back when their owner's work wants them.

    `fresh`: figures of queues that are older count for nothing.
    """
    found: dict[int, Fraction] = {}
    if cluster.kueue_mode == KueueMode.OFF or not excess:
        return found
    namespaces = {one.namespace for one in excess}
    if cluster.kueue_mode == KueueMode.PODS:
        queued = _queued(cluster, namespaces)
        for one in excess:
            if one.namespace in queued:
                found[one.pool_id] = found.get(one.pool_id, Fraction(0)) + one.gpus
        return found
    borrowed = _borrowed(cluster, namespaces, at, fresh)
    for one in excess:
        managed = sum(borrowed.get((one.namespace, slug, one.resource), 0) for slug in one.slugs)
        found[one.pool_id] = found.get(one.pool_id, Fraction(0)) + min(one.units, managed) * one.share
    return found


def unreturned_words(cluster: Cluster) -> str:
    """Say why a cluster with Kueue does not take everything back; "" where Kueue is not used."""
    return {KueueMode.OFF: "", KueueMode.JOBS: JOBS_ALONE, KueueMode.PODS: NOT_QUEUED}[KueueMode(cluster.kueue_mode)]


def _queued(cluster: Cluster, namespaces: Collection[str]) -> set[str]:
    """Return the namespaces whose declared objects hold a queue of their name. One query."""
    rows = DeclaredObject.objects.filter(
        cluster=cluster,
        kind="ClusterQueue",
        name__in=namespaces,
        removal=Removal.NONE,
        declaration__kind=DeclarationKind.WORKSPACE,
    )
    return set(rows.values_list("name", flat=True))


def _borrowed(
    cluster: Cluster, namespaces: Collection[str], at: datetime, fresh: timedelta
) -> dict[tuple[str, str, str], int]:
    """Return what queues report as in use beyond what is theirs: (queue, flavour, resource) → units. One query."""
    rows = Observation.objects.filter(cluster=cluster, kind="ClusterQueue", name__in=namespaces, missing=False)
    found: dict[tuple[str, str, str], int] = {}
    for row in rows.annotate(vouched=vouched()):
        if at - current_at(row) > fresh:
            continue
        for slug, resources in (row.status.get("flavours") or {}).items():
            for resource, cell in resources.items():
                found[row.name, slug, resource] = _in_use_beyond(cell)
    return found


def _in_use_beyond(cell: Mapping[str, Any]) -> int:
    """Return what runs beyond the queue's own: it tells what is reserved beyond it, of which not all need run yet."""
    try:
        reserved, used, borrowed = (Decimal(parse(str(cell.get(key, "0")))) for key in ("reserved", "used", "borrowed"))
    except ValueError:
        return 0  # a quantity that is none tells nothing
    return max(0, int(used - (reserved - borrowed))) if borrowed > 0 else 0


__all__ = ["JOBS_ALONE", "NOT_QUEUED", "Excess", "returned", "unreturned_words"]
