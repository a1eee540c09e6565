"""The fixed kind table: every Kubernetes kind the portal speaks, with its path and its place in the apply order.

A table instead of discovery: no cache file, no surprise when a cluster serves another version (reference C5).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Label on every object the portal owns; observers list and watch by it.
MANAGED_LABEL = "gpu-commons/managed"
#: The selector that finds every object the portal owns.
MANAGED_SELECTOR = f"{MANAGED_LABEL}=true"
#: One field manager for everything the portal applies (never per user or worker).
FIELD_MANAGER = "gpu-commons"
#: Kinds that are never deleted by pruning: what lives in them is the team's, not the portal's (invariant 5).
NEVER_PRUNED = frozenset({"Namespace", "PersistentVolumeClaim", "CustomResourceDefinition"})

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
# RBAC objects may be called system:node-reader and the like; still one path segment.
_SEGMENT = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_.:]*")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind: `order` is its place when applied (dependencies first); `path_name` allows RBAC's wider names."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool
    order: int
    path_name: bool = False
    has_status: bool = False

    @property
    def prefix(self) -> str:
        """`/api/v1` or `/apis/<group>/<version>`."""
        return f"/api/{self.api_version}" if "/" not in self.api_version else f"/apis/{self.api_version}"

    @property
    def collection(self) -> str:
        """Path template of the kind over all namespaces."""
        return f"{self.prefix}/{self.plural}"

    @property
    def in_namespace(self) -> str:
        """Path template of the kind in one namespace (the same as `collection` for cluster-wide kinds)."""
        return f"{self.prefix}/namespaces/{{namespace}}/{self.plural}" if self.namespaced else self.collection


_RBAC = "rbac.authorization.k8s.io/v1"
_ADMISSION = "admissionregistration.k8s.io/v1"
_KUEUE = "kueue.x-k8s.io/v1beta2"

_TABLE = (
    Kind("v1", "Namespace", "namespaces", False, 0, has_status=True),
    # Types before anything of theirs; a definition is never pruned: with it would go every object of the type.
    Kind("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", False, 5, has_status=True),
    Kind("v1", "LimitRange", "limitranges", True, 10),
    Kind("v1", "ResourceQuota", "resourcequotas", True, 20, has_status=True),
    Kind("v1", "ServiceAccount", "serviceaccounts", True, 28),
    Kind(_RBAC, "ClusterRole", "clusterroles", False, 29, path_name=True),
    Kind(_RBAC, "Role", "roles", True, 30, path_name=True),
    Kind(_RBAC, "ClusterRoleBinding", "clusterrolebindings", False, 31, path_name=True),
    Kind(_RBAC, "RoleBinding", "rolebindings", True, 32, path_name=True),
    Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", True, 40),
    Kind(_ADMISSION, "ValidatingAdmissionPolicy", "validatingadmissionpolicies", False, 45),
    Kind(_ADMISSION, "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", False, 46),
    Kind("scheduling.k8s.io/v1", "PriorityClass", "priorityclasses", False, 50),
    Kind("serving.kserve.io/v1alpha1", "ClusterStorageContainer", "clusterstoragecontainers", False, 48),
    Kind("gpu-commons.internal/v1", "ApprovedModels", "approvedmodels", True, 49),
    Kind(_KUEUE, "Topology", "topologies", False, 51),
    Kind(_KUEUE, "ResourceFlavor", "resourceflavors", False, 52),
    Kind(_KUEUE, "WorkloadPriorityClass", "workloadpriorityclasses", False, 53),
    Kind(_KUEUE, "AdmissionCheck", "admissionchecks", False, 54, has_status=True),
    Kind(_KUEUE, "Cohort", "cohorts", False, 60, has_status=True),
    Kind(_KUEUE, "ClusterQueue", "clusterqueues", False, 61, has_status=True),
    Kind(_KUEUE, "LocalQueue", "localqueues", True, 62, has_status=True),
    Kind("v1", "ConfigMap", "configmaps", True, 65),
    Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims", True, 66, has_status=True),
    Kind("v1", "Service", "services", True, 68),
    Kind("apps/v1", "Deployment", "deployments", True, 70, has_status=True),
    Kind("batch/v1", "Job", "jobs", True, 71, has_status=True),
    Kind("serving.kserve.io/v1beta1", "InferenceService", "inferenceservices", True, 72, has_status=True),
    Kind("keda.sh/v1alpha1", "ScaledObject", "scaledobjects", True, 80, has_status=True),
    Kind("gateway.networking.k8s.io/v1", "HTTPRoute", "httproutes", True, 82, has_status=True),
    # Read or posted, never declared.
    Kind("v1", "Node", "nodes", False, 900),
    Kind("v1", "Pod", "pods", True, 901),
    Kind("v1", "Event", "events", True, 902),
    Kind("serving.kserve.io/v1alpha2", "LLMInferenceService", "llminferenceservices", True, 906, has_status=True),
    Kind("serving.kserve.io/v1alpha1", "TrainedModel", "trainedmodels", True, 907, has_status=True),
    Kind("serving.kserve.io/v1alpha1", "ServingRuntime", "servingruntimes", True, 908),
    Kind(_KUEUE, "Workload", "workloads", True, 904, has_status=True),
    Kind("authorization.k8s.io/v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", False, 903),
    Kind("authentication.k8s.io/v1", "SelfSubjectReview", "selfsubjectreviews", False, 905),
)

#: Kind name → kind. No two kinds of the table share a name, so the name alone identifies it.
KINDS: dict[str, Kind] = {kind.kind: kind for kind in _TABLE}
#: Kinds a declaration may hold.
DECLARABLE: frozenset[str] = frozenset(name for name, kind in KINDS.items() if kind.order < 900)


def of(manifest: Mapping[str, Any]) -> Kind:
    """Return the kind of an object. Raises ValueError for a kind or version outside the table."""
    name, version = manifest.get("kind"), manifest.get("apiVersion")
    kind = KINDS.get(str(name))
    if kind is None:
        raise ValueError(f"the portal does not know the kind {name!r}")
    if version != kind.api_version:
        raise ValueError(f"{name} is spoken as {kind.api_version}, not {version!r}")
    return kind


def check_name(kind: Kind, name: Any) -> str:
    """Return `name` if it is one of this kind's (DNS-1123, at most 253 characters). Raises ValueError otherwise."""
    pattern, limit = (_SEGMENT, 253) if kind.path_name else (_DNS_SUBDOMAIN, 253)
    if kind.kind == "Namespace":
        pattern, limit = _DNS_LABEL, 63
    if not isinstance(name, str) or len(name) > limit or not pattern.fullmatch(name) or ".." in name:
        raise ValueError(f"{name!r} is no name for a {kind.kind}: use lower-case letters, digits, '-' and '.'")
    return name


def check_namespace(kind: Kind, namespace: Any) -> str:
    """Return `namespace` if it fits the kind (needed for namespaced ones, empty for others). Raises ValueError."""
    if not kind.namespaced:
        if namespace:
            raise ValueError(f"a {kind.kind} belongs to the cluster, not to a namespace")
        return ""
    if not isinstance(namespace, str) or len(namespace) > 63 or not _DNS_LABEL.fullmatch(namespace):
        raise ValueError(f"{namespace!r} is no namespace: use lower-case letters, digits and '-'")
    return namespace
