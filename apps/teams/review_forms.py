"""Forms of access reviews."""

from __future__ import annotations

from typing import Any

from django import forms

from apps.core.forms import CommonsForm, UtcDateTimeField
from apps.teams.choices import ReviewAnswer


class StartReviewForm(CommonsForm):
    """A review begun by hand."""

    name = forms.CharField(label="Name", max_length=100, help_text="Such as “Before the audit”.")
    due_at = UtcDateTimeField(label="Answers until", help_text="1 to 90 days from now. What nobody confirms lapses.")


class AnswerForm(CommonsForm):
    """One answer to the chosen questions."""

    items = forms.TypedMultipleChoiceField(
        label="Questions", choices=[], widget=forms.CheckboxSelectMultiple, coerce=str,
        error_messages={"required": "Choose at least one question."},
    )  # fmt: skip
    answer = forms.ChoiceField(
        label="Answer",
        choices=[(ReviewAnswer.KEEP, "Still needed"), (ReviewAnswer.REMOVE, "No longer needed: ends at once")],
        widget=forms.RadioSelect,
        error_messages={"required": "Choose an answer: still needed, or not."},
    )
    reason = forms.CharField(
        label="Reason", max_length=500, required=False, widget=forms.Textarea(attrs={"rows": 2}),
        help_text="For the audit trail. Needed where something ends.",
    )  # fmt: skip

    def __init__(self, *args: Any, choices: list[tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["items"].choices = choices  # type: ignore[attr-defined]  # a choice field
