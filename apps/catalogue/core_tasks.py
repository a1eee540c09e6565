"""Sweeps of hashing and uploads."""

from __future__ import annotations

from datetime import timedelta

from apps.catalogue import blobs, copy_jobs, hash_jobs
from apps.catalogue.models import Upload
from apps.core import clock
from apps.core.sweeps import sweep


# One large file takes as long as it takes; between two files a slice ends. The lease keeps others away meanwhile.
@sweep("catalogue.hash_versions", every=timedelta(seconds=15), seconds=24 * 3600)
def hash_versions() -> int:
    """Hash the files of versions that wait for it; take over what a dead worker held."""
    return hash_jobs.run_due()


# As above: one large file takes as long as it takes.
@sweep("catalogue.store_copies", every=timedelta(seconds=15), seconds=24 * 3600)
def store_copies() -> int:
    """Write approved, uploaded files into the stores they were asked for; take over what a dead worker held."""
    return copy_jobs.run_due()


@sweep("catalogue.drop_uploads", every=timedelta(hours=1))
def drop_uploads() -> int:
    """Throw away uploads that nobody went on with for a day."""
    limit = clock.now() - timedelta(seconds=blobs.ABANDONED_SECONDS)
    dropped, _ = Upload.objects.filter(updated_at__lt=limit).delete()
    return dropped + blobs.sweep_incoming(now=clock.now().timestamp())
