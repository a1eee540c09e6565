"""Reads the regimes shipped with the portal: dated JSON with citations, checked as strictly as code. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from apps.catalogue import cards, controls
from apps.catalogue.choices import ControlKind, EvidenceKind

FOLDER = Path(__file__).resolve().parent / "regimes"
_REGIME = {"code", "name", "as_of", "source", "note", "when", "card_fields", "controls"}
_NEEDED = {"code", "citation", "title", "text", "kind"}
_OPTIONAL = {
    "when",
    "evidence_kinds",
    "computed",
    "max_age_days",
    "applies_from",
    "applies_until",
    "confirmed",
    "dated_by",
    "unconfirmed",
}
#: The columns of a control that its data set.
CONTROL_COLUMNS = (
    "citation", "title", "text", "kind", "when", "evidence_kinds", "computed", "max_age_days", "applies_from",
    "applies_until", "confirmed", "dated_by", "unconfirmed",
)  # fmt: skip
REGIME_COLUMNS = ("name", "source", "note", "when", "card_fields", "as_of")


class BadRegime(ValueError):
    """A file of regimes that cannot be taken; the message names file and place."""


@dataclass(frozen=True, slots=True)
class RegimeData:
    """One regime with its controls, as columns of their rows."""

    code: str
    columns: dict[str, Any]
    controls: dict[str, dict[str, Any]]


def shipped(folder: Path = FOLDER) -> list[RegimeData]:
    """Return every shipped regime by code. Raises BadRegime."""
    found = [read(path.read_text(encoding="utf-8"), path.name) for path in sorted(folder.glob("*.json"))]
    codes = [code for regime in found for code in regime.controls]
    if len(codes) != len(set(codes)):
        raise BadRegime("two controls have the same code")
    return found


def read(text: str, name: str) -> RegimeData:
    """Return one regime. Raises BadRegime."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise BadRegime(f"{name}: no JSON: {error}") from error
    if not isinstance(data, dict) or set(data) != _REGIME:
        raise BadRegime(f"{name}: a regime has exactly {', '.join(sorted(_REGIME))}")
    problems = controls.check_conditions(data["when"])
    problems += [f"a card has no field {key}" for key in data["card_fields"] if key not in cards.BY_KEY]
    if problems:
        raise BadRegime(f"{name}: {problems[0]}")
    columns = {key: data[key] for key in REGIME_COLUMNS} | {"as_of": _day(data["as_of"], name)}
    return RegimeData(data["code"], columns, {one["code"]: control(one, name) for one in data["controls"]})


def control(data: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the columns of one control. Raises BadRegime."""
    where = f"{name}: {data.get('code', '?')}"
    if not set(data) >= _NEEDED or set(data) - _NEEDED - _OPTIONAL:
        raise BadRegime(f"{where}: wrong keys")
    columns: dict[str, Any] = {
        "citation": data["citation"], "title": data["title"], "text": data["text"], "kind": data["kind"],
        "when": data.get("when", []), "evidence_kinds": data.get("evidence_kinds", []),
        "computed": data.get("computed", ""), "max_age_days": data.get("max_age_days"),
        "applies_from": _day(data.get("applies_from"), where), "applies_until": _day(data.get("applies_until"), where),
        "confirmed": data.get("confirmed", True), "dated_by": data.get("dated_by", ""),
        "unconfirmed": data.get("unconfirmed", ""),
    }  # fmt: skip
    if problems := faults(columns):
        raise BadRegime(f"{where}: {next(iter(problems.values()))}")
    return columns


def faults(columns: dict[str, Any]) -> dict[str, str]:
    """Return what is wrong with a control's columns, by column."""
    found: dict[str, str] = {}
    if columns["kind"] not in ControlKind.values:
        found["kind"] = "This is no kind of control."
    unknown = [kind for kind in columns["evidence_kinds"] if kind not in EvidenceKind.values]
    if unknown:
        found["evidence_kinds"] = f"There is no evidence of the kind {unknown[0]}."
    if problems := controls.check_conditions(columns["when"]):
        found["when"] = problems[0]
    if columns["kind"] == ControlKind.COMPUTED and not columns["computed"]:
        found["computed"] = "A computed control names the check that computes it."
    if columns["kind"] in (ControlKind.REQUIRED, ControlKind.ADVISORY) and not (
        columns["computed"] or columns["evidence_kinds"]
    ):
        found["evidence_kinds"] = "Name the kinds of evidence that show it, or a check of the portal."
    if columns["max_age_days"] is not None and columns["max_age_days"] < 1:
        found["max_age_days"] = "Evidence counts for at least a day."
    if not columns["confirmed"] and not columns["unconfirmed"].strip():
        found["unconfirmed"] = "Say what exactly is not confirmed, and as of which day."
    if columns["confirmed"] and columns["unconfirmed"].strip():
        found["unconfirmed"] = "It is confirmed: leave this empty, or untick that it is."
    start, end = columns["applies_from"], columns["applies_until"]
    if start is not None and end is not None and start >= end:
        found["applies_until"] = "It has to end after it begins."
    return found


def _day(text: Any, where: str) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except (TypeError, ValueError):
        raise BadRegime(f"{where}: {text!r} is no day") from None
