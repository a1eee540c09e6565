"""Forms: a decision, a withdrawal, a policy and its preview."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

from django import forms

from apps.approvals import ports
from apps.approvals.actions import REASON_LIMIT
from apps.approvals.choices import Verdict
from apps.approvals.ports import FactValue
from apps.core.forms import CommonsForm
from apps.teams.models import Unit

#: A policy is a page of text; nothing reasonable comes near this.
BODY_LIMIT = 100_000


class DecisionForm(CommonsForm):
    """Approve or reject exactly the bytes whose digest the form carries."""

    digest = forms.CharField(widget=forms.HiddenInput, max_length=64)
    verdict = forms.ChoiceField(
        label="Your decision",
        choices=Verdict.choices,
        widget=forms.RadioSelect,
        error_messages={"required": "Choose approve or reject."},
    )
    reason = forms.CharField(
        label="Reason",
        max_length=REASON_LIMIT,
        widget=forms.Textarea(attrs={"rows": 4}),
        help_text="The requester and auditors read it. A rejection needs at least ten characters: what should change?",
        error_messages={"required": "Give a reason: the requester reads it, and auditors do."},
    )
    confirmed = forms.BooleanField(
        label="I have read the exact change shown above and decide on that.",
        error_messages={"required": "Confirm that you have read the exact change."},
    )


class ReasonForm(CommonsForm):
    """A reason."""

    reason = forms.CharField(
        label="Reason",
        max_length=REASON_LIMIT,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="Those whom it waited for read it.",
        error_messages={"required": "Say why it is withdrawn."},
    )


class PolicyForm(CommonsForm):
    """A policy's next version as text."""

    slug = forms.SlugField(
        label="Short name", max_length=60, help_text="How rooms refer to it. It cannot change later."
    )
    name = forms.CharField(label="Name", max_length=200)
    subject_type = forms.ChoiceField(label="For", help_text="The kind of request these rules are for.")
    body = forms.CharField(
        label="Rules",
        max_length=BODY_LIMIT,
        strip=False,
        widget=forms.Textarea(attrs={"rows": 24, "class": "font-monospace", "spellcheck": "false", "wrap": "off"}),
        help_text="JSON: automatic rules and stages. Numbers with a fraction are written as strings.",
    )

    def __init__(self, *args: Any, fixed: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["subject_type"]
        if isinstance(field, forms.ChoiceField):
            field.choices = [(kind, ports.label_of(kind)) for kind in ports.subject_types()]
        if fixed:
            for name in ("slug", "subject_type"):
                self.fields[name].widget = forms.HiddenInput()
                self.fields[name].required = False


class PreviewForm(CommonsForm):
    """Rules and facts to try them with."""

    body = forms.CharField(required=False, max_length=BODY_LIMIT, strip=False)
    facts = forms.CharField(
        required=False,
        label="Facts",
        max_length=10_000,
        widget=forms.Textarea(attrs={"rows": 6, "class": "font-monospace", "spellcheck": "false"}),
        help_text="One a line: name = value. Without a value the fact counts as unknown.",
    )
    unit = forms.ModelChoiceField(
        Unit.objects.none(), required=False, label="Paying unit", empty_label="Any", to_field_name="uid"
    )

    def __init__(self, *args: Any, user: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["unit"]
        if isinstance(field, forms.ModelChoiceField) and user is not None:
            field.queryset = Unit.objects.visible_to(user).order_by("name")

    def clean_facts(self) -> dict[str, FactValue]:
        """Return the facts that the lines hold. Raises ValidationError naming the line that holds none."""
        found: dict[str, FactValue] = {}
        for row, line in enumerate(self.cleaned_data["facts"].splitlines(), 1):
            if not line.strip():
                continue
            name, sign, value = line.partition("=")
            if not sign or not name.strip():
                raise forms.ValidationError(f"Line {row}: write name = value.")
            # A name without a value is a fact that is not known.
            if value.strip():
                found[name.strip()] = fact_value(value.strip())
        return found


def fact_value(text: str) -> FactValue:
    """Return a typed fact as the value it stands for: a whole number, a decimal number, else a text."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = Decimal(text)
    except InvalidOperation:
        return text.strip('"')
    return number if number.is_finite() else text


__all__ = ["DecisionForm", "PolicyForm", "PreviewForm", "ReasonForm", "fact_value"]
