"""What a cluster enforces: the type ApprovedModels, and policies that refuse models which no usable grant covers. Pure.

One ApprovedModels object in each regulated namespace lists all usable grants of its workspace; the policies read it as
their parameter, and its absence refuses everything (`parameterNotFoundAction: Deny`). Which namespaces are judged, and
whether they are refused or noted, says a label of the namespace.

Facts (Kubernetes reference, checked against an API server 1.36; KServe 0.20.0's CRDs): a pod is what counts, whoever
made it, so the pod policy also holds Deployments, Jobs and everything else; ephemeral containers come by a subresource;
images of model cars are containers, those of native OCI models are image volumes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from apps.deployments import admission_cel as cel
from apps.deployments.choices import EnforcementMode
from apps.quotas.manifests import ENFORCEMENT_LABEL

Manifest = dict[str, Any]
API = "gpu-commons.internal/v1"
CRD_NAME = "approvedmodels.gpu-commons.internal"
#: Of the object in each namespace, and of what stands for it in the policies.
NAME = "gpu-commons"
LABEL = ENFORCEMENT_LABEL
MODELS_POLICY, LLM_POLICY, OTHER_POLICY, PODS_POLICY = (
    "gpu-commons-approved-models", "gpu-commons-approved-llms", "gpu-commons-approved-parts",
    "gpu-commons-approved-pods",
)  # fmt: skip
POLICIES = (MODELS_POLICY, LLM_POLICY, OTHER_POLICY, PODS_POLICY)
#: An entry without an end.
NEVER = "9999-12-31T23:59:59Z"
_ADMISSION = "admissionregistration.k8s.io/v1"
_ACTIONS: Mapping[str, list[str]] = {
    EnforcementMode.AUDIT: ["Audit", "Warn"],
    EnforcementMode.DENY: ["Deny", "Audit"],
}
#: What the refusals say, by what is wrong. Tests and pages know them by these.
MESSAGES: Mapping[str, str] = {
    "storage": "A model is loaded from a location that no usable approval covers: request it in GPU Commons.",
    "image": "An image is not approved by its digest for this workspace: request it in GPU Commons.",
    "settings": (
        "A variable, command or argument names a model that no usable approval covers, or hides it (envFrom,"
        " valueFrom)."
    ),
    "volume": "A volume holds a model, or could, that no usable approval covers.",
    "base": "baseRefs bring in models that this object does not show: state everything in the object itself.",
    "bytes": "The files' digest that is to be checked while loading is not that of an approved version.",
    "container": "Only the verifying storage container of GPU Commons may load models here.",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One usable grant as the cluster reads it.

    `images`: sha256:… of images and OCI artifacts. `values`: texts that name the approved model in variables and
    arguments. `claims`: volume claims that its locations name. `files`: what the verifying container computes.
    """

    grant: str
    manifest: str
    version: str
    uris: tuple[str, ...]
    images: tuple[str, ...]
    values: tuple[str, ...]
    claims: tuple[str, ...]
    files: str
    not_before: datetime
    expires: datetime | None
    max_traffic: int
    bound: str
    #: The release that serves on although the grant ended: the entry is for the pods of that release alone.
    release: str = ""


def moment(at: datetime | None) -> str:
    """Return a time as the object holds it: whole seconds in UTC, as Kubernetes writes its own."""
    return NEVER if at is None else at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def approved_models(
    namespace: str, labels: Mapping[str, str], mode: str, entries: Sequence[Entry], platform_images: Sequence[str]
) -> Manifest:
    """Return a workspace's ApprovedModels object. Entries of a release stand apart: they let its pods be replaced."""
    usable = [entry for entry in entries if not entry.release]
    serving = [entry for entry in entries if entry.release]
    return {
        "apiVersion": API,
        "kind": "ApprovedModels",
        "metadata": {"name": NAME, "namespace": namespace, "labels": dict(labels)},
        "spec": {
            "mode": str(mode),
            "platformImages": sorted(set(platform_images)),
            "entries": [entry_json(entry) for entry in sorted(usable, key=lambda one: (one.manifest, one.grant))],
            "serving": [entry_json(entry) for entry in sorted(serving, key=lambda one: one.release)],
        },
    }


def entry_json(entry: Entry) -> dict[str, Any]:
    """Return an entry as the object holds it."""
    return {
        "grant": entry.grant,
        "manifest": entry.manifest,
        "version": entry.version,
        "uris": list(entry.uris),
        "images": list(entry.images),
        "values": list(entry.values),
        "claims": list(entry.claims),
        "files": entry.files,
        "notBefore": moment(entry.not_before),
        "expires": moment(entry.expires),
        "maxTraffic": entry.max_traffic,
        "bound": entry.bound,
        **({"release": entry.release} if entry.release else {}),
    }


# -- the type ----------------------------------------------------------------------------------------------------------


def crd(labels: Mapping[str, str]) -> Manifest:
    """Return the CustomResourceDefinition of ApprovedModels."""
    words: Manifest = {"type": "array", "items": {"type": "string", "maxLength": 2048}, "maxItems": 500}
    line: Manifest = {"type": "string", "maxLength": 253}
    time: Manifest = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"}
    entry = {
        "type": "object",
        "required": ["expires", "grant", "images", "manifest", "notBefore", "uris", "values", "claims"],
        "properties": {
            "grant": line, "manifest": line, "version": line, "uris": words, "images": words, "values": words,
            "claims": words, "files": line, "notBefore": time, "expires": time,
            "maxTraffic": {"type": "integer", "minimum": 0, "maximum": 100},
            "bound": {"type": "string", "enum": ["bytes", "name"]}, "release": line,
        },
    }  # fmt: skip
    spec = {
        "type": "object",
        "required": ["entries", "mode", "platformImages"],
        "properties": {
            "mode": {"type": "string", "enum": ["audit", "deny"]},
            "platformImages": words,
            "entries": {"type": "array", "items": entry, "maxItems": 2000},
            "serving": {"type": "array", "items": entry, "maxItems": 500},
        },
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": CRD_NAME, "labels": dict(labels)},
        "spec": {
            "group": "gpu-commons.internal",
            "names": {
                "kind": "ApprovedModels",
                "listKind": "ApprovedModelsList",
                "plural": "approvedmodels",
                "singular": "approvedmodels",
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {"type": "object", "required": ["spec"], "properties": {"spec": spec}}
                    },
                }
            ],
        },
    }


# -- policies ----------------------------------------------------------------------------------------------------------


def policies(labels: Mapping[str, str]) -> list[Manifest]:
    """Return the type, the policies and their bindings: what a cluster's baseline holds for enforcement."""
    found = [crd(labels)]
    rules = (
        (MODELS_POLICY, _rules("serving.kserve.io", "inferenceservices"), _changed_services(), _services()),
        (LLM_POLICY, _rules("serving.kserve.io", "llminferenceservices"), _changed_spec(), _llms()),
        (OTHER_POLICY, _parts(), _changed_spec(), _other()),
        (PODS_POLICY, _pods(), _changed_pods(), _pod()),
    )
    for name, matched, condition, validations in rules:
        found.append(_policy(name, labels, matched, condition, validations))
    for name, *_ in rules:
        for mode, actions in _ACTIONS.items():
            found.append(_binding(name, str(mode), actions, labels))
    return found


def _rules(group: str, *resources: str) -> list[Manifest]:
    return [
        {"apiGroups": [group], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"], "resources": list(resources),
         "scope": "Namespaced"}
    ]  # fmt: skip


def _parts() -> list[Manifest]:
    return _rules("serving.kserve.io", "localmodelnamespacecaches", "servingruntimes", "trainedmodels")


def _pods() -> list[Manifest]:
    return [
        {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
         "resources": ["pods", "pods/ephemeralcontainers"], "scope": "Namespaced"}
    ]  # fmt: skip


def _policy(
    name: str, labels: Mapping[str, str], rules: Sequence[Manifest], condition: str, validations: Sequence[Manifest]
) -> Manifest:
    return {
        "apiVersion": _ADMISSION,
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name, "labels": dict(labels)},
        "spec": {
            "failurePolicy": "Fail",
            "paramKind": {"apiVersion": API, "kind": "ApprovedModels"},
            "matchConstraints": {"matchPolicy": "Equivalent", "resourceRules": list(rules)},
            "matchConditions": [{"name": "brings-something-new", "expression": condition}],
            "variables": [{"name": "usable", "expression": _usable(name)}, *_variables(name)],
            "validations": list(validations),
        },
    }


def _binding(policy: str, mode: str, actions: Sequence[str], labels: Mapping[str, str]) -> Manifest:
    return {
        "apiVersion": _ADMISSION,
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": f"{policy}-{mode}", "labels": dict(labels)},
        "spec": {
            "policyName": policy,
            "paramRef": {"name": NAME, "parameterNotFoundAction": "Deny"},
            "matchResources": {
                "matchPolicy": "Equivalent",
                "namespaceSelector": {"matchLabels": {LABEL: mode}},
            },
            "validationActions": list(actions),
        },
    }


def _validation(what: str, expression: str) -> Manifest:
    return {"expression": expression, "message": MESSAGES[what], "reason": "Forbidden"}


def _usable(policy: str) -> str:
    return f"{cel.USABLE} + {cel.SERVING}" if policy == PODS_POLICY else cel.USABLE


def _variables(policy: str) -> list[Manifest]:
    if policy != MODELS_POLICY:
        return []
    spec = "object.spec"
    parts = (
        f"[{spec}.predictor] + (has({spec}.transformer) ? [{spec}.transformer] : [])"
        f" + (has({spec}.explainer) ? [{spec}.explainer] : [])"
        f" + (has({spec}.canary) ? {spec}.canary.map(c, c.predictor) : [])"
    )
    workers = "variables.parts.filter(p, has(p.workerSpec)).map(p, p.workerSpec)"
    return [
        {"name": "parts", "expression": parts},
        {"name": "components", "expression": f"variables.parts + {workers}"},
    ]


def _changed_services() -> str:
    new, old = "object.spec", "oldObject.spec"
    others = "['transformer', 'explainer', 'canary']"
    return (
        "request.operation == 'CREATE' || "
        + cel.models_changed(f"{old}.predictor", f"{new}.predictor")
        + f" || {others}.exists(k, (k in {new}) != (k in {old}) || (k in {new} && {new}[k] != {old}[k]))"
        + f" || {_annotation('object')} != {_annotation('oldObject')}"
    )


def _annotation(name: str) -> str:
    """Return the predictor's files' digest as a text, "" where there is none."""
    where, key = f"{name}.spec.predictor", "'gpu-commons/files-digest'"
    return f"(has({where}.annotations) && {key} in {where}.annotations ? {where}.annotations[{key}] : '')"


def _changed_spec() -> str:
    return "request.operation == 'CREATE' || object.spec != oldObject.spec"


def _changed_pods() -> str:
    new, old = "object.spec", "oldObject.spec"
    return (
        "request.operation == 'CREATE' || ['containers', 'initContainers', 'ephemeralContainers'].exists(k,"
        f" (k in {new}) != (k in {old}) || (k in {new} && {new}[k] != {old}[k]))"
    )


def _services() -> list[Manifest]:
    every = "variables.components.all(p, "
    held = cel.component_containers("p")
    digest = _annotation("object")
    return [
        _validation("storage", f"{every}{cel.storage_of('p')})"),
        _validation("image", f"{every}{cel.containers(held, cel.images_of())})"),
        _validation("settings", f"{every}{cel.containers(held, cel.settings_of())})"),
        _validation("volume", f"{every}{cel.volumes_of('p')})"),
        _validation("container", f"{every}!has(p.storageContainerName))"),
        _validation("bytes", f"{digest} == '' || variables.usable.exists(e, e.files == {digest})"),
    ]


def _llms() -> list[Manifest]:
    spec = "object.spec"
    adapters = f"{spec}.model.lora.adapters"
    each = f"{adapters}.all(a, has(a.uri) && {cel.covered('a.uri')})"
    model = (
        f"(!has({spec}.model) || ((!has({spec}.model.uri) || {cel.covered(f'{spec}.model.uri')})"
        f" && (!has({spec}.model.lora) || !has({adapters}) || {each})))"
    )
    pods = (
        f"((has({spec}.template) ? [{spec}.template] : []) + (has({spec}.worker) ? [{spec}.worker] : [])"
        f" + (has({spec}.prefill) && has({spec}.prefill.template) ? [{spec}.prefill.template] : [])"
        f" + (has({spec}.prefill) && has({spec}.prefill.worker) ? [{spec}.prefill.worker] : [])"
        f" + (has({spec}.router) && has({spec}.router.scheduler) && has({spec}.router.scheduler.template)"
        f" ? [{spec}.router.scheduler.template] : []))"
    )
    held = _stated("p")
    return [
        _validation("storage", model),
        _validation("base", f"!has({spec}.baseRefs) || size({spec}.baseRefs) == 0"),
        _validation("image", f"{pods}.all(p, {cel.containers(held, cel.images_of())})"),
        _validation("settings", f"{pods}.all(p, {cel.containers(held, cel.settings_of())})"),
        _validation("volume", f"{pods}.all(p, {cel.volumes_of('p')})"),
    ]


def _stated(name: str) -> str:
    return (
        f"((has({name}.containers) ? {name}.containers : [])"
        f" + (has({name}.initContainers) ? {name}.initContainers : []))"
    )


def _other() -> list[Manifest]:
    spec = "object.spec"
    model, cache = f"{spec}.model.storageUri", f"{spec}.sourceModelUri"
    trained = f"(!has({spec}.model) || !has({model}) || {cel.covered(model)})"
    cached = f"(!has({spec}.sourceModelUri) || {cel.covered(cache)})"
    held = f"(has({spec}.containers) ? {spec}.containers : [])"
    return [
        _validation("storage", f"{trained} && {cached}"),
        _validation("image", cel.containers(held, cel.images_of())),
        _validation("settings", cel.containers(held, cel.settings_of())),
    ]


def _pod() -> list[Manifest]:
    spec = "object.spec"
    every = cel.pod_containers(spec)
    first = f"(has({spec}.initContainers) ? {spec}.initContainers : [])"
    meta, key = "object.metadata", "'gpu-commons/files-digest'"
    digest = f"(has({meta}.annotations) && {key} in {meta}.annotations ? {meta}.annotations[{key}] : '')"
    return [
        _validation("image", cel.containers(every, cel.image_covered("c.image"))),
        _validation("settings", cel.containers(every, cel.settings_of())),
        _validation("storage", cel.containers(first, f"[{cel.words_of()}].all(w, {cel.fetched_covered()})")),
        _validation("volume", cel.volumes_of(spec)),
        _validation("bytes", f"{digest} == '' || variables.usable.exists(e, e.files == {digest})"),
    ]
