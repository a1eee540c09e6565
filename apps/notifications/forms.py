"""The settings form: one choice per group of events."""

from __future__ import annotations

from typing import Any

from django import forms

from apps.core.forms import CommonsForm
from apps.notifications.choices import MailWish


class PreferencesForm(CommonsForm):
    """What comes by mail. The fields are the groups that have events sent by mail."""

    def __init__(self, *args: Any, groups: list[tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for group, label in groups:
            self.fields[group] = forms.ChoiceField(label=label, choices=MailWish.choices, widget=forms.Select)

    @property
    def wishes(self) -> dict[str, str]:
        """The choices made, per group."""
        return {name: value for name, value in self.cleaned_data.items() if name != "version"}
