"""Forms of changes of units and teams."""

from __future__ import annotations

from typing import Any

from django import forms

from apps.core.forms import CommonsForm, UtcDateTimeField
from apps.teams.models import Team, Unit

_REASON = forms.Textarea(attrs={"rows": 2})


class ArchiveForm(CommonsForm):
    """When, and why."""

    effective_at = UtcDateTimeField(label="From", required=False, help_text="Empty: at once.")
    reason = forms.CharField(label="Reason", max_length=500, widget=_REASON, help_text="For the audit trail.")


class ChangeUnitForm(CommonsForm):
    """Name, cost centre and place of a unit."""

    name = forms.CharField(label="Name", max_length=200)
    cost_centre = forms.CharField(label="Cost centre", max_length=50, required=False)
    unit = forms.ModelChoiceField(
        label="Part of", queryset=Unit.objects.none(), required=False, to_field_name="slug", empty_label="The top"
    )
    effective_at = UtcDateTimeField(
        label="From",
        required=False,
        help_text="Empty: at once. Hours before keep the unit, the names and the cost centre they had.",
    )
    reason = forms.CharField(label="Reason", max_length=500, widget=_REASON, help_text="For the audit trail.")

    field_order = ["name", "cost_centre", "unit", "effective_at", "reason"]

    def __init__(self, *args: Any, units: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["unit"].queryset = units  # type: ignore[attr-defined]  # a ModelChoiceField


class ChangeTeamForm(ChangeUnitForm):
    """Name, cost centre and unit of a team."""

    cost_centre = forms.CharField(label="Cost centre", max_length=50)
    unit = forms.ModelChoiceField(label="Unit", queryset=Unit.objects.none(), to_field_name="slug", empty_label=None)


def wish_fields(subject: Team | Unit) -> dict[str, Any]:
    """Return what the form shows first."""
    above = subject.unit if isinstance(subject, Team) else subject.parent
    return {
        "name": subject.name,
        "cost_centre": subject.cost_centre,
        "unit": above.slug if above is not None else "",
    }
