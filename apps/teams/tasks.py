"""The teams room's sweeps."""

from __future__ import annotations

from apps.teams.people_tasks import access_reviews, planned_changes

__all__ = ["access_reviews", "planned_changes"]
