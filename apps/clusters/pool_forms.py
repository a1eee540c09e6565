"""Forms of pools. What is wrong is told by the actions, next to the field."""

from __future__ import annotations

from typing import Any

from django import forms

from apps.clusters.choices import PoolKind
from apps.clusters.models import Cluster, Flavour, Pool
from apps.core.forms import CommonsForm, UtcDateTimeField, WholeNumberField


class _PoolSettings(CommonsForm):
    """What an admin says of a pool, new or not."""

    kind = forms.ChoiceField(
        choices=PoolKind.choices,
        initial=PoolKind.FIXED,
        help_text="Fixed: its nodes are there. Reserved: until a reservation ends. Elastic: nodes come when asked for.",
    )
    max_gpus = WholeNumberField(
        label="Grows to", required=False, min_value=0, max_value=1_000_000,
        help_text="Elastic pools: as many GPUs (of a CPU class: cores) as can be had.",
    )  # fmt: skip
    startup_minutes = WholeNumberField(
        label="Starts in", unit="minutes", required=False, min_value=0, max_value=24 * 60,
        help_text="Elastic pools: until a new node can run pods.",
    )  # fmt: skip
    reserved_until = UtcDateTimeField(
        label="Reserved until", required=False, help_text="Reserved pools: what is promised beyond it is pointed out."
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
    open_names = forms.BooleanField(
        required=False, label="Open names", help_text="Shows the names of foreign teams on the pool's page."
    )

    def pool_settings(self) -> dict[str, Any]:
        """The fields as the actions take them."""
        data = self.cleaned_data
        return {
            "kind": data["kind"],
            "max_gpus": data["max_gpus"],
            "startup_minutes": data["startup_minutes"] or 0,
            "reserved_until": data["reserved_until"],
            "commit_factor": data["commit_factor"],
            "best_effort": data["best_effort"],
            "open_names": data["open_names"],
        }


class PoolForm(_PoolSettings):
    """A new pool."""

    cluster = forms.ModelChoiceField(queryset=Cluster.objects.none(), empty_label=None)
    gpu_model = forms.CharField(
        label="GPU model or CPU class",
        max_length=120,
        required=False,
        help_text="As its flavours name it; a GPU model as the nodes' label nvidia.com/gpu.product has it.",
    )
    flavours = forms.ModelMultipleChoiceField(
        queryset=Flavour.objects.none(), required=False, widget=forms.CheckboxSelectMultiple
    )
    field_order = ["cluster", "gpu_model", "flavours", "kind"]

    def __init__(self, *args: Any, clusters: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["cluster"].queryset = clusters.order_by("name", "pk")  # type: ignore[attr-defined]  # a choice field
        self.fields["flavours"].queryset = Flavour.objects.order_by("name", "pk")  # type: ignore[attr-defined]  # likewise


class PoolEditForm(_PoolSettings):
    """A pool's settings, and further flavours to offer from it."""

    flavours = forms.ModelMultipleChoiceField(
        label="Offer, too",
        queryset=Flavour.objects.none(),
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text="Flavours of the same model. What is offered stays offered: teams may hold it.",
    )

    def __init__(self, *args: Any, pool: Pool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        more = Flavour.objects.filter(gpu_model=pool.gpu_model, device_class=pool.device_class).exclude(pools=pool)
        if more.exists():
            self.fields["flavours"].queryset = more.order_by("name", "pk")  # type: ignore[attr-defined]  # a choice field
        else:
            del self.fields["flavours"]


class CapacityForm(CommonsForm):
    """How many GPUs of a pool may be promised, from when."""

    gpus = WholeNumberField(label="Committable", unit="GPUs", min_value=0, max_value=1_000_000)
    valid_from = UtcDateTimeField(label="From")
    valid_until = UtcDateTimeField(
        label="Until", required=False, help_text="Empty: until the next planned change. Afterwards it is as before."
    )
    reason = forms.CharField(max_length=300, required=False, help_text="Such as “Rack 12 joins” or “cloud burst”.")

    def __init__(self, *args: Any, pool: Pool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["gpus"].widget.addon = pool.unit  # the unit beside the number
        if pool.elastic and pool.max_gpus is not None:
            self.fields["gpus"].help_text = f"At most {pool.max_gpus:,}: that is how far the pool can grow."


class ProposalsForm(CommonsForm):
    """Which proposed flavours to make."""

    keys = forms.MultipleChoiceField(
        required=True,
        widget=forms.CheckboxSelectMultiple,
        error_messages={"required": "Choose at least one flavour.", "invalid_choice": "The nodes changed meanwhile."},
    )

    def __init__(self, *args: Any, keys: list[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["keys"].choices = [(key, key) for key in keys]  # type: ignore[attr-defined]  # a choice field
