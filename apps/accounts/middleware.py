"""Who is behind a request: the person whose session is open in this browser, and what that session opens."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlencode

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.functional import SimpleLazyObject

from apps.accounts import sessions
from apps.accounts.anonymous import AnonymousUser
from apps.accounts.models import SecondFactor, SignInSession, User

#: Answered without asking who it is, also while the database is away.
NOBODYS = ("/health", "/ready", "/static/")
#: What a session opens that has a password to change, or a second factor to give or set up, first.
_ALWAYS_OPEN = ("accounts:sign-out", "accounts:sign-in")
_TO_GIVE = ("accounts:confirm",)
_TO_SET_UP = ("accounts:factor-list", "accounts:factor-app-create", "accounts:factor-key-create", "accounts:confirm")
#: Our script says with it that a person's own event started a fragment request; what pages ask by themselves lacks it.
ACTIVE_HEADER = "X-Commons-Active"
#: Tells the script that a page asked by itself and its session has ended: it says so and keeps what was typed.
ENDED_HEADER = "X-Commons-Session"


class AuthenticationMiddleware:
    """Sets `request.user` and `request.sign_in_session`, both found by one query when first asked for.

    A session that was closed, has expired or was left alone too long, and a deactivated person, are signed out at the
    next request; sign-in says so. A session that has to see to its password or second factor first is led there,
    whatever it asks for.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Attach the person, answer, tell sign-in when a session has ended on the way, and note that it was used."""
        session = SimpleLazyObject(lambda: _session(request))
        request.sign_in_session = session  # type: ignore[attr-defined]  # HttpRequest takes attributes; stubs do not know ours
        request.user = SimpleLazyObject(lambda: _person(request))  # type: ignore[assignment]  # stands for our User
        if request.path.startswith(NOBODYS):
            return self.get_response(request)
        # The API refuses such a session by itself, with a problem.
        place = "" if request.path.startswith("/api/") else _led_to(request)
        response = _lead(request, place) if place else self.get_response(request)
        if _had_session(request):
            _say_ended(request, response)
        elif counts_as_use(request):
            _note_use(request)
        return response


def counts_as_use(request: HttpRequest) -> bool:
    """Whether a person did this, rather than an open page by itself."""
    return not request.headers.get("HX-Request") or bool(request.headers.get(ACTIVE_HEADER))


def _session(request: HttpRequest) -> SignInSession | None:
    return sessions.session_of(request.session) if settings.SESSION_COOKIE_NAME in request.COOKIES else None


def _person(request: HttpRequest) -> User | AnonymousUser:
    session: SignInSession | None = request.sign_in_session  # type: ignore[attr-defined]  # set above
    # A lazy None is false, but is not None.
    return _effective(request, session) if session else AnonymousUser()


def _effective(request: HttpRequest, session: SignInSession) -> User:
    """Return in whose rights this session acts: the person's own."""
    return session.user


def _led_to(request: HttpRequest) -> str:
    """Return the page that a session has to see to first, "" where it may go on."""
    session: SignInSession | None = request.sign_in_session  # type: ignore[attr-defined]  # set above
    if not session:
        return ""
    why = sessions.confinement(session)
    if not why:
        return ""
    others: tuple[str, ...]
    if why == "password":
        place, others = "accounts:password-change", _TO_GIVE
    elif SecondFactor.objects.in_use().filter(user_id=session.user_id).exists():
        place, others = "accounts:confirm", _TO_GIVE
    else:
        place, others = "accounts:factor-list", _TO_SET_UP
    open_ones = {reverse(name) for name in (place, *others, *_ALWAYS_OPEN)}
    return "" if request.path in open_ones else reverse(place)


def _lead(request: HttpRequest, place: str) -> HttpResponse:
    if request.headers.get("HX-Request"):
        return HttpResponse(status=401, headers={"HX-Redirect": place})
    return HttpResponseRedirect(f"{place}?{urlencode({'next': request.path})}")


def _leads_to_sign_in(response: HttpResponse) -> bool:
    return response.status_code in (302, 303) and response.get("Location", "").startswith(f"{settings.LOGIN_URL}?")


def _had_session(request: HttpRequest) -> bool:
    # Not `request.user`: REST framework puts its own there.
    if settings.SESSION_COOKIE_NAME not in request.COOKIES or request.sign_in_session:  # type: ignore[attr-defined]  # set above
        return False
    # Half signed in is not signed out.
    return sessions.HALF_KEY not in request.session


def _say_ended(request: HttpRequest, response: HttpResponse) -> None:
    if _leads_to_sign_in(response):
        response["Location"] = f"{response['Location']}&{urlencode({'ended': 1})}"
    elif not counts_as_use(request):
        # Leading the page away would throw away what somebody typed into it.
        if response.has_header("HX-Redirect"):
            del response["HX-Redirect"]
        response["HX-Reswap"] = "none"
        response[ENDED_HEADER] = "ended"


def _note_use(request: HttpRequest) -> None:
    session: SignInSession | None = request.sign_in_session  # type: ignore[attr-defined]  # set above
    if session:
        sessions.note_use(session)


__all__ = ["ACTIVE_HEADER", "AuthenticationMiddleware", "counts_as_use"]
