"""Model cards in and out of the Hugging Face form: YAML front matter, then Markdown sections.

Front matter keys and section headings are those of the Hugging Face card template; what it has no place for stands
under `gpu_commons` in the front matter. Reading is for untrusted files: size, depth and aliases are limited, nothing is
constructed but plain values. `read(write(card)) == card` for every clean card.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from apps.catalogue import cards, cards_yaml
from apps.catalogue.cards_text import clean_line, clean_text
from apps.catalogue.evidence_results import plain_number
from apps.core.errors import Invalid

MAX_BYTES = 1024 * 1024
_DEPTH = 20
_OURS = "gpu_commons"
_FENCE = "---"
#: Headings that begin a section, by their lower-case words; several templates name the same thing differently.
_ALIASES = {
    "model description": "overview", "model details": "overview", "model summary": "overview",
    "direct use": "uses_direct", "intended use": "uses_direct", "intended uses": "uses_direct",
    "intended uses & limitations": "uses_direct",
    "downstream use": "uses_downstream", "downstream use [optional]": "uses_downstream",
    "out-of-scope use": "uses_out_of_scope", "out of scope use": "uses_out_of_scope",
    "bias, risks, and limitations": "limitations", "limitations": "limitations", "limitations and bias": "limitations",
    "recommendations": "recommendations", "training data": "training_data", "training procedure": "training_procedure",
    "testing data": "testing_data", "factors": "factors", "metrics": "metrics_choice", "summary": "results_summary",
    "results": "results_summary", "how to get started with the model": "instructions", "how to use": "instructions",
    "model architecture and objective": "architecture", "environmental impact": "compute",
    "compute infrastructure": "compute", "citation": "citation", "citation [optional]": "citation",
}  # fmt: skip
_HEADINGS: dict[str, str] = {
    **_ALIASES,
    **{field.heading.lower(): field.key for field in cards.FIELDS if field.heading},
}
#: Headings that only hold others together.
_CONTAINERS = {
    "uses", "training details", "evaluation", "testing data, factors & metrics", "technical specifications",
    "model card", "technical specifications [optional]",
}  # fmt: skip
_HEADING = re.compile(r"^(#{1,4})[ \t]+(.+?)[ \t]*#*$")
_ESCAPED = re.compile(r"^\\+#{1,4}[ \t].*$")
_UNESCAPE = re.compile(r"^\\(\\*#{1,4}[ \t].*)$")
#: Front matter that a card's own fields hold: what was kept besides never overwrites it.
_KNOWN = {field.matter for field in cards.FIELDS if field.matter} | {"model-index", _OURS}


def write(body: Mapping[str, Any]) -> str:
    """Return a card as a Hugging Face README: front matter and sections."""
    matter: dict[str, Any] = {}
    ours: dict[str, Any] = {"schema": cards.SCHEMA}
    for field in cards.FIELDS:
        value = body.get(field.key)
        if not value:
            continue
        if field.key == "datasets":
            matter["datasets"] = [row["name"] for row in value]
            if any(set(row) - {"name"} for row in value):
                ours["datasets"] = value
        elif field.matter:
            matter[field.matter] = value
        elif field.kind in (cards.Kind.LINE, cards.Kind.LIST):
            ours[field.key] = value
    if body.get("results"):
        matter["model-index"] = [_index(body)]
    if body.get("extra"):
        others = cards_yaml.load_mapping(str(body["extra"]))
        matter.update({key: value for key, value in others.items() if key not in _KNOWN})
        ours["extra"] = body["extra"]
    matter[_OURS] = ours
    parts = [f"{_FENCE}\n{cards_yaml.dump(matter)}{_FENCE}"]
    if body.get("name"):
        parts.append(f"# {body['name']}")
    for field in cards.FIELDS:
        if field.heading and body.get(field.key):
            parts.append(f"## {field.heading}\n\n{_escape(str(body[field.key]))}")
    return "\n\n".join(parts) + "\n"


def _escape(text: str) -> str:
    return "\n".join(f"\\{line}" if _is_special(line) else line for line in text.split("\n"))


def _is_special(line: str) -> bool:
    """Whether reading would take the line for a heading, or take a backslash away from it."""
    if _ESCAPED.match(line):
        return True
    match = _HEADING.match(line)
    if match is None:
        return False
    words = match.group(2).lower()
    return words in _HEADINGS or words in _CONTAINERS or match.group(1) == "#"


def _index(body: Mapping[str, Any]) -> dict[str, Any]:
    results = []
    for row in body["results"]:
        args = {key: row[key] for key in ("slice", "low", "high", "comparison", "threshold", "samples") if key in row}
        metric: dict[str, Any] = {"type": row["metric"], "value": _number(row["value"])}
        if args:
            metric["args"] = args
        dataset = {"type": row.get("dataset", "not-stated"), "name": row.get("dataset", "not stated")}
        if "dataset_revision" in row:
            dataset["revision"] = row["dataset_revision"]
        task = {"type": body.get("pipeline_tag", "other")}
        results.append({"task": task, "dataset": dataset, "metrics": [metric]})
    return {"name": body.get("name", "model"), "results": results}


def _number(text: str) -> int | float | str:
    """Return the number as YAML writes it where that keeps every digit, else the text."""
    value = Decimal(text)
    if value == value.to_integral_value() and abs(value) < 2**53:
        return int(value)
    as_float = float(value)
    return as_float if plain_number(Decimal(repr(as_float))) == value else text


def read(data: bytes | str) -> dict[str, Any]:
    """Return the clean body of a Hugging Face card. Raises Invalid (field "card") with what is wrong."""
    raw = data.encode() if isinstance(data, str) else data
    if len(raw) > MAX_BYTES:
        raise Invalid({"card": f"A card file has at most {MAX_BYTES // 1024} KiB."})
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Invalid({"card": "The file is not UTF-8 text."}) from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    matter, markdown = _split(text)
    own, index = _OURS in matter, matter.get("model-index")
    found = _from_matter(matter)
    for key, value in _from_sections(markdown).items():
        found.setdefault(key, value)
    if not own and isinstance(index, list) and index and isinstance(index[0], dict) and index[0].get("name"):
        found.setdefault("name", str(index[0]["name"]))
    try:
        return cards.clean(found)
    except Invalid as invalid:
        problems = [
            f"{cards.BY_KEY[name].label}: {message}" if name in cards.BY_KEY else message
            for name, messages in invalid.errors.items()
            for message in messages
        ]
        raise Invalid({"card": problems}) from invalid


def _split(text: str) -> tuple[dict[str, Any], str]:
    lines = text.lstrip("\n").split("\n")
    if lines[0].rstrip() != _FENCE:
        return {}, text
    for number, line in enumerate(lines[1:], start=1):
        if line.rstrip() == _FENCE:
            try:
                matter = cards_yaml.load_mapping("\n".join(lines[1:number]))
            except cards_yaml.BadYaml as bad:
                raise Invalid({"card": str(bad)}) from bad
            return matter, "\n".join(lines[number + 1 :])
    raise Invalid({"card": "The front matter begins with --- but never ends with one."})


def _from_matter(matter: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    ours = matter.pop(_OURS, None)
    own = dict(ours) if isinstance(ours, dict) else {}
    index = matter.pop("model-index", None)
    for field in cards.FIELDS:
        if field.matter and (value := matter.pop(field.matter, None)) not in (None, "", []):
            found[field.key] = _shaped(field, value)
    names = found.pop("datasets", None)
    if names:
        details = own.get("datasets")
        named = [str(d.get("name")) for d in details if isinstance(d, dict)] if isinstance(details, list) else None
        found["datasets"] = details if named == names else [{"name": str(name)} for name in names]
    for field in cards.FIELDS:
        if not field.matter and field.kind in (cards.Kind.LINE, cards.Kind.LIST) and own.get(field.key):
            found[field.key] = _shaped(field, own[field.key])
    if isinstance(index, list):
        found["results"] = _results(index)
    if own.get("extra"):
        found["extra"] = str(own["extra"])
    elif matter:
        found["extra"] = cards_yaml.dump(matter, sort_keys=True)
    return found


def _shaped(field: cards.Field, value: Any) -> Any:
    if field.kind in (cards.Kind.LIST, cards.Kind.DATASETS):
        values = value if isinstance(value, list) else [value]
        return [_word(one) for one in values if not isinstance(one, dict | list)]
    return _word(value) if not isinstance(value, dict | list) else str(value)


def _word(value: Any) -> str:
    # YAML 1.1 reads the language "no" as a boolean.
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value.isoformat() if isinstance(value, date | datetime) else str(value)


def _results(index: list[Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for entry in index:
        for result in entry.get("results") or [] if isinstance(entry, dict) else []:
            if not isinstance(result, dict):
                continue
            dataset = result.get("dataset") if isinstance(result.get("dataset"), dict) else {}
            for metric in result.get("metrics") or []:
                if isinstance(metric, dict) and metric.get("value") is not None:
                    rows.append(_row(metric, dataset or {}))
    return rows


def _row(metric: dict[str, Any], dataset: dict[str, Any]) -> dict[str, Any]:
    args = metric.get("args") if isinstance(metric.get("args"), dict) else {}
    value = metric["value"]
    row: dict[str, Any] = {
        "metric": str(metric.get("type") or metric.get("name") or ""),
        "value": repr(value) if isinstance(value, float) else str(value),
    }
    for key in ("slice", "low", "high", "comparison", "threshold", "samples"):
        if args and args.get(key) is not None:
            row[key] = repr(args[key]) if isinstance(args[key], float) else str(args[key])
    name = dataset.get("name")
    if name and not (name == "not stated" and dataset.get("type") == "not-stated"):
        row["dataset"] = str(name)
    if dataset.get("revision"):
        row["dataset_revision"] = str(dataset["revision"])
    return row


def _from_sections(markdown: str) -> dict[str, str]:
    """Return texts by key: what stands under a known heading, up to the next known one."""
    found: dict[str, list[str]] = {}
    key = "overview"
    title = ""
    for line in markdown.split("\n"):
        match = _HEADING.match(line)
        words = match.group(2).lower() if match else ""
        if match and words in _HEADINGS:
            key = _HEADINGS[words]
            if found.get(key):
                found[key].append("")
            continue
        if match and words in _CONTAINERS:
            continue
        if match and match.group(1) == "#":
            title = title or match.group(2)
            continue
        found.setdefault(key, []).append(_UNESCAPE.sub(r"\1", line) if line.startswith("\\") else line)
    texts = {name: clean_text("\n".join(lines)) for name, lines in found.items()}
    if title:
        texts["name"] = clean_line(re.sub(r"^model card (for|of) ", "", title, flags=re.IGNORECASE))
    return {name: text for name, text in texts.items() if text}
