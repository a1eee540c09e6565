"""Pages that change how somebody signs in want a fresh proof of who they are."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import reverse

from apps.accounts import sessions
from apps.accounts.factor_actions import STALE, is_fresh
from apps.accounts.models import SignInSession
from apps.core.errors import NotAllowed
from apps.core.pages import PageView, SeeOther


def proved_at(request: HttpRequest) -> datetime | None:
    """Return when the person behind this request last proved who they are; None without a session (a token, say)."""
    session: SignInSession | None = getattr(request, "sign_in_session", None)
    return sessions.proved_at(session) if session else None


def demand_fresh(request: HttpRequest) -> None:
    """Raise NotAllowed where a browser's session was not proved in the last 15 minutes (for the API)."""
    if not is_fresh(proved_at(request)):
        raise NotAllowed(STALE, rule="fresh_proof")


def confirm_url(next_path: str) -> str:
    """Return the page that asks for the proof and then leads on."""
    return f"{reverse('accounts:confirm')}?{urlencode({'next': next_path})}"


class StepUpMixin(PageView):
    """Leads to the page that asks for the proof where the last one is too old, and back."""

    def answer(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Ask for the proof first."""
        if is_fresh(proved_at(request)):
            return super().answer(request, *args, **kwargs)
        if request.method not in ("GET", "HEAD"):
            messages.info(request, "Prove once more who you are; nothing was changed yet.")
        url = confirm_url(request.get_full_path())
        if request.headers.get("HX-Request"):
            return HttpResponse(status=401, headers={"HX-Redirect": url})
        return SeeOther(url)


class FreshActions:
    """The same for a viewset: `fresh_actions` called with a browser's session want a fresh proof; tokens expire."""

    fresh_actions: frozenset[str] = frozenset()
    action: str

    def initial(self, request: Any, *args: Any, **kwargs: Any) -> None:
        """Refuse a stale session once it is known that its person may do this. Raises NotAllowed."""
        super().initial(request, *args, **kwargs)  # type: ignore[misc]  # stands before a viewset
        if self.action in self.fresh_actions and request.auth is None:
            demand_fresh(request._request)
