"""Reading the trail leaves a trace of its own (design §6): who looked at what, filtered how."""

from __future__ import annotations

import uuid

from django.db import transaction
from django.http import HttpRequest

from apps.audit.actions import INSTALLATION, record
from apps.audit.events import TRAIL_VIEWED, TrailViewed
from apps.core.actor import Actor
from apps.core.middleware import after_read


def note_read(request: HttpRequest, actor: Actor, subject_uid: uuid.UUID = INSTALLATION) -> None:
    """Have a read recorded once the page's read transaction is closed; a read that cannot be recorded fails."""

    def write() -> None:
        with transaction.atomic():
            record(
                TRAIL_VIEWED,
                TrailViewed(path=request.path, query=request.GET.urlencode()[:1000]),
                actor=actor,
                subject_type="audit.trail" if subject_uid == INSTALLATION else "audit.event",
                subject_uid=subject_uid,
            )

    after_read(request, write)
