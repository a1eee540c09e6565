"""What keeps a team from being archived here: workspaces in use."""

from __future__ import annotations

from apps.quotas.models import Workspace
from apps.teams.models import Team


def workspaces(team: Team) -> list[str]:
    """Return a sentence where the team still has workspaces."""
    count = Workspace.objects.filter(team=team, archived_at__isnull=True).count()
    return [f"{count} workspace{'s' * (count != 1)} in use: archive first."] if count else []
