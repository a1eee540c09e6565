"""The second step of signing in, and the page that asks once more who somebody is."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.middleware.csrf import rotate_token
from django.shortcuts import render
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.generic import View

from apps.accounts import second_step
from apps.accounts.addresses import client_address
from apps.accounts.choices import SignInMethod
from apps.accounts.factor_forms import ConfirmForm, SecondStepForm
from apps.accounts.models import SignInSession, User
from apps.accounts.safe_next import safe_next
from apps.accounts.second_step import Proof
from apps.accounts.sessions import device_name
from apps.accounts.sign_in import confirm_password
from apps.core.errors import Invalid, NotAllowed
from apps.core.views import CreateView, Crumb, SeeOther

_SECRET = sensitive_post_parameters("password", "code", "key_answer")


@method_decorator([never_cache, _SECRET], name="dispatch")
class SecondStep(View):
    """Asks who gave the right password for their second factor; there is no session yet."""

    def get(self, request: HttpRequest) -> HttpResponseBase:
        """Show the form; without a first step, or when it is too long ago, begin anew."""
        if request.user.is_authenticated:
            return HttpResponseRedirect(safe_next(request))
        person = second_step.waiting(request.session)
        if person is None:
            return HttpResponseRedirect(reverse("accounts:sign-in"))
        return self.page(request, person, SecondStepForm())

    def post(self, request: HttpRequest) -> HttpResponseBase:
        """Take the second factor, open the session and go on; a refusal shows the form again, empty."""
        form = SecondStepForm(request.POST)
        person = second_step.waiting(request.session)
        if form.is_valid():
            proof = Proof(code=form.cleaned_data["code"], key_answer=form.cleaned_data["key_answer"])
            device = device_name(request.headers.get("User-Agent", ""))
            try:
                second_step.finish(request.session, proof, address=client_address(request), device=device)
            except Invalid as invalid:
                form.add_invalid(invalid)
            else:
                rotate_token(request)
                return SeeOther(safe_next(request))
        if person is None:
            messages.info(request, second_step.BEGIN_ANEW)
            return SeeOther(reverse("accounts:sign-in"))
        return self.page(request, person, form, 400)

    def page(self, request: HttpRequest, person: User, form: SecondStepForm, status: int = 200) -> HttpResponse:
        """Draw the form, with a new challenge for the person's keys; nothing says whose account it is."""
        if form.is_bound:
            form.data = {}
        key_options = second_step.challenge(person, request.session)
        # Who has no key has nothing else to give here.
        form.fields["code"].required = not key_options
        context = {
            "title": "Second step",
            "form": form,
            "next": safe_next(request),
            "key_options": key_options,
        }
        return render(request, "accounts/second_step.html", context, status=status)


@method_decorator([never_cache, _SECRET], name="dispatch")
class Confirm(CreateView):
    """Asks somebody who is signed in to prove once more who they are."""

    title = "Prove once more who you are"
    intro = "What you are about to do needs a proof that is at most some minutes old."
    form_class = ConfirmForm
    template_name = "accounts/confirm.html"
    submit_label = "Go on"
    scope_free = "proves who the signed-in person is"

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back to the account page."""
        return [Crumb("Your account", reverse("accounts:profile"))]

    @property
    def session(self) -> SignInSession:
        """The session to prove. Raises NotAllowed where there is none of this person's own."""
        found: SignInSession | None = getattr(self.request, "sign_in_session", None)
        if not found or found.user_id != self.request.user.pk:
            raise NotAllowed("Only your own session can be proved.", rule="own_session_only")
        return found

    def answer(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Send whoever signed in at an identity provider there."""
        if self.session.method == SignInMethod.OPENID:
            from apps.accounts.openid import reauthenticate_url

            return SeeOther(reauthenticate_url(self.session, safe_next(request)))
        return super().answer(request, *args, **kwargs)

    def get_form_kwargs(self) -> dict[str, Any]:
        """Ask for the second factor of people who have one."""
        return {"with_factor": second_step.needed(self.session.user)}

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add a new challenge for the person's keys."""
        return super().get_context(
            next=safe_next(self.request),
            key_options=second_step.challenge(self.session.user, self.request.session),
            **extra,
        )

    def perform(self, form: Any) -> str:
        """Check password and second factor, and go on."""
        given = form.cleaned_data
        confirm_password(
            self.session,
            given["password"],
            address=client_address(self.request),
            proof=Proof(code=given.get("code", ""), key_answer=given.get("key_answer", "")),
            store=self.request.session,
        )
        return safe_next(self.request, reverse("accounts:profile"))
