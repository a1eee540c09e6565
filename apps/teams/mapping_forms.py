"""Forms of group roles."""

from __future__ import annotations

from typing import Any

from django import forms

from apps.accounts.models import IdentityProvider
from apps.core.forms import CommonsForm
from apps.teams.choices import SCOPES, Role
from apps.teams.mapping_actions import Draft


class MappingForm(CommonsForm):
    """Which group of which provider holds which role, and where."""

    provider = forms.ModelChoiceField(
        label="Identity provider", queryset=IdentityProvider.objects.none(), to_field_name="slug", empty_label="Choose"
    )
    group = forms.CharField(
        label="Group",
        max_length=255,
        help_text="Exactly as the provider writes it: its name, or its id, which survives a new name.",
    )
    role = forms.ChoiceField(label="Role", choices=[("", "Choose a role"), *Role.choices])
    scope = forms.ChoiceField(label="Where", choices=[])
    reason = forms.CharField(
        label="Reason", max_length=500, widget=forms.Textarea(attrs={"rows": 2}), help_text="For the audit trail."
    )
    seen = forms.CharField(required=False, max_length=64, widget=forms.HiddenInput)

    def __init__(self, *args: Any, providers: Any, units: Any, teams: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.units, self.teams = units, teams
        self.fields["provider"].queryset = providers  # type: ignore[attr-defined]  # a ModelChoiceField
        self.fields["scope"].choices = [  # type: ignore[attr-defined]  # a ChoiceField
            ("installation", "Whole installation"),
            ("Units, with everything below", [(f"unit:{unit.slug}", unit.name) for unit in units]),
            ("Teams", [(f"team:{team.slug}", team.name) for team in teams]),
        ]
        self.fields["role"].help_text = "; ".join(
            f"{Role(role).label}: {' or '.join(places)}" for role, places in SCOPES.items()
        )

    def draft(self) -> Draft:
        """Return what was typed, once it is valid."""
        data = self.cleaned_data
        kind, _, slug = data["scope"].partition(":")
        rows = self.teams if kind == "team" else self.units
        found = rows.filter(slug=slug).values_list("pk", flat=True).first() if slug else None
        return Draft(
            provider_id=data["provider"].pk,
            group=data["group"],
            role=data["role"],
            unit_id=found if kind == "unit" else None,
            team_id=found if kind == "team" else None,
        )
