"""The sweep behind group roles: whatever was missed, roles follow their groups within ten minutes."""

from __future__ import annotations

from datetime import timedelta

from apps.core.actor import Actor
from apps.core.sweeps import sweep
from apps.teams.group_roles import sync_many
from apps.teams.models import GroupMapping


@sweep("teams.follow_groups", every=timedelta(minutes=10))
def follow_groups() -> int:
    """Make everybody's roles follow their groups; returns how many people it changed."""
    if not GroupMapping.objects.exists():
        return 0  # no group gives anything, and none ever did
    return sync_many(actor=Actor.system("teams.follow_groups"))
