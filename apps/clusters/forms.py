"""Forms of the clusters room. What is wrong is told by the actions, next to the field."""

from __future__ import annotations

from typing import Any

from django import forms

from apps.clusters import regions
from apps.clusters.choices import KueueMode, Location
from apps.clusters.kubeconfigs import MAX_BYTES
from apps.core.forms import CommonsForm, UtcDateTimeField


class SecretTextarea(forms.Textarea):
    """A field for credentials: never filled in again, not after a mistake either, nor remembered by the browser."""

    def __init__(self, rows: int) -> None:
        super().__init__(attrs={"rows": rows, "autocomplete": "off", "spellcheck": "false"})

    def format_value(self, value: Any) -> str | None:
        """Return nothing: what was typed holds a token, and a page may be kept by whoever stands between."""
        return None


class CredentialsForm(CommonsForm):
    """A kubeconfig, or address, CA and token."""

    kubeconfig = forms.CharField(
        required=False,
        max_length=300_000,
        widget=SecretTextarea(6),
        help_text="The whole text, with a service account's token in it. Leave it empty to fill in the fields below.",
    )
    kubeconfig_file = forms.FileField(
        label="… or a kubeconfig file", required=False, help_text="It is read once and not kept.", allow_empty_file=True
    )
    api_url = forms.CharField(label="API address", required=False, max_length=300, help_text="https://…:6443")
    ca_certificate = forms.CharField(
        label="CA certificate",
        required=False,
        max_length=100_000,
        help_text="PEM",
        widget=forms.Textarea(attrs={"rows": 4, "autocomplete": "off", "spellcheck": "false"}),
    )
    token = forms.CharField(
        required=False,
        max_length=20_000,
        widget=forms.PasswordInput(render_value=False, attrs={"autocomplete": "off"}),
        help_text="Of a service account. It is encrypted and never shown again.",
    )

    def clean(self) -> dict[str, Any]:
        """Take the file's text as the kubeconfig."""
        data: dict[str, Any] = super().clean() or self.cleaned_data
        file = data.get("kubeconfig_file")
        if file is None:
            return data
        if (data.get("kubeconfig") or "").strip():
            self.add_error("kubeconfig_file", "Give the text or the file, not both.")
        elif file.size > MAX_BYTES:
            self.add_error("kubeconfig_file", "This is larger than any kubeconfig.")
        else:
            try:
                data["kubeconfig"] = file.read().decode("utf-8-sig")
            except UnicodeDecodeError:
                self.add_error("kubeconfig_file", "This is not a text file. A kubeconfig is YAML.")
            else:
                if not data["kubeconfig"].strip():
                    self.add_error("kubeconfig_file", "The file is empty.")
        return data

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
    field_order = [
        "name", "slug", "region", "kubeconfig", "kubeconfig_file", "api_url", "ca_certificate", "token",
    ]  # fmt: skip


class PauseForm(CommonsForm):
    """Why a cluster is paused."""

    reason = forms.CharField(max_length=300, required=False, help_text="Everybody who waits for this cluster reads it.")


class NeedsForm(forms.Form):
    """What a generated role is for; sent by GET, so that the page can be linked."""

    chosen = forms.BooleanField(required=False, initial=True, widget=forms.HiddenInput)
    stopping = forms.BooleanField(required=False, initial=True, label="Drain and stop idle workloads")
    kueue = forms.BooleanField(required=False, initial=True, label="Kueue is installed there")
    serving = forms.BooleanField(required=False, initial=True, label="KServe is installed there")
    autoscaling = forms.BooleanField(required=False, initial=True, label="KEDA is installed there")
    guard = forms.BooleanField(
        required=False, initial=False, label="Guard: the cluster itself protects what the portal owns"
    )
    routes = forms.BooleanField(required=False, initial=True, label="The Gateway API is installed there")
    enforcement = forms.BooleanField(
        required=False, initial=False, label="Enforcement: the cluster refuses models that nobody approved"
    )
    lasting_token = forms.BooleanField(
        required=False, initial=False, label="A token without end",
        help_text="Made as a Secret. Without it you create a token that ends, and the portal warns you in time.",
    )  # fmt: skip
    namespace = forms.RegexField(
        r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", initial="gpu-commons",
        error_messages={"invalid": "Lower-case letters, digits and hyphens."},
    )  # fmt: skip
    account = forms.RegexField(
        r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", initial="gpu-commons", label="Service account",
        error_messages={"invalid": "Lower-case letters, digits and hyphens."},
    )  # fmt: skip


class EditClusterForm(CommonsForm):
    """What a cluster is called and how people sign in to it."""

    name = forms.CharField(max_length=200, help_text="As people call it.")
    region = forms.CharField(max_length=60, required=False)
    location = forms.ChoiceField(
        label="Where it stands", choices=Location.choices, required=False,
        help_text="Placement rules ask for it: data that must stay on premises goes nowhere that does not say so.",
    )  # fmt: skip
    jurisdiction = forms.CharField(
        label="Jurisdiction", max_length=10, required=False,
        help_text=f"Under whose law the data are there. {regions.HINT} Empty: not stated.",
    )  # fmt: skip
    group_prefix = forms.CharField(
        max_length=60, required=False,
        help_text="Before the names of groups in role bindings, as the identity provider sends them: “gpu-commons:”."
        " A change reaches a workspace with its next change.",
    )  # fmt: skip
    identity = forms.ChoiceField(
        label="People sign in with",
        choices=[
            ("", "Nothing said"), ("oidc", "OIDC (kubectl oidc-login)"), ("exec", "A program"),
            ("token", "A token of their own"),
        ],
        required=False,
        help_text="What the kubeconfig that people download asks for. Never the portal's own credentials.",
    )  # fmt: skip
    issuer_url = forms.CharField(label="OIDC issuer", max_length=300, required=False, help_text="https://…")
    client_id = forms.CharField(label="OIDC client id", max_length=200, required=False)
    command = forms.CharField(label="Program", max_length=200, required=False, help_text="Such as aws.")
    args = forms.CharField(
        label="Its arguments", max_length=2000, required=False, widget=forms.Textarea(attrs={"rows": 3}),
        help_text="One a line.",
    )  # fmt: skip
    hint = forms.CharField(label="Where the token comes from", max_length=300, required=False)

    def provider(self) -> dict[str, Any] | None:
        """Return the identity provider as it is stored, None to leave it as it is."""
        data = self.cleaned_data
        kind = data["identity"]
        if kind == "keep":
            return None
        if kind == "oidc":
            return {"type": kind, "issuer_url": data["issuer_url"].strip(), "client_id": data["client_id"].strip()}
        if kind == "exec":
            lines = [line.strip() for line in data["args"].splitlines() if line.strip()]
            return {"type": kind, "command": data["command"].strip(), "args": lines}
        if kind == "token":
            return {"type": kind, "hint": data["hint"].strip()}
        return {}

    def add_invalid(self, error: Any) -> None:
        """Put what is wrong with the identity provider beside the field that says which it is."""
        if messages := error.errors.pop("identity_provider", None):
            error.errors["identity"] = messages
        super().add_invalid(error)


class KueueForm(CommonsForm):
    """How Kueue is used on a cluster."""

    mode = forms.ChoiceField(choices=KueueMode.choices, widget=forms.RadioSelect)
    namespace_labels = forms.CharField(
        label="Labels of managed namespaces", required=False, max_length=2000,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="One key=value a line: what makes this cluster's Kueue manage a namespace. Workspaces carry them.",
    )  # fmt: skip

    def clean_namespace_labels(self) -> dict[str, str]:
        """Return the labels as a map."""
        labels: dict[str, str] = {}
        for line in self.cleaned_data["namespace_labels"].splitlines():
            if line.strip():
                key, separator, value = line.strip().partition("=")
                if not separator:
                    raise forms.ValidationError(f"{line.strip()}: write key=value.")
                labels[key.strip()] = value.strip()
        return labels


class MaintenanceForm(CommonsForm):
    """When nothing is applied to a cluster, and why."""

    start = UtcDateTimeField(label="From")
    end = UtcDateTimeField(label="Until")
    reason = forms.CharField(max_length=300, required=False, help_text="Everybody who waits for this cluster reads it.")
