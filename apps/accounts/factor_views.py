"""A person's own second factors, and what platform admins do about those of others."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpResponseBase
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters

from apps.accounts import factor_actions, factors, second_step, step_up
from apps.accounts.admin_views import OnUser, user_url
from apps.accounts.choices import FactorKind
from apps.accounts.factor_forms import AppForm, KeyForm
from apps.accounts.models import SecondFactor, SignInSession, User
from apps.accounts.safe_next import safe_next
from apps.accounts.step_up import StepUpMixin
from apps.core import crypto
from apps.core.errors import Conflict, Invalid
from apps.core.views import ActionView, CreateView, Crumb, PageView

#: Key in the browser's store under which the key of an app that is being set up stands, encrypted.
_NEW_APP = "new_app"
_SAVE_THEM = (
    "Each opens your account once when your app or key is lost. Print them or keep them in a password manager: they are"
    " not stored and cannot be shown again."
)


class FactorList(PageView):
    """The second factors of the signed-in person."""

    title = "Second factors"
    template_name = "accounts/factors.html"
    scope_free = "shows the signed-in person's own factors only"

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back to the account page."""
        return [Crumb("Your account", reverse("accounts:profile"))]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the factors, and what the installation wants."""
        rows = list(SecondFactor.objects.visible_to(self.request.user).in_use().order_by("created_at", "pk"))
        codes = next((row for row in rows if row.kind == FactorKind.RECOVERY), None)
        return super().get_context(
            factors=[row for row in rows if row.kind != FactorKind.RECOVERY],
            codes_left=len(codes.codes) if codes else 0,
            required=settings.COMMONS_SECOND_FACTOR != "optional",
            keys_possible=factors.keys_possible(),
            next=safe_next(self.request, ""),
            **extra,
        )


class _OwnFactors(StepUpMixin, CreateView):
    """Base of the forms on one's own factors."""

    scope_free = "changes the signed-in person's own factors only"

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back to the list."""
        return [
            Crumb("Your account", reverse("accounts:profile")),
            Crumb("Second factors", reverse("accounts:factor-list")),
        ]

    @property
    def person(self) -> User:
        """The signed-in person."""
        return User.objects.get(pk=self.actor.user_id or 0)

    def proof(self) -> dict[str, Any]:
        """Return who acts, and when and in which session they proved who they are."""
        session: SignInSession = self.request.sign_in_session  # type: ignore[attr-defined]  # behind the sign-in check
        return {"actor": self.actor, "proved_at": step_up.proved_at(self.request), "session_id": session.pk}

    def show_codes(self, codes: list[str]) -> HttpResponseBase:
        """Answer with the recovery codes: a redirect would have to store them."""
        self.template_name = "accounts/secret.html"
        self.title = "Your recovery codes"
        return self.page(
            secret="\n".join(codes),
            heading="Recovery codes",
            explanation=_SAVE_THEM,
            back_url=safe_next(self.request, reverse("accounts:factor-list")),
        )

    def after(self, codes: list[str]) -> str | HttpResponseBase:
        """Show the codes of a first factor, or go on."""
        return self.show_codes(codes) if codes else safe_next(self.request, reverse("accounts:factor-list"))


@method_decorator([never_cache, sensitive_post_parameters("code")], name="dispatch")
class AppCreate(_OwnFactors):
    """Sets up an authenticator app."""

    title = "Add an authenticator app"
    intro = "Scan the code with an app for one-time codes, then type what the app shows."
    form_class = AppForm
    template_name = "accounts/factor_app.html"
    submit_label = "Add app"

    def secret(self) -> str:
        """Return the key of the app that is being set up in this browser: the same until it is added."""
        store = self.request.session
        try:
            held = crypto.decrypt(str(store.get(_NEW_APP, "")).encode())
        except crypto.CannotDecrypt:
            held = ""
        if not held:
            held = factors.new_secret()
            store[_NEW_APP] = crypto.encrypt(held).decode()
        return held

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Show the key as a picture and as text; not once it is added."""
        if "secret" in extra:
            return super().get_context(**extra)
        secret = self.secret()
        uri = factors.provisioning_uri(secret, self.person.email)
        return super().get_context(
            qr_code=factors.qr_code(uri),
            app_secret=" ".join(secret[at : at + 4] for at in range(0, len(secret), 4)),
            next=safe_next(self.request, ""),
            **extra,
        )

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Add it if the app shows the right code."""
        given = form.cleaned_data
        _, codes = factor_actions.add_app(
            self.person.pk, self.secret(), given["code"], given["name"], **self.proof()
        )  # fmt: skip
        self.request.session.pop(_NEW_APP, None)
        return self.after(codes)


@method_decorator([never_cache, sensitive_post_parameters("key_answer")], name="dispatch")
class KeyCreate(_OwnFactors):
    """Registers a security key or passkey."""

    title = "Add a security key or passkey"
    intro = "A key on USB or NFC, or what your device or password manager offers as a passkey."
    form_class = KeyForm
    template_name = "accounts/factor_key.html"
    submit_label = "Add key"

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add a new challenge; where browsers allow no keys, say where they would."""
        if "secret" in extra:
            return super().get_context(**extra)
        options = None
        if factors.keys_possible():
            person = self.person
            mine = SecondFactor.objects.in_use().filter(user=person, kind=FactorKind.WEBAUTHN)
            known = [bytes(key.public_key) for key in mine]
            options, state = factors.begin_registration(person.uid, person.email, person.display_name, known)
            second_step.keep_challenge(self.request.session, state)
        return super().get_context(
            key_options=options, base_url=settings.COMMONS_BASE_URL, next=safe_next(self.request, ""), **extra
        )

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Check what the key answered and add it."""
        given = form.cleaned_data
        state = second_step.take_challenge(self.request.session)
        form.data = {**form.data.dict(), "key_answer": ""}
        if state is None:
            raise Invalid({"": "That took too long. Use the button once more."})
        try:
            key = factors.complete_registration(state, given["key_answer"])
        except factors.NotAccepted as error:
            raise Invalid({"": "The key's answer was not accepted. Use the button once more."}) from error
        _, codes = factor_actions.add_key(self.person.pk, key, given["name"], **self.proof())
        return self.after(codes)


class CodesRenew(_OwnFactors):
    """Makes new recovery codes."""

    title = "New recovery codes"
    intro = "The codes you have now stop working at once."
    submit_label = "Make new codes"

    def perform(self, form: Any) -> HttpResponseBase:
        """Make them and show them, once."""
        proof = self.proof()
        codes = factor_actions.renew_codes(self.person.pk, actor=proof["actor"], proved_at=proof["proved_at"])
        return self.show_codes(codes)


class FactorRemove(StepUpMixin, ActionView):
    """Removes one of one's own factors."""

    queryset = SecondFactor.objects.all()
    title = "Remove second factor"
    submit_label = "Remove"
    danger = True
    success_message = "It is removed, and counts no more."

    def get_queryset(self) -> Any:
        """Return the factors in use; recovery codes are replaced, not removed."""
        found: Any = super().get_queryset()
        return found.in_use().exclude(kind=FactorKind.RECOVERY)

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back to the list."""
        return [
            Crumb("Your account", reverse("accounts:profile")),
            Crumb("Second factors", reverse("accounts:factor-list")),
        ]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Name it, and say what follows."""
        others = self.get_queryset().exclude(pk=self.object.pk).exists()
        last = "" if others else " It is your last one: your password alone opens your account again."
        return super().get_context(**{"intro": f"“{self.object.name}” signs you in no more.{last}", **extra})

    def perform(self, form: Any) -> str:
        """Remove it."""
        proved = step_up.proved_at(self.request)
        if proved is None:
            raise Conflict("Sign in again first.")
        factor_actions.remove_factor(self.object.pk, actor=self.actor, proved_at=proved)
        return reverse("accounts:factor-list")


class UserPasswordUse(StepUpMixin, OnUser):
    """Says whether somebody may sign in with a password here."""

    def get_title(self) -> str:
        """Say which way it goes."""
        return "Refuse sign-in by password" if self.object.may_use_password else "Allow sign-in by password"

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Say what follows."""
        refuse = self.object.may_use_password
        said = (
            "The person can sign in at an identity provider only. Sessions opened with the password end at once."
            if refuse
            else "The password opens the account again, where the installation allows passwords."
        )
        return super().get_context(
            **{"intro": said, "submit_label": "Refuse" if refuse else "Allow", "danger": refuse, **extra}
        )

    def perform(self, form: Any) -> str:
        """Change it."""
        allowed = not self.object.may_use_password
        reason = form.cleaned_data["reason"]
        return user_url(factor_actions.set_password_use(self.object.pk, allowed, reason, actor=self.actor))
