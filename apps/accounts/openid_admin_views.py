"""Pages on which platform admins keep identity providers."""

from __future__ import annotations

from typing import Any

from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.views.decorators.debug import sensitive_post_parameters

from apps.accounts import openid, openid_checks, openid_providers
from apps.accounts.forms import ReasonForm
from apps.accounts.models import ExternalIdentity, IdentityProvider
from apps.accounts.openid_forms import ProviderEditForm, ProviderForm
from apps.accounts.openid_providers import MANAGE, VIEW
from apps.accounts.openid_tables import LABELS, TONES, ProviderFilter, ProviderTable, with_state
from apps.accounts.step_up import StepUpMixin
from apps.core.errors import Conflict
from apps.core.permissions import INSTALLATION, may
from apps.core.views import ActionView, CreateView, Crumb, DetailView, ListView, PageView
from portal.panels import panels_for

_SECRET = method_decorator(sensitive_post_parameters("client_secret"), name="dispatch")


def url_of(provider: IdentityProvider) -> str:
    """Return a provider's page."""
    return reverse("accounts:provider-detail", kwargs={"provider_uid": provider.uid})


class _Installation(PageView):
    """Providers belong to the installation."""

    permission = VIEW

    def scope_object(self) -> Any:
        """Ask permissions for the installation."""
        return INSTALLATION

    def breadcrumbs(self) -> list[Crumb]:
        """Start from the list."""
        return [Crumb("Identity providers", reverse("accounts:provider-list"))]


class ProviderList(_Installation, ListView):
    """Identity providers."""

    queryset = IdentityProvider.objects.all()
    title = "Identity providers"
    intro = "Where people sign in with their company account, and where their groups come from."
    table_class = ProviderTable
    filterset_class = ProviderFilter
    empty_icon = "key"
    empty_title = "No identity provider yet"
    empty_text = "Connect the company's OpenID provider, so that nobody needs a password of this portal's own."

    def breadcrumbs(self) -> list[Crumb]:
        """It is the first step itself."""
        return []

    def get_queryset(self) -> Any:
        """Add states; archived ones only when asked for."""
        rows = super().get_queryset()
        if not self.request.GET.get("archived"):
            rows = rows.filter(archived_at__isnull=True)
        return with_state(rows)

    def get_page_actions(self) -> list[tuple[str, str]]:
        """A new one."""
        return [("New provider", reverse("accounts:provider-create"))] if _manages(self.request) else []

    def get_empty_action(self) -> tuple[str, str] | None:
        """A new one."""
        return self.get_page_actions()[0] if _manages(self.request) else None


class ProviderDetail(_Installation, DetailView):
    """One provider: its settings, what to enter there, and what other parts say about it."""

    queryset = IdentityProvider.objects.all()
    template_name = "accounts/provider_detail.html"

    def get_queryset(self) -> Any:
        """Add the state."""
        return with_state(super().get_queryset())

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the addresses to register there, and what may be done."""
        provider: Any = self.object
        return super().get_context(
            **{
                "provider": provider,
                "state": (provider.state, LABELS[provider.state], TONES[provider.state]),
                "may_manage": _manages(self.request) and provider.archived_at is None,
                "addresses": addresses_of(provider),
                "has_secret": bool(provider.client_secret),
                "try_url": reverse("accounts:openid-try", kwargs={"slug": provider.slug}),
                "panels": panels_for("provider", self.request, provider),
                **extra,
            }
        )


def addresses_of(provider: IdentityProvider) -> list[tuple[str, str]]:
    """Return (what, address) of everything to enter at the provider."""
    return [
        ("Redirect URI", openid.callback_url(provider)),
        ("Address after signing out", openid.signed_out_url()),
        ("Back-channel log-out", openid.back_channel_url(provider)),
        ("Front-channel log-out", openid.front_channel_url(provider)),
    ]


@_SECRET
class ProviderCreate(StepUpMixin, _Installation, CreateView):
    """A new provider."""

    queryset = IdentityProvider.objects.all()
    permission = MANAGE
    title = "New identity provider"
    intro = "It stays off until its test has passed and you enable it. What to enter there stands on the next page."
    form_class = ProviderForm
    submit_label = "Connect"
    success_message = "Connected, and off. Enter the addresses below at the provider, then test it."

    def perform(self, form: Any) -> str:
        """Connect it."""
        return url_of(openid_providers.create_provider(**form.values(), actor=self.actor))


class _Manage(StepUpMixin, _Installation, ActionView):
    queryset = IdentityProvider.objects.all()
    permission = MANAGE

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the provider."""
        return [*super().breadcrumbs(), Crumb(self.object.name, url_of(self.object))]

    def check_state(self) -> None:
        """An archived provider takes nothing any more."""
        if self.object.archived_at is not None:
            raise Conflict("This provider is archived.", current={"status": "archived"})


@_SECRET
class ProviderEdit(_Manage):
    """Change a provider."""

    title = "Edit identity provider"
    form_class = ProviderEditForm
    submit_label = "Save"
    success_message = "Saved."
    intro = "After a change of issuer, client, secret, scopes or groups it has to be tested anew to be enabled."

    def get_initial(self) -> dict[str, Any]:
        """Show what is stored, but for the secret."""
        row: IdentityProvider = self.object
        found = {name: getattr(row, name) for name in openid_providers.EDITABLE}
        return {**found, "extra_scopes": " ".join(row.extra_scopes), "mail_domains": " ".join(row.mail_domains)}

    def perform(self, form: Any) -> str:
        """Save."""
        openid_providers.edit_provider(
            self.object.pk, **form.values(), actor=self.actor, expected_version=self.expected_version
        )
        return url_of(self.object)


class ProviderTest(_Manage):
    """Tests a provider and shows how each step went."""

    title = "Test identity provider"
    intro = "Asks the provider for what it publishes, and whether it accepts this portal. Nobody is signed in."
    submit_label = "Test now"

    def perform(self, form: Any) -> HttpResponseBase:
        """Test it; the answer is the page itself."""
        steps = openid_checks.run(self.object.pk, actor=self.actor)
        self.prepare()
        self.template_name = "accounts/provider_test.html"
        failed = [step for step in steps if step.state == openid_checks.FAILED]
        tones = {"passed": "positive", "noted": "caution", "failed": "critical", "skipped": "neutral"}
        words = {"passed": "Passed", "noted": "Look at it", "failed": "Failed", "skipped": "Skipped"}
        return self.page(
            steps=[(step, words[step.state], tones[step.state]) for step in steps],
            failed=len(failed),
            back_url=url_of(self.object),
            enable_url=""
            if failed or self.object.enabled
            else reverse("accounts:provider-enable", kwargs={"provider_uid": self.object.uid}),
            try_url=reverse("accounts:openid-try", kwargs={"slug": self.object.slug}),
        )


class ProviderEnable(_Manage):
    """Opens a provider for sign-in."""

    title = "Enable identity provider"
    submit_label = "Enable"
    success_message = "People can sign in there now."

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Say whom it lets in."""
        row: IdentityProvider = self.object
        where = f"an address in {', '.join(row.mail_domains)}" if row.mail_domains else "any address that it verified"
        parts = [f"It appears on the sign-in page. Whoever signs in at {row.issuer} gets into the account they have."]
        if row.just_in_time:
            parts.append(f"Who has none gets one for {where}.")
        if row.links_by_mail:
            parts.append(f"An existing account is connected by {where}.")
        return super().get_context(**{"intro": " ".join(parts), **extra})

    def check_state(self) -> None:
        """Only a tested one that is off."""
        super().check_state()
        if self.object.enabled:
            raise Conflict("This provider is open for sign-in already.", current={"enabled": True})
        if self.object.checked_at is None or self.object.check_error:
            raise Conflict(
                "Test it first: only a provider whose test passed can be enabled.", current={"tested": False}
            )

    def perform(self, form: Any) -> str:
        """Enable it."""
        openid_providers.enable_provider(self.object.pk, actor=self.actor, expected_version=self.expected_version)
        return url_of(self.object)


class ProviderDisable(_Manage):
    """Closes a provider."""

    title = "Switch identity provider off"
    intro = (
        "Nobody signs in there any more, and every session that it opened ends at once. Make sure that another way"
        " in is left for you."
    )
    submit_label = "Switch off"
    danger = True
    success_message = "Switched off."

    def check_state(self) -> None:
        """Only one that is on."""
        super().check_state()
        if not self.object.enabled:
            raise Conflict("This provider is switched off already.", current={"enabled": False})

    def perform(self, form: Any) -> str:
        """Switch it off."""
        openid_providers.disable_provider(self.object.pk, actor=self.actor, expected_version=self.expected_version)
        return url_of(self.object)


class ProviderArchive(_Manage):
    """Puts a provider away."""

    title = "Archive identity provider"
    intro = (
        "For good: its secret is deleted, every session that it opened ends, and nobody signs in there again. Accounts"
        " stay, and need another way in."
    )
    submit_label = "Archive"
    danger = True
    success_message = "Archived."

    def perform(self, form: Any) -> str:
        """Archive it."""
        openid_providers.archive_provider(self.object.pk, actor=self.actor, expected_version=self.expected_version)
        return url_of(self.object)


class IdentityDisconnect(StepUpMixin, ActionView):
    """Cuts the connection of a person with a provider."""

    queryset = ExternalIdentity.objects.select_related("provider", "user")
    permission = MANAGE
    title = "Disconnect"
    form_class = ReasonForm
    submit_label = "Disconnect"
    danger = True
    success_message = "Disconnected."

    def scope_object(self) -> Any:
        """Ask permissions for the installation."""
        return INSTALLATION

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the person."""
        return [Crumb("People", reverse("accounts:user-list")), Crumb(self.object.user.display_name, self._person())]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Say what ends."""
        row: ExternalIdentity = self.object
        intro = (
            f"{row.user.display_name} signs in at {row.provider.name} no more: sessions opened there end, and so do"
            " roles that its groups gave. The next first sign-in there is decided as if it were the first."
        )
        return super().get_context(**{"intro": intro, **extra})

    def check_state(self) -> None:
        """Only what connects."""
        if not self.object.subject:
            raise Conflict("Nobody has signed in by this connection yet.", current={"connected": False})

    def perform(self, form: Any) -> str:
        """Disconnect."""
        openid_providers.disconnect(self.object.pk, form.cleaned_data["reason"], actor=self.actor)
        return self._person()

    def _person(self) -> str:
        return reverse("accounts:user-detail", kwargs={"user_uid": self.object.user.uid})


def _manages(request: Any) -> bool:
    return may(request.user, MANAGE, INSTALLATION)
