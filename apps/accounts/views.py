"""Signing in and out, and a person's own account."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.middleware.csrf import rotate_token
from django.shortcuts import render
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.generic import View

from apps.accounts import actions, openid, openid_views, ports, second_step
from apps.accounts.addresses import client_address
from apps.accounts.forms import PasswordForm, SignInForm, TokenForm
from apps.accounts.local_sign_in import too_old
from apps.accounts.models import ApiToken, SignInSession, User
from apps.accounts.safe_next import safe_next
from apps.accounts.sessions import device_name
from apps.accounts.sign_in import check_own_password, sign_in
from apps.accounts.step_up import StepUpMixin
from apps.core.actor import Actor
from apps.core.errors import Invalid
from apps.core.permissions import may
from apps.core.views import ActionView, CreateView, Crumb, PageView, SeeOther

_SECRET = sensitive_post_parameters("password", "current", "new", "again")


@method_decorator([never_cache, _SECRET], name="dispatch")
class SignIn(View):
    """The one page that visitors see."""

    def get(self, request: HttpRequest) -> HttpResponseBase:
        """Show the form; whoever is signed in goes on to where they wanted."""
        if request.user.is_authenticated:
            return HttpResponseRedirect(safe_next(request))
        return self.page(request, SignInForm())

    def post(self, request: HttpRequest) -> HttpResponseBase:
        """Sign in and go on; a refusal shows the form again without the password."""
        form = SignInForm(request.POST)
        if not form.is_valid():
            return self.page(request, form, 400)
        try:
            session = sign_in(
                form.cleaned_data["email"],
                form.cleaned_data["password"],
                request.session,
                address=client_address(request),
                device=device_name(request.headers.get("User-Agent", "")),
            )
        except Invalid as invalid:
            form.add_invalid(invalid)
            return self.page(request, form, 400)
        rotate_token(request)
        if session is None:
            return SeeOther(f"{reverse('accounts:sign-in-second')}?{urlencode({'next': safe_next(request)})}")
        return SeeOther(safe_next(request))

    def page(self, request: HttpRequest, form: SignInForm, status: int = 200) -> HttpResponse:
        """Draw the form."""
        context = {
            "title": "Sign in",
            "form": form,
            "next": safe_next(request),
            "ended": request.method == "GET" and "ended" in request.GET,
            "local": settings.COMMONS_LOCAL_SIGN_IN,
            "providers": [(found.name, openid.start_url(found, safe_next(request))) for found in openid.offered()],
        }
        return render(request, "accounts/sign_in.html", context, status=status)


@method_decorator(never_cache, name="dispatch")
class SignOut(View):
    """Ends the session in this browser; by POST only, so that no image or link can."""

    http_method_names = ["post", "options"]

    def post(self, request: HttpRequest) -> HttpResponseBase:
        """Close the session and show the sign-in page."""
        session: SignInSession | None = getattr(request, "sign_in_session", None)
        onward = ""
        if session:
            actions.close_session(session.pk, actor=Actor.of(session.user))
            onward = openid_views.leave_url(session)
        request.session.flush()
        if session and onward:
            return openid_views.left(request, session, onward)
        messages.success(request, "You are signed out.")
        return SeeOther(reverse("accounts:sign-in"))


class Profile(PageView):
    """A person's own account: sessions and API tokens."""

    title = "Your account"
    template_name = "accounts/profile.html"
    scope_free = "shows the signed-in person's own sessions and tokens only"

    @property
    def person(self) -> User:
        """The signed-in person."""
        user: Any = self.request.user
        found: User = user
        return found

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add sessions and tokens."""
        current: SignInSession | None = getattr(self.request, "sign_in_session", None)
        mine = SignInSession.objects.of(self.request.user).open().select_related("provider")
        return super().get_context(
            sessions=list(mine.order_by("-opened_at")[:50]),
            has_factor=second_step.needed(self.person),
            may_use_password=self.person.may_use_password,
            current_session_id=current.pk if current else None,
            tokens=list(ApiToken.objects.visible_to(self.request.user).usable().order_by("-created_at", "-pk")),
            **extra,
        )


class _OwnAccount(CreateView):
    """Base of the forms on one's own account."""

    scope_free = "changes the signed-in person's own account only"

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back to the account page."""
        return [Crumb("Your account", reverse("accounts:profile"))]

    @property
    def person(self) -> User:
        """The signed-in person."""
        return User.objects.get(pk=self.actor.user_id or 0)


@method_decorator(_SECRET, name="dispatch")
class PasswordChange(StepUpMixin, _OwnAccount):
    """Changes one's own password."""

    title = "Change your password"
    form_class = PasswordForm
    submit_label = "Change password"
    success_message = "Your password is changed. You are signed out everywhere else."

    def answer(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Ask people with a second factor for it: the form itself asks for the password."""
        skip = not second_step.needed(self.person)
        return super(StepUpMixin, self).answer(request, *args, **kwargs) if skip else super().answer(request)

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Say why a person who did not ask for this page is here."""
        intro = ""
        if self.person.must_change_password:
            intro = (
                "Your password is too old. Choose another one; then go on."
                if too_old(self.person)
                else "Somebody else set your present password. Choose one that only you know; then go on."
            )
        return super().get_context(**{"intro": intro, **extra})

    def perform(self, form: Any) -> str:
        """Change it and go on to where the person wanted."""
        session: SignInSession | None = getattr(self.request, "sign_in_session", None)
        current = form.cleaned_data["current"]
        check_own_password(self.person, current, address=client_address(self.request), field="current")
        actions.change_password(
            self.person.pk,
            current,
            form.cleaned_data["new"],
            actor=self.actor,
            keep_session_id=session.pk if session else None,
        )
        return safe_next(self.request, reverse("accounts:profile"))


class SessionsCloseOthers(_OwnAccount):
    """Signs the person out everywhere else."""

    title = "Sign out everywhere else"
    intro = "Every other browser in which you are signed in has to sign in again."
    submit_label = "Sign out everywhere else"

    def perform(self, form: Any) -> str:
        """Close the others."""
        session: SignInSession | None = getattr(self.request, "sign_in_session", None)
        count = actions.close_other_sessions(self.person.pk, session.pk if session else None, actor=self.actor)
        messages.success(self.request, f"{count} other session{'' if count == 1 else 's'} closed.")
        return reverse("accounts:profile")


class TokenCreate(StepUpMixin, _OwnAccount):
    """Makes an API token and shows its secret, once."""

    title = "New API token"
    intro = "A token lets a program use the API in your name, with your rights as they are at each call."
    form_class = TokenForm
    submit_label = "Make token"

    def get_form_kwargs(self) -> dict[str, Any]:
        """Offer the rights that the person holds anywhere."""
        return {"held": [name for name in ports.permission_names() if may(self.request.user, name)]}

    def perform(self, form: Any) -> HttpResponseBase:
        """Make it and answer with the page that shows the secret: a redirect would have to store it."""
        token, secret = actions.create_token(
            self.person.pk,
            form.cleaned_data["name"],
            form.cleaned_data["expires_at"],
            form.cleaned_data["access"] == "read",
            actor=self.actor,
            permissions=form.limit(),
        )
        self.template_name = "accounts/secret.html"
        self.title = "Your new API token"
        return self.page(
            secret=secret,
            heading="API token",
            explanation=f"Copy it now: it is not stored and cannot be shown again. It is valid until"
            f" {token.expires_at:%Y-%m-%d %H:%M} UTC.",
            usage=f"Authorization: Bearer {secret}",
            back_url=reverse("accounts:profile"),
        )


class TokenRevoke(ActionView):
    """Revokes one of one's own tokens."""

    queryset = ApiToken.objects.all()
    title = "Revoke API token"
    submit_label = "Revoke"
    danger = True
    success_message = "The token is revoked: the next call with it is refused."

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back to the account page."""
        return [Crumb("Your account", reverse("accounts:profile"))]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Name the token."""
        return super().get_context(
            **{"intro": f"“{self.object.name}” ({self.object.prefix}…) stops working at once.", **extra}
        )

    def perform(self, form: Any) -> str:
        """Revoke it."""
        actions.revoke_token(self.object.pk, actor=self.actor)
        return reverse("accounts:profile")
