"""Adding evidence about exactly one manifest, and withdrawing it; it is never deleted and never edited."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction

from apps import audit
from apps.accounts.models import User
from apps.catalogue import blobs, checking, evidence_kinds, signing_keys, sniffing
from apps.catalogue import evidence_events as events
from apps.catalogue import manifest as manifests
from apps.catalogue.access import locked_version, person, require
from apps.catalogue.choices import EvidenceKind, ScanStatus, VersionStatus
from apps.catalogue.evidence_results import BadResults, Result, as_plain, read_results
from apps.catalogue.models import (
    Blob,
    Control,
    EvaluationResult,
    Evidence,
    EvidenceProducer,
    ModelVersion,
)
from apps.core import clock
from apps.core.actor import Actor
from apps.core.canonical import digest_of
from apps.core.errors import Conflict, Invalid

ADD = "catalogue.evidence.add"
#: What a document of evidence may be, as found from its bytes.
TYPES = frozenset({sniffing.PDF, sniffing.PNG, sniffing.JPEG, sniffing.CSV, sniffing.JSON, sniffing.TEXT, sniffing.XML,
                   sniffing.ZIP})  # fmt: skip
MAX_FILE_BYTES = 100 * 1024 * 1024
MAX_CONTROLS = 200
#: Clocks differ: so far ahead a moment may lie.
SKEW = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Draft:
    """What is to be added, before it is judged. `rows` are results by column (`evidence_results.COLUMNS`)."""

    kind: str
    title: str
    rows: Sequence[Mapping[str, Any]] = ()
    payload: Mapping[str, Any] = field(default_factory=dict)
    controls: Sequence[str] = ()
    produced_at: datetime | None = None
    valid_until: datetime | None = None
    file_name: str = ""


@dataclass(frozen=True, slots=True)
class Checked:
    """A draft that can be added: its results and what follows from them."""

    results: list[Result]
    judged: evidence_kinds.Judged
    produced_at: datetime
    controls: list[str]
    verified: signing_keys.Verified | None = None


def attach(pieces: Iterable[bytes], *, actor: Actor, field: str = "file") -> Blob:
    """Keep a document's bytes by their digest, checked for size, type and malware. Call it outside transactions.

    Raises Invalid, Conflict where the scanner is away.
    """
    return blobs.put(pieces, actor=actor, max_bytes=MAX_FILE_BYTES, allowed=TYPES, field=field)


@transaction.atomic
def add_evidence(version_id: int, draft: Draft, *, actor: Actor, blob: Blob | None = None) -> Evidence:
    """Add a piece of evidence about a sealed version's manifest.

    Raises Invalid by field, Conflict for a version that is not sealed, NotVisible, NotAllowed.
    """
    version = locked_version(version_id, ADD, actor=actor)
    checked = check(version, draft, blob)
    return write(version, draft, checked, blob, actor=actor, user=person(actor))


def check_early(version_id: int, draft: Draft, *, has_file: bool) -> None:
    """Say what is wrong before a file is kept. Raises as `check` does; the action checks again, under its lock."""
    check(ModelVersion.objects.select_related("model").get(pk=version_id), draft, None, has_file=has_file)


def check(version: ModelVersion, draft: Draft, blob: Blob | None, *, has_file: bool = False) -> Checked:
    """Return the judged draft. Raises Invalid by field, Conflict for a version without digest."""
    if version.status not in (VersionStatus.SEALED, VersionStatus.RETIRED) or not version.digest:
        raise Conflict("Seal the version first: evidence is about its bytes, and only a sealed version has a digest.")
    errors: dict[str, list[str]] = {}
    if not draft.title.strip():
        errors["title"] = ["Give it a title that approvers recognise."]
    elif len(draft.title) > 300:
        errors["title"] = ["At most 300 characters."]
    results: list[Result] = []
    try:
        results = read_results(draft.rows)
    except BadResults as bad:
        errors["results"] = bad.problems
    at = clock.now()
    produced_at = draft.produced_at or at
    if produced_at > at + SKEW:
        errors["produced_at"] = ["It cannot have been produced in the future."]
    if draft.valid_until is not None and draft.valid_until <= produced_at:
        errors["valid_until"] = ["Its validity has to end after it was produced."]
    elif draft.valid_until is not None and draft.valid_until <= at:
        errors["valid_until"] = ["It has expired already: add evidence that still counts."]
    controls = sorted({code.strip() for code in draft.controls if code.strip()})
    if wrong := _unfit(controls, draft.kind):
        errors["controls"] = wrong
    images = manifests.images(manifests.parse(version.manifest))
    judged, verified = None, None
    try:
        present = has_file or blob is not None
        if draft.kind == EvidenceKind.SIGNATURE:
            if results:
                raise Invalid({"results": "A signature holds no results."})
            verified = signing_keys.verify(version, draft.payload, at)
            judged = verified.judged
        else:
            judged = evidence_kinds.judge(draft.kind, draft.payload, results, has_file=present, images=images)
    except Invalid as invalid:
        for name, messages in invalid.errors.items():
            if name not in errors:
                errors[name] = messages
    if errors or judged is None:
        raise Invalid(errors)
    return Checked(results, judged, produced_at, controls, verified)


def _unfit(codes: Sequence[str], kind: str) -> list[str]:
    """Return why evidence of a kind cannot be offered for these controls."""
    if len(codes) > MAX_CONTROLS:
        return [f"At most {MAX_CONTROLS} controls."]
    rows = {
        row.code: row for row in Control.objects.filter(code__in=codes, superseded_at__isnull=True).only(
            "code", "evidence_kinds"
        )
    }  # fmt: skip
    unknown = [code for code in codes if code not in rows]
    if unknown:
        return [f"There is no control “{unknown[0][:80]}” in force."]
    unfit = [code for code in codes if kind not in rows[code].evidence_kinds]
    return [f"The control {unfit[0]} does not take this kind of evidence."] if unfit else []


def write(
    version: ModelVersion,
    draft: Draft,
    checked: Checked,
    blob: Blob | None,
    *,
    actor: Actor,
    user: User | None = None,
    producer: EvidenceProducer | None = None,
    signature: str = "",
    delivery_id: str = "",
) -> Evidence:
    """Write a checked piece, in the caller's transaction and under its lock of the version. Raises Invalid."""
    if blob is not None and blob.scan == ScanStatus.INFECTED:
        raise Invalid({"file": "The virus scanner refused this file."})
    judged = checked.judged
    payload = judged.payload | ({"reasons": list(judged.reasons)} if judged.reasons else {})
    row = Evidence(
        model=version.model, model_version=version, subject_digest=version.digest, kind=draft.kind,
        title=draft.title.strip(), blob=blob, file_name=draft.file_name.strip()[-200:] if blob else "",
        payload=payload, verdict=judged.verdict, controls=checked.controls, produced_at=checked.produced_at,
        valid_until=draft.valid_until, produced_by=user, producer=producer, signature=signature,
        delivery_id=delivery_id, signing_key=checked.verified.key if checked.verified else None,
        verified_at=checked.verified.at if checked.verified else None,
    )  # fmt: skip
    row.digest = digest_of(content(row, [as_plain(one) for one in checked.results]))
    row.save(force_insert=True)
    EvaluationResult.objects.bulk_create(
        EvaluationResult(
            evidence=row, metric=one.metric, slice=one.slice, dataset=one.dataset,
            dataset_revision=one.dataset_revision, value=one.value, low=one.low, high=one.high, samples=one.samples,
            comparison=one.comparison, threshold=one.threshold, passed=one.passed,
        )
        for one in checked.results
    )  # fmt: skip
    _record(events.EVIDENCE_ADDED, row, version, actor)
    return row


def content(row: Evidence, results: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Return what the digest of a piece of evidence covers."""
    return {
        "v": 1,
        "model": row.model.uid,
        "subject_digest": row.subject_digest,
        "kind": str(row.kind),
        "title": row.title,
        "file": {"sha256": row.blob.sha256, "name": row.file_name} if row.blob is not None else None,
        "payload": row.payload,
        "results": [dict(one) for one in results],
        "verdict": row.verdict,
        "controls": row.controls,
        "produced_at": row.produced_at,
        "valid_until": row.valid_until,
        "producer": row.producer.uid if row.producer is not None else None,
        "person": row.produced_by.uid if row.produced_by is not None else None,
        "delivery_id": row.delivery_id,
        "signature": row.signature,
    }


def stored_results(row: Evidence) -> list[Result]:
    """Return the results of a stored piece, as they were judged."""
    return [
        Result(
            metric=one.metric, value=_plain(one.value), slice=one.slice, low=_maybe(one.low), high=_maybe(one.high),
            comparison=one.comparison, threshold=_maybe(one.threshold), samples=one.samples, dataset=one.dataset,
            dataset_revision=one.dataset_revision,
        )
        for one in row.results.order_by("pk")
    ]  # fmt: skip


def _plain(value: Any) -> Any:
    from apps.catalogue.evidence_results import plain_number

    return plain_number(value)


def _maybe(value: Any) -> Any:
    return None if value is None else _plain(value)


@transaction.atomic
def withdraw_evidence(evidence_id: int, reason: str, *, actor: Actor, expected_version: int | None = None) -> Evidence:
    """Take a piece of evidence back: it counts no more, and stays. Whoever added it, or a lead of the owning team.

    Raises Invalid without a reason, NotVisible, NotAllowed, Conflict where it is withdrawn or moved on.
    """
    row = Evidence.objects.select_related("model__team", "model_version").locked(
        evidence_id, expected_version=expected_version
    )
    if not actor.is_system:
        Evidence.objects.get_visible(person(actor), row.uid)
        if row.produced_by_id != actor.user_id:
            require(actor, "catalogue.model.manage", row)
        else:
            require(actor, ADD, row)
    if row.withdrawn_at is not None:
        raise Conflict("It is withdrawn already.")
    row.withdrawn_reason = checking.reason(reason)[:500]
    row.withdrawn_at = clock.now()
    row.withdrawn_by_id = actor.user_id
    row.bump("withdrawn_at", "withdrawn_by", "withdrawn_reason")
    if row.model_version is None:
        raise Conflict("This evidence names no version.")
    _record(events.EVIDENCE_WITHDRAWN, row, row.model_version, actor, reason=row.withdrawn_reason)
    return row


def may_withdraw(user: Any, row: Evidence) -> bool:
    """Whether the person may take the piece back."""
    from apps.core.permissions import may

    if row.withdrawn_at is not None:
        return False
    own = row.produced_by_id == user.pk and may(user, ADD, row)
    return own or may(user, "catalogue.model.manage", row)


def _record(event: Any, row: Evidence, version: ModelVersion, actor: Actor, *, reason: str = "") -> None:
    audit.record(
        event,
        events.EvidenceEvent(
            row.uid, version.uid, str(row.kind), row.verdict, row.subject_digest, row.digest,
            row.producer.uid if row.producer is not None else None, row.delivery_id, row.title, reason,
        ),
        actor=actor,
        subject_type="catalogue.evidence",
        subject_uid=row.uid,
        team_uid=version.model.team.uid,
        after_digest=row.digest,
    )  # fmt: skip


__all__ = [
    "ADD", "Checked", "Draft", "add_evidence", "attach", "check", "check_early", "content", "may_withdraw",
    "stored_results", "withdraw_evidence", "write",
]  # fmt: skip
