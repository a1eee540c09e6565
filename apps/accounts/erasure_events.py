"""What the erasing of a person tells: counts, and an id that leads to nobody from then on."""

from __future__ import annotations

from dataclasses import dataclass

from apps.core.events import declare


@dataclass(frozen=True, slots=True)
class UserErased:
    """A person was erased for good: how many rows went or were emptied with them."""

    sessions: int
    tokens: int
    identities: int
    factors: int


USER_ERASED = declare("accounts.user.erased", UserErased, audience="auditors")
