"""The form of a budget: two limits, from when, and what is done at each step."""

from __future__ import annotations

from datetime import date
from typing import Any

from django import forms
from django.conf import settings

from apps.core.forms import AmountField, CommonsForm, WholeNumberField
from apps.costs import budget_rules as rules
from apps.metering import billing


def field_of(step: str) -> str:
    """Return the name of a step's field."""
    return f"at_{step}"


class BudgetForm(CommonsForm):
    """What a team or a unit may spend a month, from a month on."""

    gpu_hours = WholeNumberField(
        unit="GPU-hours",
        label="GPU-hours a month",
        required=False,
        help_text="Allocated GPU time is compared with it. Empty: no limit in GPU-hours.",
    )
    month_from = forms.CharField(
        max_length=7,
        label="From month",
        widget=forms.TextInput(attrs={"type": "month"}),
        help_text="It counts from this month until the next budget begins.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["amount"] = AmountField(
            currency=settings.COMMONS_CURRENCY,
            required=False,
            label="Budget a month",
            help_text="What is charged to the team is compared with it. 0 means that nothing may be spent; "
            "empty: no limit in money.",
        )
        for step in rules.STEPS:
            self.fields[field_of(step)] = forms.MultipleChoiceField(
                label=f"At {rules.step_label(step)}" if step != rules.FORECAST else "When the forecast lies beyond it",
                choices=[(name, label) for name, label, _ in rules.ACTIONS],
                required=False,
                widget=forms.CheckboxSelectMultiple,
            )
        self.order_fields(["amount", "gpu_hours", "month_from", *(field_of(step) for step in rules.STEPS)])

    def clean_month_from(self) -> date:
        """Read the month."""
        try:
            return billing.parse_month(self.cleaned_data["month_from"])
        except ValueError as error:
            raise forms.ValidationError("Enter a month, such as 2026-12.") from error

    def actions(self) -> dict[str, list[str]]:
        """Return what is done at each step."""
        return {step: list(self.cleaned_data[field_of(step)]) for step in rules.STEPS}
