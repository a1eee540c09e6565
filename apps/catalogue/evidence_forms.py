"""Forms of cards, evidence, answers, exceptions, CI systems, controls and requests; actions say what is wrong."""

from __future__ import annotations

from typing import Any

from django import forms

from apps.catalogue import cards, cards_hf, controls_state, evidence_kinds, evidence_results, signing_forms
from apps.catalogue import requests as asks
from apps.catalogue.choices import Answer, ControlKind, EvidenceKind, ExceptionKind
from apps.catalogue.models import Control, Model, ModelVersion
from apps.core.errors import Invalid
from apps.core.forms import CommonsForm, UtcDateField, UtcDateTimeField, WholeNumberField
from apps.quotas.choices import DataClass
from apps.quotas.models import Workspace
from apps.teams.models import Team

_TABLE_HELP = (
    "Paste a table from a spreadsheet or a report. The first row names the columns: metric, value, low, high,"
    " comparison (at least, at most), threshold, slice, samples, dataset, dataset_revision."
)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n") if line.strip()]


def _rows(text: str) -> list[dict[str, str]]:
    return [evidence_results.as_plain(one) for one in evidence_results.parse_table(text)]


class CardForm(CommonsForm):
    """Every field of a card, in the schema's order."""

    number = forms.IntegerField(required=False, widget=forms.HiddenInput)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for field in cards.FIELDS:
            self.fields[field.key] = _card_field(field)
        self.fields["note"] = forms.CharField(max_length=300, required=False, help_text="What this revision changes.")

    def sections(self) -> list[tuple[str, list[Any]]]:
        """Return the bound fields by section."""
        return [
            (section, [self[field.key] for field in cards.FIELDS if field.section == section])
            for section in cards.SECTIONS
        ]

    def raw(self) -> dict[str, Any]:
        """Return what was typed as a raw card. Raises Invalid by field for tables that cannot be read."""
        found: dict[str, Any] = {}
        errors: dict[str, list[str]] = {}
        for field in cards.FIELDS:
            text = self.cleaned_data.get(field.key) or ""
            try:
                found[field.key] = _raw_field(field, text)
            except evidence_results.BadResults as bad:
                errors[field.key] = bad.problems
        if errors:
            raise Invalid(errors)
        return found


def _raw_field(field: cards.Field, text: str) -> Any:
    if field.kind is cards.Kind.LIST:
        return _lines(text)
    if field.kind is cards.Kind.DATASETS:
        return cards.parse_datasets(text)
    return _rows(text) if field.kind is cards.Kind.RESULTS else text


def _card_field(field: cards.Field) -> forms.Field:
    long = field.kind is not cards.Kind.LINE
    rows = 3 if field.kind is cards.Kind.LIST else 5
    return forms.CharField(
        label=field.label, required=False, help_text=field.help, strip=False,
        max_length=cards.BODY_LIMIT if long else cards.LINE_LIMIT,
        widget=forms.Textarea(attrs={"rows": rows}) if long else forms.TextInput(),
    )  # fmt: skip


def card_initial(body: dict[str, Any]) -> dict[str, str]:
    """Return what the form shows of a card."""
    found = {}
    for field in cards.FIELDS:
        value = body.get(field.key)
        if value and field.kind is cards.Kind.RESULTS:
            found[field.key] = evidence_results.as_table(evidence_results.read_results(value))
        elif value:
            found[field.key] = cards.shown(field, value)
    return found


class CardImportForm(CommonsForm):
    """A card from a file."""

    card = forms.FileField(
        label="README.md", help_text=f"A Hugging Face model card, at most {cards_hf.MAX_BYTES // 1024} KiB."
    )
    note = forms.CharField(max_length=300, required=False, help_text="Where it comes from.")


class EvidenceForm(CommonsForm):
    """What every kind of evidence has; the fields of the kind are added."""

    title = forms.CharField(max_length=300, help_text="What approvers recognise it by.")
    _LAST = ("summary", "file", "controls", "produced_at", "valid_until")

    def __init__(
        self, *args: Any, kind: str, version: ModelVersion | None = None, images: Any = (), **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.kind = kind
        for name, field in _kind_fields(kind, list(images)).items():
            self.fields[name] = field
        self.fields["summary"] = forms.CharField(
            required=False, max_length=10_000, widget=forms.Textarea(attrs={"rows": 4}),
            help_text="What it shows, for readers who do not open the file.",
        )  # fmt: skip
        self.fields["file"] = forms.FileField(
            required=False, help_text="PDF, image, text, CSV, JSON, XML or ZIP, at most 100 MiB."
        )
        self.fields["controls"] = forms.MultipleChoiceField(
            required=False, choices=_controls_for(kind), widget=forms.SelectMultiple(attrs={"size": 6}),
            label="Only for these controls", help_text="Choose none: it counts for every control that takes its kind.",
        )  # fmt: skip
        self.fields["produced_at"] = UtcDateTimeField(
            required=False, label="Produced", help_text="Leave empty for now."
        )
        self.fields["valid_until"] = UtcDateTimeField(
            required=False, label="Valid until", help_text="Leave empty where only the controls' own age limits count."
        )

    def rows(self) -> list[dict[str, str]]:
        """Return the results that were typed. Raises Invalid beside the field."""
        text = self.cleaned_data.get("results") or ""
        try:
            return _rows(text)
        except evidence_results.BadResults as bad:
            raise Invalid({"results": bad.problems}) from bad

    def payload(self) -> dict[str, Any]:
        """Return what the kind holds besides results."""
        data = self.cleaned_data
        found: dict[str, Any] = {"summary": data.get("summary") or ""}
        if self.kind == EvidenceKind.BIAS:
            found["attributes"] = _lines(data.get("attributes") or "")
            gaps = [line.rpartition(" ") for line in _lines(data.get("gaps") or "")]
            found["gaps"] = [{"metric": metric.strip(" :,\t"), "maximum": maximum} for metric, _, maximum in gaps]
        for name in _PAYLOAD.get(_family(self.kind), ()):
            if data.get(name) not in (None, ""):
                found[name] = data[name]
        return {name: value for name, value in found.items() if value not in ("", [])}


_PAYLOAD: dict[str, tuple[str, ...]] = {
    "measured": ("min_samples",),
    "image_scan": ("tool", "image", "critical", "high", "medium", "low", "allowed_critical", "allowed_high"),
    "model_scan": ("tool", "findings"),
    "signature": ("signature", "signed_payload", "envelope"),
    "document": ("conclusion", "basis", "countries"),
}


def _family(kind: str) -> str:
    if kind in evidence_kinds.MEASURED:
        return "measured"
    return kind if kind in _PAYLOAD else "document"


def _controls_for(kind: str) -> list[tuple[str, str]]:
    rows = Control.objects.filter(superseded_at__isnull=True, evidence_kinds__contains=[kind], computed="")
    return [(row.code, f"{row.citation}: {row.title}") for row in rows.order_by("regime__code", "code")]


def _count(label: str, *, needed: bool, help_text: str = "") -> WholeNumberField:
    return WholeNumberField(label=label, min_value=0, required=needed, help_text=help_text, unit="findings")


def _kind_fields(kind: str, images: list[str]) -> dict[str, forms.Field]:
    if kind in evidence_kinds.MEASURED:
        found: dict[str, forms.Field] = {
            "results": forms.CharField(
                widget=forms.Textarea(attrs={"rows": 10, "class": "font-monospace", "spellcheck": "false"}),
                help_text=_TABLE_HELP, strip=False,
            ),
            "min_samples": WholeNumberField(
                required=False, min_value=1, label="Smallest slice that counts", unit="samples"
            ),
        }  # fmt: skip
        if kind == EvidenceKind.BIAS:
            found["attributes"] = forms.CharField(
                widget=forms.Textarea(attrs={"rows": 3}),
                help_text="By what persons were told apart, such as age; one a line.",
            )
            found["gaps"] = forms.CharField(
                required=False, widget=forms.Textarea(attrs={"rows": 3}), label="Widest gaps allowed between slices",
                help_text="One a line: metric and gap, such as: recall 0.05",
            )  # fmt: skip
        return found
    if kind == EvidenceKind.IMAGE_SCAN:
        return {
            "tool": forms.CharField(max_length=100, label="Scanner", help_text="With its version."),
            "image": forms.ChoiceField(choices=[(one, one) for one in images], help_text="As in the manifest."),
            "critical": _count("Critical", needed=True), "high": _count("High", needed=True),
            "medium": _count("Medium", needed=False), "low": _count("Low", needed=False),
            "allowed_critical": _count("Critical ones allowed", needed=False, help_text="0 where left empty."),
            "allowed_high": _count("High ones allowed", needed=False, help_text="0 where left empty."),
        }  # fmt: skip
    if kind == EvidenceKind.MODEL_SCAN:
        return {
            "tool": forms.CharField(max_length=100, label="Scanner", help_text="With its version."),
            "findings": _count("Findings", needed=True),
        }
    if kind == EvidenceKind.SIGNATURE:
        return signing_forms.signature_fields()
    found = {"conclusion": forms.ChoiceField(choices=list(evidence_kinds.CONCLUSIONS.items())[::-1], required=False)}
    if kind == EvidenceKind.TRANSFER_BASIS:
        found["basis"] = forms.ChoiceField(choices=list(evidence_kinds.BASES.items()), label="Basis")
        found["countries"] = forms.CharField(required=False, max_length=200, help_text="Which countries it covers.")
    return found


class ReasonForm(CommonsForm):
    """Only a reason."""

    reason = forms.CharField(
        max_length=2000, widget=forms.Textarea(attrs={"rows": 3}), help_text="Kept with the change."
    )


class AnswerForm(CommonsForm):
    """The three-way answer to an addressable control."""

    answer = forms.ChoiceField(choices=Answer.choices, widget=forms.RadioSelect)
    rationale = forms.CharField(
        max_length=5000, widget=forms.Textarea(attrs={"rows": 5}),
        help_text="What is in place and where it is described, or why it is not reasonable and appropriate here.",
    )  # fmt: skip


class ExceptionForm(CommonsForm):
    """Propose an exception."""

    kind = forms.ChoiceField(choices=ExceptionKind.choices, widget=forms.RadioSelect, label="About")
    control_code = forms.ChoiceField(required=False, label="Control", help_text="For an exception from a control.")
    data_classes = forms.MultipleChoiceField(
        required=False, choices=DataClass.choices, widget=forms.CheckboxSelectMultiple, label="Data classes instead",
        help_text="For a lower classification: the classes that hold instead of those handed down by the lineage.",
    )  # fmt: skip
    expires_at = UtcDateTimeField(label="Ends", help_text="Within a year; then the rule holds again by itself.")
    reason = forms.CharField(max_length=2000, widget=forms.Textarea(attrs={"rows": 4}))

    def __init__(self, *args: Any, version: ModelVersion | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = [("", "–")]
        if version is not None and version.digest:
            choices += [(one.code, f"{one.citation}: {one.title}") for one in controls_state.standing(version).open]
            rows = Control.objects.filter(superseded_at__isnull=True).exclude(kind=ControlKind.ADVISORY)
            known = {code for code, _ in choices}
            choices += [(row.code, f"{row.citation}: {row.title}") for row in rows if row.code not in known]
        self.fields["control_code"].choices = choices  # type: ignore[attr-defined]  # a ChoiceField


class DecisionForm(CommonsForm):
    """Decide an exception."""

    verdict = forms.ChoiceField(
        choices=[("approve", "Approve"), ("refuse", "Refuse")], widget=forms.RadioSelect, label="Decision"
    )
    reason = forms.CharField(max_length=2000, widget=forms.Textarea(attrs={"rows": 3}))


class ProducerForm(CommonsForm):
    """Let a CI system in."""

    name = forms.CharField(max_length=100, help_text="Such as “Fraud models CI”.")
    public_key = forms.CharField(
        max_length=100, help_text="Ed25519, base64 of the 32 raw bytes. The private key stays with the CI system."
    )
    kinds = forms.MultipleChoiceField(
        choices=EvidenceKind.choices, widget=forms.CheckboxSelectMultiple, label="May post"
    )
    teams = forms.ModelMultipleChoiceField(
        queryset=Team.objects.none(), label="About models of", widget=forms.SelectMultiple(attrs={"size": 6})
    )
    models_allowed = forms.ModelMultipleChoiceField(
        queryset=Model.objects.none(), required=False, label="Only these models",
        widget=forms.SelectMultiple(attrs={"size": 6}), help_text="Choose none: every model of the teams.",
    )  # fmt: skip
    expires_at = UtcDateTimeField(label="Token ends", help_text="Within a year.")

    def __init__(self, *args: Any, user: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["teams"].queryset = Team.objects.order_by("name")  # type: ignore[attr-defined]  # a model field
        models = Model.objects.visible_to(user).filter(archived_at__isnull=True).order_by("name")
        self.fields["models_allowed"].queryset = models  # type: ignore[attr-defined]  # a model field


class RotateForm(CommonsForm):
    """A new token."""

    expires_at = UtcDateTimeField(label="New token ends", help_text="Within a year.")
    public_key = forms.CharField(max_length=100, required=False, help_text="Leave empty to keep the key on record.")


class ControlForm(CommonsForm):
    """Another revision of a control."""

    citation = forms.CharField(max_length=200)
    title = forms.CharField(max_length=300)
    text = forms.CharField(max_length=5000, widget=forms.Textarea(attrs={"rows": 5}), label="What has to be shown")
    kind = forms.ChoiceField(choices=ControlKind.choices)
    evidence_kinds = forms.MultipleChoiceField(
        choices=EvidenceKind.choices,
        required=False,
        widget=forms.CheckboxSelectMultiple,
        label="Evidence that shows it",
    )
    computed = forms.CharField(
        max_length=60, required=False, label="Check of the portal", help_text="Where the portal itself computes it."
    )
    max_age_days = WholeNumberField(required=False, min_value=1, unit="days", label="Evidence counts for")
    applies_from = UtcDateField(required=False)
    applies_until = UtcDateField(required=False)
    dated_by = forms.CharField(
        max_length=400, required=False, label="Set by",
        help_text="The provision that sets from when it applies, with the official journal.",
    )  # fmt: skip
    confirmed = forms.BooleanField(required=False, label="Confirmed against the official text")
    unconfirmed = forms.CharField(
        max_length=500, required=False, widget=forms.Textarea(attrs={"rows": 2}), label="What is not confirmed",
        help_text="Which date or wording, of which act, as of which day. Empty where all is confirmed.",
    )  # fmt: skip
    reason = forms.CharField(max_length=2000, widget=forms.Textarea(attrs={"rows": 3}))


class ConfirmCitationForm(CommonsForm):
    """Say that one has read the official text."""

    source = forms.CharField(
        max_length=500, label="What was read",
        help_text="Such as “OJ L, 2026/1744, 24.7.2026, Article 1(40), read on EUR-Lex”.",
    )  # fmt: skip
    read_on = UtcDateField(label="Read on")


class RequestForm(CommonsForm):
    """Ask for a version's approval."""

    workspaces: forms.ModelMultipleChoiceField[Workspace] = forms.ModelMultipleChoiceField(
        queryset=Workspace.objects.none(), widget=forms.CheckboxSelectMultiple,
        help_text="Where it may run. Clusters and environments follow from them.",
    )  # fmt: skip
    max_traffic = WholeNumberField(
        min_value=1, max_value=100, initial=100, unit="%", label="Largest share of an endpoint's traffic"
    )
    not_before = UtcDateTimeField(
        required=False, label="Not before", help_text="Leave empty to begin with the approval."
    )
    valid_days = WholeNumberField(min_value=1, max_value=asks.MAX_DAYS, initial=365, unit="days", label="Valid for")
    reason = forms.CharField(
        max_length=2000,
        widget=forms.Textarea(attrs={"rows": 4}),
        help_text="What it is for; approvers read this first.",
    )

    def __init__(self, *args: Any, user: Any, model_version: ModelVersion, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["workspaces"]
        field.queryset = asks.usable_workspaces(user, model_version)  # type: ignore[attr-defined]  # a model field
        field.label_from_instance = lambda one: (  # type: ignore[attr-defined]  # a model field
            f"{one.namespace} on {one.cluster.name} ({one.get_environment_display().lower()})"
        )

    def asked(self) -> asks.Asked:
        """Return what was asked for."""
        data = self.cleaned_data
        return asks.Asked(
            [one.pk for one in data["workspaces"]], data["max_traffic"], data["valid_days"], data["reason"],
            data["not_before"],
        )  # fmt: skip


class RenewForm(CommonsForm):
    """Ask for the same scope again."""

    valid_days = WholeNumberField(min_value=1, max_value=asks.MAX_DAYS, unit="days", label="Valid for")
    reason = forms.CharField(max_length=2000, widget=forms.Textarea(attrs={"rows": 3}))
