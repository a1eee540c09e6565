"""What a model's and a version's fields may hold. Pure but for the names of enums; raises Invalid, field by field."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from apps.catalogue.choices import ActAnnex, ActRole, RiskTier, Scheme
from apps.catalogue.classification import ordered
from apps.catalogue.manifest import BY_DIGEST
from apps.core.errors import Invalid
from apps.quotas.choices import DataClass

LABEL = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,59}$")
SLUG = re.compile(r"^[a-z0-9]+(-[a-z0-9]+)*$")
#: A segment that climbs out of its folder, or none at all.
_CLIMBS = re.compile(r"(^|/)\.{0,2}(/|$)")
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_LOCATIONS = {
    Scheme.S3: (
        re.compile(r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^\s/?#]+)*/?$"),
        "Write s3://bucket/folder, as the service knows it.",
    ),
    Scheme.OCI: (
        re.compile(r"^oci://[a-z0-9.-]+(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+$"),
        "Write oci://registry.example.com/name without a tag: the digest goes into “Revision”.",
    ),
    Scheme.HF: (re.compile(rf"^hf://{_PART}(/{_PART})?$"), "Write hf://owner/repository."),
    Scheme.PVC: (re.compile(r"^pvc://[a-z0-9][a-z0-9.-]*(/[^\s/?#]+)*/?$"), "Write pvc://claim/folder."),
}
_REVISIONS = {
    Scheme.OCI: (
        re.compile(r"^sha256:[0-9a-f]{64}$"),
        "The digest of the artifact: sha256: and 64 hexadecimal digits. A tag can be moved.",
    ),
    Scheme.HF: (
        re.compile(r"^[0-9a-f]{40}$"),
        "The full commit: 40 hexadecimal digits. A branch or tag can be moved.",
    ),
}
_VARIABLE = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")
_URI = re.compile(r"^(s3|oci|hf|pvc|gpu-commons)://\S+$")
_EXPLAINER = ("storage_uri", "image", "format")
MAX_JSON = 64 * 1024


def model_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's fields as they are stored. Raises Invalid naming every wrong one."""
    found = dict(values)
    errors: dict[str, str] = {}
    for name in ("name", "slug", "purpose"):
        if name in found:
            found[name] = str(found[name]).strip()
    if "name" in found and not 1 <= len(found["name"]) <= 200:
        errors["name"] = "Give it a name of at most 200 characters."
    if "slug" in found and not (SLUG.match(found["slug"]) and len(found["slug"]) <= 60):
        errors["slug"] = "Small letters, digits and single dashes, at most 60: fraud-detection."
    if "purpose" in found and not 10 <= len(found["purpose"]) <= 4000:
        errors["purpose"] = "Say in a sentence or more what it is for: reviewers read it (10 to 4,000 characters)."
    if "data_classes" in found:
        _classes(found, errors)
        if not found["data_classes"]:
            errors["data_classes"] = "Name at least one: what the model reads or was trained on, even if it is public."
    for name, choices in (("risk_tier", RiskTier), ("act_annex", ActAnnex), ("act_role", ActRole)):
        if name in found and found[name] not in choices.values:
            errors[name] = "Choose one of the list."
    if errors:
        raise Invalid(errors)
    return found


def version_fields(values: Mapping[str, Any], *, scheme: str) -> dict[str, Any]:
    """Return a version's fields as they are stored. Raises Invalid naming every wrong one."""
    found = dict(values)
    errors: dict[str, str] = {}
    for name in ("label", "location", "revision", "model_format", "runtime", "image"):
        if name in found:
            found[name] = str(found[name]).strip()
    if "label" in found and not LABEL.match(found["label"]):
        errors["label"] = "Letters, digits and . _ + -, beginning with a letter or digit, at most 60: 1.4.0."
    if "location" in found:
        _location(scheme, found, errors)
    if found.get("revision"):
        rule = _REVISIONS.get(Scheme(scheme))
        if rule is None:
            errors["revision"] = "Only OCI artifacts and Hugging Face repositories have a revision."
        elif not rule[0].match(found["revision"]):
            errors["revision"] = rule[1]
    if found.get("image") and not BY_DIGEST.match(found["image"]):
        errors["image"] = "By digest: registry.example.com/name@sha256:… A tag can be moved."
    for name, limit in (("model_format", 60), ("runtime", 120), ("image", 500), ("location", 1000)):
        if len(found.get(name, "")) > limit:
            errors[name] = f"At most {limit} characters."
    if "arguments" in found:
        _arguments(found, errors)
    if "environment" in found:
        _environment(found, errors)
    if "parameters" in found and (
        not isinstance(found["parameters"], dict) or len(json.dumps(found["parameters"], default=str)) > MAX_JSON
    ):
        errors["parameters"] = "A JSON object of at most 64 KiB."
    if "explainer" in found:
        _explainer(found, errors)
    if "data_classes" in found:
        _classes(found, errors)
    if errors:
        raise Invalid(errors)
    return found


def _location(scheme: str, found: dict[str, Any], errors: dict[str, str]) -> None:
    text: str = found["location"]
    if scheme == Scheme.UPLOAD:
        if text:
            errors["location"] = "Uploaded files have no other location: leave it empty."
        return
    if not text:
        errors["location"] = _LOCATIONS[Scheme(scheme)][1]
        return
    pattern, advice = _LOCATIONS[Scheme(scheme)]
    path = text.partition("://")[2].partition("/")[2].rstrip("/")
    if not pattern.match(text) or (path and _CLIMBS.search(path)):
        errors["location"] = advice
    else:
        found["location"] = text.rstrip("/")


def _arguments(found: dict[str, Any], errors: dict[str, str]) -> None:
    value = found["arguments"]
    fine = isinstance(value, list) and len(value) <= 200 and all(isinstance(a, str) and len(a) <= 4000 for a in value)
    if not fine or any("\x00" in argument for argument in value):
        errors["arguments"] = "A list of at most 200 texts, one argument each."


def _environment(found: dict[str, Any], errors: dict[str, str]) -> None:
    value = found["environment"]
    if not isinstance(value, dict) or len(value) > 200:
        errors["environment"] = "At most 200 variables, NAME=value each."
        return
    for name, text in value.items():
        if not _VARIABLE.match(str(name)) or not isinstance(text, str) or len(text) > 4000 or "\x00" in text:
            errors["environment"] = f"“{name}” cannot be a variable: letters, digits and _, and a text as its value."


def _explainer(found: dict[str, Any], errors: dict[str, str]) -> None:
    value = found["explainer"]
    if not isinstance(value, dict) or set(value) - set(_EXPLAINER):
        errors["explainer"] = "An explainer has storage_uri, image and format."
        return
    texts = {name: str(value.get(name) or "").strip() for name in _EXPLAINER}
    if texts["image"] and not BY_DIGEST.match(texts["image"]):
        errors["explainer"] = "The explainer's image is named by digest: registry.example.com/name@sha256:…"
    uri = texts["storage_uri"]
    if uri and (not _URI.match(uri) or (uri.startswith("oci://") and not BY_DIGEST.match(uri))):
        errors["explainer"] = "The explainer's files: s3://…, hf://…, pvc://…, or oci://…@sha256:…"
    found["explainer"] = {name: text for name, text in texts.items() if text}


def _classes(found: dict[str, Any], errors: dict[str, str]) -> None:
    classes = found["data_classes"]
    if unknown := sorted(set(classes) - set(DataClass.values)):
        errors["data_classes"] = f"Unknown data class: {', '.join(map(str, unknown))}."
    else:
        found["data_classes"] = list(ordered(classes))


def file_path(text: str) -> str:
    """Return a file's path below the version's location. Raises Invalid for one that leads elsewhere."""
    path = text.replace("\\", "/").strip()
    if not path or len(path) > 500 or path.startswith("/") or _CLIMBS.search(path) or not path.isprintable():
        raise Invalid({"path": "A path such as weights/model.safetensors, at most 500 characters, without “..”."})
    return path


def reason(text: str, *, field: str = "reason") -> str:
    """Return a reason of 10 to 2,000 characters. Raises Invalid."""
    found = text.strip()
    if not 10 <= len(found) <= 2000:
        raise Invalid({field: "Say why in a sentence (10 to 2,000 characters): it is kept with the change."})
    return found


def changed(row: object, values: Mapping[str, Any]) -> list[str]:
    """Return the names of the fields whose value differs from the row's."""
    return sorted(name for name, value in values.items() if getattr(row, name) != value)


def known(values: Mapping[str, Any], allowed: Sequence[str]) -> None:
    """Raise Invalid for fields that cannot be set."""
    if unknown := sorted(set(values) - set(allowed)):
        raise Invalid(dict.fromkeys(unknown, "This cannot be set."))
