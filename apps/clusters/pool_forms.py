"""Forms of pools. What is wrong is told by the actions, next to the field."""

from __future__ import annotations

from typing import Any

from django import forms

from apps.clusters.choices import PoolKind
from apps.clusters.models import Cluster, Flavour
from apps.core.forms import CommonsForm, UtcDateTimeField, WholeNumberField


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
