"""Forms of the clusters room. What is wrong is told by the actions, next to the field."""

from __future__ import annotations

from django import forms

from apps.core.forms import CommonsForm


def _secret_text(rows: int) -> forms.Textarea:
    """A field for credentials: never filled in again, never remembered by the browser."""
    return forms.Textarea(attrs={"rows": rows, "autocomplete": "off", "spellcheck": "false"})


class CredentialsForm(CommonsForm):
    """A kubeconfig, or address, CA and token."""

    kubeconfig = forms.CharField(
        required=False,
        max_length=300_000,
        widget=_secret_text(6),
        help_text="The whole text, with a service account's token in it. Leave it empty to fill in the fields below.",
    )
    api_url = forms.CharField(label="API address", required=False, max_length=300, help_text="https://…:6443")
    ca_certificate = forms.CharField(
        label="CA certificate", required=False, max_length=100_000, widget=_secret_text(4), help_text="PEM"
    )
    token = forms.CharField(
        required=False,
        max_length=20_000,
        widget=forms.PasswordInput(render_value=False, attrs={"autocomplete": "off"}),
        help_text="Of a service account. It is encrypted and never shown again.",
    )

    def access(self) -> dict[str, str]:
        """The fields as the actions take them."""
        return {key: self.cleaned_data[key] for key in ("kubeconfig", "api_url", "ca_certificate", "token")}


class ClusterForm(CredentialsForm):
    """A new cluster."""

    name = forms.CharField(max_length=200, help_text="As people call it.")
    slug = forms.CharField(
        label="Short name", max_length=40, required=False, help_text="In addresses; from the name if left empty."
    )
    region = forms.CharField(max_length=60, required=False)
    field_order = ["name", "slug", "region", "kubeconfig", "api_url", "ca_certificate", "token"]


class PauseForm(CommonsForm):
    """Why a cluster is paused."""

    reason = forms.CharField(max_length=300, required=False, help_text="Everybody who waits for this cluster reads it.")
