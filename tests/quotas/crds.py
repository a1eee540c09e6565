"""Validation against the schemas of Kueue's CRDs, where the file with them lies beside the checkout."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

CRDS = Path(__file__).parents[2].parent / "shared" / "data" / "crds" / "kueue.yaml"


@cache
def _schemas() -> dict[str, dict[str, Any]]:
    if not CRDS.exists():
        pytest.skip(f"the schemas of Kueue's CRDs are not here ({CRDS.name} beside the checkout)")
    found = {}
    for document in yaml.load_all(CRDS.read_text(), Loader=yaml.CSafeLoader):
        if document and document.get("kind") == "CustomResourceDefinition":
            for version in document["spec"]["versions"]:
                schema = _strict(copy.deepcopy(version["schema"]["openAPIV3Schema"]))
                found[f"{document['spec']['group']}/{version['name']}/{document['spec']['names']['kind']}"] = schema
    return found


def _strict(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a structural schema as JSON schema: unknown fields refused (as strict field validation does)."""
    if schema.get("x-kubernetes-int-or-string"):
        schema.pop("type", None)
    properties = schema.get("properties")
    if isinstance(properties, dict):
        if not schema.get("x-kubernetes-preserve-unknown-fields") and "additionalProperties" not in schema:
            schema["additionalProperties"] = False
        for name, inner in properties.items():
            properties[name] = {"type": "object"} if name == "metadata" else _strict(inner)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            schema[key] = _strict(schema[key])
    return schema


def crd_errors(manifest: dict[str, Any]) -> list[str]:
    """Return what the CRD's schema has against an object. Skips the test where the schemas are absent."""
    schema = _schemas()[f"{manifest['apiVersion']}/{manifest['kind']}"]
    validator = jsonschema.Draft202012Validator(schema)
    return [f"{manifest['kind']} {error.json_path}: {error.message}" for error in validator.iter_errors(manifest)]
