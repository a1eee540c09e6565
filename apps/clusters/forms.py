"""Forms of the clusters room. What is wrong is told by the actions, next to the field."""

from __future__ import annotations

import json
from typing import Any

from django import forms

from apps.clusters.choices import PoolKind, Sharing
from apps.clusters.models import Cluster, Flavour
from apps.core.forms import CommonsForm, UtcDateTimeField, WholeNumberField


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


class FlavourForm(CommonsForm):
    """A new flavour."""

    name = forms.CharField(max_length=120, required=False, help_text="As people choose it: “A100 80 GB”.")
    slug = forms.CharField(label="Short name", max_length=40, required=False, help_text="Such as a100-80gb.")
    gpu_model = forms.CharField(
        label="GPU model",
        max_length=120,
        required=False,
        help_text="As the nodes' label nvidia.com/gpu.product has it.",
    )
    resource_name = forms.CharField(label="Resource", max_length=120, initial="nvidia.com/gpu")
    sharing = forms.ChoiceField(choices=Sharing.choices, initial=Sharing.EXCLUSIVE)
    numerator = WholeNumberField(label="Share of a device: parts", initial=1, min_value=1, max_value=1000)
    denominator = WholeNumberField(label="… out of", initial=1, min_value=1, max_value=1000)
    memory_mib = WholeNumberField(label="Memory", unit="MiB", initial=0, min_value=0, max_value=100_000_000)
    node_labels = forms.CharField(
        label="Node labels", required=False, max_length=4000, widget=forms.Textarea(attrs={"rows": 3}),
        help_text="One key=value a line: where its pods run.",
    )  # fmt: skip
    tolerations = forms.CharField(
        required=False, max_length=4000, widget=forms.Textarea(attrs={"rows": 3}),
        help_text='JSON list, such as [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}].',
    )  # fmt: skip

    def clean_node_labels(self) -> dict[str, str]:
        """Return the labels as a map."""
        labels: dict[str, str] = {}
        for line in self.cleaned_data["node_labels"].splitlines():
            if line.strip():
                key, separator, value = line.strip().partition("=")
                if not separator:
                    raise forms.ValidationError(f"{line.strip()}: write key=value.")
                labels[key.strip()] = value.strip()
        return labels

    def clean_tolerations(self) -> list[dict[str, Any]]:
        """Return the tolerations as a list of maps."""
        text = self.cleaned_data["tolerations"].strip()
        try:
            parsed = json.loads(text) if text else []
        except ValueError as error:
            raise forms.ValidationError("This is not JSON.") from error
        if not isinstance(parsed, list) or not all(isinstance(item, dict) for item in parsed):
            raise forms.ValidationError("A JSON list of tolerations.")
        return parsed


class PoolForm(CommonsForm):
    """A new pool."""

    cluster = forms.ModelChoiceField(queryset=Cluster.objects.none(), empty_label=None)
    gpu_model = forms.CharField(
        label="GPU model",
        max_length=120,
        required=False,
        help_text="As the nodes' label nvidia.com/gpu.product has it.",
    )
    kind = forms.ChoiceField(choices=PoolKind.choices, initial=PoolKind.FIXED)
    flavours = forms.ModelMultipleChoiceField(
        queryset=Flavour.objects.none(), required=False, widget=forms.CheckboxSelectMultiple
    )
    commit_factor = forms.DecimalField(
        max_digits=4, decimal_places=2, initial="1.00",
        help_text="How much of the committable capacity may be promised; 1.00 promises what is there.",
    )  # fmt: skip
    best_effort = forms.BooleanField(
        required=False,
        label="Best effort",
        help_text="Allows borrowing without a queue that takes GPUs back; then nothing of it is called guaranteed.",
    )

    def __init__(self, *args: Any, clusters: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["cluster"].queryset = clusters.order_by("name", "pk")  # type: ignore[attr-defined]  # a choice field
        self.fields["flavours"].queryset = Flavour.objects.order_by("name", "pk")  # type: ignore[attr-defined]  # likewise


class CapacityForm(CommonsForm):
    """How many GPUs of a pool may be promised, from when."""

    gpus = WholeNumberField(label="Committable", unit="GPUs", min_value=0, max_value=1_000_000)
    valid_from = UtcDateTimeField(label="From")
    valid_until = UtcDateTimeField(
        label="Until", required=False, help_text="Empty: until the next planned change. Afterwards it is as before."
    )
    reason = forms.CharField(max_length=300, required=False, help_text="Such as “Rack 12 joins” or “cloud burst”.")
