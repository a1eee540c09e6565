"""Who calls the API: the bearer of a token, or the person signed in in the browser (with CSRF check)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from rest_framework import authentication, exceptions
from rest_framework.request import Request

from apps.accounts import sessions
from apps.accounts.actions import TOKEN_PREFIX, token_digest
from apps.accounts.addresses import client_address, network_class
from apps.accounts.limited_views import LIMITED_VIEWS
from apps.accounts.models import ApiToken, User
from apps.core import clock, limits, row_security
from apps.core.errors import NotAllowed
from apps.core.middleware import after_read

_SAFE = ("GET", "HEAD", "OPTIONS")
#: How exact "last used" is: a write for every call would be a waste.
LAST_USED_GRAIN = timedelta(minutes=5)


class TokenAuthentication(authentication.BaseAuthentication):
    """`Authorization: Bearer gpuc_…`. A read-only token is refused for anything that changes something (403).

    A limited token carries some permissions: nothing beyond them is seen or done with it (`core.limits`, read by the
    scope resolver). What hangs on who somebody is, and asks for no permission, is closed to it unless
    `limited_views` names what it takes.
    """

    def authenticate(self, request: Request) -> tuple[User, ApiToken] | None:
        """Return person and token; None without a bearer header. Raises AuthenticationFailed (401), NotAllowed."""
        scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        secret = secret.strip()
        token = None
        if secret.startswith(TOKEN_PREFIX) and secret.isascii():
            token = ApiToken.objects.usable().filter(digest=token_digest(secret)).select_related("user").first()
        if token is None:
            raise exceptions.AuthenticationFailed("This token is unknown, revoked or expired.")
        if token.user.must_change_password:
            raise exceptions.AuthenticationFailed("Change your initial password in the portal first.")
        if token.limited:
            limits.narrow(token.user_id, token.permissions)
        if refusal := _refusal(request, token):
            # The refusal is recorded under the person's name: say who it is before it is raised.
            request.user, request.auth = token.user, token
            raise refusal
        row_security.become(token.user_id)
        _touch(request, token)
        return token.user, token

    def authenticate_header(self, request: Request) -> str:
        """Return the challenge that makes an answer 401 rather than 403."""
        return 'Bearer realm="GPU Commons"'


class SessionAuthentication(authentication.SessionAuthentication):
    """The browser's session, for the portal's own pages; changing requests need the CSRF token."""

    def authenticate(self, request: Request) -> tuple[User, None] | None:
        """Return the person signed in; None for a visitor. Raises PermissionDenied where the CSRF check fails."""
        user = getattr(request._request, "user", None)
        if not isinstance(user, User) or not user.is_active:
            return None
        session = getattr(request._request, "sign_in_session", None)
        if not session or sessions.confinement(session):
            return None
        self.enforce_csrf(request)
        return user, None


def _refusal(request: Request, token: ApiToken) -> NotAllowed | None:
    if token.read_only and request.method not in _SAFE:
        return NotAllowed("This token may only read.", rule="read_only_token")
    if not token.limited:
        return None
    needed = needed_by(request.parser_context.get("view"))
    if needed is None:
        return NotAllowed("A limited token does not open this: it belongs to the person.", rule="limited_token")
    if needed and needed not in token.permissions:
        return NotAllowed(f"This token does not carry {needed}.", rule=needed)
    return None


def needed_by(view: Any) -> str | None:
    """Return the permission that a limited token must carry for what is called; "" for none, None: closed to it.

    An action without a permission of its own takes the view's, as `core.api` asks it.
    """
    name = getattr(view, "action", None) or "call"
    # "" in a view's own table means that it asks for the row's sake: a token still has to carry the view's.
    general: str | None = getattr(view, "permission", None)
    if asked := getattr(view, "permissions", {}).get(name, general) or general:
        return str(asked)
    table = LIMITED_VIEWS.get(view_name(type(view)), {})
    return table.get(name, table.get("*"))


def view_name(kind: type) -> str:
    """Return a view's full name: `apps.accounts.api.Me`, also for one that REST framework made of a function."""
    return f"{kind.__module__}.{kind.__name__}"


def _touch(request: Request, token: ApiToken) -> None:
    at = clock.now()
    if token.last_used_at is not None and at - token.last_used_at < LAST_USED_GRAIN:
        return
    network = network_class(client_address(request._request))

    def write() -> None:
        ApiToken.objects.filter(pk=token.pk).update(last_used_at=at, last_used_network=network)

    if request.method in ("GET", "HEAD"):
        after_read(request._request, write)
    else:
        write()
