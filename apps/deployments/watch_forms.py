"""Forms of objectives."""

from __future__ import annotations

from typing import Any

from django import forms

from apps.core.forms import CommonsForm, WholeNumberField
from apps.deployments.choices import ObjectiveAction, ObjectiveKind
from apps.deployments.objectives import MAX_WINDOW_HOURS


class ObjectiveChangeForm(CommonsForm):
    """What an objective asks."""

    target = forms.DecimalField(
        label="Target", max_digits=14, decimal_places=6, min_value=0,
        help_text="Availability, error rate and KS as shares of 1 (0.995 is 99.5 %); latency in ms; age in days."
        " Availability is at least this, everything else at most.",
    )  # fmt: skip
    window_hours = WholeNumberField(
        label="Window in hours", min_value=1, max_value=MAX_WINDOW_HOURS, initial=24,
        help_text="How far back is looked. The age of a version has no window.",
    )  # fmt: skip
    action = forms.ChoiceField(label="A breach does", choices=ObjectiveAction.choices)


class ObjectiveForm(ObjectiveChangeForm):
    """A new objective."""

    kind = forms.ChoiceField(label="About", choices=ObjectiveKind.choices)
    feature = forms.CharField(
        label="Feature", required=False, max_length=100,
        help_text="Drift only: the feature as it is posted to the metric port, or “prediction”.",
    )  # fmt: skip

    field_order = ("kind", "feature", "target", "window_hours", "action", "version")


def values_of(form: Any) -> dict[str, Any]:
    """Return what the actions take of a valid form."""
    return {name: form.cleaned_data[name] for name in ("target", "window_hours", "action")}
