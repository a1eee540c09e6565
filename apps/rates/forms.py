"""The form that publishes a rate card: a price per flavour that the cluster offers."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django import forms
from django.conf import settings

from apps.clusters.models import Cluster, Flavour
from apps.core.canonical import digest_of
from apps.core.forms import AmountField, CommonsForm, UtcDateTimeField
from apps.core.money import Money


class PublishCardForm(CommonsForm):
    """Name, start and prices. `confirm` carries the digest of what the person has seen in the preview."""

    name = forms.CharField(max_length=200, help_text="Such as “Prices 2027”. Statements name it.")
    valid_from = UtcDateTimeField(label="In force from", help_text="Now or later: a price in force never changes.")
    valid_until = UtcDateTimeField(
        label="In force until", required=False, help_text="Empty: until a later rate card replaces it."
    )
    note = forms.CharField(max_length=500, required=False, widget=forms.Textarea(attrs={"rows": 2}))
    confirm = forms.CharField(required=False, widget=forms.HiddenInput)

    def __init__(self, *args: Any, cluster: Cluster, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cluster = cluster
        self.flavours = list(Flavour.objects.filter(pools__cluster=cluster).distinct().order_by("name", "pk"))
        for flavour in self.flavours:
            self.fields[f"price_{flavour.pk}"] = AmountField(
                currency=f"{settings.COMMONS_CURRENCY} per hour",
                label=flavour.name,
                required=False,
                decimal_places=8,
                help_text="Per hour of one unit. Empty: this card leaves the flavour's price as it is.",
            )

    @property
    def prices(self) -> dict[int, Decimal]:
        """Flavour id → price, of those that were filled in."""
        found = {flavour.pk: self.cleaned_data.get(f"price_{flavour.pk}") for flavour in self.flavours}
        return {pk: amount for pk, amount in found.items() if amount is not None}

    @property
    def moneys(self) -> dict[int, Money]:
        """Flavour id → hourly price."""
        return {pk: Money(amount, settings.COMMONS_CURRENCY) for pk, amount in self.prices.items()}

    @property
    def fingerprint(self) -> str:
        """The digest of what would be published: a preview is of exactly this."""
        data = self.cleaned_data
        return digest_of(
            [data["name"], data["valid_from"], data.get("valid_until"), data.get("note", ""), list(self.prices.items())]
        )

    def clean(self) -> dict[str, Any]:
        """Ask for at least one price."""
        data = super().clean() or self.cleaned_data
        if not self.errors and not self.prices:
            raise forms.ValidationError("Enter a price for at least one flavour.")
        return data
