"""Forms of the portal: one base, accessible fields, times in UTC. How they look is for `portal.forms` to say."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django import forms

from apps.core.errors import Invalid


class UtcDateTimeInput(forms.DateTimeInput):
    """The browser's date and time picker; what it sends is read as UTC, and the field says so."""

    input_type = "datetime-local"
    addon = "UTC"

    def __init__(self, attrs: dict[str, Any] | None = None) -> None:
        super().__init__(attrs={"step": "60", **(attrs or {})}, format="%Y-%m-%dT%H:%M")


class UtcDateTimeField(forms.DateTimeField):
    """A moment, typed and shown in UTC; a value with an offset of its own is converted."""

    widget = UtcDateTimeInput
    default_error_messages = {"invalid": "Enter a date and a time, such as 2026-11-22 14:00 (UTC)."}

    def to_python(self, value: Any) -> datetime | None:
        """Return an aware datetime in UTC."""
        found = super().to_python(value)
        if not isinstance(found, datetime):
            return None
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


class UtcDateField(forms.DateField):
    """A day, meant in UTC."""

    widget = forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d")
    default_error_messages = {"invalid": "Enter a date, such as 2026-11-22."}


class WholeNumberField(forms.IntegerField):
    """A whole number with its unit beside it: `WholeNumberField(unit="GPUs", min_value=0)`."""

    default_error_messages = {"invalid": "Enter a whole number."}

    def __init__(self, *, unit: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.widget.attrs.setdefault("inputmode", "numeric")
        self.widget.addon = unit


class AmountField(forms.DecimalField):
    """An amount of money with its currency beside it: `AmountField(currency="USD")`."""

    default_error_messages = {"invalid": "Enter an amount, such as 1250.00."}

    def __init__(self, *, currency: str, **kwargs: Any) -> None:
        kwargs.setdefault("max_digits", 20)
        kwargs.setdefault("decimal_places", 6)
        super().__init__(**kwargs)
        self.widget.attrs.setdefault("inputmode", "decimal")
        self.widget.addon = currency


class CommonsForm(forms.Form):
    """Base of all forms that change something.

    `version` is the version of the row as the person saw it: the action refuses when the row has moved on.
    """

    version = forms.IntegerField(required=False, widget=forms.HiddenInput)

    def add_invalid(self, error: Invalid) -> None:
        """Put an action's messages beside their fields; what belongs to no field of this form goes to the top."""
        self.is_valid()  # a form that nobody validated yet has no list of errors to add to
        for name, messages in error.errors.items():
            for message in messages:
                known = name in self.fields
                self.add_error(name if known else None, message if known or not name else f"{name}: {message}")

    @property
    def expected_version(self) -> int | None:
        """The version the person saw, or None where the form carries none."""
        if self.is_bound and self.is_valid():
            return self.cleaned_data.get("version")
        raw = self.data.get(self.add_prefix("version")) if self.is_bound else None
        return int(raw) if raw and str(raw).isdecimal() else None


__all__ = ["AmountField", "CommonsForm", "UtcDateField", "UtcDateTimeField", "UtcDateTimeInput", "WholeNumberField"]
