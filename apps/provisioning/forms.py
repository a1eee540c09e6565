"""Forms of the provisioning room."""

from __future__ import annotations

from django import forms

from apps.core.forms import CommonsForm, UtcDateTimeField


class RetryForm(CommonsForm):
    """Apply again, perhaps taking fields over."""

    take_over = forms.BooleanField(
        required=False,
        label="Take fields over from other managers",
        help_text="What others set in declared fields is overwritten, this once. Else a conflict stops it again.",
    )
    reason = forms.CharField(
        max_length=500, required=False, widget=forms.Textarea(attrs={"rows": 2}), help_text="Kept in the audit trail."
    )


class ReapplyForm(CommonsForm):
    """Apply what was approved to a drifted object again."""

    whole_object = forms.BooleanField(
        required=False,
        initial=True,
        label="Every drifted field of this object",
        help_text="An object is applied whole: its other drifted fields get their declared values, too.",
        disabled=True,
    )
    reason = forms.CharField(
        max_length=500, widget=forms.Textarea(attrs={"rows": 2}), help_text="Kept in the audit trail."
    )


class IgnoreForm(CommonsForm):
    """Leave a drift until a date."""

    until = UtcDateTimeField(label="Leave it until", help_text="At most 90 days ahead; then it opens again by itself.")
    reason = forms.CharField(
        max_length=300, widget=forms.Textarea(attrs={"rows": 2}), help_text="Shown beside it, kept in the audit trail."
    )
