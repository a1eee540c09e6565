"""The sweep behind group roles: whatever was missed, roles follow their groups within ten minutes."""

from __future__ import annotations

from datetime import timedelta

from apps.core.actor import Actor
from apps.core.sweeps import sweep
from apps.teams.group_roles import sync_many


@sweep("teams.follow_groups", every=timedelta(minutes=10))
def follow_groups() -> int:
    """Make everybody's roles follow their groups; returns how many people it changed."""
    return sync_many(actor=Actor.system("teams.follow_groups"))
