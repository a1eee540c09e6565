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
    checkpoints: int = 0


@dataclass(frozen=True, slots=True)
class CheckpointMade:
    """The end of the trail was signed: its number, the checkpoint's digest, the key."""

    seq: int
    digest: str
    key_id: str


@dataclass(frozen=True, slots=True)
class CheckpointRefused:
    """The trail was not signed: it does not follow from the last checkpoint."""

    after_seq: int
    problem: str


@dataclass(frozen=True, slots=True)
class TrailAlarm:
    """The trail was found tampered with, or its verification is incomplete or did not happen."""

    text: str


@dataclass(frozen=True, slots=True)
class DrillDone:
    """A copy of the trail was tampered with on purpose: in how many ways, and how many were not found."""

    attacks: int
    missed: int


@dataclass(frozen=True, slots=True)
class BundleMade:
    """Events were packed for somebody outside: how many, up to which link, proven by which checkpoint."""

    events: int
    head_seq: int
    checkpoint_seq: int


ACCESS_REFUSED = declare("audit.access.refused", AccessRefused, audience="auditors")
TRAIL_VIEWED = declare("audit.trail.viewed", TrailViewed, audience="auditors")
TRAIL_EXPORTED = declare("audit.trail.exported", Exported, audience="auditors")
TRAIL_VERIFIED = declare("audit.trail.verified", TrailVerified, audience="auditors")
CHECKPOINT_MADE = declare("audit.checkpoint.made", CheckpointMade, audience="auditors")
CHECKPOINT_REFUSED = declare("audit.checkpoint.refused", CheckpointRefused, audience="auditors")
BUNDLE_MADE = declare("audit.bundle.made", BundleMade, audience="auditors")
TRAIL_ALARM = declare("audit.trail.alarm", TrailAlarm, audience="auditors")
DRILL_DONE = declare("audit.drill.done", DrillDone, audience="auditors")
