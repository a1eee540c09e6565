"""The objects of a workspace on its cluster: a pure renderer (facts: Kubernetes API reference, ResourceQuota docs).

Every quantity is a canonical string, so that what the server stores equals what was sent and nothing looks drifted.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from apps.core.copies import copied
from apps.quotas import kueue, priorities
from apps.quotas.kueue import QueueSpec, Share

LABEL = "gpu-commons"
#: Raised when this renderer changes what it makes of the same rows: a sweep then says that a baseline is due.
RENDERER_VERSION = 3
QUOTA_NAME = "gpu-commons"
#: By this label of a namespace the cluster's admission policies choose what they judge (deployments.admission).
ENFORCEMENT_LABEL = f"{LABEL}/enforcement"
#: In these nobody of the team creates pods or workloads: only what the portal applied runs there.
REGULATED_ROLE = "view"
Manifest = dict[str, Any]

_DNS_LABEL = re.compile(r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
_RESOURCE = re.compile(r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")


@dataclass(frozen=True, slots=True)
class Profile:
    """What an environment allows. `pod_security`: level enforced; `member_role`: what a team's members may do."""

    pod_security: str
    pod_security_warn: str
    lead_role: str
    member_role: str


#: Production runs restricted pods, and only leads change what runs there; members look.
PROFILES: Mapping[str, Profile] = {
    "development": Profile("baseline", "restricted", "edit", "edit"),
    "staging": Profile("baseline", "restricted", "edit", "edit"),
    "production": Profile("restricted", "restricted", "edit", "view"),
}


@dataclass(frozen=True, slots=True)
class WorkspaceSpec:
    """Everything a workspace's objects depend on.

    `gpus`: resource name → units that may be requested, for EVERY GPU resource the cluster offers; what the workspace
    does not hold stands there as 0, because a missing key would mean no limit. Cores, GiB and counts are whole numbers.
    `annotations` of the namespace: approved policies that whoever reads the cluster should find there.
    `shares`: the same by flavour. `priorities`: whether the cluster has the portal's priority classes, so that the
    highest one must be limited here. `enforcement`: what the cluster does there with models that nobody approved ("",
    "audit", "deny"). `queue`: what its ClusterQueue is made of; None: Kueue does not run this cluster.
    """

    namespace: str
    workspace_uid: str
    team_slug: str
    environment: str
    group_prefix: str
    cpu_cores: int
    memory_gib: int
    storage_gib: int
    pods: int
    gpus: Mapping[str, int] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    jobs: int = 500
    deployments: int = 100
    volume_claims: int = 50
    shares: Sequence[Share] = ()
    priorities: bool = False
    queue: QueueSpec | None = None
    enforcement: str = ""


def quantity(gib: int) -> str:
    """Return so many GiB as Kubernetes writes it canonically: the largest binary suffix without a fraction."""
    if gib < 0:
        raise ValueError("a quantity must not be negative")
    for power, suffix in ((1 << 20, "Pi"), (1 << 10, "Ti")):
        if gib and gib % power == 0:
            return f"{gib // power}{suffix}"
    return f"{gib}Gi" if gib else "0"


def gpu_hard(gpus: Mapping[str, int]) -> dict[str, str]:
    """Return the ResourceQuota keys of GPU limits. Only `requests.<resource>` is enforced for extended resources.

    Raises ValueError for a negative count or a name that is neither an extended resource nor cpu (a CPU class).
    """
    hard: dict[str, str] = {}
    for resource, units in sorted(gpus.items()):
        if resource != "cpu" and not _RESOURCE.match(resource):
            raise ValueError(f"not the name of an extended resource: {resource!r}")
        if units < 0:
            raise ValueError(f"negative units of {resource}")
        hard[f"requests.{resource}"] = str(units)
    return hard


def _meta(spec: WorkspaceSpec, name: str) -> Manifest:
    return {"name": name, "namespace": spec.namespace, "labels": _labels(spec)}


def _labels(spec: WorkspaceSpec) -> dict[str, str]:
    return {
        f"{LABEL}/managed": "true",
        f"{LABEL}/workspace": spec.workspace_uid,
        f"{LABEL}/team": spec.team_slug,
        f"{LABEL}/environment": spec.environment,
    }


def _namespace(spec: WorkspaceSpec, profile: Profile) -> Manifest:
    prefix = "pod-security.kubernetes.io"
    managed = dict(spec.queue.namespace_labels) if spec.queue is not None else {}
    labels = (
        managed
        | _labels(spec)
        | {
            f"{prefix}/enforce": profile.pod_security,
            f"{prefix}/enforce-version": "latest",
            f"{prefix}/warn": profile.pod_security_warn,
            f"{prefix}/warn-version": "latest",
            f"{prefix}/audit": profile.pod_security_warn,
            f"{prefix}/audit-version": "latest",
        }
    )
    if spec.enforcement:
        labels[ENFORCEMENT_LABEL] = spec.enforcement
    meta: Manifest = {"name": spec.namespace, "labels": labels}
    if spec.annotations:
        meta["annotations"] = dict(sorted(spec.annotations.items()))
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": meta}


def _limit_range(spec: WorkspaceSpec) -> Manifest:
    # A quota on cpu and memory refuses containers that state none: give those a default first.
    container = {
        "type": "Container",
        "defaultRequest": {"cpu": "500m", "memory": "1Gi"},
        "default": {"cpu": "1", "memory": "2Gi"},
    }
    return {
        "apiVersion": "v1",
        "kind": "LimitRange",
        "metadata": _meta(spec, "gpu-commons"),
        "spec": {"limits": [container]},
    }


def _resource_quota(spec: WorkspaceSpec) -> Manifest:
    hard = {
        "requests.cpu": str(spec.cpu_cores),
        "requests.memory": quantity(spec.memory_gib),
        "requests.storage": quantity(spec.storage_gib),
        "persistentvolumeclaims": str(spec.volume_claims),
        "pods": str(spec.pods),
        "count/jobs.batch": str(spec.jobs),
        "count/deployments.apps": str(spec.deployments),
        "services.nodeports": "0",
    }
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": _meta(spec, QUOTA_NAME),
        "spec": {"hard": hard | gpu_hard(spec.gpus)},
    }


def _role_binding(spec: WorkspaceSpec, who: str, role: str) -> Manifest:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": _meta(spec, f"gpu-commons-{who}"),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [
            {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "Group",
                "name": f"{spec.group_prefix}{spec.team_slug}-{who}",
            }
        ],
    }


def _network_policy(spec: WorkspaceSpec) -> Manifest:
    dns = {
        "to": [
            {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
                "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
            }
        ],
        "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}],
    }
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _meta(spec, "gpu-commons-default-deny"),
        "spec": {
            "podSelector": {},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [{"podSelector": {}}]}],
            "egress": [{"to": [{"podSelector": {}}]}, dns],
        },
    }


def workspace_manifests(spec: WorkspaceSpec) -> list[Manifest]:
    """Return the workspace's objects in the order in which they are applied.

    Raises ValueError for a namespace that is no DNS label, an unknown environment, or a count that makes no sense.
    """
    if not _DNS_LABEL.match(spec.namespace):
        raise ValueError(f"not a namespace name: {spec.namespace!r}")
    if spec.environment not in PROFILES:
        raise ValueError(f"unknown environment: {spec.environment!r}")
    profile = PROFILES[spec.environment]
    if spec.enforcement == "deny":
        profile = replace(profile, lead_role=REGULATED_ROLE, member_role=REGULATED_ROLE)
    return [
        _namespace(spec, profile),
        _limit_range(spec),
        _resource_quota(spec),
        _role_binding(spec, "leads", profile.lead_role),
        _role_binding(spec, "members", profile.member_role),
        _network_policy(spec),
        *_queued(spec),
    ]


def _queued(spec: WorkspaceSpec) -> list[Manifest]:
    """Return what keeps priorities and queues: the scoped quota, the ClusterQueue, the LocalQueue."""
    found: list[Manifest] = []
    mode = spec.queue.mode if spec.queue is not None else kueue.PODS
    if spec.priorities:
        meta = _meta(spec, priorities.SCOPED_QUOTA)
        production = kueue.production_units(spec.shares, mode)
        found.append(priorities.scoped_quota(meta, spec.environment, production))
    if spec.queue is not None:
        found += kueue.queue_manifests(
            spec.queue,
            spec.shares,
            namespace=spec.namespace,
            labels=_labels(spec),
            cpu=str(spec.cpu_cores),
            memory=quantity(spec.memory_gib),
            pods=str(spec.pods),
        )
    return found


def with_gpus(manifests: Sequence[Manifest], gpus: Mapping[str, int]) -> list[Manifest]:
    """Return stored objects with other GPU limits and nothing else changed.

    What was approved once stays as it was approved, byte for byte; a change of quota moves these keys alone. A GPU key
    that `gpus` does not name is kept. Raises ValueError where the objects hold no workspace quota.
    """
    result = copied(list(manifests))
    for manifest in result:
        if manifest["kind"] == "ResourceQuota" and manifest["metadata"]["name"] == QUOTA_NAME:
            manifest["spec"]["hard"].update(gpu_hard(gpus))
            return result
    raise ValueError("there is no workspace quota among these objects")


def with_quota(
    manifests: Sequence[Manifest], gpus: Mapping[str, int], shares: Sequence[Share], added: Collection[str] = ()
) -> list[Manifest]:
    """Return stored objects with other numbers of quota, in all the places where they stand, and nothing else changed.

    The places: the workspace's ResourceQuota, the one of production priority, and the ClusterQueue's groups (one
    atomic list, sent whole). `added` are resources that an approval sets, of which a flavour may be new to the queue.
    """
    result = with_gpus(manifests, gpus)
    queue = next((manifest for manifest in result if manifest["kind"] == "ClusterQueue"), None)
    mode = kueue.mode_of(queue) if queue is not None else kueue.PODS
    if queue is not None:
        kueue.with_shares(queue, shares, added)
    for manifest in result:
        if manifest["kind"] == "ResourceQuota" and manifest["metadata"]["name"] == priorities.SCOPED_QUOTA:
            environment = str(manifest["metadata"]["labels"].get(f"{LABEL}/environment", ""))
            known = manifest["spec"]["hard"]
            wanted = priorities.scoped_hard(environment, kueue.production_units(shares, mode))
            known.update({k: v for k, v in wanted.items() if k in known or k.removeprefix("requests.") in added})
    return result


def without_gpus(manifest: Manifest) -> Manifest:
    """Return an object without its GPU limits: what creating the workspace approves beside the quota itself."""
    if manifest["kind"] == "ClusterQueue":
        return kueue.without_gpu_groups(manifest)
    if manifest["kind"] != "ResourceQuota":
        return manifest
    result = copied(manifest)
    hard = result["spec"]["hard"]
    result["spec"]["hard"] = {k: v for k, v in hard.items() if not (k.startswith("requests.") and "/" in k)}
    return result
