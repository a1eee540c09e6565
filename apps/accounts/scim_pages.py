"""Pages on which platform admins keep what directories provision: tokens, groups, and what is held back."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from django.conf import settings
from django.db.models import Count
from django.http import HttpResponseBase
from django.urls import reverse

from apps.accounts import scim_activity, scim_tokens
from apps.accounts.forms import ReasonForm
from apps.accounts.models import DirectoryGroup, ExternalIdentity, IdentityProvider, ScimToken
from apps.accounts.step_up import StepUpMixin
from apps.core import clock
from apps.core.errors import Conflict, NotVisible
from apps.core.forms import CommonsForm, UtcDateTimeField
from apps.core.permissions import may
from apps.core.views import ActionView, Crumb, DetailView

MANAGE = "accounts.provider.manage"
#: A page shows so many people and groups; more are counted.
SHOWN = 50


class TokenForm(CommonsForm):
    """A token for a directory."""

    name = forms.CharField(label="Name", max_length=100, help_text="The directory that will use it.")
    expires_at = UtcDateTimeField(label="Valid until", help_text="At most 365 days from now.")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["expires_at"].initial = clock.now() + timedelta(days=180)


class RotateForm(CommonsForm):
    """How long the successor of a token lasts."""

    expires_at = UtcDateTimeField(label="New token valid until", help_text="At most 365 days from now.")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["expires_at"].initial = clock.now() + timedelta(days=180)


class Provisioning(DetailView):
    """What one provider's directory keeps here, and what waits for a person."""

    queryset = IdentityProvider.objects.all()
    permission = "accounts.provider.view"
    template_name = "accounts/provisioning.html"
    history = False

    def get_title(self) -> str:
        """Return the title."""
        return f"Provisioning from {self.object.name}"

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back to the provider."""
        return _crumbs(self.object)[:-1]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add tokens, counts, groups, and what is held back or differs."""
        provider: IdentityProvider = self.object
        kept = ExternalIdentity.objects.filter(provider=provider, provisioned=True)
        held = kept.filter(held_at__isnull=False).select_related("user").order_by("user__display_name", "pk")
        differs = kept.filter(active=True, user__is_active=False).select_related("user").order_by("user__display_name")
        groups = DirectoryGroup.objects.filter(provider=provider).annotate(people=Count("memberships"))
        off, people = scim_activity.counted(provider, clock.now())
        return super().get_context(
            may_manage=may(self.request.user, MANAGE, provider) and provider.archived_at is None,
            address=f"{settings.COMMONS_BASE_URL}/api/scim/v2/{provider.slug}",
            tokens=ScimToken.objects.filter(provider=provider).order_by("-pk")[:SHOWN],
            now=clock.now(),
            kept=kept.count(),
            active=kept.filter(active=True).count(),
            off=off,
            people=people,
            held=held[:SHOWN],
            held_count=held.count(),
            differs=differs[:SHOWN],
            groups=groups.order_by("name", "pk")[:SHOWN],
            group_count=groups.count(),
            **extra,
        )


class _OnProvider(ActionView):
    """Base of the actions on a provider's provisioning."""

    queryset = IdentityProvider.objects.all()
    permission = MANAGE
    url_kwarg = "provider_uid"

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back to the page."""
        return _crumbs(self.provider)

    @property
    def provider(self) -> IdentityProvider:
        """The provider that the page belongs to."""
        found: IdentityProvider = self.object
        return found


class TokenCreate(StepUpMixin, _OnProvider):
    """Makes a token and shows it, once."""

    title = "New token for the directory"
    intro = "With it the directory makes, changes and switches off the accounts of its people, and nothing else."
    form_class = TokenForm
    submit_label = "Make token"

    def perform(self, form: Any) -> HttpResponseBase:
        """Make it and answer with the page that shows it."""
        data = form.cleaned_data
        _, secret = scim_tokens.create_token(self.object.pk, data["name"], data["expires_at"], actor=self.actor)
        return _show(self, secret)


class _OnToken(_OnProvider):
    """Base of the actions on one token."""

    token: ScimToken

    def prepare(self) -> None:
        """Load provider and token. Raises NotVisible."""
        super().prepare()
        found = ScimToken.objects.filter(provider=self.object, uid=self.kwargs["token_uid"]).first()
        if found is None:
            raise NotVisible
        self.token = found

    def check_state(self) -> None:
        """Only a token in force can be rotated or revoked."""
        if self.token.revoked_at is not None or self.token.expires_at <= clock.now():
            raise Conflict("This token is not in force any more.", current={"status": "not in force"})


class TokenRotate(StepUpMixin, _OnToken):
    """Makes a successor of a token and shows it, once."""

    title = "Rotate token"
    intro = "The old token stays valid for seven days, so that the directory can be given the new one without a gap."
    form_class = RotateForm
    submit_label = "Make the new token"

    def perform(self, form: Any) -> HttpResponseBase:
        """Make it and answer with the page that shows it."""
        _, secret = scim_tokens.rotate_token(self.token.pk, form.cleaned_data["expires_at"], actor=self.actor)
        return _show(self, secret)


class TokenRevoke(_OnToken):
    """Revokes a token at once."""

    title = "Revoke token"
    intro = "The directory is shut out from this moment: nobody it switches off is switched off here any more."
    submit_label = "Revoke"
    danger = True
    success_message = "The token is revoked."

    def perform(self, form: Any) -> str:
        """Revoke it."""
        scim_tokens.revoke_token(self.token.pk, actor=self.actor)
        return _url(self.provider)


class _OnHeld(_OnProvider):
    """Base of the decisions about what is held back."""

    form_class = ReasonForm
    summary_template = "accounts/provisioning_held.html"

    def check_state(self) -> None:
        """Only what is held back can be decided about."""
        if self.object.held_since is None:
            raise Conflict("Nothing is held back any more.", current={"status": "not held back"})

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add who waits."""
        held = ExternalIdentity.objects.filter(provider=self.object, held_at__isnull=False)
        rows = held.select_related("user").order_by("user__display_name", "pk")
        return super().get_context(held=rows[:SHOWN], held_count=held.count(), **extra)


class Release(StepUpMixin, _OnHeld):
    """Lets through what was held back."""

    title = "Switch these accounts off"
    intro = (
        "The directory is right: these people are signed out at once, their API tokens are revoked, and their roles"
        " count for nothing. For a day nothing else of this directory is held back. Your own account and the last"
        " platform admin's stay in use."
    )
    submit_label = "Switch off"
    danger = True
    success_message = "The accounts are switched off."

    def perform(self, form: Any) -> str:
        """Let it through."""
        scim_activity.release_held(self.object.pk, actor=self.actor, reason=form.cleaned_data["reason"])
        return _url(self.object)


class Keep(_OnHeld):
    """Keeps the accounts that were to be switched off."""

    title = "Keep these accounts"
    intro = (
        "The directory is wrong: these accounts stay in use, and the directory reads them as active again. Mend the"
        " directory before its next run, or it switches them off again."
    )
    submit_label = "Keep"
    success_message = "The accounts stay in use."

    def perform(self, form: Any) -> str:
        """Keep them."""
        scim_activity.dismiss_held(self.object.pk, actor=self.actor, reason=form.cleaned_data["reason"])
        return _url(self.object)


def _show(view: Any, secret: str) -> HttpResponseBase:
    view.template_name = "accounts/secret.html"
    view.title = "The directory's token"
    response: HttpResponseBase = view.page(
        secret=secret,
        heading="Token",
        explanation="Enter it at the directory now: it is not stored and cannot be shown again.",
        usage=f"Authorization: Bearer {secret[:12]}…",
        back_url=_url(view.provider),
    )
    return response


def _url(provider: IdentityProvider) -> str:
    return reverse("accounts:provisioning", kwargs={"provider_uid": provider.uid})


def _crumbs(provider: IdentityProvider) -> list[Crumb]:
    return [
        Crumb("Identity providers", reverse("accounts:provider-list")),
        Crumb(provider.name, reverse("accounts:provider-detail", kwargs={"provider_uid": provider.uid})),
        Crumb("Provisioning", _url(provider)),
    ]
