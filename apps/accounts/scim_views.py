"""The provisioning interface for directories: SCIM 2.0 over HTTP (RFC 7644) at /api/scim/v2/<provider>/.

Not part of /api/v1: it speaks the directories' own format, takes tokens of providers alone, and answers refusals as
RFC 7644 §3.12 says. The pages' session opens nothing here.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.views.decorators.csrf import csrf_exempt
from django.views.generic import View

from apps.accounts import scim_groups, scim_schemas, scim_tokens, scim_users
from apps.accounts import scim_resources as resources
from apps.accounts.addresses import client_address, network_class
from apps.accounts.api_limits import count
from apps.accounts.models import IdentityProvider, ScimToken
from apps.accounts.scim_activity import LastAdmin, tell_of_last_admin
from apps.accounts.scim_errors import ScimError, invalid_value, not_found
from apps.accounts.scim_filter import parse_filter
from apps.accounts.scim_patch import operations
from apps.core import clock
from apps.core.actor import Actor, Channel
from apps.core.middleware import after_read

logger = logging.getLogger(__name__)
CONTENT_TYPE = "application/scim+json"
_ETAG = re.compile(r'^(?:W/)?"(\d{1,9})"$')
_LAST_USED_GRAIN = timedelta(minutes=5)


@method_decorator(csrf_exempt, name="dispatch")
class ScimView(View):
    """Token, body, refusals. Every row is found through the token's provider, whatever the address says."""

    provider: IdentityProvider
    token: ScimToken

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Let the token's directory in and answer; every refusal in the directories' own format."""
        try:
            self._authenticate(request, kwargs["provider_slug"])
            handler = getattr(self, (request.method or "").lower(), None)
            if handler is None or (request.method or "").lower() not in self.http_method_names:
                raise ScimError(405, f"{request.method} is not taken here.")
            response: HttpResponseBase = handler(request, **kwargs)
        except LastAdmin as refusal:
            tell_of_last_admin(self.provider, refusal.user, actor=self.actor)
            response = self._refusal(refusal)
        except ScimError as refusal:
            response = self._refusal(refusal)
        except (OperationalError, InterfaceError) as error:
            logger.error("the database is away", exc_info=error)
            response = self._refusal(ScimError(503, "The database does not answer. Nothing was changed."))
            response["Retry-After"] = "30"
        except Exception as error:
            logger.error("a directory's request failed", exc_info=error)
            response = self._refusal(ScimError(500, "The error is logged under the request id."))
        response["Cache-Control"] = "no-store"
        return response

    @property
    def actor(self) -> Actor:
        """The directory, as the portal's own part that carries out what it says."""
        return Actor.system(f"scim.{self.provider.slug}", Channel.API)

    @property
    def base(self) -> str:
        """The address of the provider's interface."""
        path = reverse("accounts:scim-config", kwargs={"provider_slug": self.provider.slug})
        return f"{settings.COMMONS_BASE_URL}{path.rpartition('/')[0]}"

    def body(self) -> dict[str, Any]:
        """Return the body as an object. Raises ScimError."""
        try:
            found = json.loads(self.request.body, parse_constant=_no_constant)
            plain = json.dumps(found, ensure_ascii=False)
            plain.encode()
        except RequestDataTooBig as error:
            raise ScimError(413, "The body is too large.", "tooMany") from error
        except (ValueError, RecursionError) as error:
            raise ScimError(400, "The body is no JSON that can be read.", "invalidSyntax") from error
        if not isinstance(found, dict):
            raise ScimError(400, "Send an object.", "invalidSyntax")
        if "\\u0000" in plain:
            raise invalid_value("Texts hold no NUL character.")
        return found

    @property
    def expected_version(self) -> int | None:
        """The version in If-Match; None where there is none. Raises ScimError."""
        raw = self.request.headers.get("If-Match", "").strip()
        if raw in ("", "*"):
            return None
        match = _ETAG.match(raw)
        if match is None:
            raise ScimError(412, "If-Match names no version of this resource.")
        return int(match.group(1))

    def one(self, resource: dict[str, Any], *, status: int = 200) -> HttpResponse:
        """Return a resource, cut to what was asked for, with its version."""
        version = resource["meta"]["version"]
        location = resource["meta"]["location"]
        asked = [part.strip() for part in self.request.headers.get("If-None-Match", "").split(",")]
        if self.request.method == "GET" and version in asked:
            return HttpResponse(status=304, headers={"ETag": version})
        response = _json(self.cut(resource), status)
        response["ETag"], response["Content-Location"] = version, location
        if status == 201:
            response["Location"] = location
        return response

    def page(self, rows: Any, kind: str, draw: Callable[[Any], dict[str, Any]], wrap: Callable[[Any], Any]) -> Any:
        """Return one page of a list (RFC 7644 §3.4.2.4): startIndex counts from 1. Raises ScimError."""
        given = {key.lower(): str(value) for key, value in self.request.GET.items()}
        if text := given.get("filter", ""):
            if "\x00" in text:
                raise invalid_value("Texts hold no NUL character.")
            rows = rows.filter(resources.condition(parse_filter(text), kind)).distinct()
        start = max(1, _whole(given.get("startindex", ""), 1))
        size = max(0, min(_whole(given.get("count", ""), scim_schemas.DEFAULT_RESULTS), scim_schemas.MAX_RESULTS))
        total = rows.count()
        found = list(wrap(rows)[start - 1 : start - 1 + size]) if size and start <= total else []
        return _json(
            {
                "schemas": [scim_schemas.LIST_RESPONSE],
                "totalResults": total,
                "startIndex": start,
                "itemsPerPage": len(found),
                "Resources": [self.cut(draw(one)) for one in found],
            }
        )

    def cut(self, resource: dict[str, Any]) -> dict[str, Any]:
        """Return what `attributes` and `excludedAttributes` leave of a resource."""
        return resources.cut(resource, self._names("attributes"), self._names("excludedAttributes"))

    def _names(self, parameter: str) -> set[str]:
        return {one.strip().lower() for one in self.request.GET.get(parameter, "").split(",") if one.strip()}

    def _authenticate(self, request: HttpRequest, slug: str) -> None:
        scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
        token = scim_tokens.find(secret.strip()) if scheme.lower() == "bearer" else None
        if token is None or token.provider.slug != slug:
            raise ScimError(401, "This token is unknown, revoked, expired, or another provider's.")
        standing = count(f"scim:{token.pk}", settings.COMMONS_SCIM_PER_MINUTE)
        if standing is not None and standing.exceeded:
            raise ScimError(429, "Too many calls in this minute.")
        self.token, self.provider = token, token.provider
        at = clock.now()
        if token.last_used_at is not None and at - token.last_used_at < _LAST_USED_GRAIN:
            return
        network = network_class(client_address(request))

        def write() -> None:
            ScimToken.objects.filter(pk=token.pk).update(last_used_at=at, last_used_network=network)

        if request.method in ("GET", "HEAD"):
            after_read(request, write)
        else:
            write()

    def _refusal(self, refusal: ScimError) -> HttpResponse:
        body = {"schemas": [scim_schemas.ERROR], "status": str(refusal.status), "detail": refusal.detail}
        response = _json(
            {**body, "scimType": refusal.scim_type} if refusal.scim_type else body, refusal.status
        )  # fmt: skip
        if refusal.status == 401:
            response["WWW-Authenticate"] = 'Bearer realm="GPU Commons provisioning"'
        if refusal.status == 429:
            response["Retry-After"] = "60"
        return response


class Users(ScimView):
    """The accounts that the directory keeps."""

    http_method_names = ["get", "post"]

    def get(self, request: HttpRequest, **kwargs: Any) -> HttpResponseBase:
        """Search and page through them."""
        rows = resources.users_of(self.provider)
        return self.page(rows, "user", lambda one: _user(one, self.provider), resources.with_groups)  # type: ignore[no-any-return]  # JsonResponse

    def post(self, request: HttpRequest, **kwargs: Any) -> HttpResponseBase:
        """Make one."""
        identity = scim_users.create_user(self.provider.pk, self.body(), actor=self.actor)
        return self.one(_loaded_user(self.provider, identity.uid), status=201)


class User(ScimView):
    """One account that the directory keeps."""

    http_method_names = ["get", "put", "patch", "delete"]

    def get(self, request: HttpRequest, *, resource_id: str, **kwargs: Any) -> HttpResponseBase:
        """Return it."""
        return self.one(_loaded_user(self.provider, _uid(resource_id, "user")))

    def put(self, request: HttpRequest, *, resource_id: str, **kwargs: Any) -> HttpResponseBase:
        """Replace it."""
        uid = _uid(resource_id, "user")
        scim_users.replace_user(
            self.provider.pk, uid, self.body(), actor=self.actor, expected_version=self.expected_version
        )
        return self.one(_loaded_user(self.provider, uid))

    def patch(self, request: HttpRequest, *, resource_id: str, **kwargs: Any) -> HttpResponseBase:
        """Change it."""
        uid = _uid(resource_id, "user")
        steps = operations(self.body())
        scim_users.change_user(
            self.provider.pk, uid, steps, actor=self.actor, expected_version=self.expected_version
        )  # fmt: skip
        return self.one(_loaded_user(self.provider, uid))

    def delete(self, request: HttpRequest, *, resource_id: str, **kwargs: Any) -> HttpResponseBase:
        """Switch it off and hand it back."""
        uid = _uid(resource_id, "user")
        scim_users.remove_user(self.provider.pk, uid, actor=self.actor, expected_version=self.expected_version)
        return HttpResponse(status=204)


class Groups(ScimView):
    """The groups that the directory keeps."""

    http_method_names = ["get", "post"]

    def get(self, request: HttpRequest, **kwargs: Any) -> HttpResponseBase:
        """Search and page through them; `excludedAttributes=members` spares reading the members."""
        shown = self._with_members()
        rows = resources.groups_of(self.provider)
        wrap = resources.with_members if shown else lambda found: found
        return self.page(rows, "group", lambda one: _group(one, self.provider, members=shown), wrap)  # type: ignore[no-any-return]  # JsonResponse

    def post(self, request: HttpRequest, **kwargs: Any) -> HttpResponseBase:
        """Make one."""
        group = scim_groups.create_group(self.provider.pk, self.body(), actor=self.actor)
        return self.one(_loaded_group(self.provider, group.uid), status=201)

    def _with_members(self) -> bool:
        only = self._names("attributes")
        return "members" not in self._names("excludedAttributes") and (not only or "members" in only)


class Group(ScimView):
    """One group that the directory keeps."""

    http_method_names = ["get", "put", "patch", "delete"]

    def get(self, request: HttpRequest, *, resource_id: str, **kwargs: Any) -> HttpResponseBase:
        """Return it."""
        members = "members" not in self._names("excludedAttributes")
        return self.one(_loaded_group(self.provider, _uid(resource_id, "group"), members=members))

    def put(self, request: HttpRequest, *, resource_id: str, **kwargs: Any) -> HttpResponseBase:
        """Replace it."""
        uid = _uid(resource_id, "group")
        scim_groups.replace_group(
            self.provider.pk, uid, self.body(), actor=self.actor, expected_version=self.expected_version
        )
        return self.one(_loaded_group(self.provider, uid))

    def patch(self, request: HttpRequest, *, resource_id: str, **kwargs: Any) -> HttpResponseBase:
        """Change it. Answers without a body: groups may have many members."""
        uid = _uid(resource_id, "group")
        steps = operations(self.body())
        group = scim_groups.change_group(
            self.provider.pk, uid, steps, actor=self.actor, expected_version=self.expected_version
        )
        return HttpResponse(status=204, headers={"ETag": f'W/"{group.version}"'})

    def delete(self, request: HttpRequest, *, resource_id: str, **kwargs: Any) -> HttpResponseBase:
        """Remove it."""
        uid = _uid(resource_id, "group")
        scim_groups.remove_group(self.provider.pk, uid, actor=self.actor, expected_version=self.expected_version)
        return HttpResponse(status=204)


class Config(ScimView):
    """What is supported."""

    http_method_names = ["get"]

    def get(self, request: HttpRequest, **kwargs: Any) -> HttpResponseBase:
        """Return it."""
        return _json(scim_schemas.service_provider_config(self.base))


class ResourceTypes(ScimView):
    """The kinds of resources, all or one."""

    http_method_names = ["get"]

    def get(self, request: HttpRequest, *, name: str = "", **kwargs: Any) -> HttpResponseBase:
        """Return them."""
        return _described(scim_schemas.resource_types(self.base), name, "resource type")


class Schemas(ScimView):
    """The attributes of resources, all or of one schema."""

    http_method_names = ["get"]

    def get(self, request: HttpRequest, *, name: str = "", **kwargs: Any) -> HttpResponseBase:
        """Return them."""
        return _described(scim_schemas.schemas(self.base), name, "schema")


def _described(found: list[dict[str, Any]], name: str, what: str) -> HttpResponse:
    if name:
        one = next((each for each in found if each["id"].lower() == name.lower()), None)
        if one is None:
            raise not_found(what)
        return _json(one)
    return _json(
        {
            "schemas": [scim_schemas.LIST_RESPONSE],
            "totalResults": len(found),
            "startIndex": 1,
            "itemsPerPage": len(found),
            "Resources": found,
        }
    )


def _user(identity: Any, provider: IdentityProvider) -> dict[str, Any]:
    identity.provider = provider
    return resources.user_resource(identity)


def _group(group: Any, provider: IdentityProvider, *, members: bool) -> dict[str, Any]:
    group.provider = provider
    return resources.group_resource(group, members=members)


def _loaded_user(provider: IdentityProvider, uid: UUID) -> dict[str, Any]:
    found = resources.with_groups(resources.users_of(provider).filter(uid=uid)).first()
    if found is None:
        raise not_found("user")
    return _user(found, provider)


def _loaded_group(provider: IdentityProvider, uid: UUID, *, members: bool = True) -> dict[str, Any]:
    rows = resources.groups_of(provider).filter(uid=uid)
    found = (resources.with_members(rows) if members else rows).first()
    if found is None:
        raise not_found("group")
    return _group(found, provider, members=members)


def _uid(value: str, what: str) -> UUID:
    try:
        return UUID(value)
    except ValueError as error:
        raise not_found(what) from error


def _whole(value: str, default: int) -> int:
    if not value:
        return default
    if not re.fullmatch(r"-?\d{1,9}", value):
        raise invalid_value("startIndex and count are whole numbers.")
    return int(value)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _json(body: Mapping[str, Any], status: int = 200) -> HttpResponse:
    return JsonResponse(dict(body), status=status, content_type=CONTENT_TYPE)


__all__ = ["Config", "Group", "Groups", "ResourceTypes", "Schemas", "User", "Users"]
