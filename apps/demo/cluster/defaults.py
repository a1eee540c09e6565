"""Defaulting: what the API server fills in when an object leaves a field out. Works in place on a private copy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

from apps.demo.cluster import crds
from apps.demo.cluster.errors import Obj
from apps.demo.cluster.kinds import (
    CLAIM,
    CLUSTER_ROLE_BINDING,
    CRD,
    DEPLOYMENT,
    HTTP_ROUTE,
    JOB,
    NAMESPACE,
    NETWORK_POLICY,
    POD,
    POLICY,
    POLICY_BINDING,
    PRIORITY_CLASS,
    ROLE_BINDING,
    SERVICE,
    Kind,
)
from apps.demo.cluster.kueue import rules

RBAC_GROUP = "rbac.authorization.k8s.io"


def apply_defaults(kind: Kind, obj: Obj) -> None:
    """Fill in the defaults of a kind."""
    handler = _HANDLERS.get(kind)
    if handler is not None:
        handler(obj)
    elif kind.addon == "kueue":
        rules.defaults(kind, obj)
    elif kind.schema is not None:
        crds.defaults(kind.schema, obj)


def _namespace(obj: Obj) -> None:
    obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = obj["metadata"]["name"]
    obj.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
    obj.setdefault("status", {}).setdefault("phase", "Active")


def _role_binding(obj: Obj) -> None:
    obj.get("roleRef", {}).setdefault("apiGroup", RBAC_GROUP)
    for subject in obj.get("subjects") or []:
        if subject.get("kind") in ("User", "Group"):
            subject.setdefault("apiGroup", RBAC_GROUP)


def _network_policy(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("podSelector", {})
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
    for rule in [*(spec.get("ingress") or []), *(spec.get("egress") or [])]:
        for port in rule.get("ports") or []:
            port.setdefault("protocol", "TCP")


def _priority_class(obj: Obj) -> None:
    obj.setdefault("preemptionPolicy", "PreemptLowerPriority")


def _claim(obj: Obj) -> None:
    obj.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")
    obj.setdefault("status", {}).setdefault("phase", "Pending")


def _service(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    spec.setdefault("internalTrafficPolicy", "Cluster")
    for port in spec.get("ports") or []:
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port.get("port", 0))


def _http_route(obj: Obj) -> None:
    """Defaults of the Gateway API's own schema."""
    spec = obj.setdefault("spec", {})
    for parent in spec.get("parentRefs") or []:
        parent.setdefault("group", "gateway.networking.k8s.io")
        parent.setdefault("kind", "Gateway")
    for rule in spec.setdefault("rules", [{}]):
        rule.setdefault("matches", [{"path": {"type": "PathPrefix", "value": "/"}}])
        for backend in rule.get("backendRefs") or []:
            backend.setdefault("group", "")
            backend.setdefault("kind", "Service")
            backend.setdefault("weight", 1)


def _match_resources(match: Obj) -> None:
    match.setdefault("matchPolicy", "Equivalent")
    match.setdefault("namespaceSelector", {})
    match.setdefault("objectSelector", {})
    for rule in [*(match.get("resourceRules") or []), *(match.get("excludeResourceRules") or [])]:
        rule.setdefault("scope", "*")


def _policy(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("failurePolicy", "Fail")
    if isinstance(spec.get("matchConstraints"), dict):
        _match_resources(spec["matchConstraints"])


def _policy_binding(obj: Obj) -> None:
    match = (obj.get("spec") or {}).get("matchResources")
    if isinstance(match, dict):
        _match_resources(match)


def pod_spec(spec: Obj, *, restart: str = "Always") -> None:
    """Defaults of a pod spec; requests come from limits for every resource that names only a limit."""
    spec.setdefault("restartPolicy", restart)
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    for container in [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]:
        image = str(container.get("image", ""))
        latest = ":" not in image.rpartition("/")[2] or image.endswith(":latest")
        container.setdefault("imagePullPolicy", "Always" if latest and "@" not in image else "IfNotPresent")
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("terminationMessagePolicy", "File")
        resources = container.setdefault("resources", {})
        if resources.get("limits"):
            requests = resources.setdefault("requests", {})
            for name, amount in resources["limits"].items():
                requests.setdefault(name, amount)
        for port in container.get("ports") or []:
            port.setdefault("protocol", "TCP")


def _pod(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    pod_spec(spec)
    spec.setdefault("enableServiceLinks", True)
    spec.setdefault("serviceAccountName", "default")
    spec.setdefault("serviceAccount", spec["serviceAccountName"])
    obj.setdefault("status", {}).setdefault("phase", "Pending")
    obj["status"].setdefault("qosClass", qos_class(spec))


def qos_class(spec: Obj) -> str:
    """Guaranteed, Burstable or BestEffort, by cpu and memory."""
    guaranteed, anything = True, False
    for container in spec.get("containers") or []:
        resources = container.get("resources") or {}
        requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
        for name in ("cpu", "memory"):
            anything = anything or name in requests or name in limits
            guaranteed = guaranteed and name in limits and requests.get(name) == limits[name]
    if not anything:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def _job(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    spec.setdefault("podReplacementPolicy", "TerminatingOrFailed")
    template = spec.setdefault("template", {})
    pod_spec(template.setdefault("spec", {}))
    uid = obj["metadata"].get("uid")
    if uid and not spec.get("manualSelector"):
        name = obj["metadata"]["name"]
        spec.setdefault("selector", {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}})
        labels = template.setdefault("metadata", {}).setdefault("labels", {})
        for prefix in ("", "batch.kubernetes.io/"):
            labels.setdefault(prefix + "controller-uid", uid)
            labels.setdefault(prefix + "job-name", name)


def _deployment(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    spec.setdefault("progressDeadlineSeconds", 600)
    spec.setdefault("revisionHistoryLimit", 10)
    strategy = spec.setdefault("strategy", {})
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxSurge", "25%")
        rolling.setdefault("maxUnavailable", "25%")
    pod_spec(spec.setdefault("template", {}).setdefault("spec", {}))


def template_hash(template: Obj) -> str:
    """Short stable hash of a pod template, the `pod-template-hash` of its pods."""
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]


_HANDLERS: dict[Kind, Callable[[Obj], None]] = {
    CRD: crds.complete,
    HTTP_ROUTE: _http_route,
    NAMESPACE: _namespace,
    ROLE_BINDING: _role_binding,
    CLUSTER_ROLE_BINDING: _role_binding,
    CLAIM: _claim,
    SERVICE: _service,
    POLICY: _policy,
    POLICY_BINDING: _policy_binding,
    NETWORK_POLICY: _network_policy,
    PRIORITY_CLASS: _priority_class,
    POD: _pod,
    JOB: _job,
    DEPLOYMENT: _deployment,
}
