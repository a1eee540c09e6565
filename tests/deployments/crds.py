"""Strict validation of what is rendered: our compact rules always, the real CRDs where a folder with them is named."""

from __future__ import annotations

import copy
import os
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

#: A folder of YAML files with the CustomResourceDefinitions of KServe 0.20.0 and KEDA 2.20.2 (and the Gateway API).
VARIABLE = "COMMONS_TEST_CRDS"
_BESIDE = Path(__file__).parents[2].parent / "shared" / "data" / "crds"


def folder() -> Path:
    """The folder with the CRDs. Skips the test where there is none."""
    found = Path(os.environ.get(VARIABLE) or _BESIDE)
    if not found.is_dir():
        pytest.skip(f"no CustomResourceDefinitions of KServe and KEDA are here; name their folder in {VARIABLE}")
    return found


@cache
def _schemas(path: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for file in sorted(path.glob("k[se]*.yaml")):
        for document in yaml.load_all(file.read_text(), Loader=yaml.CSafeLoader):
            if document and document.get("kind") == "CustomResourceDefinition":
                for version in document["spec"]["versions"]:
                    name = f"{document['spec']['group']}/{version['name']}/{document['spec']['names']['kind']}"
                    found[name] = version["schema"]["openAPIV3Schema"]
    return found


@cache
def schema_of(name: str) -> dict[str, Any]:
    """The schema of group/version/kind, closed: unknown fields are refused, as strict field validation does."""
    return _strict(copy.deepcopy(_schemas(folder())[name]))


def _strict(schema: dict[str, Any]) -> dict[str, Any]:
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
    """What the real CRD's schema has against an object. Skips where it is not here."""
    schema = schema_of(f"{manifest['apiVersion']}/{manifest['kind']}")
    found = jsonschema.Draft202012Validator(schema).iter_errors(manifest)
    return [f"{manifest['kind']} {error.json_path}: {error.message}" for error in found]


#: The fields that the renderer may set, with what the real schemas and webhooks ask of them: kind → path → rule.
#: A path ends in `[]` for the items of a list and in `*` for any key. Rules: a type, or a callable.
_QUANTITY = str
_COMPACT: dict[str, dict[str, Any]] = {
    "InferenceService": {
        "spec.predictor.minReplicas": int, "spec.predictor.maxReplicas": int,
        "spec.predictor.canaryTrafficPercent": int, "spec.predictor.labels.*": str,
        "spec.predictor.annotations.*": str, "spec.predictor.priorityClassName": str,
        "spec.predictor.automountServiceAccountToken": bool, "spec.predictor.nodeSelector.*": str,
        "spec.predictor.tolerations[].key": str, "spec.predictor.tolerations[].operator": str,
        "spec.predictor.tolerations[].value": str, "spec.predictor.tolerations[].effect": str,
        "spec.predictor.logger.url": str, "spec.predictor.logger.mode": str,
        "spec.predictor.storageUris[].uri": str, "spec.predictor.storageUris[].mountPath": str,
        "spec.predictor.model.modelFormat.name": str, "spec.predictor.model.runtime": str,
        "spec.predictor.model.storageUri": str,
    },
    "ScaledObject": {
        "spec.scaleTargetRef.apiVersion": str, "spec.scaleTargetRef.kind": str, "spec.scaleTargetRef.name": str,
        "spec.pollingInterval": int, "spec.cooldownPeriod": int, "spec.minReplicaCount": int,
        "spec.maxReplicaCount": int, "spec.fallback.failureThreshold": int, "spec.fallback.replicas": int,
        "spec.fallback.behavior": str, "spec.triggers[].type": str, "spec.triggers[].name": str,
        "spec.triggers[].metricType": str, "spec.triggers[].metadata.*": str,
        "spec.triggers[].authenticationRef.name": str, "spec.triggers[].authenticationRef.kind": str,
    },
    "HTTPRoute": {
        "spec.hostnames[]": str, "spec.parentRefs[].group": str, "spec.parentRefs[].kind": str,
        "spec.parentRefs[].namespace": str, "spec.parentRefs[].name": str,
        "spec.rules[].matches[].path.type": str, "spec.rules[].matches[].path.value": str,
        "spec.rules[].backendRefs[].group": str, "spec.rules[].backendRefs[].kind": str,
        "spec.rules[].backendRefs[].name": str, "spec.rules[].backendRefs[].port": int,
        "spec.rules[].backendRefs[].weight": int,
    },
}  # fmt: skip
_CONTAINERS = (
    "spec.predictor.model", "spec.predictor.containers[]", "spec.explainer.containers[]",
)  # fmt: skip
for _where in _CONTAINERS:
    _COMPACT["InferenceService"] |= {
        f"{_where}.name": str, f"{_where}.image": str, f"{_where}.args[]": str, f"{_where}.env[].name": str,
        f"{_where}.env[].value": str, f"{_where}.resources.requests.*": _QUANTITY,
        f"{_where}.resources.limits.*": _QUANTITY, f"{_where}.securityContext.allowPrivilegeEscalation": bool,
        f"{_where}.securityContext.capabilities.drop[]": str, f"{_where}.securityContext.runAsNonRoot": bool,
        f"{_where}.securityContext.seccompProfile.type": str,
    }  # fmt: skip
for _part in ("predictor", "explainer"):
    _COMPACT["InferenceService"] |= {
        f"spec.{_part}.securityContext.runAsNonRoot": bool, f"spec.{_part}.securityContext.seccompProfile.type": str,
        f"spec.{_part}.minReplicas": int, f"spec.{_part}.maxReplicas": int, f"spec.{_part}.labels.*": str,
        f"spec.{_part}.annotations.*": str, f"spec.{_part}.priorityClassName": str,
        f"spec.{_part}.automountServiceAccountToken": bool,
    }  # fmt: skip
_BEHAVIOUR = "spec.advanced.horizontalPodAutoscalerConfig.behavior"
for _way in ("scaleUp", "scaleDown"):
    _COMPACT["ScaledObject"] |= {
        f"{_BEHAVIOUR}.{_way}.stabilizationWindowSeconds": int, f"{_BEHAVIOUR}.{_way}.selectPolicy": str,
        f"{_BEHAVIOUR}.{_way}.policies[].type": str, f"{_BEHAVIOUR}.{_way}.policies[].value": int,
        f"{_BEHAVIOUR}.{_way}.policies[].periodSeconds": int,
    }  # fmt: skip


def compact_errors(manifest: dict[str, Any]) -> list[str]:
    """What our compact rules have against an object: every field known, of its type."""
    rules = _COMPACT[manifest["kind"]]
    return [
        f"{manifest['kind']} {path}: {value!r}"
        for path, value in _leaves("spec", manifest["spec"])
        if type(value) is not _rule(rules, path)
    ]


def _rule(rules: dict[str, Any], path: str) -> Any:
    for known, rule in rules.items():
        if known == path or (
            known.endswith(".*") and path.startswith(known[:-1]) and path.count("[") == known.count("[")
        ):
            return rule
    return None


def _leaves(path: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in _leaves(f"{path}.{key}", inner)]
    if isinstance(value, list):
        return [leaf for inner in value for leaf in _leaves(f"{path}[]", inner)]
    return [(path, value)]
