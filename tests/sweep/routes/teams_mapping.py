"""Routes of group roles: a group of a directory that leads the Finance team."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apps.accounts.models import IdentityProvider
from apps.teams.models import GroupMapping, RoleGrant
from tests.factories import make_user
from tests.sweep.types import Route

_SEES = {"admin", "auditor"}


def build(world: Any) -> None:
    """Make a mapping, and somebody who holds the role by it."""
    provider = IdentityProvider.objects.create(
        name="Staff", slug="staff", issuer="https://staff.example.com", client_id="portal"
    )
    world.mapping = GroupMapping.objects.create(
        provider=provider, group="quagga-leads-group", role="team_lead", team=world.foreign_team
    )
    world.mapped = make_user("quagga-mapped@example.com", display_name="Quagga mapped person")
    RoleGrant.objects.create(user=world.mapped, role="team_lead", team=world.foreign_team, mapping=world.mapping)
    # Who reviews the unit's roles reads where they came from.
    world.keep_secret("quagga-leads-group", sees={"vp_other"})
    world.keep_secret(world.mapping.uid)
    world.secrets["compliance"].append(str(world.mapping.uid))
    world.secrets["finance"] += ["quagga-leads-group", str(world.mapping.uid)]


def _mapping(world: Any) -> Mapping[str, Any]:
    return {"mapping_uid": world.mapping.uid}


def _restore(world: Any) -> Mapping[str, Any]:
    return {"mapping_uid": world.mapping.uid, "user_uid": world.mapped.uid}


def _draft(world: Any) -> Mapping[str, Any]:
    return {
        "provider": "staff", "group": "audit", "role": "auditor", "scope": "installation", "reason": "the audit team",
    }  # fmt: skip


def _api_draft(world: Any) -> Mapping[str, Any]:
    return {"provider_uid": str(world.mapping.provider.uid), "group": "audit", "role": "auditor", "reason": "audit"}


def _api(world: Any) -> Mapping[str, Any]:
    return {"uid": world.mapping.uid}


ROUTES: dict[str, Route] = {
    "teams:mapping-list": Route(allowed=_SEES),
    "teams:mapping-create": Route(allowed={"admin"}),
    "teams:mapping-create#POST": Route(allowed={"admin"}, method="POST", data=_draft),
    "teams:mapping-detail": Route(allowed=_SEES, kwargs=_mapping),
    "teams:mapping-end": Route(allowed={"admin"}, kwargs=_mapping),
    "teams:mapping-end#POST": Route(
        allowed={"admin"}, kwargs=_mapping, method="POST", data=lambda world: {"reason": "moved"}
    ),
    "teams:mapping-restore": Route(allowed={"admin"}, kwargs=_restore),
    "teams:mapping-restore#POST": Route(
        allowed={"admin"}, kwargs=_restore, method="POST", data=lambda world: {"reason": "back"}
    ),
    "api:group-mapping-list": Route(allowed=_SEES),
    "api:group-mapping-list#POST": Route(allowed={"admin"}, method="POST", data=_api_draft),
    "api:group-mapping-preview": Route(allowed={"admin"}, method="POST", data=_api_draft),
    "api:group-mapping-detail": Route(allowed=_SEES, kwargs=_api),
    "api:group-mapping-end": Route(
        allowed={"admin"}, kwargs=_api, method="POST", data=lambda world: {"reason": "moved"}
    ),
}
