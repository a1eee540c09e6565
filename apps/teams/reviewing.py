"""Who is asked whether a role is still needed: pure, from where the role counts and who holds what now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

#: So many days before a review's end those with open questions are reminded.
LADDER: Final = (14, 3, 1)
QUARTER_DAYS: Final = 30
MIN_DAYS, MAX_DAYS = 1, 90


@dataclass(frozen=True, slots=True)
class Place:
    """Where a role counts: `path` holds the units above it and its own, from the top down; none: the installation.

    `is_unit`: the role is one for the unit itself, whose owner does not answer for it.
    """

    path: tuple[int, ...] = ()
    is_unit: bool = False


@dataclass(frozen=True, slots=True)
class Reviewers:
    """Who answers for whom now: owners by unit, compliance and platform admins of the whole installation.

    `persons` maps accounts that were merged to the one that stayed: both are one person.
    """

    owners: Mapping[int, frozenset[int]] = field(default_factory=dict)
    compliance: frozenset[int] = frozenset()
    admins: frozenset[int] = frozenset()
    persons: Mapping[int, int] = field(default_factory=dict)

    def person(self, user_id: int) -> int:
        """Return the account that stands for the person behind an account."""
        return self.persons.get(user_id, user_id)

    def asked(self, user_id: int, place: Place) -> frozenset[int]:
        """Return who is asked about what `user_id` holds at `place`: the nearest who are somebody else.

        The owner of the unit, or of the nearest above; compliance for the installation; where there is nobody, the
        platform admins, and compliance for the only admin.
        """
        own = self.person(user_id)

        def others(found: frozenset[int]) -> frozenset[int]:
            return frozenset(one for one in found if self.person(one) != own)

        if not place.path:
            return others(self.compliance) or others(self.admins)
        above = place.path[:-1] if place.is_unit else place.path
        for unit in reversed(above):
            if found := others(self.owners.get(unit, frozenset())):
                return found
        return others(self.admins) or others(self.compliance)


def due_reminder(opened_at: datetime, due_at: datetime, reminded_days: int | None, at: datetime) -> int | None:
    """Return which reminder (days before the end) is due at `at` and was not sent yet; None where none is.

    Only the nearest one: after an outage nobody hears "14 days" with two left.
    """
    if at >= due_at:
        return None
    due = [days for days in LADDER if at >= due_at - timedelta(days=days) > opened_at]
    nearest = min(due, default=None)
    return nearest if nearest is not None and (reminded_days is None or reminded_days > nearest) else None


def quarter_of(at: datetime) -> tuple[str, datetime]:
    """Return the calendar quarter (UTC) as "2026-Q4", and when it began."""
    number = (at.month - 1) // 3
    start = at.replace(month=number * 3 + 1, day=1, hour=0, minute=0, second=0, microsecond=0)
    return f"{at.year}-Q{number + 1}", start
