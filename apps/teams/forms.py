"""Forms of the teams room."""

from __future__ import annotations

from typing import Any

from django import forms

from apps.accounts.models import User
from apps.core.forms import CommonsForm, UtcDateTimeField
from apps.teams.choices import SCOPES, Role
from apps.teams.models import Team, Unit
from apps.teams.selectors import permissions_by_room

SLUG_HELP = "Small letters, digits and dashes. It stands in addresses and never changes."


class UnitForm(CommonsForm):
    """A new business unit."""

    name = forms.CharField(label="Name", max_length=200)
    slug = forms.CharField(label="Short name", max_length=63, help_text=SLUG_HELP)
    parent = forms.ModelChoiceField(
        label="Part of", queryset=Unit.objects.none(), required=False, to_field_name="slug", empty_label="The top"
    )
    cost_centre = forms.CharField(label="Cost centre", max_length=50, required=False)

    def __init__(self, *args: Any, units: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["parent"].queryset = units  # type: ignore[attr-defined]  # a ModelChoiceField


class TeamForm(CommonsForm):
    """A new team."""

    name = forms.CharField(label="Name", max_length=200)
    slug = forms.CharField(
        label="Short name", max_length=40, help_text=f"{SLUG_HELP} The team's namespaces begin with it."
    )
    cost_centre = forms.CharField(
        label="Cost centre", max_length=50, help_text="Pays for what the team uses; charges keep the one of their hour."
    )


class MemberForm(CommonsForm):
    """A new member, by e-mail address."""

    user = forms.EmailField(label="E-mail address", max_length=254, help_text="Of a person with an account.")
    since = UtcDateTimeField(label="From", required=False, help_text="Empty: from now on.")
    until = UtcDateTimeField(label="Until", required=False, help_text="Empty: until somebody takes them off.")


class GrantForm(CommonsForm):
    """A role for a person, where, and until when."""

    user = forms.EmailField(label="E-mail address", max_length=254, help_text="Of a person with an account.")
    role = forms.ChoiceField(
        label="Role", choices=[("", "Choose a role"), *((r.value, r.label) for r in Role if r != Role.MEMBER)]
    )
    scope = forms.ChoiceField(label="Where", choices=[])
    starts_at = UtcDateTimeField(label="From", required=False, help_text="Empty: from now on.")
    expires_at = UtcDateTimeField(
        label="Until", required=False, help_text="Empty: until it is revoked. It counts for nothing from that moment."
    )
    reason = forms.CharField(
        label="Reason", max_length=500, widget=forms.Textarea(attrs={"rows": 2}), help_text="For the audit trail."
    )

    def __init__(self, *args: Any, units: Any, teams: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["scope"].choices = [  # type: ignore[attr-defined]  # a ChoiceField
            ("installation", "Whole installation"),
            ("Units, with everything below", [(f"unit:{unit.slug}", unit.name) for unit in units]),
            ("Teams", [(f"team:{team.slug}", team.name) for team in teams]),
        ]
        self.fields["role"].help_text = "; ".join(
            f"{Role(role).label}: {' or '.join(places)}" for role, places in SCOPES.items() if role != Role.MEMBER
        )


class ReasonForm(CommonsForm):
    """Why."""

    reason = forms.CharField(
        label="Reason", max_length=500, widget=forms.Textarea(attrs={"rows": 2}), help_text="For the audit trail."
    )


class ExtendForm(ReasonForm):
    """Another end of a role."""

    expires_at = UtcDateTimeField(label="Until", required=False, help_text="Empty: until it is revoked.")
    field_order = ["expires_at", "reason"]


class WhyForm(forms.Form):
    """A question: may this person do that there?"""

    permission = forms.ChoiceField(label="May they", choices=[])
    place = forms.ChoiceField(label="Where", choices=[], required=False)

    def __init__(self, *args: Any, units: Any, teams: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["permission"].choices = permissions_by_room()  # type: ignore[attr-defined]  # a ChoiceField
        self.fields["place"].choices = [  # type: ignore[attr-defined]  # a ChoiceField
            ("", "Anywhere"),
            ("Teams", [(f"team:{team.slug}", team.name) for team in teams]),
            ("Units", [(f"unit:{unit.slug}", unit.name) for unit in units]),
        ]


def person_by_email(email: str) -> int:
    """Return the key of the person with this address, or 0, which no person has."""
    return User.objects.active().filter(email__iexact=email).values_list("pk", flat=True).first() or 0


def place_of(value: str, units: Any, teams: Any) -> Team | Unit | None:
    """Return the unit or team behind "unit:slug" or "team:slug" among the given rows; None for anything else."""
    kind, _, slug = value.partition(":")
    found: Team | Unit | None = None
    if kind == "team":
        found = teams.filter(slug=slug).select_related("unit").first()
    elif kind == "unit":
        found = units.filter(slug=slug).first()
    return found
