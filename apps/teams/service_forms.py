"""Forms of accounts of programs."""

from __future__ import annotations

from typing import Any

from django import forms

from apps.accounts.forms import TokenForm
from apps.core.forms import CommonsForm, UtcDateTimeField, WholeNumberField
from apps.teams.choices import Role
from apps.teams.service_rules import OVERLAP_MAX_DAYS, roles_for


class ServiceAccountForm(CommonsForm):
    """A new account of a program."""

    team = forms.ChoiceField(label="Kept by", choices=[], help_text="Its leads make its tokens and hear when they end.")
    name = forms.CharField(label="Name", max_length=100, help_text="The program: “Training pipeline”, say.")
    purpose = forms.CharField(
        label="Purpose", max_length=500, widget=forms.Textarea(attrs={"rows": 3}), help_text="What it does here."
    )
    role = forms.ChoiceField(
        label="Role",
        choices=[],
        help_text="Of its team, without anything that decides. The platform's programs read as auditors do.",
    )

    def __init__(self, *args: Any, teams: Any, platform: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        places = [(team.slug, team.name) for team in teams]
        roles = [*(roles_for(True) if places else ()), *(roles_for(None) if platform else ())]
        self.fields["team"].choices = [*places, *([("", "The platform")] if platform else [])]  # type: ignore[attr-defined]  # a ChoiceField
        self.fields["team"].required = not platform
        self.fields["role"].choices = [(role, Role(role).label) for role in roles]  # type: ignore[attr-defined]  # a ChoiceField


class ServiceRoleForm(CommonsForm):
    """Another role."""

    role = forms.ChoiceField(label="Role", choices=[])
    reason = forms.CharField(label="Reason", max_length=500, widget=forms.Textarea(attrs={"rows": 2}))

    def __init__(self, *args: Any, roles: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["role"].choices = [(role, Role(role).label) for role in roles]  # type: ignore[attr-defined]  # a ChoiceField


class ServiceTokenForm(TokenForm):
    """A token of a program's account: what its maker holds there is what it can carry."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields[
            "permissions"
        ].help_text = (
            "You can hand on what you hold there yourself. Choose nothing: it carries all that the account may do."
        )


class RotateForm(CommonsForm):
    """How long the old token stays in use beside the new one."""

    overlap_days = WholeNumberField(
        label="The old one ends in",
        unit="days",
        min_value=0,
        max_value=OVERLAP_MAX_DAYS,
        initial=3,
        help_text=f"At most {OVERLAP_MAX_DAYS}; 0 ends it at once.",
    )
    expires_at = UtcDateTimeField(
        label="The new one is valid until", required=False, help_text="Empty: as long as the old one was made for."
    )
