"""Forms: a decision, a withdrawal, a policy and its preview."""

from __future__ import annotations

from collections.abc import Sequence
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
    """Approve or reject exactly the bytes whose digest the form carries, in one of the seats offered.

    `seats` are (value, words): in whose name and in which stage; asked only where there is a choice.
    """

    seat = forms.CharField(required=False, widget=forms.HiddenInput, max_length=60)
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
    password = forms.CharField(
        label="Your password",
        required=False,
        strip=False,
        max_length=200,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )

    def __init__(
        self, *args: Any, seats: Sequence[tuple[str, str]] = (), password_minutes: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.seats = list(seats)
        if len(self.seats) > 1:
            self.fields["seat"] = forms.ChoiceField(
                label="In whose name, in which stage",
                choices=self.seats,
                widget=forms.RadioSelect,
                help_text="One person fills one seat: what you say for somebody else takes your own seat as well.",
                error_messages={"required": "Choose in whose name you decide."},
            )
            self.order_fields(["version", "digest", "seat", "verdict", "reason", "confirmed", "password"])
        if password_minutes is None:
            del self.fields["password"]
        else:
            self.fields["password"].required = True
            self.fields[
                "password"
            ].help_text = f"This policy wants proof that it is you, at most {password_minutes} minutes old."
            self.fields["password"].error_messages["required"] = "Give your password again: this policy wants it."

    def clean(self) -> dict[str, Any]:
        """Refuse a seat that is not (any more) offered."""
        data = super().clean() or self.cleaned_data
        if "seat" in data and len(self.seats) <= 1:
            offered = [value for value, _ in self.seats]
            if data["seat"] and data["seat"] not in offered:
                raise forms.ValidationError("You can no longer decide in that name. Read the page again.")
            data["seat"] = offered[0] if offered else ""
        return data


class CommentForm(CommonsForm):
    """A comment, and what it is about."""

    anchor = forms.ChoiceField(label="About", required=False)
    body = forms.CharField(
        label="Comment",
        max_length=4000,
        widget=forms.Textarea(attrs={"rows": 3, "data-key": "c"}),
        help_text="Everybody who sees the request reads it. It decides nothing.",
        error_messages={"required": "Write what you want to say."},
    )

    def __init__(self, *args: Any, anchors: Sequence[tuple[str, str]] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["anchor"]
        if isinstance(field, forms.ChoiceField):
            field.choices = list(anchors)


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
        help_text="JSON. Numbers with a fraction are written as strings. What each holds stands below.",
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


class RehearsalForm(CommonsForm):
    """Rules, and the kind of past requests to try them on."""

    body = forms.CharField(required=False, max_length=BODY_LIMIT, strip=False)
    subject_type = forms.ChoiceField(required=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["subject_type"]
        if isinstance(field, forms.ChoiceField):
            field.choices = [(kind, kind) for kind in ports.subject_types()]


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


__all__ = ["CommentForm", "DecisionForm", "PolicyForm", "PreviewForm", "ReasonForm", "RehearsalForm", "fact_value"]
