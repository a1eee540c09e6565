"""Forms of the insights room."""

from __future__ import annotations

from typing import Any

from django import forms

from apps.core.forms import CommonsForm, UtcDateTimeField

_WHY: dict[str, Any] = {"max_length": 300, "widget": forms.Textarea(attrs={"rows": 2})}


class SnoozeForm(CommonsForm):
    """Until when a finding is left alone."""

    until = UtcDateTimeField(label="Until", help_text="Within 90 days.")
    reason = forms.CharField(label="Reason", help_text="Others read it.", **_WHY)


class DismissForm(CommonsForm):
    """Why a finding is none."""

    reason = forms.CharField(label="Reason", help_text="Others read it.", **_WHY)


class GiveBackForm(CommonsForm):
    """What approvers read; the figures speak for themselves where it stays empty."""

    reason = forms.CharField(
        label="Reason",
        required=False,
        max_length=1000,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text="Left empty, the request says what was seen.",
    )


class KeepForm(CommonsForm):
    """Until when an idle workload is kept."""

    until = UtcDateTimeField(label="Keep until", help_text="Within 14 days. Idle still then, you are asked again.")
    reason = forms.CharField(label="Reason", help_text="Others read it.", **_WHY)
