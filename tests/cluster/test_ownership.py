"""Server-side apply on every kind the portal owns: made once, changed by others with a name, taken over, removed."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from apps.clusters import errors, kinds
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.provisioning import ownership
from tests.cluster.conftest import fresh
from tests.cluster.fixtures import limit_range, namespace, network_policy, quota, role_binding
from tests.cluster.helpers import Manifest, as_another, cluster_queue, deployment, job, thing

pytestmark = pytest.mark.cluster

_RBAC = "rbac.authorization.k8s.io"
_RULE = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
_ROLE = {"apiGroup": _RBAC, "kind": "ClusterRole", "name": "view"}
_SUBJECT = {"apiGroup": _RBAC, "kind": "Group", "name": "gpu-commons-test:nobody"}
_SERVER = {"predictor": {"minReplicas": 1, "model": {"modelFormat": {"name": "onnx"}, "storageUri": "s3://models/a"}}}
_SCALER = {
    "scaleTargetRef": {"name": "none"},
    "triggers": [{"type": "cron", "metadata": {"timezone": "UTC", "start": "0 1 * * *", "end": "0 2 * * *"}}],
}
_GUARD = {
    "matchConstraints": {
        "resourceRules": [
            {"apiGroups": ["example.com"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["nothings"]}
        ]
    },
    "validations": [{"expression": "true"}],
}


def _made(kind: str, space: str) -> Manifest:
    """An object of this kind that the portal could declare. Cluster-wide ones bear the namespace's name."""
    specs: dict[str, Manifest] = {
        "ClusterRole": {"rules": [_RULE]},
        "Role": {"rules": [_RULE]},
        "ClusterRoleBinding": {"roleRef": _ROLE, "subjects": [_SUBJECT]},
        "PriorityClass": {"value": 1000, "description": "one"},
        "ConfigMap": {"data": {"key": "one"}},
        "ServiceAccount": {},
        "ValidatingAdmissionPolicy": {"spec": _GUARD},
        "ValidatingAdmissionPolicyBinding": {"spec": {"policyName": space, "validationActions": ["Audit"]}},
        "Topology": {"spec": {"levels": [{"nodeLabel": "example.com/rack"}]}},
        "ResourceFlavor": {"spec": {"nodeLabels": {"example.com/model": "one"}}},
        "WorkloadPriorityClass": {"value": 1000, "description": "one"},
        "AdmissionCheck": {"spec": {"controllerName": "example.com/check"}},
        "Cohort": {"spec": {"parentName": f"{space}-parent"}},
        "LocalQueue": {"spec": {"clusterQueue": space, "stopPolicy": "None"}},
        "InferenceService": {"spec": copy.deepcopy(_SERVER)},
        "ScaledObject": {"spec": copy.deepcopy(_SCALER)},
    }
    whole = {
        "Namespace": namespace, "ResourceQuota": lambda ns: quota(ns, 8), "LimitRange": limit_range,
        "RoleBinding": role_binding, "NetworkPolicy": network_policy, "Job": lambda ns: job(ns, "work"),
        "Deployment": lambda ns: deployment(ns, "serve"),
        "ClusterQueue": lambda ns: cluster_queue(ns, ns, "8", limits={"borrowingLimit": "2"}, cohortName="company"),
    }  # fmt: skip
    if kind in whole:
        return dict(whole[kind](space))
    return thing(kind, space, space, **specs[kind])


_CPU = {"cpu": "7"}
#: Where another manager changes something, and to what.
_CHANGES: dict[str, tuple[tuple[str, ...], Any]] = {
    "Namespace": (("metadata", "labels", "gpu-commons/managed"), "false"),
    "ResourceQuota": (("spec", "hard", "requests.nvidia.com/gpu"), "99"),
    "LimitRange": (
        ("spec", "limits"),
        [{"type": "Container", "default": {"cpu": "7"}, "defaultRequest": {"cpu": "1"}}],
    ),
    "RoleBinding": (("subjects",), [{"apiGroup": _RBAC, "kind": "Group", "name": "gpu-commons-test:others"}]),
    "ClusterRoleBinding": (("subjects",), [{"apiGroup": _RBAC, "kind": "Group", "name": "gpu-commons-test:others"}]),
    "NetworkPolicy": (("spec", "ingress"), [{"from": [{"podSelector": {"matchLabels": {"app": "other"}}}]}]),
    "ClusterRole": (("rules",), [{**_RULE, "verbs": ["list"]}]),
    "Role": (("rules",), [{**_RULE, "verbs": ["list"]}]),
    "ServiceAccount": (("metadata", "labels", "gpu-commons/managed"), "false"),
    "ConfigMap": (("data", "key"), "two"),
    "PriorityClass": (("description",), "two"),
    "ValidatingAdmissionPolicy": (("spec", "validations"), [{"expression": "1 == 1"}]),
    "ValidatingAdmissionPolicyBinding": (("spec", "policyName"), "another"),
    "Job": (("metadata", "labels", "gpu-commons/managed"), "false"),
    "Deployment": (("spec", "replicas"), 5),
    "Topology": (("metadata", "labels", "gpu-commons/managed"), "false"),
    "ResourceFlavor": (("spec", "nodeLabels"), {"example.com/model": "two"}),
    "WorkloadPriorityClass": (("value",), 2000),
    "AdmissionCheck": (("metadata", "labels", "gpu-commons/managed"), "false"),
    "Cohort": (("spec", "parentName"), "another"),
    "ClusterQueue": (("spec", "cohortName"), "another"),
    "LocalQueue": (("spec", "stopPolicy"), "Hold"),
    "InferenceService": (("spec", "predictor", "minReplicas"), 5),
    "ScaledObject": (("metadata", "labels", "gpu-commons/managed"), "false"),
}


def _lookup(obj: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        obj = obj[name]
    return obj


def _only(manifest: Manifest, path: tuple[str, ...], value: Any) -> Manifest:
    """What somebody applies who states this one field (and a roleRef, which a binding cannot do without)."""
    meta = {name: manifest["metadata"][name] for name in ("name", "namespace") if name in manifest["metadata"]}
    out: Manifest = {"apiVersion": manifest["apiVersion"], "kind": manifest["kind"], "metadata": meta}
    for needed in ("roleRef", "value"):
        if needed in manifest:
            out[needed] = manifest[needed]
    node = out
    for name in path[:-1]:
        node = node.setdefault(name, {})
    node[path[-1]] = value
    return out


@pytest.mark.requirement("provisioning-3.1", "provisioning-2.1", "clusters-2.3")
@pytest.mark.parametrize("kind", sorted(_CHANGES))
def test_every_kind_is_owned_field_by_field(
    api: KubernetesClient, served: frozenset[str], space: str, kind: str
) -> None:
    """Dry run, create, no-op, conflict with its manager and field, take-over, removal."""
    group = kinds.KINDS[kind].api_version.partition("/")[0]
    if "/" in kinds.KINDS[kind].api_version and group not in served:
        pytest.skip(f"{group} is not installed on this cluster")
    if kind != "Namespace" and kinds.KINDS[kind].namespaced:
        api.apply(namespace(space))
    manifest = _made(kind, space)
    name, where = manifest["metadata"]["name"], manifest["metadata"].get("namespace", "")
    assert api.apply(manifest, dry_run=True).status == 201
    with pytest.raises(errors.NotFound):
        api.get(kind, name, where)
    assert api.apply(manifest).status == 201
    live = api.get(kind, name, where)
    assert ownership.holds_anything(live)
    assert not ownership.held_beyond(live, manifest)
    path, value = _CHANGES[kind]
    before = _lookup(live, path)
    assert api.apply(manifest).status == 200
    changed = as_another(api, _only(manifest, path, value), "somebody")
    assert _lookup(changed, path) == value
    owner = ownership.foreign_owner(changed, path)
    assert owner is not None
    assert owner.manager == "somebody"
    for dry_run in (True, False):
        with pytest.raises(errors.ConflictError) as caught:
            api.apply(manifest, dry_run=dry_run)
        assert {cause["manager"] for cause in caught.value.causes} == {"somebody"}
        assert all(path[-1] in cause["field"] or path[-2] in cause["field"] for cause in caught.value.causes)
    assert _lookup(api.apply(manifest, force=True).object, path) == before
    if kind != "Namespace":  # a namespace's end is another test's
        api.delete(kind, name, where)


@pytest.mark.requirement("provisioning-3.1")
def test_an_unchanged_apply_keeps_the_version_of_custom_resources(api: KubernetesClient, kueue: None) -> None:
    """Canonical or not: quantities of custom resources are kept as they were sent."""
    manifest = cluster_queue(fresh(), "none", "8")
    api.apply(manifest)
    spelt = cluster_queue(manifest["metadata"]["name"], "none", "8000m")
    assert api.apply(spelt).object["spec"]["resourceGroups"] == spelt["spec"]["resourceGroups"]


@pytest.mark.requirement("provisioning-3.1")
def test_a_missing_namespace_is_404_for_every_namespaced_kind(
    api: KubernetesClient, served: frozenset[str], space: str
) -> None:
    """In a dry run, too."""
    for kind in ("ResourceQuota", "Role", "LocalQueue", "InferenceService", "Job"):
        group = kinds.KINDS[kind].api_version.partition("/")[0]
        if "/" in kinds.KINDS[kind].api_version and group not in served:
            continue
        for dry_run in (True, False):
            with pytest.raises(errors.NotFound):
                api.apply(_made(kind, space), dry_run=dry_run)
