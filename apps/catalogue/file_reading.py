"""That somebody took a copy of a model's file, or read a piece of evidence: reads of what may be regulated."""

from __future__ import annotations

from django.db import transaction

from apps import audit
from apps.catalogue import events, evidence_events
from apps.catalogue.models import Evidence, VersionFile
from apps.core.actor import Actor


@transaction.atomic
def record_taken(file_id: int, *, actor: Actor) -> None:
    """Record that a file was downloaded."""
    file = VersionFile.objects.select_related("model_version__model__team").get(pk=file_id)
    version = file.model_version
    audit.record(
        events.FILE_TAKEN,
        events.FileEvent(version.uid, path=file.path, size=file.size, sha256=file.sha256),
        actor=actor, subject_type="catalogue.version", subject_uid=version.uid, team_uid=version.model.team.uid,
    )  # fmt: skip


@transaction.atomic
def record_evidence(evidence_id: int, *, actor: Actor, taken: bool = False) -> None:
    """Record that a piece of evidence was read; `taken`: its document was downloaded."""
    row = Evidence.objects.select_related("model__team", "model_version", "producer").get(pk=evidence_id)
    if row.model_version is None:
        return
    audit.record(
        evidence_events.EVIDENCE_TAKEN if taken else evidence_events.EVIDENCE_READ,
        evidence_events.EvidenceEvent(
            row.uid, row.model_version.uid, str(row.kind), row.verdict, row.subject_digest, row.digest,
            row.producer.uid if row.producer is not None else None, row.delivery_id, title=row.title,
        ),
        actor=actor, subject_type="catalogue.evidence", subject_uid=row.uid, team_uid=row.model.team.uid,
    )  # fmt: skip
