"""Forms of registries. Credentials and secrets go in and are never shown."""

from __future__ import annotations

from typing import Any

from django import forms

from apps.catalogue.choices import RegistryKind
from apps.catalogue.registry_actions import CREDENTIALS, MAX_POLL_MINUTES
from apps.core.forms import CommonsForm, WholeNumberField
from apps.teams.models import Team

_STAYS = "Left empty, the one that is stored stays."


def _teams() -> Any:
    return Team.objects.filter(archived_at__isnull=True).order_by("name", "pk")


class RegistryForm(CommonsForm):
    """A registry; its kind is chosen once."""

    name = forms.CharField(max_length=200, help_text="As people know it: “MLflow of Research”.")
    base_url = forms.CharField(
        label="Address", max_length=300,
        help_text="Where its pages are, without /api: https://mlflow.example.com.",
    )  # fmt: skip
    token = forms.CharField(
        label="Bearer token", required=False, max_length=8000, widget=forms.PasswordInput(attrs={"autocomplete": "off"})
    )
    username = forms.CharField(label="User name", required=False, max_length=200)
    password = forms.CharField(
        required=False, max_length=2000, widget=forms.PasswordInput(attrs={"autocomplete": "off"})
    )
    ca_certificate = forms.CharField(
        label="CA certificate", required=False, max_length=100_000, widget=forms.Textarea(attrs={"rows": 4}),
        help_text="PEM, where its certificate is signed by your own authority.",
    )  # fmt: skip
    webhook_secret = forms.CharField(
        label="Webhook secret", required=False, max_length=500,
        widget=forms.PasswordInput(attrs={"autocomplete": "off"}),
        help_text="Shared with the registry, at least 16 characters. Events only make the next reading come at once.",
    )  # fmt: skip
    team_tag = forms.CharField(
        label="Owner tag", max_length=60, required=False,
        help_text="The tag of a registered model that names the owning team by its short name.",
    )  # fmt: skip
    default_team = forms.ModelChoiceField(
        label="Otherwise owned by", queryset=Team.objects.none(), required=False, to_field_name="slug",
        empty_label="Nobody: list it for admins",
        help_text="Owner of models whose tag names no team.",
    )  # fmt: skip
    poll_minutes = WholeNumberField(
        label="Read every", unit="minutes", min_value=1, max_value=MAX_POLL_MINUTES, initial=15
    )

    def __init__(self, *args: Any, stored: frozenset[str] = frozenset(), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["default_team"]
        if isinstance(field, forms.ModelChoiceField):
            field.queryset = _teams()
        if "credentials" in stored:
            for name in ("token", "password"):
                self.fields[name].help_text = _STAYS
            self.fields["forget_credentials"] = forms.BooleanField(
                required=False, label="Forget the stored credentials"
            )
        if "webhook_secret" in stored:
            self.fields["webhook_secret"].help_text = _STAYS
            self.fields["forget_secret"] = forms.BooleanField(
                required=False, label="Forget the webhook secret", help_text="No event is taken any more."
            )

    def credentials(self) -> dict[str, str] | None:
        """Return what was typed; None: leave what is stored."""
        given = {name: self.cleaned_data.get(name, "") for name in CREDENTIALS}
        if any(given.values()):
            return given
        return {} if self.cleaned_data.get("forget_credentials") else None

    def secret(self) -> str | None:
        """Return the secret that was typed; None: leave what is stored."""
        if given := self.cleaned_data.get("webhook_secret", ""):
            return str(given)
        return "" if self.cleaned_data.get("forget_secret") else None

    def values(self) -> dict[str, Any]:
        """Return what the actions take besides credentials and secret."""
        data = self.cleaned_data
        found = {name: data[name] for name in ("name", "base_url", "ca_certificate", "team_tag", "poll_minutes")}
        team = data["default_team"]
        return found | {"default_team_id": team.pk if team else None}

    def add_invalid(self, error: Any) -> None:
        """Put what is wrong with the credentials beside the first of them."""
        if "credentials" in error.errors:
            error.errors["token"] = error.errors.pop("credentials")
        super().add_invalid(error)


class NewRegistryForm(RegistryForm):
    """A new registry."""

    kind = forms.ChoiceField(choices=RegistryKind.choices, widget=forms.RadioSelect, initial=RegistryKind.MLFLOW)
    slug = forms.CharField(
        label="Short name", max_length=60, required=False,
        help_text="Part of the address that it posts events to. Left empty, it follows the name.",
    )  # fmt: skip

    field_order = ["kind", "name", "slug", "base_url"]


class OwnerForm(CommonsForm):
    """To whom a registered model belongs."""

    team = forms.ModelChoiceField(
        queryset=Team.objects.none(), to_field_name="slug", help_text="Owns the model here and answers for it."
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["team"]
        if isinstance(field, forms.ModelChoiceField):
            field.queryset = _teams()


class AcknowledgeForm(CommonsForm):
    """What follows from a finding."""

    note = forms.CharField(
        label="What follows from it", max_length=500, widget=forms.Textarea(attrs={"rows": 3}),
        help_text="Expected, or what you did: “Rewritten by the nightly run; a new version is registered”.",
    )  # fmt: skip
