"""Whether the bytes at an imported, sealed version's source are still those that were hashed: asked once a day."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from django.db import transaction
from django.db.models import F, Q

from apps.catalogue.choices import RegistryFindingKind, Scheme, VersionStatus
from apps.catalogue.models import RegistryVersion, VersionFile
from apps.catalogue.reading.base import Entry
from apps.catalogue.registry_diff import Change
from apps.catalogue.registry_record import tell, write_finding
from apps.catalogue.stores import opened
from apps.clusters.errors import ClusterError, NotFound
from apps.core import clock, leases

EVERY = timedelta(days=1)
BATCH = 50
LEASE_SECONDS = 300.0
#: Paths that a finding names; the rest is counted.
_NAMED = 10


def differences(files: Iterable[tuple[str, int, str]], entries: Iterable[Entry]) -> list[str]:
    """Return in words what differs between hashed files (path, size, ETag) and what lies there now. Pure."""
    before = {path: (size, etag) for path, size, etag in files}
    now = {entry.path: (entry.size, entry.etag) for entry in entries}
    found = [f"{path} is gone" for path in sorted(before.keys() - now.keys())]
    found += [f"{path} is new" for path in sorted(now.keys() - before.keys())]
    for path in sorted(before.keys() & now.keys()):
        if before[path][0] != now[path][0]:
            found.append(f"{path} has {now[path][0]} bytes instead of {before[path][0]}")
        elif before[path][1] and now[path][1] and before[path][1] != now[path][1]:
            found.append(f"{path} was written anew (same size, other ETag)")
    return found


def check_due() -> int:
    """Compare what is due; returns how many versions were compared. Only listings are read, no file."""
    due = RegistryVersion.objects.filter(
        Q(bytes_checked_at=None) | Q(bytes_checked_at__lte=clock.now() - EVERY),
        model_version__status=VersionStatus.SEALED, model_version__scheme__in=[Scheme.S3, Scheme.PVC],
        model_version__store__archived_at__isnull=True, model_version__store__isnull=False, gone_at__isnull=True,
    ).order_by(F("bytes_checked_at").asc(nulls_first=True), "pk")  # fmt: skip
    with leases.held("catalogue.registry_bytes", seconds=LEASE_SECONDS) as token:
        if token is None:
            return 0
        return sum(_check(row) for row in due.select_related("model_version__store")[:BATCH])


def _check(row: RegistryVersion) -> int:
    version = row.model_version
    if version is None or version.store is None:
        return 0
    try:
        with opened(version.store, version.location, version.revision) as reader:
            entries = reader.entries()
    except NotFound:
        entries = []
    except ClusterError:
        # A store that does not answer says nothing of the bytes: asked again at the next run, which is an hour off.
        RegistryVersion.objects.filter(pk=row.pk).update(bytes_checked_at=clock.now() - EVERY + timedelta(hours=1))
        return 1
    files = VersionFile.objects.filter(model_version=version).values_list("path", "size", "etag")
    found = differences(files, entries)
    with transaction.atomic():
        locked = RegistryVersion.objects.select_related("registry_model__registry", "registry_model__model__team")
        here = locked.locked(row.pk)
        here.bytes_checked_at = clock.now()
        here.save(update_fields=["bytes_checked_at"])
        if found:
            words = "; ".join(found[:_NAMED]) + (f"; and {len(found) - _NAMED} more" if len(found) > _NAMED else "")
            entry = here.registry_model
            known = entry.findings.filter(
                registry_version=here, kind=RegistryFindingKind.CHANGED_BYTES, after=words
            ).exists()
            if not known:  # said once for each state, however often it is looked at
                tell(
                    write_finding(
                        entry.registry,
                        Change(RegistryFindingKind.CHANGED_BYTES, "", f"as sealed under {version.digest}", words),
                        entry, here,
                    )
                )  # fmt: skip
    return 1
