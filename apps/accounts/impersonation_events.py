"""What is told about seeing the portal as somebody else: to the person, and to the audit trail, page by page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from apps.core.events import declare, private


@dataclass(frozen=True, slots=True)
class ImpersonationStarted:
    """Somebody of support began to see the portal as a person does. The reason is the event's own, erasable note."""

    person_uid: UUID
    expires_at: datetime
    by_name: str = private(default="")


@dataclass(frozen=True, slots=True)
class ImpersonationEnded:
    """It is over: ended (by hand), expired, signed_out, or refused (a right on one of the two sides changed)."""

    person_uid: UUID
    cause: str
    pages_seen: int


@dataclass(frozen=True, slots=True)
class PageSeen:
    """A page, fragment or download that was seen so. Addresses hold opaque ids and short names; the query is a note."""

    person_uid: UUID
    route: str
    path: str
    status: int
    query: str = private(default="")


STARTED = declare(
    "accounts.impersonation.started",
    ImpersonationStarted,
    audience="the person",
    headline=lambda p: "Support sees the portal as you do",
    body=lambda p: (
        f"{p.by_name or 'Somebody of support'} looks at the portal with your rights until"
        f" {p.expires_at[:16].replace('T', ' ')} UTC. They can change nothing; every page is on record."
    ),
)
ENDED = declare(
    "accounts.impersonation.ended",
    ImpersonationEnded,
    audience="the person",
    headline=lambda p: "Support no longer sees the portal as you do",
    body=lambda p: f"{p.pages_seen} page{'' if p.pages_seen == 1 else 's'} were seen. Nothing could be changed.",
)
PAGE_SEEN = declare("accounts.impersonation.page_seen", PageSeen, audience="auditors")
