"""What lives on a cluster, written down: hashes, status and drift. Called with objects already read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import Q

from apps import audit
from apps.clusters import kinds
from apps.clusters.clients.guard import no_transaction
from apps.clusters.clients.kubernetes import KubernetesClient, Listing
from apps.clusters.errors import ClusterError
from apps.clusters.health import record_contact
from apps.clusters.models import Cluster
from apps.core import clock, leases, outbox
from apps.core.actor import Actor
from apps.provisioning import diff, events, ownership
from apps.provisioning.choices import DeclarationStatus, Removal
from apps.provisioning.models import DeclaredObject, Drift, Observation, WatchCursor
from apps.provisioning.ordering import Key, key_of

Object = Mapping[str, Any]
_BATCH = 500
_LEASE_SECONDS = 120.0
#: Values longer than this are cut in findings.
_SHOWN_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class _Found:
    """One difference of one object."""

    key: Key
    field: str
    declared: str
    live: str
    manager: str
    changed_at: datetime | None


@dataclass(slots=True)
class _Batch:
    """What one batch of objects changes."""

    made: list[Observation] = field(default_factory=list)
    moved: list[Observation] = field(default_factory=list)
    untouched: list[int] = field(default_factory=list)
    changed: int = 0
    drift: dict[int, list[_Found]] = field(default_factory=dict)
    judged: dict[int, list[Key]] = field(default_factory=dict)


def status_of(obj: Object) -> dict[str, Any]:
    """Return the part of an object's status that pages need: quotas' hard and used, a namespace's phase."""
    status = obj.get("status") or {}
    if obj.get("kind") == "ResourceQuota":
        return {"hard": dict(status.get("hard") or {}), "used": dict(status.get("used") or {})}
    if obj.get("kind") == "Namespace":
        return {"phase": str(status.get("phase", ""))}
    return {}


@transaction.atomic
def record_objects(cluster_id: int, objects: Sequence[tuple[Key, Object | None]], at: datetime) -> int:
    """Write down objects as they live (None: gone) at `at`; returns how many rows changed in meaning.

    An older reading never replaces a newer one.
    """
    moved = 0
    for start in range(0, len(objects), _BATCH):
        moved += _record_batch(cluster_id, dict(objects[start : start + _BATCH]), at)
    return moved


def _named(keys: Iterable[Key]) -> Q:
    condition = Q(pk__in=[])
    by_place: dict[tuple[str, str], list[str]] = {}
    for key in keys:
        by_place.setdefault((key.kind, key.namespace), []).append(key.name)
    by_kind: dict[tuple[str, str], set[str]] = {}
    for (kind, namespace), names in by_place.items():
        by_kind.setdefault((kind, ",".join(sorted(names))), set()).add(namespace)
    for (kind, names_text), namespaces in by_kind.items():
        condition |= Q(kind=kind, namespace__in=namespaces, name__in=names_text.split(","))
    return condition


def _record_batch(cluster_id: int, live: Mapping[Key, Object | None], at: datetime) -> int:
    where = _named(live)
    declared = {
        Key(row.kind, row.namespace, row.name): row
        for row in DeclaredObject.objects.filter(where, cluster_id=cluster_id).select_related("declaration")
    }
    # Watchers, the sweep and the recorder of runs may meet here: lock in one order.
    held = {
        Key(row.kind, row.namespace, row.name): row
        for row in Observation.objects.select_for_update().filter(where, cluster_id=cluster_id).order_by("pk")
    }
    batch = _Batch()
    for key, obj in live.items():
        row = declared.get(key)
        if row is not None and row.removal != Removal.NONE:
            row = None
        if row is None and obj is None and key not in held:
            continue
        was = held.get(key)
        if was is not None and was.observed_at > at:
            continue
        _observe(batch, cluster_id, key, obj, row, was, at)
    Observation.objects.bulk_create(batch.made, ignore_conflicts=True, batch_size=_BATCH)
    Observation.objects.bulk_update(
        batch.moved,
        ["declaration", "resource_version", "declared_digest", "status", "missing", "observed_at"],
        batch_size=_BATCH,
    )
    Observation.objects.filter(pk__in=batch.untouched).update(observed_at=at)
    return batch.changed + _record_drift(batch, at)


def _observe(
    batch: _Batch,
    cluster_id: int,
    key: Key,
    obj: Object | None,
    row: DeclaredObject | None,
    was: Observation | None,
    at: datetime,
) -> None:
    body = json.loads(bytes(row.body)) if row is not None else None
    settled = row.settled_object if row is not None else None
    meta = (obj or {}).get("metadata") or {}
    seen = Observation(
        cluster_id=cluster_id,
        declaration_id=row.declaration_id if row is not None else None,
        kind=key.kind,
        namespace=key.namespace,
        name=key.name,
        resource_version=str(meta.get("resourceVersion", ""))[:60],
        declared_digest=diff.live_digest(body, obj, settled) if body is not None and obj is not None else "",
        status=status_of(obj) if obj is not None else {},
        missing=obj is None,
        observed_at=at,
    )
    if was is None:
        batch.made.append(seen)
        batch.changed += 1
    else:
        compared = ("declaration_id", "declared_digest", "status", "missing", "resource_version")
        if all(getattr(was, name) == getattr(seen, name) for name in compared):
            batch.untouched.append(was.pk)
        else:
            # A resource version moves with every heartbeat of a controller; that alone is no change in meaning.
            batch.changed += any(getattr(was, name) != getattr(seen, name) for name in compared[:-1])
            seen.pk, seen.uid = was.pk, was.uid
            batch.moved.append(seen)
    if row is not None and body is not None:
        _judge(batch, row, body, key, obj)


def _judge(batch: _Batch, row: DeclaredObject, body: Object, key: Key, obj: Object | None) -> None:
    """Look for drift: only once the newest generation is applied; before that, differences are work to be done."""
    declaration = row.declaration
    if declaration.status != DeclarationStatus.APPLIED or declaration.observed_generation != declaration.generation:
        return
    batch.judged.setdefault(declaration.pk, []).append(key)
    found = batch.drift.setdefault(declaration.pk, [])
    if obj is None:
        found.append(_Found(key, "", "present", "missing", "", None))
        return
    for change in diff.declared_changes(body, obj, row.settled_object):
        owner = ownership.foreign_owner(obj, change.path)
        found.append(
            _Found(
                key,
                change.text_path[:500],
                (diff.show(change.before) or "")[:_SHOWN_CHARACTERS],
                (diff.show(change.after) or "")[:_SHOWN_CHARACTERS],
                owner.manager[:128] if owner else "",
                owner.at if owner else None,
            )
        )


def _record_drift(batch: _Batch, at: datetime) -> int:
    if not batch.judged:
        return 0
    open_rows = Drift.objects.filter(declaration_id__in=list(batch.judged), resolved_at__isnull=True)
    known: dict[tuple[int, Key, str], Drift] = {
        (row.declaration_id, Key(row.kind, row.namespace, row.name), row.field): row for row in open_rows
    }
    moved = 0
    fresh: dict[tuple[int, Key], list[_Found]] = {}
    for pk, founds in batch.drift.items():
        for found in founds:
            row = known.pop((pk, found.key, found.field), None)
            if row is None:
                fresh.setdefault((pk, found.key), []).append(found)
            elif (row.live, row.manager) != (found.live, found.manager):
                Drift.objects.filter(pk=row.pk).update(
                    live=found.live, manager=found.manager, changed_at=found.changed_at
                )
                moved += 1
    judged = {(pk, key) for pk, keys in batch.judged.items() for key in keys}
    over = [row.pk for (pk, key, _), row in known.items() if (pk, key) in judged]
    moved += Drift.objects.filter(pk__in=over).update(resolved_at=at)
    for (pk, key), founds in fresh.items():
        rows = [
            Drift(
                declaration_id=pk, kind=key.kind, namespace=key.namespace, name=key.name, field=found.field,
                declared=found.declared, live=found.live, manager=found.manager, changed_at=found.changed_at,
                found_at=at,
            )
            for found in founds
        ]  # fmt: skip
        Drift.objects.bulk_create(rows, ignore_conflicts=True)
        moved += len(rows)
        _tell_drift(pk, key, founds)
    return moved


def _tell_drift(declaration_id: int, key: Key, founds: Sequence[_Found]) -> None:
    from apps.provisioning.actions import team_uid_of
    from apps.provisioning.models import Declaration
    from apps.teams import scope

    declaration = Declaration.objects.select_related("cluster").get(pk=declaration_id)
    payload = events.DriftEvent(
        str(declaration.uid),
        declaration.cluster.slug,
        declaration.title,
        str(key),
        [found.field or "the object itself" for found in founds][:50],
        sorted({found.manager for found in founds if found.manager}),
    )
    audit.record(
        events.DRIFTED,
        payload,
        actor=Actor.system("provisioning.observe"),
        subject_type="provisioning.declaration",
        subject_uid=declaration.uid,
        team_uid=team_uid_of(declaration.team_id),
    )
    outbox.publish(
        events.DRIFTED, payload, recipients=scope.holders("provisioning.run.retry"), subject_uid=declaration.uid
    )


def record_listing(cluster_id: int, kind: str, listing: Listing, at: datetime) -> int:
    """Write down a complete list of one kind: what is declared or was seen and is not in it is gone."""
    live: dict[Key, Object | None] = {key_of(item): item for item in listing.items}
    declared = DeclaredObject.objects.filter(
        cluster_id=cluster_id, kind=kind, removal=Removal.NONE, declaration__observed_generation__gt=0
    )
    seen = Observation.objects.filter(cluster_id=cluster_id, kind=kind, missing=False, observed_at__lte=at)
    for rows in (declared, seen):
        for key in rows.values_list("kind", "namespace", "name"):
            live.setdefault(Key(*key), None)
    return record_objects(cluster_id, list(live.items()), at)


def observed_kinds(cluster_id: int) -> list[str]:
    """Return the kinds declared on a cluster, in apply order: what observers list and watch there."""
    names = DeclaredObject.objects.filter(cluster_id=cluster_id).values_list("kind", flat=True).distinct().order_by()
    return sorted(set(names), key=lambda name: kinds.KINDS[name].order)


def touch_cursor(cluster_id: int, kind: str, resource_version: str, at: datetime, *, listed: bool = False) -> None:
    """Remember how far the observer of a kind has come, and that it was current at `at`."""
    values: dict[str, Any] = {"resource_version": resource_version[:60], "seen_at": at}
    if listed:
        values["listed_at"] = at
    WatchCursor.objects.update_or_create(cluster_id=cluster_id, kind=kind, defaults=values)


def observe_cluster(cluster_id: int) -> int:
    """List every kind we own on a cluster and write down what is there; returns rows changed in meaning.

    The way without an observer process; left alone where another worker is at it.
    """
    no_transaction("observing")
    cluster = Cluster.objects.get(pk=cluster_id)
    token = leases.claim(name := f"observe:{cluster.uid}", seconds=_LEASE_SECONDS)
    if token is None:
        return 0
    moved = 0
    try:
        client = KubernetesClient.for_cluster(cluster)
        for kind in observed_kinds(cluster_id):
            at = clock.now()
            listing = client.list(kind, label_selector=kinds.MANAGED_SELECTOR)
            with transaction.atomic():
                leases.require(name, token)
                moved += record_listing(cluster_id, kind, listing, at)
                touch_cursor(cluster_id, kind, listing.resource_version, at, listed=True)
            leases.extend(name, token, seconds=_LEASE_SECONDS)
        record_contact(cluster_id, True)
    except ClusterError as error:
        record_contact(cluster_id, not error.cluster_wide, error)
    leases.release(name, token)
    return moved
