"""Routes of the teams room: unit Retail Bank, team Finance, its member and its lead's role."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apps.teams.choices import Role
from apps.teams.models import RoleGrant
from tests.sweep.types import EVERYBODY, Route

_UNIT = {"vp", "compliance", "finance", "admin", "auditor"}
_TEAM = _UNIT | {"member_finance", "lead_finance"}
_ANY_TEAM = _TEAM | {"lead_marketing", "vp_other"}


def build(world: Any) -> None:
    """Find the role that the routes are about."""
    world.lead_grant = RoleGrant.objects.get(user=world.lead_finance, role=Role.TEAM_LEAD)


def _unit(world: Any) -> Mapping[str, Any]:
    return {"unit_slug": world.unit.slug}


def _team(world: Any) -> Mapping[str, Any]:
    return {"team_slug": world.finance_team.slug}


def _member(world: Any) -> Mapping[str, Any]:
    return {"team_slug": world.finance_team.slug, "user_uid": world.member_finance.uid}


def _grant(world: Any) -> Mapping[str, Any]:
    return {"grant_uid": world.lead_grant.uid}


def _person(world: Any) -> Mapping[str, Any]:
    return {"user_uid": world.member_finance.uid}


ROUTES: dict[str, Route] = {
    "teams:unit-list": Route(allowed=_UNIT | {"vp_other"}),
    "teams:unit-create": Route(allowed={"admin"}),
    "teams:unit-create#POST": Route(
        allowed={"admin"}, method="POST", data=lambda world: {"name": "Cards", "slug": "cards"}
    ),
    "teams:unit-detail": Route(allowed=_UNIT, kwargs=_unit),
    "teams:team-create": Route(allowed={"admin"}, kwargs=_unit),
    "teams:member-list": Route(allowed=_TEAM, kwargs=_team),
    "teams:member-add": Route(allowed={"lead_finance", "admin"}, kwargs=_team),
    "teams:member-add#POST": Route(
        allowed={"lead_finance", "admin"},
        kwargs=_team,
        method="POST",
        data=lambda world: {"user": world.expired.email},
    ),
    "teams:member-remove": Route(allowed={"lead_finance", "admin"}, kwargs=_member),
    "teams:member-remove#POST": Route(allowed={"lead_finance", "admin"}, kwargs=_member, method="POST"),
    "teams:grant-list": Route(allowed={"admin", "auditor"}),
    "teams:grant-create": Route(allowed={"admin"}),
    "teams:grant-create#POST": Route(
        allowed={"admin"},
        method="POST",
        data=lambda world: {
            "user": world.expired.email, "role": "auditor", "scope": "installation", "reason": "review",
        },
    ),
    "teams:grant-revoke": Route(allowed={"admin"}, kwargs=_grant),
    "teams:grant-revoke#POST": Route(
        allowed={"admin"}, kwargs=_grant, method="POST", data=lambda world: {"reason": "moved"}
    ),
    "teams:why": Route(
        allowed={"admin", "auditor", "member_finance"},
        kwargs=_person,
        query="?permission=quotas.workspace.use&place=team:finance",
    ),
    "api:unit-list": Route(allowed=_UNIT | {"vp_other"}),
    "api:unit-list#POST": Route(allowed={"admin"}, method="POST"),
    "api:unit-detail": Route(allowed=_UNIT, kwargs=lambda world: {"uid": world.unit.uid}),
    "api:team-list": Route(allowed=_ANY_TEAM),
    "api:team-list#POST": Route(allowed={"admin"}, method="POST"),
    "api:team-detail": Route(allowed=_TEAM, kwargs=lambda world: {"uid": world.finance_team.uid}),
    "api:team-people": Route(allowed=_TEAM, kwargs=lambda world: {"uid": world.finance_team.uid}),
    "api:team-add-member": Route(
        allowed={"lead_finance", "admin"}, kwargs=lambda world: {"uid": world.finance_team.uid}, method="POST"
    ),
    "api:team-remove-member": Route(
        allowed={"lead_finance", "admin"}, kwargs=lambda world: {"uid": world.finance_team.uid}, method="POST"
    ),
    "api:role-grant-list": Route(allowed=EVERYBODY, note="those without the permission find their own"),
    "api:role-grant-list#POST": Route(allowed={"admin"}, method="POST"),
    "api:role-grant-detail": Route(
        allowed={"lead_finance", "admin", "auditor"}, kwargs=lambda world: {"uid": world.lead_grant.uid}
    ),
    "api:role-grant-revoke": Route(
        allowed={"admin"}, kwargs=lambda world: {"uid": world.lead_grant.uid}, method="POST"
    ),
}  # fmt: skip
