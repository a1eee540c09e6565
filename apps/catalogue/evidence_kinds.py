"""What each kind of evidence holds besides its title, and the verdict that follows from it: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from apps.catalogue.choices import EvidenceKind
from apps.catalogue.evidence_results import (
    FAIL,
    INFO,
    PASS,
    BadResults,
    Gap,
    Result,
    Verdict,
    parse_decimal,
    verdict,
)
from apps.core.errors import Invalid

#: Kinds that are a document with a conclusion.
DOCUMENTS = frozenset(
    kind.value
    for kind in (
        EvidenceKind.DPIA, EvidenceKind.RISK_ASSESSMENT, EvidenceKind.SECURITY_REVIEW, EvidenceKind.HUMAN_OVERSIGHT,
        EvidenceKind.TRANSFER_BASIS, EvidenceKind.TECHNICAL_DOCUMENTATION, EvidenceKind.OTHER,
    )
)  # fmt: skip
MEASURED = frozenset({EvidenceKind.EVALUATION.value, EvidenceKind.BIAS.value})
CONCLUSIONS = {"acceptable": "Acceptable", "not_acceptable": "Not acceptable", "": "No conclusion"}
BASES = {
    "adequacy": "Adequacy decision (Art. 45)",
    "safeguards": "Appropriate safeguards (Art. 46)",
    "bcr": "Binding corporate rules (Art. 47)",
    "derogation": "Derogation (Art. 49)",
}
SEVERITIES = ("critical", "high", "medium", "low")
SUMMARY_LIMIT = 10_000
_MOST = 1_000_000


@dataclass(frozen=True, slots=True)
class Judged:
    """A clean payload with the verdict that follows from it."""

    payload: dict[str, Any]
    verdict: str
    reasons: tuple[str, ...] = ()


@dataclass(slots=True)
class _Reader:
    raw: Mapping[str, Any]
    errors: dict[str, list[str]] = field(default_factory=dict)

    def wrong(self, name: str, message: str) -> None:
        self.errors.setdefault(name, []).append(message)

    def text(self, name: str, limit: int = 300) -> str:
        value = self.raw.get(name)
        if value is not None and not isinstance(value, str):
            self.wrong(name, "This is a text.")
            return ""
        found = (value or "").strip()
        if len(found) > limit:
            self.wrong(name, f"At most {limit:,} characters.")
        return found

    def count(self, name: str, *, needed: bool) -> int | None:
        value = self.raw.get(name)
        if value is None or value == "":
            if needed:
                self.wrong(name, "Give the number, 0 included.")
            return None
        text = str(value).strip()
        if isinstance(value, bool) or not (text.isascii() and text.isdecimal()) or int(text) > _MOST:
            self.wrong(name, "This is a whole number of at least 0.")
            return None
        return int(text)


def judge(
    kind: str,
    raw: Mapping[str, Any],
    results: Sequence[Result],
    *,
    has_file: bool,
    images: Sequence[str] = (),
) -> Judged:
    """Return payload and verdict of a piece of evidence. `images`: those that the version serves with.

    Raises Invalid with messages by field.
    """
    reader = _Reader(raw)
    if kind not in EvidenceKind.values:
        raise Invalid({"kind": "There is no such kind of evidence."})
    if results and kind not in MEASURED:
        reader.wrong("results", "Only evaluations and bias assessments hold results.")
    if kind == EvidenceKind.SIGNATURE:
        raise ValueError("a signature is verified with a key: signing_keys.verify")
    if kind in MEASURED:
        found = _measured(kind, reader, results)
    elif kind == EvidenceKind.IMAGE_SCAN:
        found = _image_scan(reader, images)
    elif kind == EvidenceKind.MODEL_SCAN:
        found = _model_scan(reader)
    else:
        found = _document(kind, reader, has_file=has_file)
    allowed = set(found.payload) | set(_KNOWN[_family(kind)])
    for name in sorted(set(raw) - allowed):
        reader.wrong("payload", f"“{str(name)[:60]}” is not known for this kind of evidence.")
    if reader.errors:
        raise Invalid(reader.errors)
    return found


_KNOWN = {
    "measured": ("summary", "attributes", "gaps", "min_samples"),
    "image_scan": ("summary", "tool", "image", *SEVERITIES, "allowed_critical", "allowed_high"),
    "model_scan": ("summary", "tool", "findings"),
    "document": ("summary", "conclusion", "basis", "countries"),
}


def _family(kind: str) -> str:
    if kind in MEASURED:
        return "measured"
    return kind if kind in _KNOWN else "document"


def _measured(kind: str, reader: _Reader, results: Sequence[Result]) -> Judged:
    payload: dict[str, Any] = {}
    if summary := reader.text("summary", SUMMARY_LIMIT):
        payload["summary"] = summary
    if not results:
        reader.wrong("results", "Give at least one result.")
    minimum = reader.count("min_samples", needed=False)
    gaps: list[Gap] = []
    if kind == EvidenceKind.BIAS:
        attributes = reader.raw.get("attributes") or []
        if not isinstance(attributes, list) or not all(isinstance(one, str) for one in attributes):
            reader.wrong("attributes", "Name the attributes, one a line.")
            attributes = []
        attributes = [one.strip()[:100] for one in attributes if one.strip()]
        if not attributes:
            reader.wrong("attributes", "Say by which attributes it was looked at, such as age.")
        payload["attributes"] = attributes
        if results and not any(one.slice for one in results):
            reader.wrong("results", "A bias assessment compares slices: name at least two.")
        gaps = _gaps(reader)
        if gaps:
            payload["gaps"] = [{"metric": gap.metric, "maximum": f"{gap.maximum:f}"} for gap in gaps]
    elif reader.raw.get("gaps") or reader.raw.get("attributes"):
        reader.wrong("payload", "Gaps and attributes belong to a bias assessment.")
    if minimum is not None:
        payload["min_samples"] = minimum
    said: Verdict = verdict(results, gaps, min_samples=minimum)
    return Judged(payload, said.word, said.reasons)


def _gaps(reader: _Reader) -> list[Gap]:
    rows = reader.raw.get("gaps") or []
    if not isinstance(rows, list):
        reader.wrong("gaps", "Gaps are rows of metric and maximum.")
        return []
    found: list[Gap] = []
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping) or not str(row.get("metric") or "").strip():
            reader.wrong("gaps", f"Row {number}: name the metric and the widest gap.")
            continue
        try:
            maximum = parse_decimal(row.get("maximum"), "the widest gap", f"Row {number}")
        except BadResults as bad:
            reader.wrong("gaps", " ".join(bad.problems))
            continue
        if maximum < Decimal(0):
            reader.wrong("gaps", f"Row {number}: a gap is at least 0.")
            continue
        found.append(Gap(str(row["metric"]).strip()[:100], maximum))
    return found


def _image_scan(reader: _Reader, images: Sequence[str]) -> Judged:
    image, tool = reader.text("image", 500), reader.text("tool", 100)
    if not tool:
        reader.wrong("tool", "Name the scanner with its version.")
    if not images:
        reader.wrong("image", "This version is served with no image by digest, so there is nothing to scan.")
    elif image not in images:
        reader.wrong("image", "Name an image of this version, by digest: " + ", ".join(images[:3]))
    counts = {name: reader.count(name, needed=name in ("critical", "high")) for name in SEVERITIES}
    allowed = {name: reader.count(f"allowed_{name}", needed=False) or 0 for name in ("critical", "high")}
    payload: dict[str, Any] = {"tool": tool, "image": image}
    payload |= {name: count for name, count in counts.items() if count is not None}
    payload |= {f"allowed_{name}": count for name, count in allowed.items()}
    if summary := reader.text("summary", SUMMARY_LIMIT):
        payload["summary"] = summary
    bad = tuple(
        f"{counts[name]} {name} findings; {allowed[name]} are allowed."
        for name in ("critical", "high")
        if (counts[name] or 0) > allowed[name]
    )
    return Judged(payload, FAIL if bad else PASS, bad)


def _model_scan(reader: _Reader) -> Judged:
    tool, findings = reader.text("tool", 100), reader.count("findings", needed=True)
    if not tool:
        reader.wrong("tool", "Name the scanner with its version.")
    payload: dict[str, Any] = {"tool": tool, "findings": findings or 0}
    if summary := reader.text("summary", SUMMARY_LIMIT):
        payload["summary"] = summary
    return Judged(payload, FAIL if findings else PASS, (f"{findings} findings.",) if findings else ())


def _document(kind: str, reader: _Reader, *, has_file: bool) -> Judged:
    summary, conclusion = reader.text("summary", SUMMARY_LIMIT), reader.text("conclusion", 20)
    if not has_file and len(summary) < 30:
        reader.wrong("summary", "Attach the document, or say in at least 30 characters what it shows.")
    if conclusion not in CONCLUSIONS:
        reader.wrong("conclusion", "The conclusion is acceptable or not acceptable.")
    payload: dict[str, Any] = {name: text for name, text in (("summary", summary), ("conclusion", conclusion)) if text}
    if kind == EvidenceKind.TRANSFER_BASIS:
        basis = reader.text("basis", 20)
        if basis not in BASES:
            reader.wrong("basis", "Choose the basis of the transfer.")
        payload["basis"] = basis
        if countries := reader.text("countries", 200):
            payload["countries"] = countries
    word = {"acceptable": PASS, "not_acceptable": FAIL}.get(conclusion, INFO)
    return Judged(payload, word, ("The document's own conclusion.",) if word == FAIL else ())
