"""Pages on which support begins and ends to see the portal as somebody else."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponseBase
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.generic import View

from apps.accounts import impersonation
from apps.accounts.models import SignInSession, User
from apps.accounts.step_up import StepUpMixin
from apps.core.errors import NotAllowed
from apps.core.forms import CommonsForm
from apps.core.views import ActionView, Crumb, SeeOther, redirect_to_sign_in


class ImpersonationForm(CommonsForm):
    """What support is helping with."""

    reason = forms.CharField(
        label="What you are helping with",
        max_length=impersonation.REASON_LIMIT,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="A ticket number and a sentence. Auditors read it; the person is told that you look, and your name.",
    )


class ImpersonationStart(StepUpMixin, ActionView):
    """Begins to see the portal as a person."""

    queryset = User.objects.all()
    permission = impersonation.PERMISSION
    form_class = ImpersonationForm
    submit_label = "See the portal as this person"
    url_kwarg = "user_uid"

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back to the person."""
        return [
            Crumb("People", reverse("accounts:user-list")),
            Crumb(self.object.display_name, _person_url(self.object)),
        ]

    def get_title(self) -> str:
        """Return what is about to happen."""
        return f"See the portal as {self.object.display_name}"

    def check_permission(self) -> None:
        """Refuse for whom it is never possible."""
        super().check_permission()
        real = User.objects.get(pk=self.request.user.pk or 0)
        if why := impersonation.bar(real, self.object):
            raise NotAllowed(why, rule="impersonation")

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Say what it means."""
        minutes = int(impersonation.LASTS.total_seconds() // 60)
        intro = (
            f"For {minutes} minutes every page is drawn with this person's rights instead of yours. You can change"
            " nothing, and their account, tokens and the API stay closed. Every page you see is on record under your"
            " name."
        )
        return super().get_context(**{"intro": intro, **extra})

    def perform(self, form: Any) -> str:
        """Begin, at the person's home page."""
        session: SignInSession | None = getattr(self.request, "sign_in_session", None)
        impersonation.start(
            self.object.pk,
            form.cleaned_data["reason"],
            session_id=session.pk if session else 0,
            store=self.request.session,
            actor=self.actor,
        )
        return reverse("portal:start")


@method_decorator(never_cache, name="dispatch")
class ImpersonationEnd(View):
    """Ends it; by POST only, and as oneself."""

    http_method_names = ["post", "options"]

    def post(self, request: HttpRequest) -> HttpResponseBase:
        """End it and go back to the person's page."""
        session: SignInSession | None = getattr(request, "sign_in_session", None)
        if not session:
            return redirect_to_sign_in(request)
        row = impersonation.end(session.pk, store=request.session)
        if row is None:
            messages.info(request, "That had ended already. You see the portal as yourself.")
            return SeeOther(reverse("portal:start"))
        messages.success(request, "You see the portal as yourself again.")
        return SeeOther(_person_url(row.person))


def _person_url(person: User) -> str:
    return reverse("accounts:user-detail", kwargs={"user_uid": person.uid})
