"""A workspace's queue on its cluster, for those who may see the workspace: limits, use, what waits and how long.

Kueue itself shows limits to cluster admins only; here they come from what is declared and observed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

from django.db.models import Count, Window

from apps.clusters import capabilities
from apps.clusters.choices import KueueMode
from apps.clusters.models import Flavour, Pool
from apps.clusters.quantities import parse
from apps.core import clock
from apps.provisioning.choices import Removal
from apps.provisioning.models import DeclaredObject, Observation, QueueEntry, QueueWait
from apps.provisioning.selectors import current_at, vouched
from apps.quotas import waiting_reasons
from apps.quotas.assess import number
from apps.quotas.models import Quota, Workspace
from apps.quotas.waiting import NEWEST, WaitRange, ordinal, range_of

#: So many waiting workloads are listed; the rest is a number.
SHOWN = 50
#: A queue that was seen and says nothing of a flavour uses none of it.
_NOTHING = {"reserved": 0, "used": 0, "borrowed": 0}


@dataclass(frozen=True, slots=True)
class QueueLimit:
    """What a queue allows of one flavour's resource, and what is taken of it, in units. None: no limit, or not seen."""

    flavour: str
    resource: str
    guaranteed: int
    borrow: int | None
    lend: int | None
    reserved: int | None
    used: int | None
    borrowed: int | None


@dataclass(frozen=True, slots=True)
class WaitingWork:
    """One workload that waits: its place, why, and how long already."""

    entry: QueueEntry
    why: waiting_reasons.Words

    @property
    def place(self) -> str:
        """Its place in the cluster's queue in words; "" where the cluster does not tell."""
        position = self.entry.position_cluster
        return ordinal(position + 1) if position is not None else ""

    @property
    def asks(self) -> str:
        """What it asks for in words."""
        return ", ".join(f"{units:,} {name}" for name, units in sorted(self.entry.requests.items())) or "no GPU"


@dataclass(frozen=True, slots=True)
class WorkspaceQueue:
    """A workspace's queue. `observed_at` None: never seen. `inactive`: why it admits nothing, as the cluster says."""

    name: str
    limits: list[QueueLimit]
    waiting: list[WaitingWork]
    more: int
    history: WaitRange
    observed_at: datetime | None
    entries_at: datetime | None
    inactive: str
    no_positions: str


def _whole(value: object) -> int | None:
    """Return a quantity as whole units; None for none."""
    if value is None:
        return None
    try:
        return int(Decimal(parse(str(value))))
    except ValueError:
        return None


def limits_of(queue: Mapping[str, Any], status: Mapping[str, Any]) -> list[QueueLimit]:
    """Return a ClusterQueue's limits per flavour with what its status says is taken; extended resources only."""
    seen: Mapping[str, Any] = status.get("flavours") or {}
    found: list[QueueLimit] = []
    for group in (queue.get("spec") or {}).get("resourceGroups") or []:
        for flavour in group.get("flavors") or []:
            taken: Mapping[str, Any] = seen.get(flavour["name"]) or {}
            for resource in flavour.get("resources") or []:
                name = str(resource["name"])
                if "/" not in name:
                    continue
                cell: Mapping[str, Any] = taken.get(name) or (
                    {"reserved": 0, "used": 0, "borrowed": 0} if status else {}
                )
                found.append(
                    QueueLimit(
                        flavour=str(flavour["name"]),
                        resource=name,
                        guaranteed=_whole(resource.get("nominalQuota")) or 0,
                        borrow=_whole(resource.get("borrowingLimit")),
                        lend=_whole(resource.get("lendingLimit")),
                        reserved=_whole(cell.get("reserved")),
                        used=_whole(cell.get("used")),
                        borrowed=_whole(cell.get("borrowed")),
                    )
                )
    return found


def history_of(cluster_id: int, queue: str) -> WaitRange:
    """Return the range of the newest waits of a queue. One query."""
    waits = QueueWait.objects.filter(cluster_id=cluster_id, cluster_queue=queue).order_by("-admitted_at", "-pk")
    return range_of([timedelta(milliseconds=ms) for ms in waits.values_list("waited_ms", flat=True)[:NEWEST]])


def of_workspace(workspace: Workspace) -> WorkspaceQueue | None:
    """Return a workspace's queue; None where its cluster has none. Five queries."""
    cluster = workspace.cluster
    if cluster.kueue_mode == KueueMode.OFF:
        return None
    bodies = DeclaredObject.objects.filter(
        cluster=cluster, kind="ClusterQueue", removal=Removal.NONE, declaration__owner_uid=workspace.uid
    ).values_list("name", "body")
    first = bodies.first()
    if first is None:
        return None
    name, body = first
    rows = Observation.objects.filter(cluster=cluster, kind="ClusterQueue", name=name, missing=False)
    observation = rows.annotate(vouched=vouched()).first()
    status: Mapping[str, Any] = observation.status if observation is not None else {}
    entries = QueueEntry.objects.filter(cluster=cluster, namespace=workspace.namespace)
    counted = entries.annotate(total=Window(Count("pk")))
    shown = list(counted.order_by("position_cluster", "queued_at", "pk")[:SHOWN])
    total: int = getattr(shown[0], "total", 0) if shown else 0
    return WorkspaceQueue(
        name=name,
        limits=_shown(limits_of(json.loads(bytes(body)), status)),
        waiting=[WaitingWork(entry, waiting_reasons.why(entry.reason, entry.message)) for entry in shown],
        more=max(0, total - len(shown)),
        history=history_of(cluster.pk, name),
        observed_at=current_at(observation) if observation is not None else None,
        entries_at=min((entry.observed_at for entry in shown), default=None),
        inactive="" if status.get("active", True) else str(status.get("message") or status.get("reason") or "stopped"),
        no_positions=capabilities.missing(cluster, "queue_positions") or "",
    )


def _shown(limits: list[QueueLimit]) -> list[QueueLimit]:
    """Return the limits that say something, by the flavours' names: a queue lists all that its cluster offers."""
    saying = [one for one in limits if one.guaranteed or one.borrow != 0 or one.reserved or one.used]
    names = dict(Flavour.objects.filter(slug__in={one.flavour for one in saying}).values_list("slug", "name"))
    return [replace(one, flavour=names.get(one.flavour, one.flavour)) for one in saying]


@dataclass(frozen=True, slots=True)
class Pair:
    """Who waits within what is theirs while others borrow, in GPUs of one pool: for those who may view it."""

    workspace: Workspace
    guaranteed: Fraction
    used: Fraction
    waiting: int

    @property
    def borrowed(self) -> Fraction:
        """What it uses beyond its own."""
        return max(Fraction(0), self.used - self.guaranteed)

    @property
    def starved(self) -> Fraction:
        """What is its own and not in use although work waits."""
        return max(Fraction(0), self.guaranteed - self.used) if self.waiting else Fraction(0)

    @property
    def shown(self) -> dict[str, str]:
        """The figures for people."""
        return {name: number(getattr(self, name)) for name in ("guaranteed", "used", "borrowed", "starved")}


@dataclass(frozen=True, slots=True)
class Imbalance:
    """The starved and the borrowers of a pool, largest first, and how old the oldest figure is."""

    starved: list[Pair]
    borrowers: list[Pair]
    at: datetime | None

    @property
    def owed(self) -> Fraction:
        """GPUs that the starved could have of what others borrow."""
        return min(
            sum((one.starved for one in self.starved), Fraction(0)),
            sum((one.borrowed for one in self.borrowers), Fraction(0)),
        )


def imbalance(pool: Pool, at: datetime | None = None) -> Imbalance | None:
    """Return who borrows in a pool while others wait within their own; None where nobody does. About six queries.

    Names workspaces: only for those who may view the pool.
    """
    if pool.cluster.kueue_mode == KueueMode.OFF:
        return None
    flavours = {flavour.slug: flavour for flavour in pool.flavours.all()}
    rows = list(
        Quota.objects.filter(workspace__cluster_id=pool.cluster_id, flavour__in=[one.pk for one in flavours.values()])
        .in_force(at or clock.now())
        .select_related("workspace__team", "flavour")
        .order_by("pk")
    )
    owned: dict[int, Fraction] = {}
    workspaces: dict[int, Workspace] = {}
    for row in rows:
        workspaces[row.workspace_id] = row.workspace
        owned[row.workspace_id] = owned.get(row.workspace_id, Fraction(0)) + row.guaranteed * _share(row.flavour)
    names = {workspace.namespace: pk for pk, workspace in workspaces.items()}
    used, seen = _used_by_queue(pool, names, flavours)
    waiting = dict(
        QueueEntry.objects.filter(cluster_id=pool.cluster_id, namespace__in=list(names))
        .values_list("namespace")
        .annotate(count=Count("pk"))
        .order_by()
    )
    pairs = [
        Pair(workspaces[pk], owned[pk], used[pk], waiting.get(namespace, 0))
        for namespace, pk in names.items()
        if pk in used
    ]
    starved = sorted((one for one in pairs if one.starved), key=lambda one: (-one.starved, one.workspace.pk))
    borrowers = sorted((one for one in pairs if one.borrowed), key=lambda one: (-one.borrowed, one.workspace.pk))
    return Imbalance(starved, borrowers, min(seen, default=None)) if starved or borrowers else None


def _share(flavour: Flavour) -> Fraction:
    return Fraction(flavour.numerator, flavour.denominator)


def _used_by_queue(
    pool: Pool, names: Mapping[str, int], flavours: Mapping[str, Flavour]
) -> tuple[dict[int, Fraction], Sequence[datetime]]:
    """Return GPUs of the pool's flavours that each workspace's queue has admitted, and when each was seen."""
    used: dict[int, Fraction] = {}
    seen: list[datetime] = []
    observed = Observation.objects.filter(
        cluster_id=pool.cluster_id, kind="ClusterQueue", missing=False, name__in=list(names)
    )
    for name, status, at in observed.values_list("name", "status", "observed_at"):
        cells: Iterable[tuple[str, Any]] = (status.get("flavours") or {}).items()
        total = Fraction(0)
        for slug, resources in cells:
            flavour = flavours.get(slug)
            if flavour is not None:
                total += (_whole((resources.get(flavour.resource_name) or {}).get("used")) or 0) * _share(flavour)
        used[names[name]] = total
        seen.append(at)
    return used, seen


__all__ = [
    "SHOWN",
    "Imbalance",
    "Pair",
    "QueueLimit",
    "WaitingWork",
    "WorkspaceQueue",
    "history_of",
    "imbalance",
    "limits_of",
    "of_workspace",
]
