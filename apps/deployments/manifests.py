"""The objects of an endpoint on its cluster: a pure renderer for KServe, KEDA and the Gateway API.

Facts: KServe v0.20.0 and KEDA 2.20.2 (CRDs and source), reference of the Gateway API v1. Nothing is rendered that the
cluster would ignore: what cannot be honoured raises `Unfit` with a sentence for people.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from apps.catalogue import manifest as catalogue
from apps.catalogue.choices import Scheme
from apps.core.canonical import canonical_bytes, digest
from apps.deployments import canary_matrix, keda, routes, verifying
from apps.deployments.choices import CanaryMode
from apps.deployments.render_input import LABEL, FlavourSpec, Manifest, RenderInput, Side, Unfit
from apps.deployments.spec import Spec
from apps.quotas import priorities

RELEASE_LABEL, ENDPOINT_LABEL, WORKSPACE_LABEL = f"{LABEL}/release", f"{LABEL}/endpoint", f"{LABEL}/workspace"
#: What the verifying storage container reads, and the admission policy compares (`verifying`, `admission`).
FILES_DIGEST, MANIFEST_DIGEST = f"{LABEL}/files-digest", f"{LABEL}/manifest-digest"
DEPLOYMENT_MODE = "serving.kserve.io/deploymentMode"
AUTOSCALER_CLASS = "serving.kserve.io/autoscalerClass"
STOP = "serving.kserve.io/stop"
VISIBILITY = "networking.kserve.io/visibility"
QUEUE_LABEL, QUEUE_PRIORITY_LABEL = "kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/priority-class"
#: The container that serves; KServe and Knative know it by this name.
CONTAINER = "kserve-container"
#: Where the model lies in the container, and below what its adapters do.
MODEL_PATH, ADAPTER_PATH = "/mnt/models", "/mnt/adapters"
#: From these versions on KServe knows several locations, and an autoscaler class that keeps the number as stated.
_SEVERAL_LOCATIONS, _CLASS_NONE = (0, 16), (0, 15)
#: KServe's own rule (stricter than DNS-1123): a letter first. Short, because `<name>-r<n>-predictor` is a label.
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ADAPTER = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
#: Which priority class an environment's pods have: only production may take a GPU from others (quotas.priorities).
PRIORITY: Mapping[str, str] = {
    "production": priorities.PRODUCTION, "staging": priorities.BATCH, "development": priorities.DEVELOPMENT,
}  # fmt: skip


def autoscaler(spec: Spec) -> str:
    """Return what moves a release's replicas, as `canary_matrix` calls it: "keda", or "" where nothing does."""
    return canary_matrix.KEDA if keda.scales(spec) else canary_matrix.FIXED


def service_name(name: str, number: int, mode: str) -> str:
    """Return the name of a release's InferenceService: one of its own where a route stands before two of them."""
    return f"{name}-r{number}" if mode == CanaryMode.ROUTE else name


def deployment_name(service: str) -> str:
    """Return the name of the Deployment, and of the Service, that KServe makes of a predictor in Standard mode."""
    return f"{service}-predictor"


def files_digest(manifest: catalogue.Manifest) -> str:
    """Return the SHA-256 over the RFC 8785 list of [path, size, sha256] of a version's files, by path.

    What the verifying storage container computes of what it downloaded, and compares with the pod's annotation.
    """
    return digest(canonical_bytes([[one.path, str(one.size), one.sha256] for one in manifest.files]))


def render(asked: RenderInput) -> list[Manifest]:
    """Return the endpoint's objects in the order in which they are applied.

    Raises Unfit for what the cluster would ignore, or what no object can express.
    """
    sides = _checked(asked)
    if asked.mode == CanaryMode.KNATIVE:
        # One object: its template is the newest side's, Knative keeps the revision before it for the rest.
        return [_policy(asked), _service(asked, sides[-1], canary=asked.traffic if len(sides) == 2 else None)]
    found = [_policy(asked)]
    for side in sides:
        service = service_name(asked.name, side.number, asked.mode)
        found.append(_service(asked, side))
        if keda.scales(side.spec):
            found.append(_scaled(asked, side, service))
    if asked.mode == CanaryMode.ROUTE:
        found.append(_route(asked, sides))
    return sorted(found, key=lambda one: ("NetworkPolicy", "InferenceService", "ScaledObject", "HTTPRoute").index(
        one["kind"]))  # fmt: skip


def _checked(asked: RenderInput) -> list[Side]:
    """Return the sides that are rendered, or raise Unfit."""
    if not _NAME.fullmatch(asked.name):
        raise Unfit(f"{asked.name!r} is no name for an endpoint: a letter first, then a-z, 0-9 and -, at most 40")
    if asked.environment not in PRIORITY:
        raise Unfit(f"unknown environment: {asked.environment!r}")
    sides = [side for side in (asked.current, asked.candidate) if side is not None]
    if not sides:
        raise Unfit("an endpoint without a release has no objects")
    if not 0 <= asked.traffic <= 100 or (asked.traffic and asked.candidate is None):
        raise Unfit("a share of traffic is 0 to 100 per cent, and belongs to a canary")
    for side in sides:
        why = canary_matrix.refusal(asked.capabilities, asked.mode, autoscaler(side.spec), canary=len(sides) == 2)
        if why is not None:
            raise Unfit(why)
    if len({side.number for side in sides}) != len(sides):
        raise Unfit("a release is not its own canary")
    return sides


# -- labels ------------------------------------------------------------------------------------------------------------


def _labels(asked: RenderInput, side: Side | None = None) -> dict[str, str]:
    found = {**asked.labels, WORKSPACE_LABEL: asked.workspace_uid, ENDPOINT_LABEL: asked.endpoint_uid}
    return found if side is None else found | {RELEASE_LABEL: side.release_uid}


def _pod_labels(asked: RenderInput, side: Side) -> dict[str, str]:
    """Return the labels of a release's pods: metering and watching find them by these. Not the portal's own label."""
    found = {
        WORKSPACE_LABEL: asked.workspace_uid,
        ENDPOINT_LABEL: asked.endpoint_uid,
        RELEASE_LABEL: side.release_uid,
    }
    if asked.queue:
        found |= {QUEUE_LABEL: asked.queue, QUEUE_PRIORITY_LABEL: PRIORITY[asked.environment]}
    return found


def _meta(asked: RenderInput, name: str, side: Side | None = None) -> Manifest:
    return {"name": name, "namespace": asked.namespace, "labels": _labels(asked, side)}


# -- InferenceService --------------------------------------------------------------------------------------------------


def _service(asked: RenderInput, side: Side, canary: int | None = None) -> Manifest:
    meta = _meta(asked, service_name(asked.name, side.number, asked.mode), side)
    if asked.mode == CanaryMode.ROUTE:
        meta["labels"][VISIBILITY] = "cluster-local"  # clients come by our route, never past it
    meta["annotations"] = _annotations(asked, side)
    predictor = _predictor(asked, side)
    if canary is not None:
        predictor["canaryTrafficPercent"] = canary
    spec: Manifest = {"predictor": predictor}
    if side.spec.explainer:
        spec["explainer"] = _explainer(asked, side)
    return {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": meta, "spec": spec}


def _annotations(asked: RenderInput, side: Side) -> dict[str, str]:
    scaler = autoscaler(side.spec)
    mode = canary_matrix.deployment_mode(asked.capabilities, asked.mode)
    found = {DEPLOYMENT_MODE: mode, MANIFEST_DIGEST: side.manifest.digest}
    if asked.mode != CanaryMode.KNATIVE:
        version = canary_matrix.version_of(asked.capabilities.kserve.version)
        fixed = "none" if version is None or version >= _CLASS_NONE else "hpa"
        found[AUTOSCALER_CLASS] = "external" if scaler else fixed
    if asked.stopped:
        found[STOP] = "true"
    return found


def _predictor(asked: RenderInput, side: Side) -> Manifest:
    manifest, spec = side.manifest, side.spec
    found: Manifest = {
        "minReplicas": keda.least(spec),
        "maxReplicas": spec.max_replicas,
        "labels": _pod_labels(asked, side),
        "annotations": _pod_annotations(manifest),
        "priorityClassName": PRIORITY[asked.environment],
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    }
    if side.flavour.node_labels:
        found["nodeSelector"] = dict(sorted(side.flavour.node_labels.items()))
    if side.flavour.tolerations:
        found["tolerations"] = [dict(one) for one in side.flavour.tolerations]
    if spec.logger:
        if not asked.logger_url:
            raise Unfit(
                "prediction records are asked for, but no sink for them is known on this cluster: set its address, or"
                " switch the logger off"
            )
        found["logger"] = {"url": asked.logger_url, "mode": "all"}
    container = _container(side)
    uri = _uri(asked, manifest)
    locations = _locations(asked, manifest)
    if locations:
        found["storageUris"] = locations
    if manifest.format:
        model: Manifest = {"modelFormat": {"name": manifest.format}, **container}
        if manifest.runtime:
            model["runtime"] = manifest.runtime
        if uri and not locations:
            model["storageUri"] = uri
        found["model"] = model
        return found
    if not manifest.image:
        raise Unfit("the version names neither a model format nor an image: there is nothing that could serve it")
    if uri and not locations:
        container["env"] = [*container.get("env", []), {"name": "STORAGE_URI", "value": uri}]
    found["containers"] = [{"name": CONTAINER, **container}]
    return found


def _uri(asked: RenderInput, manifest: catalogue.Manifest) -> str:
    """Return where the model is loaded from: through the verifying storage container where the cluster has it."""
    if manifest.scheme == Scheme.UPLOAD and not manifest.stored:
        raise Unfit(
            "files that were uploaded to the portal lie in no storage that a cluster reaches: have them put into a"
            " model store on the version's page first"
        )
    if asked.capabilities.kserve.verifying and catalogue.verifiable(manifest):
        return verifying.location(manifest.storage_uri)
    return manifest.storage_uri


def _pod_annotations(manifest: catalogue.Manifest) -> dict[str, str]:
    found = {MANIFEST_DIGEST: manifest.digest}
    if manifest.files and not manifest.storage_uri.startswith("oci://"):
        found[FILES_DIGEST] = files_digest(manifest)
    return found


def _locations(asked: RenderInput, manifest: catalogue.Manifest) -> list[Manifest]:
    """Return `storageUris` where adapters are loaded beside the model; empty where there is one location."""
    if not manifest.adapters:
        return []
    version = canary_matrix.version_of(asked.capabilities.kserve.version)
    if version is not None and version < _SEVERAL_LOCATIONS:
        raise Unfit(
            f"KServe {asked.capabilities.kserve.version} loads one location only, so the adapters would be left out;"
            " it takes several from 0.16 on"
        )
    found = [{"uri": manifest.storage_uri, "mountPath": MODEL_PATH}] if manifest.storage_uri else []
    for adapter in manifest.adapters:
        if not _ADAPTER.fullmatch(adapter.name):
            raise Unfit(f"an adapter's name is a folder below {ADAPTER_PATH}: {adapter.name!r} is none")
        found.append({"uri": adapter.uri, "mountPath": f"{ADAPTER_PATH}/{adapter.name}"})
    if any(one["uri"].startswith("oci://") for one in found):
        raise Unfit("KServe 0.20 mounts one OCI artifact in a pod: put the adapters into the model's own artifact")
    return found


def _container(side: Side) -> Manifest:
    """Return what a container states in any case: image by digest, arguments, environment, size, no privileges."""
    manifest = side.manifest
    found: Manifest = {}
    if manifest.image:
        found["image"] = _pinned(manifest.image)
    if manifest.arguments:
        found["args"] = list(manifest.arguments)
    if manifest.environment:
        found["env"] = _environment(manifest.environment)
    found["resources"] = _resources(side)
    found["securityContext"] = _restricted()
    return found


def _environment(variables: Mapping[str, str]) -> list[Manifest]:
    for name in variables:
        if not _VARIABLE.fullmatch(name):
            raise Unfit(f"{name!r} is no name of an environment variable")
    return [{"name": name, "value": value} for name, value in sorted(variables.items())]


def _pinned(image: str) -> str:
    if not catalogue.BY_DIGEST.match(image):
        raise Unfit(f"{image} is a name that can be given to other bytes: name the image by its digest (@sha256:…)")
    return image


def _restricted() -> Manifest:
    """Return what Pod Security's level restricted asks of every container."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _resources(side: Side) -> Manifest:
    amounts = {"cpu": str(side.spec.cpu), "memory": f"{side.spec.memory_gib}Gi"}
    if side.flavour.resource:
        amounts[side.flavour.resource] = str(side.spec.units_per_replica)
    return {"requests": dict(amounts), "limits": dict(amounts)}


def _explainer(asked: RenderInput, side: Side) -> Manifest:
    explainer = side.manifest.explainer
    image = explainer.get("image", "")
    if not image:
        raise Unfit("an explainer is asked for, but the version names no image of one")
    container: Manifest = {
        "name": CONTAINER,
        "image": _pinned(image),
        "resources": {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"cpu": "1", "memory": "2Gi"}},
        "securityContext": _restricted(),
    }
    if uri := explainer.get("storage_uri", ""):
        container["env"] = [{"name": "STORAGE_URI", "value": uri}]
    return {
        "minReplicas": 1,
        "maxReplicas": 1,
        "labels": _pod_labels(asked, side),
        "annotations": {MANIFEST_DIGEST: side.manifest.digest},
        "priorityClassName": PRIORITY[asked.environment],
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }


# -- around it ---------------------------------------------------------------------------------------------------------


def _scaled(asked: RenderInput, side: Side, service: str) -> Manifest:
    try:
        return keda.scaled_object(
            side.spec, meta=_meta(asked, service, side), deployment=deployment_name(service),
            metrics_url=asked.metrics_url, metrics_auth=asked.metrics_auth, stopped=asked.stopped,
        )  # fmt: skip
    except ValueError as error:
        raise Unfit(str(error)) from error


def _route(asked: RenderInput, sides: Sequence[Side]) -> Manifest:
    weights = [100 - asked.traffic, asked.traffic] if len(sides) == 2 else [100]
    names = [service_name(asked.name, side.number, asked.mode) for side in sides]
    explaining = [name for name, side in zip(names, sides, strict=True) if side.spec.explainer]
    kserve = asked.capabilities.kserve
    try:
        hostname = routes.host(asked.name, asked.namespace, kserve.ingress_domain)
    except ValueError as error:
        raise Unfit(str(error)) from error
    return routes.route(
        _meta(asked, asked.name), hostname=hostname, gateway=kserve.gateway,
        backends=list(zip(names, weights, strict=True)), explainers=explaining,
    )  # fmt: skip


def _policy(asked: RenderInput) -> Manifest:
    """Return what a workspace's default-deny leaves out: requests come in, the model's files are fetched."""
    namespaces = sorted({*asked.capabilities.kserve.ingress_namespaces, "knative-serving"})
    term = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": namespaces}
    ports = sorted(_ports(asked))
    spec: Manifest = {
        "podSelector": {"matchLabels": {ENDPOINT_LABEL: asked.endpoint_uid}},
        "policyTypes": ["Ingress", "Egress"] if ports else ["Ingress"],
        "ingress": [{"from": [{"namespaceSelector": {"matchExpressions": [term]}}]}],
    }
    if ports:
        spec["egress"] = [{"ports": [{"protocol": "TCP", "port": port} for port in ports]}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _meta(asked, f"{asked.name}-serving"),
        "spec": spec,
    }


def _ports(asked: RenderInput) -> set[int]:
    """Return the ports that pods call: of storages that they fetch from (https), and of the sink of their records."""
    sides = [side for side in (asked.current, asked.candidate) if side is not None]
    uris = {uri for side in sides for uri in catalogue.model_uris(side.manifest)}
    found = {443} if any(not uri.startswith(("oci://", "pvc://")) for uri in uris) else set()
    if any(side.spec.logger for side in sides) and asked.logger_url:
        parts = urlsplit(asked.logger_url)
        found.add(parts.port or (443 if parts.scheme == "https" else 80))
    return found


__all__ = [
    "FILES_DIGEST", "MANIFEST_DIGEST", "FlavourSpec", "Manifest", "RenderInput", "Side", "Unfit", "autoscaler",
    "deployment_name", "files_digest", "render", "service_name",
]  # fmt: skip
