"""Where clusters load uploaded files from: an approved version's copy in a store, by its manifest's digest.

A manifest says nothing of a copy: the bytes are approved, not where they lie. So the location is derived from the
digest, `s3://<prefix>/sha256/<digest>`, and counts only once every file was read back from there (`copy_jobs`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Q, Sum

from apps import audit
from apps.approvals.engine import usable
from apps.catalogue import events, grants
from apps.catalogue.access import locked_version
from apps.catalogue.choices import JobStatus, ScanStatus, Scheme, VersionStatus
from apps.catalogue.locations import loadable
from apps.catalogue.models import ModelStore, ModelVersion, StoredCopy
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid
from apps.core.events import EventType

SUBMIT = "catalogue.version.submit"
OPEN = (JobStatus.PENDING, JobStatus.RUNNING)


def location_of(store: ModelStore, digest: str) -> str:
    """Return where a version of this digest lies in a store."""
    return f"s3://{store.prefix.strip('/')}/sha256/{digest}"


def targets(version: ModelVersion) -> Any:
    """Return the stores that take the copy: S3-compatible, opened for it by a platform admin, open to the team."""
    rows = ModelStore.objects.filter(scheme=Scheme.S3, takes_copies=True, archived_at__isnull=True).exclude(prefix="")
    return rows.filter(Q(teams=version.model.team_id) | Q(teams__isnull=True)).distinct().order_by("name", "pk")


def approved(version: ModelVersion, at: datetime) -> bool:
    """Whether some approval of exactly these bytes is in force."""
    return any(
        usable(one, one.subject_digest, {"manifest": version.digest}, at) for one in grants.grants_of(version.digest)
    )


def why_not(version: ModelVersion, at: datetime) -> str:
    """Return why the files cannot be put into a store now, "" where they can."""
    if version.scheme != Scheme.UPLOAD:
        return "Its files lie in a store already."
    if version.status != VersionStatus.SEALED or not version.digest:
        return "Only a sealed version's files are put into a store: before that they can change."
    if not approved(version, at):
        return "Only approved bytes leave the portal: ask for the version's approval first."
    if version.files.filter(blob__scan=ScanStatus.INFECTED).exists():
        return "The virus scanner refused one of its files."
    return ""


def closed(copy: StoredCopy, at: datetime) -> str:
    """Return why a copy that was started may not go on, "" where it may: its approval ended, or its store is shut."""
    version = copy.model_version
    if why := why_not(version, at):
        return why
    if not targets(version).filter(pk=copy.store_id).exists():
        return "The store takes the portal's copies no more."
    return ""


@transaction.atomic
def start(version_id: int, store_id: int, *, actor: Actor, expected_version: int | None = None) -> StoredCopy:
    """Have an approved version's uploaded files written into a store and read back.

    Raises NotVisible, NotAllowed, Invalid beside the store, Conflict where it is not approved, under way, or done.
    """
    version = locked_version(version_id, SUBMIT, actor=actor, expected_version=expected_version)
    if why := why_not(version, clock.now()):
        raise Conflict(why, current={"status": version.status})
    store = targets(version).filter(pk=store_id).first()
    if store is None:
        raise Invalid({"store": "Choose a store that a platform admin has opened for the portal's copies."})
    totals = version.files.aggregate(size=Sum("size"))
    copy = StoredCopy(
        model_version=version, store=store, location=location_of(store, version.digest),
        requested_by_id=actor.user_id or version.author_id, files_total=version.files.count(),
        bytes_total=totals["size"] or 0,
    )  # fmt: skip
    try:
        with transaction.atomic():
            copy.save(force_insert=True)
    except IntegrityError as error:
        raise Conflict("Its files lie there already, or are on their way to a store.") from error
    record(events.COPY_STARTED, copy, actor)
    _nudge()
    return copy


@transaction.atomic
def cancel(copy_id: int, *, actor: Actor, expected_version: int | None = None) -> StoredCopy:
    """Stop a copy that is under way; what lies in the store stays there and is not used. Raises as `start`."""
    found = StoredCopy.objects.filter(pk=copy_id).values_list("model_version_id", flat=True).first()
    locked_version(found or 0, SUBMIT, actor=actor)
    copy = StoredCopy.objects.select_related("store").locked(copy_id, expected_version=expected_version)
    if copy.status not in OPEN:
        raise Conflict(f"This is {copy.get_status_display().lower()}: there is nothing to cancel.")
    copy.status, copy.finished_at, copy.retry_at = JobStatus.CANCELLED, clock.now(), None
    copy.bump("status", "finished_at", "retry_at")
    record(events.COPY_ENDED, copy, actor)
    return copy


def unreached(user: Any) -> list[ModelVersion]:
    """Return the newest uploaded versions the person may ask for that are sealed, and that no cluster reaches yet."""
    from apps.teams import scope

    rows = ModelVersion.objects.visible_to(user).filter(
        scope.of(user).team_filter(SUBMIT, field="model__team"), scheme=Scheme.UPLOAD, status=VersionStatus.SEALED
    )
    return list(
        rows.exclude(pk__in=loadable(rows).values("pk")).select_related("model").order_by("-created_at", "-pk")[:5]
    )


def record(event: EventType, copy: StoredCopy, actor: Actor, why: str = "") -> events.CopyEvent:
    """Write what happened to a copy into the audit trail, in the caller's transaction."""
    version = ModelVersion.objects.select_related("model__team").get(pk=copy.model_version_id)
    payload = events.CopyEvent(
        copy.uid, version.uid, version.digest, copy.store.uid, str(copy.status), copy.files_done, copy.bytes_done,
        location=copy.location, what=str(version), reason=why,
    )  # fmt: skip
    audit.record(
        event, payload, actor=actor, subject_type="catalogue.version", subject_uid=version.uid,
        team_uid=version.model.team.uid,
    )  # fmt: skip
    return payload


def _nudge() -> None:
    from apps.catalogue.core_tasks import store_copies
    from apps.core.sweeps import nudge

    nudge(store_copies)
