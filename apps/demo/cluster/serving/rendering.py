"""What KServe makes of a component: the Deployment and the Service of a predictor, transformer or explainer. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from apps.demo.cluster.apply import clone
from apps.demo.cluster.errors import Obj
from apps.demo.cluster.seeds import SIMULATED

NAME_LABEL = "serving.kserve.io/inferenceservice"
REVISION_LABEL = "serving.knative.dev/revision"
COMPONENTS = ("predictor", "transformer", "explainer")
SERVES = f"{SIMULATED}/serves"
LOAD_SECONDS = f"{SIMULATED}/load-seconds"
FAIL_LOAD = f"{SIMULATED}/fail-load"
REQUESTS = f"{SIMULATED}/requests-per-second"
HASH = f"{SIMULATED}/template"
_SETTINGS = (LOAD_SECONDS, FAIL_LOAD, REQUESTS, f"{SIMULATED}/utilisation")
_NOT_PASSED_ON = ("serving.kserve.io/", "autoscaling.keda.sh/", "kubectl.kubernetes.io/")
#: Fields of a component that are KServe's; everything else in it is a pod's.
_OWN = (
    "model", "name", "minReplicas", "maxReplicas", "scaleTarget", "scaleMetric", "scaleMetricType", "autoScaling",
    "containerConcurrency", "timeout", "canaryTrafficPercent", "logger", "batcher", "labels", "annotations",
    "deploymentStrategy", "workerSpec", "containers", "initContainers", "storageUris",
)  # fmt: skip
_MODEL_OWN = ("modelFormat", "runtime", "storageUri", "storage", "protocolVersion", "runtimeVersion", "storageUris")


@dataclass(frozen=True)
class Installed:
    """What rendering looks up: the image of a runtime or format, and the storage containers."""

    image: Callable[[str, str], str]
    containers: Sequence[Obj]

    def container_for(self, uri: str) -> Obj | None:
        """The storage container that a cluster runs for an address: of several the one that is not `default`."""
        fitting = [each for each in self.containers if not each.get("disabled") and _supports(each, uri)]
        fitting.sort(key=lambda each: (each["metadata"]["name"] == "default", each["metadata"]["name"]))
        return fitting[0] if fitting else None


def _supports(container: Obj, uri: str) -> bool:
    spec = container.get("spec") or {}
    if spec.get("workloadType", "initContainer") != "initContainer":
        return False
    return any(
        (each.get("prefix") and uri.startswith(each["prefix"])) or (each.get("regex") and re.search(each["regex"], uri))
        for each in spec.get("supportedUriFormats") or []
    )


def uris_of(component: Obj) -> list[str]:
    """Every address that a component loads from."""
    model = component.get("model") or {}
    found = [str(each["storageUri"]) for each in (model, component) if each.get("storageUri")]
    for part in (model, component):
        found += [str(each.get("uri", "")) for each in part.get("storageUris") or [] if isinstance(each, dict)]
    for container in component.get("containers") or []:
        found += [
            str(each.get("value", "")) for each in container.get("env") or [] if each.get("name") == "STORAGE_URI"
        ]
    return [uri for uri in dict.fromkeys(found) if uri]


def workload_name(service: str, component: str, spec: Obj) -> str:
    """`{isvc}-predictor`, or with the component's own name in between."""
    return f"{service}-{spec['name']}-{component}" if spec.get("name") else f"{service}-{component}"


def owner_of(service: Obj) -> list[Obj]:
    """The owner reference of everything made for an InferenceService."""
    meta = service["metadata"]
    head = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "name": meta["name"]}
    return [{**head, "uid": meta["uid"], "controller": True, "blockOwnerDeletion": True}]


def template_of(service: Obj, component: str, installed: Installed, extra: Obj | None = None) -> Obj:
    """The pod template of a component; `extra` are further labels."""
    spec, meta = service["spec"][component], service["metadata"]
    name = workload_name(meta["name"], component, spec)
    labels = {**(meta.get("labels") or {}), **(spec.get("labels") or {}), **(extra or {})}
    labels |= {"app": f"isvc.{name}"[:63], "component": component, NAME_LABEL: meta["name"]}
    notes = {
        key: value
        for key, value in {**(meta.get("annotations") or {}), **(spec.get("annotations") or {})}.items()
        if not key.startswith(_NOT_PASSED_ON)
    }
    pod = {key: clone(value) for key, value in spec.items() if key not in _OWN}
    containers: list[Obj] = clone(spec.get("containers") or [])
    starters: list[Obj] = clone(spec.get("initContainers") or [])
    uris = uris_of(spec)
    if spec.get("model"):
        containers.insert(0, _model_container(spec["model"], installed))
        notes[SERVES] = ",".join(uris) or "-"
    elif containers:
        notes[SERVES] = ",".join(uris) or str(containers[0].get("image", "-"))
    guard = containers[0].get("securityContext") if containers else None
    for uri in uris:
        if uri.startswith("oci://"):
            side = {"name": "modelcar", "image": uri.removeprefix("oci://"), "resources": _small()}
            containers.append(side | ({"securityContext": clone(guard)} if guard else {}))
        elif (found := installed.container_for(uri)) is not None:
            starter = clone(found["spec"]["container"])
            starter.setdefault("name", "storage-initializer")
            starter.setdefault("resources", _small())
            starter["args"] = [*(starter.get("args") or []), uri, "/mnt/models"]
            if guard:
                starter.setdefault("securityContext", clone(guard))
            starters.append(starter)
    for index, starter in enumerate(starters[1:], 1):
        if starter["name"] == starters[0]["name"]:
            starter["name"] = f"{starter['name']}-{index}"
    pod["containers"] = containers
    if starters:
        pod["initContainers"] = starters
    return {"metadata": {"labels": labels, "annotations": notes}, "spec": pod}


def _small() -> Obj:
    return {"requests": {"cpu": "100m", "memory": "100Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}


def _model_container(model: Obj, installed: Installed) -> Obj:
    container = {key: clone(value) for key, value in model.items() if key not in _MODEL_OWN}
    container["name"] = "kserve-container"
    if not container.get("image"):
        model_format = str((model.get("modelFormat") or {}).get("name", ""))
        container["image"] = installed.image(str(model.get("runtime", "")), model_format)
    return container


def deployment_of(service: Obj, name: str, template: Obj, replicas: int) -> Obj:
    """The Deployment of one component or revision."""
    labels = template["metadata"]["labels"]
    chosen = {key: labels[key] for key in ("app", REVISION_LABEL) if key in labels}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name,
            "namespace": service["metadata"]["namespace"],
            "labels": clone(labels),
            "annotations": {HASH: digest_of(template)},
            "ownerReferences": owner_of(service),
        },
        "spec": {"replicas": replicas, "selector": {"matchLabels": chosen}, "template": template},
    }


def service_of(service: Obj, name: str, component: str) -> Obj:
    """The Service in front of a component's pods."""
    meta = service["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": meta["namespace"],
            "labels": {NAME_LABEL: meta["name"], "component": component},
            "ownerReferences": owner_of(service),
        },
        "spec": {"selector": {"app": f"isvc.{name}"[:63]}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    }


def digest_of(template: Obj) -> str:
    """Short stable hash of a pod template."""
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:16]


def setting(obj: Obj, name: str, default: float) -> float:
    """A number in an annotation; the default where there is none or it is no number."""
    try:
        return float((obj["metadata"].get("annotations") or {}).get(name, default))
    except ValueError:
        return default
