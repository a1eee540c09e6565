"""What a model card holds, which of it a regime asks for, and what differs between two revisions: pure.

One flat schema: its keys round-trip to the front matter and sections of a Hugging Face card (`catalogue.cards_hf`), and
add what that lacks: thresholds, confidence bounds, slices, and the answers that regimes want. A body is plain JSON
without floats, so that its digest never hangs on a rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from apps.catalogue import cards_yaml, evidence_results
from apps.catalogue.cards_text import clean_line, clean_text
from apps.core.canonical import canonical_bytes, digest_of
from apps.core.errors import Invalid

SCHEMA = 1
TEXT_LIMIT = 20_000
LINE_LIMIT = 300
LIST_LIMIT = 100
#: The whole body in canonical bytes.
BODY_LIMIT = 512 * 1024


class Kind(StrEnum):
    """The shape of a field."""

    LINE = "line"
    TEXT = "text"
    LIST = "list"
    DATASETS = "datasets"
    RESULTS = "results"
    RAW = "raw"


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a card. `heading` is its section in a Hugging Face card, `matter` its key in the front matter."""

    key: str
    label: str
    kind: Kind
    section: str
    help: str = ""
    heading: str = ""
    matter: str = ""


SECTIONS = ("Model", "Uses", "Risks", "Training", "Evaluation", "People and rights", "Operation", "More")

FIELDS: tuple[Field, ...] = (
    Field("name", "Name", Kind.LINE, "Model", "What the model is called."),
    Field("overview", "Description", Kind.TEXT, "Model", "What it does, in plain words.", "Model Description"),
    Field("owners", "Owners", Kind.LIST, "Model", "Who answers for it, by role; one a line."),
    Field("language", "Languages", Kind.LIST, "Model", "Codes such as en; one a line.", matter="language"),
    Field("license", "Licence", Kind.LINE, "Model", "Identifier such as apache-2.0.", matter="license"),
    Field("license_name", "Name of another licence", Kind.LINE, "Model", matter="license_name"),
    Field("license_link", "Where the licence is", Kind.LINE, "Model", matter="license_link"),
    Field("library_name", "Library", Kind.LINE, "Model", "Such as transformers.", matter="library_name"),
    Field("pipeline_tag", "Task", Kind.LINE, "Model", "Such as text-classification.", matter="pipeline_tag"),
    Field("tags", "Tags", Kind.LIST, "Model", "One a line.", matter="tags"),
    Field("base_model", "Base models", Kind.LIST, "Model", "What it was made from; one a line.", matter="base_model"),
    Field("uses_direct", "Intended use", Kind.TEXT, "Uses", "Who uses it for what decision.", "Direct Use"),
    Field("uses_downstream", "Downstream use", Kind.TEXT, "Uses", "", "Downstream Use"),
    Field("uses_out_of_scope", "Out of scope", Kind.TEXT, "Uses", "What it must not be used for.", "Out-of-Scope Use"),
    Field("limitations", "Bias, risks and limitations", Kind.TEXT, "Risks", "", "Bias, Risks, and Limitations"),
    Field("recommendations", "Recommendations", Kind.TEXT, "Risks", "What users do about them.", "Recommendations"),
    Field("risk_management", "Risk management", Kind.TEXT, "Risks", "Known risks, and the measure for each.",
          "Risk Management"),
    Field("datasets", "Datasets", Kind.DATASETS, "Training",
          "One a line: name | revision | where | sensitive yes or no | description.", matter="datasets"),
    Field("training_data", "Training data", Kind.TEXT, "Training", "Origin, selection, cleaning.", "Training Data"),
    Field("training_procedure", "Training procedure", Kind.TEXT, "Training", "", "Training Procedure"),
    Field("data_governance", "Data governance", Kind.TEXT, "Training",
          "Where the data come from, on what legal basis, how long they are kept, how a person's data are taken out.",
          "Data Governance"),
    Field("testing_data", "Testing data", Kind.TEXT, "Evaluation", "", "Testing Data"),
    Field("factors", "Factors", Kind.TEXT, "Evaluation", "Which groups and conditions it was looked at for.",
          "Factors"),
    Field("metrics", "Metrics", Kind.LIST, "Evaluation", "Defined before the evaluation; one a line.",
          matter="metrics"),
    Field("metrics_choice", "Why these metrics and thresholds", Kind.TEXT, "Evaluation", "", "Metrics"),
    Field("results", "Results", Kind.RESULTS, "Evaluation",
          "A table from a spreadsheet: metric, value, low, high, comparison, threshold, slice, samples, dataset,"
          " dataset_revision."),
    Field("results_summary", "What the results say", Kind.TEXT, "Evaluation", "", "Summary"),
    Field("logic", "How it decides, in plain words", Kind.TEXT, "People and rights",
          "What goes in, what comes out, what weighs most: for the persons concerned.", "Logic Involved"),
    Field("human_review", "Human review", Kind.TEXT, "People and rights",
          "Who can look at a decision again and change it, and how one asks for that.", "Human Review"),
    Field("notice_link", "Notice to the persons concerned", Kind.LINE, "People and rights", "Where it can be read."),
    Field("oversight", "Human oversight", Kind.TEXT, "People and rights",
          "Who watches it in operation, with which means to stop it.", "Human Oversight"),
    Field("instructions", "Instructions for use", Kind.TEXT, "Operation", "",
          "How to Get Started with the Model"),
    Field("architecture", "Architecture and objective", Kind.TEXT, "Operation", "",
          "Model Architecture and Objective"),
    Field("inputs_outputs", "Inputs and outputs", Kind.TEXT, "Operation", "Formats, units, ranges.",
          "Inputs and Outputs"),
    Field("monitoring", "Monitoring after release", Kind.TEXT, "Operation",
          "What is measured in operation and what happens when it moves.", "Monitoring"),
    Field("security", "Robustness and security", Kind.TEXT, "Operation", "", "Robustness and Security"),
    Field("compute", "Compute and environment", Kind.TEXT, "Operation", "", "Environmental Impact"),
    Field("citation", "Citation", Kind.TEXT, "More", "", "Citation"),
    Field("contact", "Contact", Kind.LINE, "More", "A role's address."),
    Field("extra", "Other front matter", Kind.RAW, "More", "What an imported card held besides; kept as YAML."),
)  # fmt: skip
BY_KEY: Mapping[str, Field] = {field.key: field for field in FIELDS}
#: Fields that a card needs whatever the regime.
ALWAYS = ("name", "overview", "uses_direct", "uses_out_of_scope", "limitations")
_DATASET_KEYS = ("name", "revision", "link", "sensitive", "description")


@dataclass(frozen=True, slots=True)
class Missing:
    """A field that a regime asks for and the card leaves empty."""

    regime: str
    regime_name: str
    key: str
    label: str


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that differs between two revisions; None: not there."""

    key: str
    label: str
    before: str | None
    after: str | None

    @property
    def kind(self) -> str:
        """Word of the diff component."""
        return "added" if self.before is None else "removed" if self.after is None else "changed"


def clean(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the canonical body of what was typed or imported: empty fields left out, texts and numbers normalised.

    Raises Invalid with a message per field.
    """
    errors: dict[str, list[str]] = {}
    body: dict[str, Any] = {"schema": SCHEMA}
    unknown = sorted(set(raw) - set(BY_KEY) - {"schema"})
    if unknown:
        errors[""] = [f"A card has no field “{unknown[0][:60]}”."]
    if raw.get("schema", SCHEMA) != SCHEMA:
        errors.setdefault("", []).append("This card was written by another version of the portal.")
    for field in FIELDS:
        value = raw.get(field.key)
        if value is None or value == "" or value == [] or value == {}:
            continue
        try:
            cleaned = _cleaned(field, value)
        except evidence_results.BadResults as bad:
            errors[field.key] = bad.problems
            continue
        if cleaned:
            body[field.key] = cleaned
    if not errors and len(canonical_bytes(body)) > BODY_LIMIT:
        errors[""] = [f"A card holds at most {BODY_LIMIT // 1024} KiB; attach longer documents as evidence."]
    if errors:
        raise Invalid(errors)
    return body


def _cleaned(field: Field, value: Any) -> Any:
    bad = evidence_results.BadResults
    if field.kind in (Kind.LINE, Kind.TEXT, Kind.RAW):
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise bad([f"{field.label} is a text."])
        text = clean_line(value) if field.kind is Kind.LINE else clean_text(value)
        limit = LINE_LIMIT if field.kind is Kind.LINE else TEXT_LIMIT
        if len(text) > limit:
            raise bad([f"{field.label}: at most {limit:,} characters."])
        if field.kind is Kind.RAW:
            try:
                cards_yaml.load_mapping(text)
            except cards_yaml.BadYaml as wrong:
                raise bad([str(wrong)]) from wrong
        return text
    rows = [value] if isinstance(value, str) and field.kind is Kind.LIST else value
    if not isinstance(rows, list | tuple):
        raise bad([f"{field.label} is a list."])
    if len(rows) > (evidence_results.MAX_ROWS if field.kind is Kind.RESULTS else LIST_LIMIT):
        raise bad([f"{field.label}: too many rows."])
    if field.kind is Kind.LIST:
        texts = [clean_line(row) for row in rows]
        if any(len(text) > LINE_LIMIT for text in texts):
            raise bad([f"{field.label}: at most {LINE_LIMIT} characters in a line."])
        return [text for text in dict.fromkeys(texts) if text]
    if not all(isinstance(row, Mapping) for row in rows):
        raise bad([f"{field.label} holds rows of named values."])
    if field.kind is Kind.DATASETS:
        return _datasets(rows)
    return [evidence_results.as_plain(one) for one in evidence_results.read_results(rows)]


def _datasets(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for number, row in enumerate(rows, start=1):
        unknown = sorted(set(row) - set(_DATASET_KEYS))
        if unknown:
            raise evidence_results.BadResults([f"Row {number}: a dataset has no “{unknown[0][:40]}”."])
        texts = {key: clean_line(row.get(key) or "") for key in _DATASET_KEYS if key != "sensitive"}
        if not texts["name"]:
            raise evidence_results.BadResults([f"Row {number}: name the dataset."])
        if any(len(text) > LINE_LIMIT for text in texts.values()):
            raise evidence_results.BadResults([f"Row {number}: at most {LINE_LIMIT} characters a cell."])
        sensitive = row.get("sensitive")
        kept: dict[str, Any] = {key: text for key, text in texts.items() if text}
        if sensitive is True or str(sensitive or "").strip().lower() in ("yes", "true", "y"):
            kept["sensitive"] = True
        found.append(kept)
    return found


def parse_datasets(text: str) -> list[dict[str, Any]]:
    """Return datasets from lines `name | revision | where | sensitive | description`. Raises BadResults."""
    rows: list[dict[str, Any]] = []
    for line in clean_text(text).split("\n"):
        if not line.strip():
            continue
        cells = [cell.strip() for cell in line.split("|", len(_DATASET_KEYS) - 1)]
        rows.append(dict(zip(_DATASET_KEYS, cells, strict=False)))
    return _datasets(rows)


def datasets_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return datasets as lines that `parse_datasets` reads."""
    lines: list[str] = []
    for row in rows:
        cells = [str(row.get(key, "")) if key != "sensitive" else ("yes" if row.get(key) else "")
                 for key in _DATASET_KEYS]  # fmt: skip
        lines.append(" | ".join(cells).rstrip(" |"))
    return "\n".join(lines)


def digest(body: Mapping[str, Any]) -> str:
    """Return the digest of a card's canonical bytes; part of the version's manifest."""
    return digest_of(dict(body))


def missing(body: Mapping[str, Any], regimes: Iterable[tuple[str, str, Sequence[str]]]) -> list[Missing]:
    """Return every field that is asked for and empty, as (code, name, fields) of each regime say.

    Fields that every card needs come first, under the regime code "" ("Every model card").
    """
    asked = [("", "Every model card", ALWAYS), *regimes]
    return [
        Missing(code, name, key, BY_KEY[key].label if key in BY_KEY else key)
        for code, name, keys in asked
        for key in keys
        if not body.get(key)
    ]


def asked_by(key: str, regimes: Iterable[tuple[str, str, Sequence[str]]]) -> list[str]:
    """Return the names of the regimes that ask for a field."""
    names = ["Every model card"] if key in ALWAYS else []
    return names + [name for _, name, keys in regimes if key in keys]


def shown(field: Field, value: Any) -> str:
    """Return a field's value as text, one fact a line."""
    if value is None:
        return ""
    if field.kind is Kind.LIST:
        return "\n".join(str(one) for one in value)
    if field.kind is Kind.DATASETS:
        return datasets_text(value)
    if field.kind is Kind.RESULTS:
        return "\n".join(", ".join(f"{name} {cell}" for name, cell in row.items()) for row in value)
    return str(value)


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """Return the fields that differ between two bodies, in the schema's order."""
    found: list[Difference] = []
    for field in FIELDS:
        old, new = before.get(field.key), after.get(field.key)
        if old == new:
            continue
        found.append(
            Difference(
                field.key, field.label, None if not old else shown(field, old), None if not new else shown(field, new)
            )
        )
    return found


def by_section(body: Mapping[str, Any]) -> list[tuple[str, list[tuple[Field, Any]]]]:
    """Return the filled fields by section, for pages."""
    found = []
    for section in SECTIONS:
        rows = [(field, body[field.key]) for field in FIELDS if field.section == section and body.get(field.key)]
        if rows:
            found.append((section, rows))
    return found
