"""Forms of the provisioning room."""

from __future__ import annotations

from django import forms

from apps.core.forms import CommonsForm


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
