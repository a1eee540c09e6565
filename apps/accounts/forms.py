"""Forms of the accounts room."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from django import forms

from apps.core import clock
from apps.core.forms import CommonsForm, UtcDateTimeField


class SignInForm(CommonsForm):
    """E-mail address and password."""

    email = forms.EmailField(
        label="E-mail address",
        max_length=254,
        widget=forms.EmailInput(attrs={"autocomplete": "username", "autofocus": True}),
    )
    password = forms.CharField(
        label="Password",
        max_length=200,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )


class PasswordForm(CommonsForm):
    """The present password and a new one, typed twice."""

    current = forms.CharField(
        label="Present password",
        max_length=200,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )
    new = forms.CharField(
        label="New password",
        max_length=200,
        strip=False,
        help_text="At least 12 characters; several words are easier to remember and harder to guess.",
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )
    again = forms.CharField(
        label="New password again",
        max_length=200,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )

    def clean(self) -> dict[str, Any]:
        """Compare the two typings."""
        data = super().clean() or {}
        if data.get("new") and data.get("again") and data["new"] != data["again"]:
            self.add_error("again", "The two do not match. Type the new password again.")
        return data


class TokenForm(CommonsForm):
    """What a token is for, until when, and whether it may change things."""

    name = forms.CharField(label="Name", max_length=100, help_text="The program or script that will use it.")
    expires_at = UtcDateTimeField(label="Valid until", help_text="At most 365 days from now.")
    access = forms.ChoiceField(
        label="Access",
        choices=[("read", "Read only"), ("write", "Read and act")],
        widget=forms.RadioSelect,
        initial="read",
    )
    permissions = forms.MultipleChoiceField(
        label="Limited to",
        choices=[],
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text="The token carries what you choose and nothing else. Choose nothing: it carries all the rights.",
    )

    def __init__(self, *args: Any, held: Iterable[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["expires_at"].initial = clock.now() + timedelta(days=90)
        self.fields["permissions"].choices = permission_choices(held)  # type: ignore[attr-defined]  # a ChoiceField

    def limit(self) -> list[str] | None:
        """Return the permissions that the token is limited to, None where nothing was chosen."""
        return self.cleaned_data["permissions"] or None


def permission_choices(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return permissions as choices in words: `quotas.request.create` → "Quotas: create request"."""
    found = []
    for name in sorted(names):
        room, noun, verb = name.split(".")
        found.append((name, f"{room.capitalize()}: {verb} {noun}"))
    return found


class UserForm(CommonsForm):
    """A new account."""

    email = forms.EmailField(label="E-mail address", max_length=254, help_text="The person signs in with it.")
    display_name = forms.CharField(label="Name", max_length=200, help_text="As others will see it.")


class ReasonForm(CommonsForm):
    """Why something is done to somebody's account."""

    reason = forms.CharField(
        label="Reason",
        max_length=500,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="Kept beside the audit event; only auditors read it.",
    )
