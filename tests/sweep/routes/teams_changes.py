"""Routes of changes: of the unit Retail Bank, the team Finance, and a foreign planned one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from apps.core import clock
from apps.core.actor import Actor
from apps.teams import changes
from apps.teams.changes import Wish
from tests.sweep.types import EVERYBODY, Route

_SEES_UNITS = {"vp", "compliance", "finance", "admin", "auditor"}


def build(world: Any) -> None:
    """Plan a change of Retail Bank, and one of the foreign team."""
    at, actor = clock.now() + timedelta(days=30), Actor.of(world.admin)
    world.change = changes.change_unit(world.unit.pk, Wish(name="Retail"), "New name", effective_at=at, actor=actor)
    foreign = changes.change_team(
        world.foreign_team.pk, Wish(name="Zebra lab"), "New name", effective_at=at, actor=actor
    )
    world.keep_secret(foreign.uid, "Zebra lab", sees={"vp_other"})


def _unit(world: Any) -> Mapping[str, Any]:
    return {"unit_slug": world.unit.slug}


def _team(world: Any) -> Mapping[str, Any]:
    return {"team_slug": world.finance_team.slug}


def _change(world: Any) -> Mapping[str, Any]:
    return {"change_uid": world.change.uid}


def _uid(name: str) -> Any:
    return lambda world: {"uid": getattr(world, name).uid}


_ADMIN = {"admin"}
ROUTES: dict[str, Route] = {
    **{f"teams:unit-{verb}": Route(allowed=_ADMIN, kwargs=_unit) for verb in ("change", "archive", "restore")},
    **{f"teams:team-{verb}": Route(allowed=_ADMIN, kwargs=_team) for verb in ("change", "archive", "restore")},
    "teams:team-change#POST": Route(allowed=_ADMIN, kwargs=_team, method="POST"),
    "teams:team-archive#POST": Route(allowed=_ADMIN, kwargs=_team, method="POST"),
    "teams:team-restore#POST": Route(allowed=_ADMIN, kwargs=_team, method="POST"),
    "teams:change-cancel": Route(allowed=_ADMIN, kwargs=_change),
    "teams:change-cancel#POST": Route(allowed=_ADMIN, kwargs=_change, method="POST"),
    "teams:grant-extend": Route(allowed=_ADMIN, kwargs=lambda world: {"grant_uid": world.lead_grant.uid}),
    "teams:grant-extend#POST": Route(
        allowed=_ADMIN, kwargs=lambda world: {"grant_uid": world.lead_grant.uid}, method="POST"
    ),
    "teams:import": Route(allowed=_ADMIN),
    "teams:import#POST": Route(allowed=_ADMIN, method="POST"),
    "api:people-import": Route(
        allowed=_ADMIN, method="POST", data=lambda world: {"kind": "units", "csv": "slug,name\ncards,Cards\n"}
    ),
    "api:permission-explanation": Route(
        allowed=EVERYBODY, query="?permission=teams.team.view", note="one's own; others' by uid are 404"
    ),
    "api:unit-change": Route(allowed=_ADMIN, kwargs=_uid("unit"), method="POST"),
    "api:unit-restore": Route(allowed=_ADMIN, kwargs=_uid("unit"), method="POST"),
    "api:team-change": Route(allowed=_ADMIN, kwargs=_uid("finance_team"), method="POST"),
    "api:team-restore": Route(allowed=_ADMIN, kwargs=_uid("finance_team"), method="POST"),
    "api:role-grant-extend": Route(allowed=_ADMIN, kwargs=_uid("lead_grant"), method="POST"),
    "api:planned-change-list": Route(allowed=_SEES_UNITS | {"vp_other"}),
    "api:planned-change-detail": Route(allowed=_SEES_UNITS, kwargs=_uid("change")),
    "api:planned-change-cancel": Route(allowed=_ADMIN, kwargs=_uid("change"), method="POST"),
}
