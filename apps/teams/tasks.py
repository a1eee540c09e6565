"""The teams room's sweeps."""

from __future__ import annotations

from apps.teams.mapping_tasks import follow_groups
from apps.teams.people_tasks import access_reviews, ending_roles, planned_changes
from apps.teams.service_tasks import service_tokens

__all__ = ["access_reviews", "ending_roles", "follow_groups", "planned_changes", "service_tokens"]
