"""That somebody took a copy of a model's file: reads of what may be regulated are recorded."""

from __future__ import annotations

from django.db import transaction

from apps import audit
from apps.catalogue import events
from apps.catalogue.models import VersionFile
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
