"""What the audit room itself writes into the trail."""

from __future__ import annotations

from dataclasses import dataclass

from apps.core.events import declare


@dataclass(frozen=True, slots=True)
class AccessRefused:
    """Somebody signed in tried what they may not do. `path` is the page's, without its query."""

    method: str
    path: str
    rule: str


@dataclass(frozen=True, slots=True)
class TrailExported:
    """Somebody took a copy of the trail: the filters in force, the format."""

    filters: tuple[tuple[str, str], ...]
    format: str


@dataclass(frozen=True, slots=True)
class TrailVerified:
    """The chain was verified: how far, and with what outcome."""

    links: int
    head_seq: int
    outcome: str


ACCESS_REFUSED = declare("audit.access.refused", AccessRefused, audience="auditors")
TRAIL_EXPORTED = declare("audit.trail.exported", TrailExported, audience="auditors")
TRAIL_VERIFIED = declare("audit.trail.verified", TrailVerified, audience="auditors")
