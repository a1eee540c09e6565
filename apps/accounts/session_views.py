"""Sessions: ending one's own one by one, and what platform admins do about those of others."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import reverse
from django.views.generic import View

from apps.accounts import actions, session_actions
from apps.accounts.admin_views import SESSIONS, OnUser, user_url
from apps.accounts.forms import ReasonForm
from apps.accounts.models import SignInSession
from apps.accounts.session_tables import SessionFilter, SessionTable
from apps.core.errors import Conflict
from apps.core.views import ActionView, Crumb, ListView


class SessionSeen(View):
    """Notes that somebody types or moves in an open page (its script says so); the middleware does the noting."""

    http_method_names = ["post", "options"]

    def post(self, request: HttpRequest) -> HttpResponseBase:
        """Answer whether the session is still in force: 204, or 401."""
        return HttpResponse(status=204 if request.user.is_authenticated else 401)


class SessionClose(ActionView):
    """Ends one of one's own sessions."""

    queryset = SignInSession.objects.all()
    title = "Sign out there"
    submit_label = "Sign out there"
    success_message = "That browser is signed out."

    def get_queryset(self) -> Any:
        """Return one's own open sessions, whatever others one may see."""
        found: Any = super().get_queryset()
        return found.of(self.request.user).open()

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back to the account page."""
        return [Crumb("Your account", reverse("accounts:profile"))]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Name the browser."""
        said = f"{self.object.device or 'An unknown device'}, signed in {self.object.opened_at:%Y-%m-%d %H:%M} UTC."
        return super().get_context(**{"intro": said, **extra})

    def perform(self, form: Any) -> str:
        """End it."""
        actions.close_session(self.object.pk, actor=self.actor, cause="closed")
        return reverse("accounts:profile")


class SessionList(ListView):
    """Every open session of the installation."""

    title = "Open sessions"
    intro = "Who is signed in, and how. Ending a session signs that browser out at its next step."
    queryset = SignInSession.objects.all()
    permission = SESSIONS
    table_class = SessionTable
    filterset_class = SessionFilter

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back to the people."""
        return [Crumb("People", reverse("accounts:user-list"))]

    def get_queryset(self) -> Any:
        """Return those in force."""
        found: Any = super().get_queryset()
        return found.open().select_related("user", "provider")


class SessionEnd(ActionView):
    """Ends somebody's session."""

    queryset = SignInSession.objects.all()
    permission = SESSIONS
    title = "End session"
    form_class = ReasonForm
    submit_label = "End session"
    danger = True
    success_message = "The session is ended."

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back to the list."""
        return [
            Crumb("People", reverse("accounts:user-list")), Crumb("Open sessions", reverse("accounts:session-list"))
        ]  # fmt: skip

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Name person and browser."""
        said = f"{self.object.user.display_name} on {self.object.device or 'an unknown device'} is signed out."
        return super().get_context(**{"intro": said, **extra})

    def check_state(self) -> None:
        """Refuse one that has ended."""
        if not SignInSession.objects.open().filter(pk=self.object.pk).exists():
            raise Conflict("This session has ended already.", current={"status": "closed"})

    def perform(self, form: Any) -> str:
        """End it."""
        session_actions.end_session(self.object.pk, form.cleaned_data["reason"], actor=self.actor)
        return reverse("accounts:session-list")


class UserSessionsEnd(OnUser):
    """Ends all sessions of somebody."""

    permission = SESSIONS
    title = "End all sessions"
    intro = "The person is signed out everywhere and can sign in again. API tokens stay."
    submit_label = "End all sessions"
    danger = True
    success_message = "The person is signed out everywhere."

    def perform(self, form: Any) -> str:
        """End them."""
        session_actions.end_all(self.object.pk, form.cleaned_data["reason"], actor=self.actor)
        return user_url(self.object)
