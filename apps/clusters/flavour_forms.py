"""Forms of flavours. What is wrong is told by the actions, next to the field."""

from __future__ import annotations

import json
from typing import Any

from django import forms

from apps.clusters.choices import DeviceClass, Sharing
from apps.core.forms import CommonsForm, WholeNumberField


class FlavourForm(CommonsForm):
    """A new flavour."""

    name = forms.CharField(max_length=120, required=False, help_text="As people choose it: “A100 80 GB”.")
    slug = forms.CharField(label="Short name", max_length=40, required=False, help_text="Such as a100-80gb.")
    device_class = forms.ChoiceField(
        label="Counted in",
        choices=[(DeviceClass.GPU.value, "GPUs"), (DeviceClass.CPU.value, "Cores of a CPU class")],
        initial=DeviceClass.GPU,
        required=False,
    )
    gpu_model = forms.CharField(
        label="GPU model or CPU class",
        max_length=120,
        required=False,
        help_text="A GPU model as the nodes' label nvidia.com/gpu.product has it; a CPU class as you call it.",
    )
    resource_name = forms.CharField(
        label="Resource", max_length=120, initial="nvidia.com/gpu", help_text="Of a CPU class: cpu."
    )
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

    def clean_device_class(self) -> str:
        """Return the class; GPUs where nothing was said."""
        return self.cleaned_data["device_class"] or DeviceClass.GPU.value

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
