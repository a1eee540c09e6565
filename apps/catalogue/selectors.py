"""What pages and the API read of models and versions."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db.models import CharField, Count, OuterRef, Q, QuerySet, Subquery

from apps.approvals.models import Grant
from apps.catalogue import lineage, sealing
from apps.catalogue.choices import AskStatus, JobStatus, Scheme, VersionStatus
from apps.catalogue.classification import Cycle, Origin
from apps.catalogue.models import ClassificationRecord, HashJob, Model, ModelRequest, ModelVersion
from apps.core import clock

SUBJECT_TYPE = "catalogue.version"
_HEXADECIMAL = frozenset("0123456789abcdef")


def grants_in_force() -> QuerySet[Grant]:
    """Return the grants of versions that are usable somewhere now."""
    at = clock.now()
    return Grant.objects.filter(
        Q(expires_at=None) | Q(expires_at__gt=at), subject_type=SUBJECT_TYPE, revoked_at=None, not_before__lte=at
    )  # fmt: skip


def usable_digests() -> Any:
    """Return the manifest digests that a grant in force covers somewhere now, as a subquery."""
    return grants_in_force().filter(manifest__isnull=False).order_by().values("manifest")


def digest_begins(text: str) -> Q:
    """Return the condition "the digest begins so"; for what begins no digest, one that nothing meets.

    As a range, which the index answers: behind the database's wall LIKE is tried row by row.
    """
    begin = text.strip().lower().removeprefix("sha256:")
    if not begin or set(begin) - _HEXADECIMAL:
        return Q(pk__in=[])
    return Q(digest__gte=begin, digest__lt=begin + "g")


def model_rows(rows: Any) -> Any:
    """What the list of models shows, no more: with the number of versions and the newest one's label, status, uid."""
    newest = ModelVersion.objects.filter(model=OuterRef("pk")).order_by("-number")
    counted = ModelVersion.objects.filter(model=OuterRef("pk")).order_by().values("model")
    return rows.annotate(
        versions_count=Subquery(counted.annotate(n=Count("pk")).values("n")),
        newest_label=Subquery(newest.values("label")[:1]),
        newest_status=Subquery(newest.values("status")[:1], output_field=CharField()),
        newest_uid=Subquery(newest.values("uid")[:1]),
        newest_at=Subquery(newest.values("created_at")[:1]),
    ).select_related("team").only("uid", "name", "data_classes", "risk_tier", "team__name")  # fmt: skip


def version_rows(rows: Any) -> Any:
    """What lists of versions show, no more: the last page of many is sorted in memory, not on disk."""
    return rows.select_related("model__team").only(
        "uid", "number", "label", "status", "classification", "digest", "total_bytes", "created_at", "model__uid",
        "model__name", "model__team__name",
    )  # fmt: skip


def usable_among(digests: Iterable[str]) -> set[str]:
    """Return which of these digests a grant in force covers: one statement for a page of versions."""
    known = [digest for digest in digests if digest]
    if not known:
        return set()
    return {str(of) for of in usable_digests().filter(manifest__in=known).values_list("manifest", flat=True)}


@dataclass(frozen=True, slots=True)
class NextStep:
    """What has to happen next with a version, in words; `action` and `url_name` where it is a click."""

    title: str
    items: tuple[str, ...] = ()
    tone: str = "info"
    action: str = ""
    url_name: str = ""


def next_step(version: ModelVersion, job: HashJob | None) -> NextStep:
    """Say what comes next for a version."""
    if version.status == VersionStatus.RETIRED:
        return NextStep(
            "This version is retired: it is offered for nothing new. What runs is not touched.", tone="neutral"
        )
    if version.status == VersionStatus.HASHING:
        return NextStep("Its files are being hashed. This page follows; you can close it.")
    if version.status == VersionStatus.SEALED:
        if usable_among([version.digest]):
            return NextStep("It is approved: see below for where, and until when.", tone="positive")
        asked = ModelRequest.objects.filter(model_version=version).order_by("-pk").values_list("status", flat=True)
        if (last := asked.first()) == AskStatus.IN_REVIEW:
            return NextStep("It waits for its approval: see below what is still open, and who decides.")
        if last == AskStatus.REJECTED:
            return NextStep(
                "It was rejected: read why below. Missing evidence can be added to it; other bytes are a new version.",
                tone="caution",
            )
        return NextStep("It is sealed. Next: gather its evidence, then submit it for approval.")
    lacking = sealing.missing(version)
    if not lacking:
        return NextStep(
            "Everything is there. Sealing fixes it for ever: look at files, parameters and sources once more.",
            tone="positive", action="Seal this version", url_name="catalogue:version-seal",
        )  # fmt: skip
    if version.scheme == Scheme.UPLOAD and not version.files.exists():
        return NextStep("Still to do before it can be sealed:", tuple(lacking), "info", "Upload files",
                        "catalogue:version-upload")  # fmt: skip
    if version.scheme != Scheme.UPLOAD and version.store_id is not None and "Have its files hashed." in lacking:
        failed = job is not None and job.status == JobStatus.FAILED
        return NextStep(
            "Hashing failed. Correct what is said below, then try again." if failed
            else "Still to do before it can be sealed:",
            tuple(lacking), "critical" if failed else "info", "Hash its files", "catalogue:version-hash",
        )  # fmt: skip
    return NextStep("Still to do before it can be sealed:", tuple(lacking), "info", "Edit", "catalogue:version-edit")


@dataclass(frozen=True, slots=True)
class ShownClassification:
    """A version's data classes with where each comes from; `problem` where they cannot be told."""

    classes: tuple[str, ...]
    origins: tuple[Origin, ...]
    sealed: bool
    problem: str = ""


def shown_classification(version: ModelVersion) -> ShownClassification:
    """Return the classification as sealed, or for a draft as it would be sealed now."""
    if version.status in lineage.SEALED:
        found = ClassificationRecord.objects.filter(model_version=version).order_by("pk")
        return ShownClassification(
            tuple(version.classification), tuple(Origin(row.data_class, row.origin, row.detail) for row in found), True
        )
    try:
        found_now = lineage.classification_of(version)
    except Cycle:
        return ShownClassification((), (), False, "Its lineage is too long, or runs in a circle.")
    return ShownClassification(found_now.classes, found_now.origins, False)


def last_job(version: ModelVersion) -> HashJob | None:
    """Return the newest hashing job of a version."""
    return version.hash_jobs.order_by("-pk").first()


def find_version(user: Any, text: str) -> ModelVersion | None:
    """Return the visible version that a person means by a uid, a digest's beginning or “model-slug label”."""
    rows = ModelVersion.objects.visible_to(user).select_related("model__team")
    words = text.strip()
    try:
        return rows.filter(uid=uuid.UUID(words)).first()
    except ValueError:
        pass
    if len(words) >= 8 and not set(words.lower()) - _HEXADECIMAL:
        found = list(rows.filter(digest_begins(words)).order_by("pk")[:2])
        if len(found) == 1:
            return found[0]
    slug, _, label = words.replace(":", " ").partition(" ")
    return rows.filter(model__slug=slug, label__iexact=label.strip()).first()


def open_counts(model: Model) -> dict[str, int]:
    """Return a model's number of versions by status."""
    rows = model.versions.order_by().values("status").annotate(n=Count("pk"))
    return {row["status"]: row["n"] for row in rows}
