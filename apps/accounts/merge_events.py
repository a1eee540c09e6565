"""What merging accounts tells. Ids are opaque."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from apps.core.events import declare


@dataclass(frozen=True, slots=True)
class Merged:
    """An account was merged into another of the same person: what moved, and what stayed behind."""

    merged_uid: UUID
    into_uid: UUID
    roles: int
    memberships: int
    identities: int


ACCOUNT_MERGED = declare(
    "accounts.user.merged",
    Merged,
    audience="the person",
    mail=True,
    headline=lambda p: "Another account of yours was merged into this one",
    body=lambda p: "Its roles and memberships are yours now; it can no longer sign in.",
)
