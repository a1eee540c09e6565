"""Routes of sign-in at identity providers and of keeping them. `world.identity_provider`: off, tested."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apps.accounts import openid_metadata
from apps.accounts.models import ExternalIdentity, IdentityProvider
from apps.accounts.openid_metadata import Metadata
from apps.core import clock
from tests.sweep.types import EVERYBODY, Route

_READERS = {"admin", "auditor"}


def build(world: Any) -> None:
    """Connect a provider."""
    world.identity_provider = IdentityProvider.objects.create(
        name="Okapi identity", slug="okapi", issuer="https://id.example.com", client_id="okapi-client",
        checked_at=clock.now(),
    )  # fmt: skip
    world.identity = ExternalIdentity.objects.create(
        provider=world.identity_provider, subject="okapi-subject", user=world.member_finance
    )
    world.keep_secret("okapi-subject", world.identity.uid, sees=_READERS)
    issuer = world.identity_provider.issuer
    # As if asked a moment ago: nothing leaves the sweep.
    openid_metadata._documents[(world.identity_provider.pk, issuer)] = openid_metadata._Kept(
        Metadata(
            issuer=issuer, authorization_endpoint=f"{issuer}/auth", token_endpoint=f"{issuer}/token",
            jwks_uri=f"{issuer}/jwks", userinfo_endpoint="", end_session_endpoint="", token_auth_methods=(),
            algorithms=(), scopes=(), claims=(), challenge_methods=(), names_issuer=False, back_channel_logout=False,
        ),
        clock.now(),
    )  # fmt: skip
    for secret in ("Okapi identity", "okapi-client", world.identity_provider.uid):
        world.keep_secret(str(secret), sees=_READERS)


def _uid(world: Any) -> Mapping[str, Any]:
    return {"provider_uid": world.identity_provider.uid}


def _identity(world: Any) -> Mapping[str, Any]:
    return {"identity_uid": world.identity.uid}


def _slug(world: Any) -> Mapping[str, Any]:
    return {"slug": "okapi"}


_OFF = "the provider is off"


def _door(*ok: int, method: str = "GET", note: str = "") -> Route:
    return Route(allowed=EVERYBODY, public=True, kwargs=_slug, ok=frozenset(ok), method=method, note=note)


ROUTES: dict[str, Route] = {
    "accounts:openid-start": _door(302, 403, note=f"{_OFF}; whoever is signed in goes on"),
    "accounts:openid-callback": _door(302, 400, note="no attempt of this browser; whoever is signed in goes on"),
    "accounts:openid-prove": _door(302, 404, note="only for sessions that this provider opened"),
    "accounts:openid-try": Route(allowed={"admin"}, kwargs=_slug),
    "accounts:openid-back-channel": _door(405),
    "accounts:openid-back-channel#POST": _door(400, method="POST", note="no token"),
    "accounts:openid-front-channel": _door(200, note="names no session"),
    "accounts:identity-disconnect": Route(allowed={"admin"}, kwargs=_identity),
    "accounts:identity-disconnect#POST": Route(
        allowed={"admin"}, kwargs=_identity, method="POST", data=lambda world: {"reason": "left"}
    ),
    "accounts:provider-list": Route(allowed=_READERS),
    "accounts:provider-list#export": Route(allowed=_READERS, query="?export=csv"),
    "accounts:provider-create": Route(allowed={"admin"}),
    "accounts:provider-create#POST": Route(allowed={"admin"}, method="POST"),
    "accounts:provider-detail": Route(allowed=_READERS, kwargs=_uid),
    "accounts:provider-edit": Route(allowed={"admin"}, kwargs=_uid),
    "accounts:provider-edit#POST": Route(allowed={"admin"}, kwargs=_uid, method="POST"),
    "accounts:provider-test": Route(allowed={"admin"}, kwargs=_uid),
    "accounts:provider-enable": Route(allowed={"admin"}, kwargs=_uid),
    "accounts:provider-disable": Route(allowed={"admin"}, kwargs=_uid, note=f"409: {_OFF}"),
    "accounts:provider-archive": Route(allowed={"admin"}, kwargs=_uid),
    "accounts:provider-archive#POST": Route(allowed={"admin"}, kwargs=_uid, method="POST"),
}
