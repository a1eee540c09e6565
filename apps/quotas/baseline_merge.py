"""Rendering a workspace anew without losing what approved changes put there by other ways than the renderer's."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from django.db.models import Q

from apps.clusters.models import Cluster
from apps.core.copies import copied
from apps.quotas import priorities
from apps.quotas.change import object_path
from apps.quotas.choices import ChangeKind, RequestStatus
from apps.quotas.ladder_manifests import restored
from apps.quotas.manifests import Manifest
from apps.quotas.models import ChangeRequest

#: Kinds that leave a workspace when the baseline no longer has what they need.
_QUEUE_KINDS = ("ClusterQueue", "LocalQueue")
_ADOPTING = (ChangeKind.ADOPT_DRIFT, ChangeKind.ADOPT_NAMESPACE)


def adopted_fields(cluster: Cluster) -> dict[uuid.UUID, set[str]]:
    """Return the paths that approved changes adopted from the cluster, by workspace uid."""
    rows = ChangeRequest.objects.filter(
        Q(workspace__isnull=False) | Q(receiver__isnull=False),
        cluster=cluster,
        kind__in=_ADOPTING,
        status__in=[RequestStatus.APPLYING, RequestStatus.ACTIVE],
    )
    found: dict[uuid.UUID, set[str]] = {}
    for uid, change, values in rows.values_list("workspace__uid", "change", "values"):
        if "taken_over" in values:  # an adopted namespace: its objects are the renderer's, but for labels it came with
            found.setdefault(uuid.UUID(values["workspace_uid"]), set()).update(map(str, values["taken_over"]))
        else:
            found.setdefault(uid, set()).update(str(leaf["path"]) for leaf in change.get("leaves", []))
    return found


def brought_over(
    stored: Sequence[Manifest], fresh: Sequence[Manifest], adopted: Collection[str] = ()
) -> list[Manifest]:
    """Return the fresh objects with what was adopted, and whatever was declared besides the renderer's own objects.

    An adopted field keeps its declared value; an adopted object keeps all of its fields and gains those it lacks.
    Queues and the quota of production priority leave with the baseline that brought them.
    """
    known = {object_path(manifest) for manifest in fresh}
    besides = [m for m in stored if object_path(m) in known or not _leaves(m)]
    result = restored(besides, fresh) if stored else copied(list(fresh))
    before = {object_path(manifest): manifest for manifest in stored}
    for index, manifest in enumerate(result):
        path = object_path(manifest)
        if path not in before:
            continue
        if path in adopted:
            result[index] = _gained(before[path], manifest)
            continue
        for pointer in _pointers(path, adopted):
            _carry(before[path], result[index], pointer)
    return result


def _leaves(manifest: Manifest) -> bool:
    if manifest["kind"] in _QUEUE_KINDS:
        return True
    return bool(manifest["kind"] == "ResourceQuota" and manifest["metadata"]["name"] == priorities.SCOPED_QUOTA)


def _gained(declared: Any, fresh: Any) -> Any:
    """Return what is declared, with the keys that only the fresh object has."""
    if not isinstance(declared, dict) or not isinstance(fresh, dict):
        return copied(declared)
    merged = {key: _gained(value, fresh[key]) if key in fresh else copied(value) for key, value in
              declared.items()}  # fmt: skip
    return merged | {key: copied(value) for key, value in fresh.items() if key not in declared}


def _pointers(path: str, adopted: Iterable[str]) -> list[list[str]]:
    """Return the adopted fields of one object as lists of keys."""
    found = []
    for one in sorted(adopted):
        place, _, pointer = one.partition("#")
        if place == path and pointer:
            found.append([part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]])
    return found


def _carry(source: Manifest, target: Manifest, keys: Sequence[str]) -> None:
    """Set one field of `target` as `source` has it, absent where it is absent there."""
    value: Any = source
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            value = None
            break
        value = value[key]
    place: Any = target
    for key in keys[:-1]:
        if not isinstance(place, dict):
            return
        if key not in place:
            if value is None:
                return
            place[key] = {}
        place = place[key]
    if not isinstance(place, dict):
        return
    if value is None:
        place.pop(keys[-1], None)
    else:
        place[keys[-1]] = copied(value)
