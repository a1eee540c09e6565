"""Forms of the second step and of one's own second factors."""

from __future__ import annotations

from typing import Any

from django import forms

from apps.core.forms import CommonsForm

_CODE = {"autocomplete": "one-time-code", "inputmode": "text", "autocapitalize": "none", "spellcheck": "false"}


class SecondStepForm(CommonsForm):
    """A code, or what a security key answered (the page's script fills that in)."""

    code = forms.CharField(
        label="Code",
        required=False,
        max_length=40,
        help_text="Six digits from your authenticator app, or one of your recovery codes.",
        widget=forms.TextInput(attrs={**_CODE, "autofocus": True}),
    )
    key_answer = forms.CharField(required=False, max_length=20_000, widget=forms.HiddenInput)


class ConfirmForm(SecondStepForm):
    """The password once more, and the second factor where the person has one."""

    password = forms.CharField(
        label="Your password",
        max_length=200,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password", "autofocus": True}),
    )
    field_order = ["version", "password", "code", "key_answer"]

    def __init__(self, *args: Any, with_factor: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["code"].widget.attrs.pop("autofocus", None)
        if not with_factor:
            del self.fields["code"], self.fields["key_answer"]


class AppForm(CommonsForm):
    """The first code of a new app, and what to call it."""

    code = forms.CharField(
        label="Code that the app shows now",
        max_length=10,
        widget=forms.TextInput(attrs={**_CODE, "inputmode": "numeric"}),
        error_messages={"required": "Type the six digits that the app shows."},
    )
    name = forms.CharField(
        label="Name", max_length=100, required=False, help_text="To tell it apart later, “Work phone”, say."
    )


class KeyForm(CommonsForm):
    """What to call a new security key; the page's script fills in what the key answered."""

    name = forms.CharField(
        label="Name", max_length=100, required=False, help_text="To tell it apart later, “Key on my key ring”, say."
    )
    key_answer = forms.CharField(
        max_length=20_000,
        widget=forms.HiddenInput,
        error_messages={"required": "Nothing came from the key. Use the button, and follow what the browser says."},
    )
