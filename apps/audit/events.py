"""What the audit room itself writes into the trail."""

from __future__ import annotations

from dataclasses import dataclass

from apps.core.events import declare, private
from apps.core.exports import Exported


@dataclass(frozen=True, slots=True)
class AccessRefused:
    """Somebody signed in tried what they may not do. `path` is the page's, without its query."""

    method: str
    path: str
    rule: str


@dataclass(frozen=True, slots=True)
class TrailViewed:
    """Somebody read the trail: which page or API collection, filtered by what."""

    path: str
    query: str = private(default="")


@dataclass(frozen=True, slots=True)
class TrailVerified:
    """The chain was verified: how many links, up to which number, with what outcome and how many findings."""

    links: int
    head_seq: int
    outcome: str
    findings: int


ACCESS_REFUSED = declare("audit.access.refused", AccessRefused, audience="auditors")
TRAIL_VIEWED = declare("audit.trail.viewed", TrailViewed, audience="auditors")
TRAIL_EXPORTED = declare("audit.trail.exported", Exported, audience="auditors")
TRAIL_VERIFIED = declare("audit.trail.verified", TrailVerified, audience="auditors")
