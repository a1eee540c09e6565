"""The sweep of tokens that end soon."""

from __future__ import annotations

from datetime import timedelta

from apps.core.sweeps import sweep
from apps.teams import service_actions


@sweep("teams.service_tokens", every=timedelta(hours=1))
def service_tokens() -> int:
    """Tell the keepers of tokens that end in 14 and in 3 days."""
    return service_actions.tell_of_ending_tokens()
