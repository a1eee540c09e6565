"""The end of a cluster in the portal: removed where it was registered by mistake, archived where it has a history.

Removing deletes rows of the portal alone, and only while no other room holds anything of the cluster: what was applied
to it or metered from it is kept for ever. Nothing on the cluster itself is touched by either.
"""

from __future__ import annotations

from collections.abc import Callable

from django.db import models, transaction

from apps import audit
from apps.clusters import events
from apps.clusters.access import require
from apps.clusters.models import Cluster, MaintenanceWindow, Pool, PoolCapacity
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid
from apps.core.events import EventType

MANAGE = "clusters.cluster.manage"
#: What belongs to the registration itself and goes with it.
_GOES_ALONG: tuple[type[models.Model], ...] = (Pool, MaintenanceWindow)
_COUNTED = 1000

#: Asked before a cluster is archived: `(cluster) -> why not, or None`. Rooms above register what they know.
ArchiveObjection = Callable[[Cluster], str | None]
_objections: list[ArchiveObjection] = []


def register_archive_objection(ask: ArchiveObjection) -> None:
    """Have `ask` consulted before a cluster is archived (in the deciding transaction, cluster locked)."""
    if ask not in _objections:
        _objections.append(ask)


def history(cluster: Cluster) -> list[str]:
    """Return what other rooms hold of a cluster, in words with numbers; empty where it can be removed.

    Everything that protects a cluster counts, whichever room it belongs to. One query per kind of row.
    """
    found = []
    for field in Cluster._meta.get_fields(include_hidden=True):
        if not isinstance(field, models.ManyToOneRel) or field.on_delete is not models.PROTECT:
            continue
        model = field.related_model
        if issubclass(model, _GOES_ALONG):
            continue
        count = model._base_manager.filter(**{field.field.name: cluster})[: _COUNTED + 1].count()
        if count:
            meta = model._meta
            shown = f"more than {_COUNTED:,}" if count > _COUNTED else f"{count:,}"
            name = str(meta.verbose_name)
            several = f"{name}es" if name.endswith("s") else str(meta.verbose_name_plural)
            found.append(f"{shown} {name if count == 1 else several}")
    return sorted(found)


def archive_refusals(cluster: Cluster) -> list[str]:
    """Return in sentences why a cluster cannot be archived now; empty where it can."""
    return [why for ask in _objections if (why := ask(cluster))]


@transaction.atomic
def remove(cluster_id: int, confirm: str, *, actor: Actor, expected_version: int | None = None) -> None:
    """Remove a cluster that was registered by mistake, with its pools, nodes, checks and windows.

    `confirm`: its name, typed by the person. Raises Invalid (confirm), NotAllowed, NotVisible, Conflict where another
    room holds something of it: then it can only be archived.
    """
    cluster = Cluster.objects.locked(cluster_id, expected_version=expected_version)
    require(actor, MANAGE, cluster)
    if confirm.strip() != cluster.name:
        raise Invalid({"confirm": f"Type the cluster's name as it is: {cluster.name}"})
    if held := history(cluster):
        raise Conflict(
            f"It has a history in the portal ({', '.join(held)}), which is kept: archive it instead.",
            current={"held": held},
        )
    _record(events.CLUSTER_REMOVED, cluster, actor, "")
    PoolCapacity.objects.filter(pool__cluster=cluster).delete()
    Pool.objects.filter(cluster=cluster).delete()
    MaintenanceWindow.objects.filter(cluster=cluster).delete()
    cluster.delete()


@transaction.atomic
def archive(cluster_id: int, reason: str, *, actor: Actor, expected_version: int | None = None) -> Cluster:
    """Put a cluster away: it is paused, nothing new is offered there, and everything it ever was stays readable.

    Raises Invalid without a reason, NotAllowed, NotVisible, Conflict (archived already; something still lives there).
    """
    cluster = Cluster.objects.locked(cluster_id, expected_version=expected_version)
    require(actor, MANAGE, cluster)
    if cluster.archived_at is not None:
        raise Conflict("This cluster is archived already.", current={"archived_at": cluster.archived_at.isoformat()})
    if not reason.strip():
        raise Invalid({"reason": "Say why: it stands on the cluster's page and in the audit trail."})
    if refusals := archive_refusals(cluster):
        raise Conflict(" ".join(refusals), current={"refusals": refusals})
    cluster.archived_at = clock.now()
    fields = ["archived_at"]
    if cluster.paused_at is None:
        cluster.paused_at = cluster.archived_at
        fields.append("paused_at")
    cluster.pause_reason = f"Archived: {reason.strip()}"[:300]
    cluster.bump(*fields, "pause_reason")
    _record(events.CLUSTER_ARCHIVED, cluster, actor, reason.strip()[:300])
    return cluster


@transaction.atomic
def restore(cluster_id: int, *, actor: Actor, expected_version: int | None = None) -> Cluster:
    """Bring an archived cluster back. It stays paused: resuming it is a step of its own.

    Raises NotAllowed, NotVisible, Conflict where it is not archived.
    """
    cluster = Cluster.objects.locked(cluster_id, expected_version=expected_version)
    require(actor, MANAGE, cluster)
    if cluster.archived_at is None:
        raise Conflict("This cluster is not archived.")
    cluster.archived_at, cluster.pause_reason = None, "Back from the archive, not resumed yet."
    cluster.bump("archived_at", "pause_reason")
    _record(events.CLUSTER_RESTORED, cluster, actor, "")
    return cluster


def _record(event: EventType, cluster: Cluster, actor: Actor, reason: str) -> None:
    payload = events.ClusterChanged(cluster.slug, cluster.name, cluster.api_url)
    audit.record(event, payload, actor=actor, subject_type="clusters.cluster", subject_uid=cluster.uid, reason=reason)
