"""Events of the metering room."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime

from apps.core import events


@dataclass(frozen=True, slots=True)
class SourceRegistered:
    """A source of record was set for a cluster."""

    source_uid: uuid.UUID
    cluster_uid: uuid.UUID
    kind: str
    valid_from: datetime
    valid_until: datetime | None


@dataclass(frozen=True, slots=True)
class HoursRetried:
    """A person asked for hours to be read again."""

    source_uid: uuid.UUID
    cluster_uid: uuid.UUID
    start: datetime
    end: datetime
    hours: int


@dataclass(frozen=True, slots=True)
class UsageImported:
    """A file of usage intervals was imported."""

    run_uid: uuid.UUID
    cluster_uid: uuid.UUID
    file_sha256: str
    rows_taken: int
    rows_refused: int
    gpu_ms: int


SOURCE_REGISTERED = events.declare("metering.source.registered", SourceRegistered, audience="platform admins")
HOURS_RETRIED = events.declare("metering.hours.retried", HoursRetried, audience="platform admins")
USAGE_IMPORTED = events.declare("metering.usage.imported", UsageImported, audience="platform admins")
