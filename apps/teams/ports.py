"""What rooms above know about teams: what stands in the way of archiving one. They register it when they load."""

from __future__ import annotations

from collections.abc import Callable

from apps.teams.models import Team

#: Returns in sentences what has to be seen to before the team can be archived.
Objection = Callable[[Team], list[str]]

_objections: dict[str, Objection] = {}


def register_team_objection(objection: Objection) -> None:
    """Have a room asked before a team is archived."""
    _objections[f"{objection.__module__}.{objection.__qualname__}"] = objection


def objections_to_archiving(team: Team) -> list[str]:
    """Return what stands in the way of archiving a team, of all rooms."""
    return [text for name in sorted(_objections) for text in _objections[name](team)]


__all__ = ["Objection", "objections_to_archiving", "register_team_objection"]
