"""Forms of rate cards: prices per flavour, resource and capacity type, factors of service classes; decisions; capex."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any, NamedTuple

from django import forms
from django.conf import settings
from django.forms import BoundField

from apps.clusters.models import Cluster, Flavour
from apps.core.canonical import digest_of
from apps.core.forms import AmountField, CommonsForm, UtcDateField, UtcDateTimeField, WholeNumberField
from apps.rates.choices import CapacityType, Resource, ServiceClass
from apps.rates.publishing import FACTOR_PLACES, PriceLine, flavours_of
from apps.rates.stored_lines import dump_lines

#: Resources that nodes of every capacity type have; storage and egress are bought apart.
_OF_NODES = (Resource.CPU, Resource.MEMORY)


class GridRow(NamedTuple):
    """A flavour or resource with its price fields: for every type, then per capacity type (None: there is none)."""

    label: str
    cells: list[BoundField | None]


class PricesForm(CommonsForm):
    """Prices per flavour or resource and capacity type, and the factors of service classes."""

    def __init__(self, *args: Any, cluster: Cluster, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cluster = cluster
        self.flavours = flavours_of(cluster)
        self._names: list[tuple[str, int | None, str, str]] = []
        for flavour in self.flavours.values():
            for capacity_type in ("", *CapacityType.values):
                self._add(flavour.pk, "", capacity_type, str(flavour))
        for resource in Resource:
            for capacity_type in ("", *(CapacityType.values if resource in _OF_NODES else ())):
                self._add(None, str(resource), capacity_type, str(resource.label))
        for one in ServiceClass:
            self.fields[f"factor_{one}"] = forms.DecimalField(
                label=one.label,
                required=False,
                max_digits=8,
                decimal_places=FACTOR_PLACES,
                error_messages={"invalid": "Enter a factor, such as 1.2."},
                help_text="Price of the class = price × factor. Empty: the class has no price of its own.",
            )

    def _add(self, flavour_id: int | None, resource: str, capacity_type: str, label: str) -> None:
        line = PriceLine(flavour_id, resource, capacity_type, Decimal(0))
        words = f"{label}, {CapacityType(capacity_type).label if capacity_type else 'every capacity type'}"
        self.fields[line.field] = AmountField(
            currency=settings.COMMONS_CURRENCY, label=words, required=False, decimal_places=8
        )
        self.fields[line.field].widget.attrs.update({"aria-label": words, "class": "figure"})
        self._names.append((line.field, flavour_id, resource, capacity_type))

    @property
    def currency(self) -> str:
        """The ledger's."""
        return str(settings.COMMONS_CURRENCY)

    @property
    def capacity_types(self) -> list[str]:
        """The headings of the grid."""
        return ["Every type", *(str(label) for label in CapacityType.labels)]

    @property
    def grid(self) -> list[GridRow]:
        """The price fields by flavour and resource."""
        return [*self._grid_of(self.flavours), *self._grid_of(())]

    def _grid_of(self, flavours: Any) -> Iterator[GridRow]:
        if flavours:
            for pk, flavour in self.flavours.items():
                names = [PriceLine(pk, "", one, Decimal(0)).field for one in ("", *CapacityType.values)]
                yield GridRow(str(flavour), [self[name] for name in names])
            return
        for resource in Resource:
            names = [PriceLine(None, str(resource), one, Decimal(0)).field for one in ("", *CapacityType.values)]
            yield GridRow(str(resource.label), [self[name] if name in self.fields else None for name in names])

    @property
    def plain_fields(self) -> list[BoundField]:
        """The other visible fields, above the grid."""
        return [field for field in self.visible_fields() if not field.name.startswith(("price_", "factor_"))]

    @property
    def factor_fields(self) -> list[BoundField]:
        """The factors, below the grid."""
        return [self[f"factor_{one}"] for one in ServiceClass]

    @property
    def factors(self) -> dict[str, Decimal]:
        """Service class → factor, of those that were filled in."""
        found = {str(one): self.cleaned_data.get(f"factor_{one}") for one in ServiceClass}
        return {name: factor for name, factor in found.items() if factor is not None}

    @property
    def lines(self) -> list[PriceLine]:
        """The prices that were filled in."""
        capex, of = self.cleaned_data.get("capex", ""), self.cleaned_data.get("capex_flavour")
        return [
            PriceLine(
                flavour_id, resource, capacity_type, amount, self.factors, capex if flavour_id == of and of else ""
            )
            for name, flavour_id, resource, capacity_type in self._names
            if (amount := self.cleaned_data.get(name)) is not None
        ]

    def clean(self) -> dict[str, Any]:
        """Ask for at least one price."""
        data = super().clean() or self.cleaned_data
        if not self.errors and not self.lines:
            raise forms.ValidationError("Enter a price for at least one flavour or resource.")
        return data


class ProposeCardForm(PricesForm):
    """Name, start and prices. `confirm` carries the digest of what the person has seen in the preview."""

    name = forms.CharField(max_length=200, help_text="Such as “Prices 2027”. Statements name it.")
    valid_from = UtcDateTimeField(
        label="In force from", help_text="Leave the second person time: a price never begins in the past."
    )
    valid_until = UtcDateTimeField(
        label="In force until", required=False, help_text="Empty: until a later rate card replaces it."
    )
    note = forms.CharField(max_length=500, required=False, widget=forms.Textarea(attrs={"rows": 2}))
    confirm = forms.CharField(required=False, widget=forms.HiddenInput)
    capex = forms.UUIDField(required=False, widget=forms.HiddenInput)
    capex_flavour = forms.IntegerField(required=False, widget=forms.HiddenInput)

    def clean_capex(self) -> str:
        """Keep the schedule's uid as text."""
        found = self.cleaned_data["capex"]
        return str(found) if found else ""

    @property
    def fingerprint(self) -> str:
        """The digest of what would be proposed: a preview is of exactly this."""
        data = self.cleaned_data
        return digest_of(
            [
                data["name"],
                data["valid_from"],
                data.get("valid_until"),
                data.get("note", ""),
                dump_lines(self.lines, self.flavours),
            ]
        )


class DecisionForm(CommonsForm):
    """Approve or withdraw; `digest` is of the bytes that the person saw."""

    digest = forms.CharField(required=False, widget=forms.HiddenInput)


class RejectForm(CommonsForm):
    """Reject with a reason."""

    reason = forms.CharField(
        max_length=500, widget=forms.Textarea(attrs={"rows": 3}), help_text="The proposer reads it in the mail."
    )


class CapexForm(CommonsForm):
    """What owned GPUs cost. The flavour is the whole-GPU one whose price it gives."""

    name = forms.CharField(max_length=200, help_text="Such as “A100 nodes bought in 2026”.")
    gpus = WholeNumberField(unit="GPUs", min_value=1, label="GPUs")
    in_service_from = UtcDateField(label="In service from")
    life_months = WholeNumberField(unit="months", min_value=1, max_value=240, label="Life")

    def __init__(self, *args: Any, cluster: Cluster, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["flavour"] = forms.ModelChoiceField(
            Flavour.objects.filter(pools__cluster=cluster).distinct().order_by("name", "pk"),
            label="Flavour",
            help_text="The whole-GPU flavour.",
        )
        ledger = settings.COMMONS_CURRENCY
        self.fields["purchase"] = AmountField(
            currency=ledger, label="Purchase price", decimal_places=2, help_text="For all GPUs, with their nodes."
        )
        self.fields["residual"] = AmountField(
            currency=ledger, label="Residual value", decimal_places=2, help_text="What they are worth after their life."
        )
        self.fields["power_watts"] = WholeNumberField(
            unit="W", min_value=0, label="Power per GPU", help_text="With its share of the node."
        )
        self.fields["pue"] = forms.DecimalField(
            max_digits=5, decimal_places=3, min_value=1, label="PUE", help_text="Facility power ÷ IT power, at least 1."
        )
        self.fields["per_kwh"] = AmountField(currency=f"{ledger} per kWh", label="Price of energy", decimal_places=6)
        self.fields["operations_monthly"] = AmountField(
            currency=f"{ledger} a month",
            label="Operations",
            decimal_places=2,
            help_text="Staff, space, support contracts, for all GPUs.",
        )
        self.fields["sellable_percent"] = forms.DecimalField(
            max_digits=4,
            decimal_places=1,
            min_value=Decimal("0.1"),
            max_value=100,
            label="Sellable share",
            help_text="Per cent of hours expected to be sold; the price of the others is spread over these.",
        )
        self.order_fields(["name", "flavour"])
