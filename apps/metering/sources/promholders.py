"""What Prometheus tells of containers that hold GPUs: joined from limits, HAMi's cores and resource claims. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from apps.metering.engine import HAMI_CORES, model_label, sanitised
from apps.metering.sources import promql
from apps.metering.sources.gpunodes import Node


@dataclass(slots=True)
class HeldPod:
    """What is known of one container's hold on one resource."""

    uid: str
    container: str
    resource: str
    node: str
    units: int
    namespace: str = ""
    name: str = ""
    samples: list[tuple[int, int]] = field(default_factory=list)
    #: From the exporter, where the node does not name it (resource claims).
    model: str = ""
    claimed: bool = False


@dataclass(slots=True)
class Owner:
    """What a pod is part of, and what it says about itself."""

    kind: str = ""
    name: str = ""
    node: str = ""
    project: str = ""
    purpose: str = ""
    release: str | None = None


@dataclass(slots=True)
class Owners:
    """Owners of pods, by uid and by name."""

    by_uid: dict[str, Owner] = field(default_factory=dict)
    #: (namespace, pod) → uid, for exporters that name pods only.
    uids: dict[tuple[str, str], str] = field(default_factory=dict)


@dataclass(slots=True)
class Measured:
    """What the exporter tells by (namespace, pod, container)."""

    devices: dict[tuple[str, str, str], int] = field(default_factory=dict)
    memory: dict[tuple[str, str, str], int] = field(default_factory=dict)
    claims: list[tuple[dict[str, str], int]] = field(default_factory=list)


def with_cores(pods: list[HeldPod], nodes: Mapping[str, Node]) -> list[HeldPod]:
    """Join what HAMi containers ask for: per cent of compute for each of their virtual GPUs, counted once."""
    cores = {(pod.uid, pod.container): pod for pod in pods if pod.resource == HAMI_CORES}
    if not cores:
        return pods
    kept = []
    for pod in pods:
        mine = cores.get((pod.uid, pod.container))
        if mine is None or pod is mine:
            kept.append(pod)
            continue
        mine.units *= pod.units
        mine.samples = [(t, value * pod.units) for t, value in mine.samples]
    for pod in cores.values():
        if pod.node in nodes:
            nodes[pod.node].hami = True
    return kept


def claimed_pods(measured: Measured, pods: list[HeldPod], owners: Owners) -> list[HeldPod]:
    """Return the containers that hold devices through resource claims, as the exporter tells; samples follow."""
    known = {(pod.namespace, pod.name, pod.container) for pod in pods}
    found: dict[tuple[str, str, str, str], HeldPod] = {}
    for labels, count in measured.claims:
        key = promql.workload_of(labels)
        if key in known or not key[1]:
            continue
        uid = labels.get("pod_uid") or owners.uids.get(key[:2]) or f"{key[0]}/{key[1]}"
        profile = labels.get("GPU_I_PROFILE", "")
        driver = labels.get("dra_driver_name") or "gpu.nvidia.com"
        resource = sanitised(f"nvidia.com/mig-{profile}" if profile else driver)
        if (*key, resource) in found:
            found[(*key, resource)].units += count
            continue
        found[(*key, resource)] = HeldPod(
            uid=uid,
            container=key[2],
            resource=resource,
            node=owners.by_uid.get(uid, Owner()).node or labels.get("Hostname") or labels.get("hostname") or "",
            units=count,
            namespace=key[0],
            name=key[1],
            model=model_label(labels.get("modelName", "")),
            claimed=True,
        )
    return [found[key] for key in sorted(found)]
