"""Forms of the costs room."""

from __future__ import annotations

from datetime import date
from typing import Any

from django import forms
from django.conf import settings

from apps.core.forms import AmountField, CommonsForm
from apps.metering import billing


class BudgetForm(CommonsForm):
    """What a team may spend a month, from a month on."""

    month_from = forms.CharField(
        max_length=7,
        label="From month",
        widget=forms.TextInput(attrs={"type": "month"}),
        help_text="It counts from this month until the next budget of the team begins.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["amount"] = AmountField(
            currency=settings.COMMONS_CURRENCY,
            label="Budget a month",
            help_text="The cost of allocated GPU time is compared with it. 0 means that nothing may be spent.",
        )
        self.order_fields(["amount", "month_from"])

    def clean_month_from(self) -> date:
        """Read the month."""
        try:
            return billing.parse_month(self.cleaned_data["month_from"])
        except ValueError as error:
            raise forms.ValidationError("Enter a month, such as 2026-12.") from error
