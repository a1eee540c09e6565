"""Routes of provisioning: a directory with a person and a group, held back. Nobody's session opens the interface."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from apps.accounts.models import DirectoryGroup, ExternalIdentity, IdentityProvider
from apps.accounts.scim_tokens import create_token
from apps.core import clock
from apps.core.actor import Actor
from tests.factories import make_user
from tests.sweep.types import Route

_SEES = {"admin", "auditor"}


def build(world: Any) -> None:
    """Make a provider whose directory keeps somebody."""
    world.directory = IdentityProvider.objects.create(
        name="Quagga directory", slug="quagga", issuer="https://quagga.example.com", client_id="portal",
        held_since=clock.now(),
    )  # fmt: skip
    person = make_user("quagga-held@example.com", display_name="Quagga held person")
    world.directory_person = ExternalIdentity.objects.create(
        provider=world.directory, user=person, user_name=person.email, provisioned=True, active=False,
        held_at=clock.now(), inactive_since=clock.now(),
    )  # fmt: skip
    world.directory_group = DirectoryGroup.objects.create(provider=world.directory, name="Quagga admins group")
    world.scim_token, secret = create_token(
        world.directory.pk, "Quagga sync", clock.now() + timedelta(days=30), actor=Actor.system("sweep")
    )
    world.keep_secret("Quagga directory", "Quagga held person", "Quagga admins group", "Quagga sync", secret)
    for name in ("compliance", "finance"):
        world.secrets[name] += ["Quagga held person", "Quagga admins group", "Quagga sync"]
    for name in ("admin", "auditor"):
        world.secrets[name].append(secret)


def _slug(world: Any) -> Mapping[str, Any]:
    return {"provider_slug": world.directory.slug}


def _user(world: Any) -> Mapping[str, Any]:
    return {"provider_slug": world.directory.slug, "resource_id": str(world.directory_person.uid)}


def _group(world: Any) -> Mapping[str, Any]:
    return {"provider_slug": world.directory.slug, "resource_id": str(world.directory_group.uid)}


def _provider(world: Any) -> Mapping[str, Any]:
    return {"provider_uid": world.directory.uid}


def _uid(world: Any) -> Mapping[str, Any]:
    return {"uid": world.directory.uid}


def _token(world: Any) -> Mapping[str, Any]:
    return {"provider_uid": world.directory.uid, "token_uid": world.scim_token.uid}


#: Without a directory's token everybody gets 401, whoever they are.
_CLOSED = frozenset({401})


def _closed(kwargs: Any, method: str = "GET") -> Route:
    return Route(allowed=set(), kwargs=kwargs, method=method, public=True, ok=_CLOSED, note="directories' tokens only")


ROUTES: dict[str, Route] = {
    "accounts:scim-users": _closed(_slug),
    "accounts:scim-users#POST": _closed(_slug, "POST"),
    "accounts:scim-user": _closed(_user),
    "accounts:scim-groups": _closed(_slug),
    "accounts:scim-groups#POST": _closed(_slug, "POST"),
    "accounts:scim-group": _closed(_group),
    "accounts:scim-config": _closed(_slug),
    "accounts:scim-types": _closed(_slug),
    "accounts:scim-type": _closed(lambda world: {**_slug(world), "name": "User"}),
    "accounts:scim-schemas": _closed(_slug),
    "accounts:scim-schema": _closed(lambda world: {**_slug(world), "name": "User"}),
    "api:identity-provider-list": Route(allowed=_SEES),
    "api:identity-provider-detail": Route(allowed=_SEES, kwargs=_uid),
    "api:identity-provider-list#POST": Route(allowed={"admin"}, method="POST"),
    "api:identity-provider-change": Route(allowed={"admin"}, kwargs=_uid, method="POST"),
    "api:identity-provider-enable": Route(allowed={"admin"}, kwargs=_uid, method="POST"),
    "api:identity-provider-disable": Route(allowed={"admin"}, kwargs=_uid, method="POST"),
    "api:identity-provider-archive": Route(allowed={"admin"}, kwargs=_uid, method="POST"),
    "api:identity-provider-scim-tokens": Route(allowed=_SEES, kwargs=_uid),
    "api:identity-provider-make-scim-token": Route(allowed={"admin"}, kwargs=_uid, method="POST"),
    "api:identity-provider-rotate-scim-token": Route(allowed={"admin"}, kwargs=_uid, method="POST"),
    "api:identity-provider-revoke-scim-token": Route(allowed={"admin"}, kwargs=_uid, method="POST"),
    "api:identity-provider-release-held": Route(allowed={"admin"}, kwargs=_uid, method="POST"),
    "api:identity-provider-keep-held": Route(allowed={"admin"}, kwargs=_uid, method="POST"),
    "accounts:provisioning": Route(allowed=_SEES, kwargs=_provider),
    "accounts:scim-token-create": Route(allowed={"admin"}, kwargs=_provider),
    "accounts:scim-token-create#POST": Route(
        allowed={"admin"},
        kwargs=_provider,
        method="POST",
        data=lambda world: {"name": "Sync", "expires_at": (clock.now() + timedelta(days=9)).strftime("%Y-%m-%dT%H:%M")},
    ),
    "accounts:scim-token-rotate": Route(allowed={"admin"}, kwargs=_token),
    "accounts:scim-token-rotate#POST": Route(allowed={"admin"}, kwargs=_token, method="POST"),
    "accounts:scim-token-revoke": Route(allowed={"admin"}, kwargs=_token),
    "accounts:scim-token-revoke#POST": Route(allowed={"admin"}, kwargs=_token, method="POST"),
    "accounts:provisioning-release": Route(allowed={"admin"}, kwargs=_provider),
    "accounts:provisioning-release#POST": Route(
        allowed={"admin"}, kwargs=_provider, method="POST", data=lambda world: {"reason": "they left"}
    ),
    "accounts:provisioning-keep": Route(allowed={"admin"}, kwargs=_provider),
    "accounts:provisioning-keep#POST": Route(
        allowed={"admin"}, kwargs=_provider, method="POST", data=lambda world: {"reason": "a mistake"}
    ),
}
