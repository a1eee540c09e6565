"""The guard: a ValidatingAdmissionPolicy that notes or refuses what others do to objects the portal owns. Pure.

Facts (reference of admissionregistration.k8s.io/v1; checked against an API server 1.36): an object selector
matches where the object before OR after does, so taking the label off is matched, too; subresources are not matched
unless named (status, namespaces/finalize); admission policies never match their own kinds, so the guard cannot lock
anybody out of removing it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from apps.clusters import kinds
from apps.clusters.choices import GuardMode

Manifest = dict[str, Any]
NAME = "gpu-commons-guard"
#: Controllers of Kubernetes itself that delete or update what others made: emptying a namespace, collecting garbage.
CONTROLLERS = (
    "system:kube-controller-manager",
    "system:serviceaccount:kube-system:generic-garbage-collector",
    "system:serviceaccount:kube-system:namespace-controller",
    "system:serviceaccount:kube-system:clusterrole-aggregation-controller",
    "system:serviceaccount:kube-system:resourcequota-controller",
    "system:serviceaccount:kube-system:ttl-after-finished-controller",
)
#: Kinds that a policy cannot match, and kinds whose objects teams run: those are not the portal's to guard.
_NOT_GUARDED = frozenset(
    {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "Deployment", "Job", "InferenceService",
     "ScaledObject", "HTTPRoute", "Service", "PersistentVolumeClaim"}
)  # fmt: skip
#: Where kinds keep what they want, besides metadata.
_CONTENT = ("spec", "rules", "roleRef", "subjects", "aggregationRule", "value", "globalDefault", "data", "binaryData")
_MESSAGE = "GPU Commons owns this object: request the change in the portal instead."
_ACTIONS: Mapping[str, list[str]] = {GuardMode.AUDIT: ["Audit"], GuardMode.DENY: ["Deny", "Audit"]}


def guard_manifests(mode: str, username: str, labels: Mapping[str, str]) -> list[Manifest]:
    """Return the guard's policy and binding; nothing where it is off.

    `username` is whom the cluster takes the portal for. Raises ValueError where that is not known: the guard would
    refuse the portal itself.
    """
    if mode == GuardMode.OFF:
        return []
    if not username:
        raise ValueError("it is not known whom the cluster takes the portal for: check the cluster first")
    return [_policy(username, labels), _binding(_ACTIONS[mode], labels)]


def _meta(labels: Mapping[str, str]) -> dict[str, Any]:
    return {"name": NAME, "labels": dict(labels)}


def _rules() -> list[dict[str, Any]]:
    by_group: dict[str, list[str]] = {}
    for name in sorted(kinds.DECLARABLE - _NOT_GUARDED, key=lambda one: kinds.KINDS[one].order):
        kind = kinds.KINDS[name]
        group = kind.api_version.rpartition("/")[0]
        by_group.setdefault(group, []).append(kind.plural)
    return [
        {"apiGroups": [group], "apiVersions": ["*"], "operations": ["UPDATE", "DELETE"], "resources": sorted(plurals),
         "scope": "*"}
        for group, plurals in sorted(by_group.items())
    ]  # fmt: skip


def _listed(names: Sequence[str]) -> str:
    return "[" + ", ".join(json.dumps(name) for name in names) + "]"


def _harmless() -> str:
    """Return the expression for an update that leaves alone what is declared: finalizers, annotations, more labels."""
    same = [
        f"has(object.{name}) == has(oldObject.{name}) && (!has(object.{name}) || object.{name} == oldObject.{name})"
        for name in _CONTENT
    ]
    labels = (
        "has(object.metadata.labels) && oldObject.metadata.labels.all(key, key in object.metadata.labels"
        " && object.metadata.labels[key] == oldObject.metadata.labels[key])"
    )
    return " && ".join(["request.operation == 'UPDATE'", labels, *(f"({one})" for one in same)])


def _policy(username: str, labels: Mapping[str, str]) -> Manifest:
    owned = (
        f"has(oldObject.metadata.labels) && '{kinds.MANAGED_LABEL}' in oldObject.metadata.labels"
        f" && oldObject.metadata.labels['{kinds.MANAGED_LABEL}'] == 'true'"
    )
    exempt = _listed([username, *CONTROLLERS])
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": {
            "matchPolicy": "Equivalent",
            "namespaceSelector": {},
            "objectSelector": {"matchLabels": {kinds.MANAGED_LABEL: "true"}},
            "resourceRules": _rules(),
        },
        "matchConditions": [
            {"name": "owned-by-the-portal", "expression": owned},
            {"name": "not-the-portal-itself", "expression": f"!(request.userInfo.username in {exempt})"},
        ],
        "validations": [{"expression": _harmless(), "message": _MESSAGE, "reason": "Forbidden"}],
        "auditAnnotations": [
            {"key": "changed-by", "valueExpression": "request.userInfo.username"},
            {"key": "operation", "valueExpression": "request.operation"},
        ],
    }
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": _meta(labels),
        "spec": spec,
    }


def _binding(actions: Sequence[str], labels: Mapping[str, str]) -> Manifest:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": _meta(labels),
        "spec": {"policyName": NAME, "validationActions": list(actions)},
    }
