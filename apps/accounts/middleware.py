"""Who is behind a request: the person whose session is open in this browser."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlencode

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.functional import SimpleLazyObject

from apps.accounts import sessions
from apps.accounts.anonymous import AnonymousUser
from apps.accounts.models import SignInSession, User

_OPEN_PATHS = ("/health", "/ready", "/static/", "/api/")


class AuthenticationMiddleware:
    """Sets `request.user` and `request.sign_in_session`, both found by one query when first asked for.

    A closed or expired session and a deactivated person are signed out at the next request; sign-in says so. A person
    whose password somebody else set is led to the page that changes it, whatever they ask for.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Attach the person, answer, and tell sign-in when a session has ended on the way."""
        session = SimpleLazyObject(lambda: _session(request))
        request.sign_in_session = session  # type: ignore[attr-defined]  # HttpRequest takes attributes; stubs do not know ours
        request.user = SimpleLazyObject(lambda: _person(request))  # type: ignore[assignment]  # stands for our User
        if not request.path.startswith(_OPEN_PATHS) and getattr(request.user, "must_change_password", False):
            change = reverse("accounts:password-change")
            if request.path not in (change, reverse("accounts:sign-out"), reverse("accounts:sign-in")):
                return HttpResponseRedirect(f"{change}?{urlencode({'next': request.path})}")
        response = self.get_response(request)
        if _leads_to_sign_in(response) and _had_session(request):
            response["Location"] = f"{response['Location']}&{urlencode({'ended': 1})}"
        return response


def _session(request: HttpRequest) -> SignInSession | None:
    return sessions.session_of(request.session) if settings.SESSION_COOKIE_NAME in request.COOKIES else None


def _person(request: HttpRequest) -> User | AnonymousUser:
    session: SignInSession | None = request.sign_in_session  # type: ignore[attr-defined]  # set above
    # A lazy None is false, but is not None.
    return session.user if session else AnonymousUser()


def _leads_to_sign_in(response: HttpResponse) -> bool:
    return response.status_code in (302, 303) and response.get("Location", "").startswith(f"{settings.LOGIN_URL}?")


def _had_session(request: HttpRequest) -> bool:
    return settings.SESSION_COOKIE_NAME in request.COOKIES and not request.user.is_authenticated
