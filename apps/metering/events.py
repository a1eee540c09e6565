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
class SourceChanged:
    """A source was changed in place: what of it, and how address and options stand since. Never its token."""

    source_uid: uuid.UUID
    cluster_uid: uuid.UUID
    changed: list[str]
    address: str
    options: list[str]
    waivers_ended: int = 0


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


@dataclass(frozen=True, slots=True)
class SourceTested:
    """A self-test of a source came to something else than the one before."""

    check_uid: uuid.UUID
    source_uid: uuid.UUID
    verdict: str
    failed: list[str]


@dataclass(frozen=True, slots=True)
class SourceTestFailed:
    """A source must not be billed from until it is repaired or its failed checks are waived."""

    check_uid: uuid.UUID
    source_uid: uuid.UUID
    source: str
    cluster: str
    failed: list[str]


@dataclass(frozen=True, slots=True)
class SourceWaived:
    """Somebody said that a source may be billed from although checks fail."""

    waiver_uid: uuid.UUID
    source_uid: uuid.UUID
    source: str
    codes: list[str]
    until: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class WaiverRevoked:
    """A waiver was ended before its time."""

    waiver_uid: uuid.UUID
    source_uid: uuid.UUID
    source: str
    codes: list[str]


@dataclass(frozen=True, slots=True)
class WaiverEnded:
    """A waiver ended because its source was changed: what was waived was another server, or another question."""

    waiver_uid: uuid.UUID
    source_uid: uuid.UUID
    source: str
    codes: list[str]
    changed: list[str]


def _source_page(uid: uuid.UUID) -> str:
    return f"/usage/sources/{uid}/"


SOURCE_REGISTERED = events.declare("metering.source.registered", SourceRegistered, audience="platform admins")
SOURCE_CHANGED = events.declare("metering.source.changed", SourceChanged, audience="platform admins")
HOURS_RETRIED = events.declare("metering.hours.retried", HoursRetried, audience="platform admins")
USAGE_IMPORTED = events.declare("metering.usage.imported", UsageImported, audience="platform admins")
SOURCE_TESTED = events.declare("metering.source.tested", SourceTested, audience="platform admins")
SOURCE_TEST_FAILED = events.declare(
    "metering.source.test_failed",
    SourceTestFailed,
    audience="platform admins",
    mail=True,
    headline=lambda p: f"{p.source} ({p.cluster}) is not fit to bill from",
    body=lambda p: "Its usage is read on, but no month is closed on it until it is repaired or the checks are waived.",
    path=lambda p: _source_page(p.source_uid),
)
SOURCE_WAIVED = events.declare(
    "metering.source.waived",
    SourceWaived,
    audience="platform admins and finance",
    mail=True,
    headline=lambda p: f"{p.source} may be billed from until {p.until:%Y-%m-%d}, although checks fail",
    body=lambda p: "Somebody waived failed checks of this source of usage, by name and with a reason.",
    path=lambda p: _source_page(p.source_uid),
)
WAIVER_REVOKED = events.declare(
    "metering.waiver.revoked",
    WaiverRevoked,
    audience="platform admins and finance",
    mail=True,
    headline=lambda p: f"The waiver for {p.source} is revoked",
    body=lambda p: "Its failed checks count again: no month is closed on this source until they are repaired.",
    path=lambda p: _source_page(p.source_uid),
)
WAIVER_ENDED = events.declare(
    "metering.waiver.ended",
    WaiverEnded,
    audience="platform admins and finance",
    mail=True,
    headline=lambda p: f"The waiver for {p.source} ended: its source was changed",
    body=lambda p: (
        f"Changed: {', '.join(p.changed)}. What was waived was how it stood before. The source is tested again; where"
        " checks fail, no month is closed on it until they are repaired or waived anew."
    ),
    path=lambda p: _source_page(p.source_uid),
)
