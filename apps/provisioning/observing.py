"""What lives on a cluster, written down: hashes, status and drift. Called with objects already read.

Reading ten thousand namespaces again must cost little more than the LISTs: an object whose resource version is the one
last seen, and which lived as declared by the bytes that are declared now, is only marked as seen.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, NamedTuple

from django.db import connection, transaction
from django.db.models import Q

from apps.clusters import kinds
from apps.clusters.clients.guard import no_transaction
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.clusters.errors import ClusterError, NotFound
from apps.clusters.health import record_contact
from apps.clusters.models import Cluster
from apps.core import clock, leases
from apps.provisioning import diff, drifting, ports, queue_reading
from apps.provisioning.choices import Removal
from apps.provisioning.models import Declaration, DeclaredObject, Observation, WatchCursor
from apps.provisioning.ordering import Key, key_of

Object = Mapping[str, Any]
#: Objects written in one go, and a page of a list: a sweep never holds more of them in memory.
PAGE = 500
_LEASE_SECONDS = 120.0
#: So many objects that a list lacks are asked for one by one: they may live on without the portal's label.
_ASKED_AT_MOST = 200
#: An answer that is written down so much later than it was read is not an answer still on its way.
_ON_ITS_WAY = timedelta(minutes=1)


class _Declared(NamedTuple):
    """What is known of a declared object without its bytes."""

    pk: int
    declaration_id: int
    digest: str


class _Seen(NamedTuple):
    """An object as last written down."""

    pk: int
    declaration_id: int | None
    resource_version: str
    digest: str
    missing: bool
    observed_at: datetime
    status: dict[str, Any] = {}


#: An observation to be written, see _COLUMNS.
_Row = tuple[str, str, str, int | None, str, str, dict[str, Any], bool]


@dataclass(slots=True)
class _Batch:
    """What one batch of objects changes."""

    cluster_id: int
    at: datetime
    written: list[_Row] = field(default_factory=list)
    untouched: list[int] = field(default_factory=list)
    changed: int = 0
    judged: drifting.Judged = field(default_factory=dict)


def status_of(obj: Object) -> dict[str, Any]:
    """Return the part of an object's status that pages need: quotas' hard and used, namespaces' phase, queues' use."""
    status = obj.get("status") or {}
    if obj.get("kind") == "ResourceQuota":
        figures = {"hard": dict(status.get("hard") or {}), "used": dict(status.get("used") or {})}
        spec = obj.get("spec") or {}
        # A quota with a scope counts some pods only: its numbers are not what the namespace has and uses.
        return figures | {"scoped": True} if spec.get("scopes") or spec.get("scopeSelector") else figures
    if obj.get("kind") == "Namespace":
        return {"phase": str(status.get("phase", ""))}
    if obj.get("kind") in queue_reading.STATUS_KINDS:
        return queue_reading.compact_status(obj)
    return {}


def version_of(obj: Object) -> str:
    """Return an object's resource version, as it is written down."""
    return str((obj.get("metadata") or {}).get("resourceVersion", ""))[:60]


@transaction.atomic
def record_objects(cluster_id: int, objects: Sequence[tuple[Key, Object | None]], at: datetime) -> int:
    """Write down objects as they live (None: gone) at `at`; returns how many rows changed in meaning.

    An older reading never replaces a newer one.
    """
    moved = 0
    for start in range(0, len(objects), PAGE):
        moved += _record_batch(cluster_id, dict(objects[start : start + PAGE]), at)
    ports.tell_watches(cluster_id, objects, at)
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


def _declared(cluster_id: int, where: Q) -> dict[Key, _Declared]:
    rows = DeclaredObject.objects.filter(where, cluster_id=cluster_id, removal=Removal.NONE).order_by()
    columns = ("kind", "namespace", "name", "pk", "declaration_id", "digest")
    return {Key(*row[:3]): _Declared(*row[3:]) for row in rows.values_list(*columns)}


def _seen(cluster_id: int, where: Q, *, status: bool = True) -> dict[Key, _Seen]:
    # Watchers, the sweep and the recorder of runs may meet here: lock in one order.
    rows = Observation.objects.select_for_update().filter(where, cluster_id=cluster_id).order_by("pk")
    columns = (
        "kind", "namespace", "name", "pk", "declaration_id", "resource_version", "declared_digest", "missing",
        "observed_at",
    )  # fmt: skip
    if not status:
        return {Key(*row[:3]): _Seen(*row[3:]) for row in rows.values_list(*columns)}
    return {Key(*row[:3]): _Seen(*row[3:]) for row in rows.values_list(*columns, "status")}


def _record_batch(cluster_id: int, live: Mapping[Key, Object | None], at: datetime) -> int:
    where = _named(live)
    declared, held = _declared(cluster_id, where), _seen(cluster_id, where)
    drifted = drifting.open_keys({row.declaration_id for row in declared.values()})
    batch = _Batch(cluster_id, at)
    closer: list[Key] = []
    for key, obj in live.items():
        row, was = declared.get(key), held.get(key)
        if (row is None and obj is None and was is None) or (was is not None and _older(obj, at, was)):
            continue
        if row is None:
            _write(batch, key, obj, None, "", was)
        elif was is not None and _as_before(row, obj, was) and (row.declaration_id, key) not in drifted:
            batch.untouched.append(was.pk)
        else:
            closer.append(key)
    rows = DeclaredObject.objects.select_related("declaration").in_bulk([declared[key].pk for key in closer])
    for key in closer:
        if (full := rows.get(declared[key].pk)) is not None:  # else it was taken out of its declaration just now
            _look(batch, key, live[key], full, held.get(key))
    _store(batch)
    return batch.changed + drifting.record(batch.judged, at)


def _older(obj: Object | None, at: datetime, was: _Seen) -> bool:
    """Whether a reading is older than what is written down: by resource version where both count, else by time.

    A server's resource versions only rise; the clocks of two readers say less, for an answer may be on its way while a
    later one is written. A lower version long after is a server restored from a copy: then the time decides.
    """
    if obj is not None and not was.missing and _counts(version_of(obj)) and _counts(was.resource_version):
        return int(version_of(obj)) < int(was.resource_version) and at <= was.observed_at + _ON_ITS_WAY
    return was.observed_at > at


def _counts(version: str) -> bool:
    return version.isascii() and version.isdigit()


def _as_before(row: _Declared, obj: Object | None, was: _Seen) -> bool:
    return (
        obj is not None
        and not was.missing
        and was.declaration_id == row.declaration_id
        and was.digest == row.digest
        and was.resource_version == version_of(obj) != ""
    )


def _look(batch: _Batch, key: Key, obj: Object | None, row: DeclaredObject, was: _Seen | None) -> None:
    changes: list[diff.Change] = []
    digest = ""
    if obj is not None:
        changes = differences(row, obj)
        digest = row.digest if not changes else _digest(row.digest, changes)
    _write(batch, key, obj, row.declaration_id, digest, was)
    drifting.judge(batch.judged, row, key, obj, changes)


def differences(row: DeclaredObject, obj: Object) -> list[diff.Change]:
    """Return where the declared fields of an object live differently."""
    settled = row.settled_object
    if settled is not None and diff.strip(obj) == settled:
        return []
    return diff.declared_changes(json.loads(bytes(row.body)), obj, settled)


def _digest(declared: str, changes: Sequence[diff.Change]) -> str:
    text = json.dumps([declared, [change.plain() for change in changes]], sort_keys=True, ensure_ascii=False)
    return sha256(text.encode()).hexdigest()


def _write(
    batch: _Batch, key: Key, obj: Object | None, declaration_id: int | None, digest: str, was: _Seen | None
) -> None:
    version = version_of(obj) if obj is not None else ""
    status = status_of(obj) if obj is not None else {}
    after = (declaration_id, digest, status, obj is None)
    if was is not None:
        before = (was.declaration_id, was.digest, was.status, was.missing)
        if before == after and was.resource_version == version:
            batch.untouched.append(was.pk)
            return
        # A resource version moves with every heartbeat of a controller; that alone is no change in meaning.
        batch.changed += before != after
    else:
        batch.changed += 1
    batch.written.append((key.kind, key.namespace, key.name, declaration_id, version, digest, status, obj is None))


def _store(batch: _Batch) -> None:
    """Write a batch in two statements: five rows per workspace through the ORM cost more than reading them."""
    batch.written.sort(key=lambda row: row[:3])  # new rows in one order, too
    with connection.cursor() as cursor:
        for start in range(0, len(batch.written), PAGE):
            rows = [dict(zip(_COLUMNS, row, strict=True)) for row in batch.written[start : start + PAGE]]
            cursor.execute(_UPSERT, [batch.cluster_id, batch.at, json.dumps(rows)])
    if batch.untouched:
        Observation.objects.filter(pk__in=batch.untouched).update(observed_at=batch.at)


_COLUMNS = ("kind", "namespace", "name", "declaration_id", "resource_version", "declared_digest", "status", "missing")
_UPSERT = """
INSERT INTO provisioning_observation (uid, cluster_id, observed_at, kind, namespace, name, declaration_id,
    resource_version, declared_digest, status, missing)
SELECT gen_random_uuid(), %s, %s, kind, namespace, name, declaration_id, resource_version, declared_digest, status,
    missing
FROM jsonb_to_recordset(%s::jsonb) AS new(kind text, namespace text, name text, declaration_id bigint,
    resource_version text, declared_digest text, status jsonb, missing boolean)
ORDER BY kind COLLATE "C", namespace COLLATE "C", name COLLATE "C"
ON CONFLICT (cluster_id, kind, namespace, name) DO UPDATE SET declaration_id = EXCLUDED.declaration_id,
    resource_version = EXCLUDED.resource_version, declared_digest = EXCLUDED.declared_digest,
    status = EXCLUDED.status, missing = EXCLUDED.missing, observed_at = EXCLUDED.observed_at
"""


def record_applied(
    cluster_id: int,
    applied: Sequence[tuple[Declaration, Mapping[Key, Object], Sequence[Key]]],
    at: datetime,
) -> None:
    """Write down what apply runs left on the cluster: (declaration, objects as answered, keys removed) of each.

    The applier has compared every answer with what is declared, so nothing is compared again here.
    """
    if not applied:
        return
    owners = Q(declaration__in=[declaration.pk for declaration, _, _ in applied])
    digests = _declared(cluster_id, owners)
    held = _seen(cluster_id, owners, status=False)  # locks as the observer does: the two never wait for each other
    batch = _Batch(cluster_id, at)
    gone: list[Key] = []
    for declaration, live, removed in applied:
        gone.extend(removed)
        for key, obj in live.items():
            was = held.get(key)
            # A controller may have filled the status in, and the observer seen it, before this answer is written.
            if was is not None and _older(obj, was.observed_at, was):
                continue
            row = digests.get(key)
            if row is None:
                continue
            if was is not None and _as_before(row, obj, was):
                batch.untouched.append(was.pk)
            else:
                _write(batch, key, obj, declaration.pk, row.digest, None)
    _store(batch)
    if gone:
        Observation.objects.filter(_named(gone), cluster_id=cluster_id).delete()


def absent(cluster_id: int, kind: str, present: Iterable[Key], at: datetime) -> list[Key]:
    """Return what is declared or was seen of a kind and was not in a complete list of it made at `at`."""
    there = set(present)
    declared = DeclaredObject.objects.filter(
        cluster_id=cluster_id, kind=kind, removal=Removal.NONE, declaration__observed_generation__gt=0
    )
    seen = Observation.objects.filter(cluster_id=cluster_id, kind=kind, missing=False, observed_at__lte=at)
    found: dict[Key, None] = {}
    for rows in (declared, seen):
        for names in rows.order_by("pk").values_list("namespace", "name").iterator(chunk_size=2000):
            if (key := Key(kind, *names)) not in there:
                found[key] = None
    return list(found)


def look_for(client: KubernetesClient, keys: Sequence[Key]) -> dict[Key, Object | None]:
    """Ask for objects that a list by label lacks: one that lost the label lives on, and that is drift, no deletion.

    Those beyond a bound are taken as gone; the next sweep asks again. Raises clusters.errors where the cluster fails.
    """
    found: dict[Key, Object | None] = dict.fromkeys(keys)
    for key in keys[:_ASKED_AT_MOST]:
        try:
            found[key] = client.get(key.kind, key.name, key.namespace)
        except NotFound:
            found[key] = None
    return found


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
            for change in _sweep_kind(client, cluster_id, kind, name, token):
                moved += change
                leases.extend(name, token, seconds=_LEASE_SECONDS)
        record_contact(cluster_id, True)
    except ClusterError as error:
        record_contact(cluster_id, not error.cluster_wide, error)
    leases.release(name, token)
    return moved


def _sweep_kind(client: KubernetesClient, cluster_id: int, kind: str, name: str, token: uuid.UUID) -> Iterator[int]:
    at = clock.now()
    present: set[Key] = set()
    version = ""
    for page in client.pages(kind, label_selector=kinds.MANAGED_SELECTOR, limit=PAGE):
        if page.restarted:
            present.clear()
        live = [(key_of(item), item) for item in page.items]
        present.update(key for key, _ in live)
        version = page.resource_version
        with transaction.atomic():
            leases.require(name, token)
            moved = record_objects(cluster_id, live, at)
        yield moved
    lost = look_for(client, absent(cluster_id, kind, present, at))
    with transaction.atomic():
        leases.require(name, token)
        touch_cursor(cluster_id, kind, version, at, listed=True)
        moved = record_objects(cluster_id, list(lost.items()), at)
    yield moved
