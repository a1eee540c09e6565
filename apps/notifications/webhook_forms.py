"""Forms of webhooks."""

from __future__ import annotations

from typing import Any

from django import forms

from apps.core.forms import CommonsForm
from apps.notifications import webhooks


class WebhookForm(CommonsForm):
    """A webhook; its secret is made by the portal."""

    name = forms.CharField(max_length=120, help_text="As people know the receiver: “Ticket system”.")
    url = forms.CharField(
        label="Address", max_length=500,
        help_text="Where events are posted: https://hooks.example.com/commons. Redirects are not followed.",
    )  # fmt: skip
    groups = forms.MultipleChoiceField(
        label="Groups of events", required=False, widget=forms.CheckboxSelectMultiple,
        help_text="All events of a group, also those of later versions of the portal.",
    )  # fmt: skip
    events = forms.MultipleChoiceField(
        label="Single events", required=False, widget=forms.SelectMultiple(attrs={"size": "10"}),
        help_text="Besides the groups. Several with Ctrl or ⌘.",
    )  # fmt: skip
    include_texts = forms.BooleanField(
        label="Send what people wrote, too", required=False,
        help_text="Reasons, comments, names and mail addresses are left out otherwise.",
    )  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, choices in (
            ("groups", webhooks.told_groups()),
            ("events", [(event.name, event.name) for event in webhooks.told_events()]),
        ):
            field = self.fields[name]
            if isinstance(field, forms.MultipleChoiceField):
                field.choices = choices

    def values(self) -> dict[str, Any]:
        """Return what the actions take."""
        data = self.cleaned_data
        chosen = [*data["groups"], *data["events"]]
        return {"name": data["name"], "url": data["url"], "events": chosen, "include_texts": data["include_texts"]}


def split_events(chosen: list[str]) -> dict[str, list[str]]:
    """Return a webhook's events as the form's two fields."""
    return {
        "groups": [name for name in chosen if "." not in name],
        "events": [name for name in chosen if "." in name],
    }
