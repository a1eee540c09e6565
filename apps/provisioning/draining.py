"""What holds GPUs in a namespace, by who would start it again. Network only, no rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from apps.clusters.errors import NotFound
from apps.provisioning.levers import Client, controller, is_stopped

JSON = dict[str, Any]


@dataclass(frozen=True, slots=True, order=True)
class Owner:
    """A workload of a namespace."""

    kind: str
    name: str


def gpu_owners(client: Client, namespace: str, resources: Collection[str]) -> list[Owner]:
    """Return the workloads of a namespace that hold GPUs, or would once they are let: in order, each once.

    `resources` are the resource names that count as GPUs. Where nobody known governs a pod, it is named itself (or its
    unknown controller), so that whoever drains can say what is left. Raises the client's errors.
    """
    jobs = _all(client, "Job", namespace)
    deployments = _all(client, "Deployment", namespace)
    services = _all(client, "InferenceService", namespace)
    workloads = [w for w in _all(client, "Workload", namespace) if not is_stopped(w) and not _finished(w)]
    found: set[Owner] = set()
    for job in jobs:
        if _asks(_template(job), resources) and not is_stopped(job) and not _finished(job):
            found.add(Owner("Job", job["metadata"]["name"]))
    for deployment in deployments:
        owner = controller(deployment)
        if owner.get("kind") == "InferenceService":
            continue
        if _asks(_template(deployment), resources) and not is_stopped(deployment):
            found.add(Owner("Deployment", deployment["metadata"]["name"]))
    for service in services:
        if not is_stopped(service) and _service_asks(service, deployments, resources):
            found.add(Owner("InferenceService", service["metadata"]["name"]))
    governed: dict[str, JSON] = {}
    for workload in workloads:
        for owner in workload["metadata"].get("ownerReferences") or []:
            governed[str(owner.get("uid"))] = workload
        owners = {str(owner.get("kind")) for owner in workload["metadata"].get("ownerReferences") or []}
        if _asks_in_sets(workload, resources) and owners.isdisjoint({"Job", "Pod"}):
            found.add(Owner("Workload", workload["metadata"]["name"]))
    for pod in _all(client, "Pod", namespace):
        if not _over(pod) and _asks(pod, resources):
            found |= _of_pod(pod, deployments, governed)
    return sorted(found)


def _of_pod(pod: Mapping[str, Any], deployments: list[JSON], governed: Mapping[str, JSON]) -> set[Owner]:
    owner = controller(pod)
    kind, name = str(owner.get("kind", "")), str(owner.get("name", ""))
    if kind in ("Job", "Deployment"):
        return set()  # found by itself above, or being stopped already
    if kind == "ReplicaSet":
        labels = pod["metadata"].get("labels") or {}
        for deployment in deployments:
            wanted = ((deployment.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
            if wanted and wanted.items() <= labels.items() and name.startswith(deployment["metadata"]["name"] + "-"):
                return set()
    if str(owner.get("uid")) in governed:
        return set()  # its Workload is named
    return {Owner(kind, name)} if kind else {Owner("Pod", pod["metadata"]["name"])}


def _all(client: Client, kind: str, namespace: str) -> list[JSON]:
    try:
        return list(client.list(kind, namespace).items)
    except NotFound:  # a kind that this cluster does not know
        return []


def _template(obj: Mapping[str, Any]) -> Mapping[str, Any]:
    return dict((obj.get("spec") or {}).get("template") or {})


def _asks(pod: Mapping[str, Any], resources: Collection[str]) -> bool:
    spec = pod.get("spec") or {}
    containers = [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]
    return any(_requests(container, resources) for container in containers)


def _requests(container: Mapping[str, Any], resources: Collection[str]) -> bool:
    wanted = container.get("resources") or {}
    asked = {**(wanted.get("limits") or {}), **(wanted.get("requests") or {})}
    return any(name in resources and str(count) not in ("0", "") for name, count in asked.items())


def _asks_in_sets(workload: Mapping[str, Any], resources: Collection[str]) -> bool:
    sets = (workload.get("spec") or {}).get("podSets") or []
    return any(_asks(one.get("template") or {}, resources) for one in sets)


def _service_asks(service: Mapping[str, Any], deployments: list[JSON], resources: Collection[str]) -> bool:
    """Whether an InferenceService holds GPUs: by what it says, or by what was made of it (runtimes add resources)."""
    predictor = (service.get("spec") or {}).get("predictor") or {}
    model = predictor.get("model")
    if (model and _requests(model, resources)) or _asks({"spec": predictor}, resources):
        return True
    uid = service["metadata"].get("uid")
    return any(controller(d).get("uid") == uid and _asks(_template(d), resources) for d in deployments)


def _finished(obj: Mapping[str, Any]) -> bool:
    conditions = (obj.get("status") or {}).get("conditions") or []
    return any(c.get("type") in ("Complete", "Failed", "Finished") and c.get("status") == "True" for c in conditions)


def _over(pod: Mapping[str, Any]) -> bool:
    phase = (pod.get("status") or {}).get("phase")
    return phase in ("Succeeded", "Failed") or bool(pod["metadata"].get("deletionTimestamp"))
