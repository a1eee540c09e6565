"""In whose rights a request runs: narrowed by a token, or those of a person whom support helps (read-only)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from apps.accounts import impersonation
from apps.accounts.middleware import NOBODYS
from apps.core import limits
from apps.core.errors import NotAllowed
from portal.errors import render_error

_READS = ("GET", "HEAD")
#: Asks by itself once a minute on every page; shows a number only.
_BELL = "notifications:bell"


class ActingMiddleware:
    """Lifts the limit of the last request's token, and puts on the person whom support sees the portal as.

    While somebody sees the portal as a person, `request.user` is that person, `request.impersonation` the row and
    `request.impersonator` who looks. Everything but reading pages is refused, and every page is written down.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer, and leave nothing behind for the next request of this thread."""
        limits.forget()
        try:
            response = self._answer(request)
        finally:
            limits.forget()
        if request.path.startswith("/api/") and not response.has_header("Cache-Control"):
            # As for pages: what one caller saw must not come out of a cache for the next one.
            response["Cache-Control"] = "no-store, private"
        return response

    def _answer(self, request: Any) -> HttpResponse:
        if request.path.startswith(NOBODYS):
            return self.get_response(request)
        if settings.SESSION_COOKIE_NAME not in request.COOKIES or impersonation.KEY not in request.session:
            return self.get_response(request)
        session = request.sign_in_session
        # A lazy None is false, but is not None.
        row = impersonation.under_way(request.session, session) if session else None
        if row is None:
            return self.get_response(request)
        real = session.user
        if request.method == "POST" and request.path in (reverse("accounts:impersonation-end"), reverse(_SIGN_OUT)):
            if request.path == reverse(_SIGN_OUT):
                impersonation.end(session.pk, store=request.session, cause="signed_out")
            return self.get_response(request)
        person: Any = row.person
        person._commons_behind = real
        request.user = person
        request.impersonation, request.impersonator = row, real
        response = self.get_response(request)
        match = request.resolver_match
        route = match.view_name if match is not None else ""
        if request.method in _READS and response.status_code < 400 and route != _BELL:
            impersonation.note_page(
                row,
                real,
                store=request.session,
                route=route,
                path=request.path,
                query=request.META.get("QUERY_STRING", ""),
                status=response.status_code,
                fragment=bool(request.headers.get("HX-Request")) and not request.headers.get("HX-Boosted"),
            )
        return response

    def process_view(
        self, request: HttpRequest, view: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> HttpResponse | None:
        """Refuse what is more than reading pages, and the person's own account."""
        if getattr(request, "impersonation", None) is None:
            return None
        if request.method not in _READS:
            return render_error(
                request,
                NotAllowed(
                    "You see the portal as somebody else: you can look, and change nothing. End that first.",
                    rule="impersonation_reads_only",
                ),
            )
        if request.path.startswith(_CLOSED):
            return render_error(
                request,
                NotAllowed(
                    "Accounts, tokens and the API stay closed while you see the portal as somebody else.",
                    rule="impersonation_pages_only",
                ),
            )
        return None


_SIGN_OUT = "accounts:sign-out"
#: A person's own account and keys, and the door for programs: support needs neither.
_CLOSED = ("/api/", "/account/", "/sign-in/", "/notifications/settings")
