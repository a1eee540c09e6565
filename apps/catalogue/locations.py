"""Where a cluster loads a version from: its manifest, with the verified copies of uploaded files."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from django.db.models import Q

from apps.catalogue import manifest as manifests
from apps.catalogue.choices import JobStatus, Scheme
from apps.catalogue.models import ModelVersion, StoredCopy
from apps.core.row_security import lifted


@lifted("where approved bytes lie holds for everybody who may load them")
def stored(version_ids: Iterable[int]) -> dict[int, tuple[str, ...]]:
    """Return the locations of the verified copies of versions, the newest first."""
    rows = StoredCopy.objects.filter(model_version__in=list(version_ids), status=JobStatus.DONE)
    found: dict[int, tuple[str, ...]] = {}
    for pk, location in rows.order_by("-finished_at", "-pk").values_list("model_version_id", "location"):
        found[pk] = (*found.get(pk, ()), location)
    return found


def manifest_of(version: ModelVersion) -> manifests.Manifest:
    """Return a sealed version's manifest with where its uploaded files lie. Raises Malformed for a draft."""
    parsed = manifests.parse(version.manifest)
    if parsed.scheme != Scheme.UPLOAD:
        return parsed
    return replace(parsed, stored=stored([version.pk]).get(version.pk, ()))


def manifests_of(uids: Iterable[uuid.UUID]) -> dict[uuid.UUID, manifests.Manifest]:
    """Return the manifests of versions by uid, as `manifest_of` does, in at most two queries."""
    rows = list(ModelVersion.objects.filter(uid__in=set(uids)).values_list("pk", "uid", "scheme", "manifest"))
    uploaded = [pk for pk, _uid, scheme, _raw in rows if scheme == Scheme.UPLOAD]
    where = stored(uploaded) if uploaded else {}
    return {uid: replace(manifests.parse(raw), stored=where.get(pk, ())) for pk, uid, _scheme, raw in rows}


def loadable(rows: Any) -> Any:
    """Return, of versions, those whose files some cluster reaches."""
    done = StoredCopy.objects.filter(status=JobStatus.DONE).values("model_version_id")
    return rows.filter(~Q(scheme=Scheme.UPLOAD) | Q(pk__in=done))
