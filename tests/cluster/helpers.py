"""What the conformance tests have in common: applying as the portal does and as somebody else, and objects to try."""

from __future__ import annotations

from typing import Any

from apps.clusters import kinds
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.core.canonical import canonical_bytes
from apps.provisioning import applier, ordering
from apps.provisioning.applier import Target, Work
from apps.provisioning.ordering import Key, key_of
from apps.provisioning.takeover import Last
from tests.cluster.fixtures import LABELS

Manifest = dict[str, Any]
GPU = "nvidia.com/gpu"


def run_apply(api: KubernetesClient, manifests: list[Manifest], **kwargs: Any) -> applier.Outcome:
    """Apply as an apply run does."""
    targets = [Target(key_of(m), canonical_bytes(m)) for m in ordering.in_order(manifests)]
    return applier.run(api, Work(targets, **kwargs))


def run_next(api: KubernetesClient, manifests: list[Manifest], last: dict[Key, Last]) -> applier.Outcome:
    """Apply the generation after `last`, and keep in it what was applied."""
    declared = {key_of(m): m for m in ordering.in_order(manifests)}
    targets = [
        Target(key, canonical_bytes(m), canonical_bytes(last[key].body) if key in last else b"", last=last.get(key))
        for key, m in declared.items()
    ]
    outcome = applier.run(api, Work(targets))
    if outcome.succeeded:
        last.update({key: Last(declared[key], settled) for key, settled in outcome.settled.items()})
    return outcome


def as_another(api: KubernetesClient, manifest: Manifest, manager: str, *, force: bool = True) -> Manifest:
    """Apply as another field manager. Returns the object."""
    return dict(api.apply(manifest, manager=manager, force=force).object)


def merge_patch(api: KubernetesClient, manifest: Manifest, manager: str) -> Manifest:
    """Write all that is in `manifest` as kubectl edit does: no apply, the manager holds what it changed."""
    entry = kinds.of(manifest)
    meta = manifest["metadata"]
    path, params = api._one(entry.kind, meta["name"], meta.get("namespace", ""))
    query = [("fieldManager", manager)]
    body = {name: value for name, value in manifest.items() if name not in ("apiVersion", "kind")}
    answer = api._call("PATCH", path, params, query=query, body=body, content_type="application/merge-patch+json")
    return dict(answer.object)


def bare(manifest: Manifest, **hard: str) -> Manifest:
    """A quota that states only these keys, as somebody else would apply it."""
    meta = {"name": manifest["metadata"]["name"], "namespace": manifest["metadata"]["namespace"]}
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "spec": {"hard": hard}}


def thing(kind: str, name: str, space: str = "", **fields: Any) -> Manifest:
    """An object of any kind of the portal's table."""
    meta: Manifest = {"name": name, "labels": dict(LABELS)}
    if kinds.KINDS[kind].namespaced:
        meta["namespace"] = space
    return {"apiVersion": kinds.KINDS[kind].api_version, "kind": kind, "metadata": meta, **fields}


def pod_spec(gpus: int = 0, **spec: Any) -> Manifest:
    """A pod spec; its image is never pulled where nothing schedules it."""
    requests: Manifest = {"cpu": "10m"} | ({GPU: str(gpus)} if gpus else {})
    limits: Manifest = {"cpu": "20m"} | ({GPU: str(gpus)} if gpus else {})
    container = {"name": "main", "image": "registry.example.com/none:1"}
    resources = {"requests": requests, "limits": limits}
    return {"containers": [{**container, "resources": resources}], "restartPolicy": "Never", **spec}


def pod(space: str, name: str, gpus: int, **spec: Any) -> Manifest:
    """A pod that asks for GPUs."""
    meta = {"name": name, "namespace": space}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": pod_spec(gpus, **spec)}


def job(space: str, name: str, gpus: int = 1) -> Manifest:
    """A Job of one pod that runs for a while."""
    note = {"simulated.gpu-commons.internal/run-seconds": "600"}
    tolerations = [{"key": GPU, "operator": "Exists"}]
    template = {"metadata": {"annotations": note}, "spec": pod_spec(gpus, tolerations=tolerations)}
    return thing("Job", name, space, spec={"template": template})


def deployment(space: str, name: str, replicas: int = 2) -> Manifest:
    """A Deployment without GPUs."""
    marks = {"app": name}
    template = {"metadata": {"labels": marks}, "spec": pod_spec(restartPolicy="Always")}
    spec = {"replicas": replicas, "selector": {"matchLabels": marks}, "template": template}
    return thing("Deployment", name, space, spec=spec)


def groups(flavor: str, nominal: str, **limits: str) -> list[Manifest]:
    """One resource group with one flavour of GPUs."""
    resources = [{"name": GPU, "nominalQuota": nominal, **limits}]
    return [{"coveredResources": [GPU], "flavors": [{"name": flavor, "resources": resources}]}]


def cluster_queue(name: str, flavor: str, nominal: str, *, limits: Manifest | None = None, **spec: Any) -> Manifest:
    """A ClusterQueue as the portal declares it: everybody may submit, borrowed GPUs are taken back."""
    preemption = {"reclaimWithinCohort": "Any", "withinClusterQueue": "LowerPriority"}
    wanted = {"resourceGroups": groups(flavor, nominal, **(limits or {})), "namespaceSelector": {}}
    return thing("ClusterQueue", name, spec={**wanted, "preemption": preemption, **spec})
