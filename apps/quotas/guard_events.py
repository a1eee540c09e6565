"""Events of the guard."""

from __future__ import annotations

from dataclasses import dataclass

from apps.core.events import declare


@dataclass(frozen=True, slots=True)
class GuardDecided:
    """An admin decided what the guard of a cluster does."""

    cluster: str
    before: str
    after: str
    confirmed: bool = False


GUARD_DECIDED = declare("quotas.guard.decided", GuardDecided, audience="platform admins")
