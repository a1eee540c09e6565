"""Finding out what a cluster can do: network only, no database. What may not be read is *not known*, with the reason.

API groups come from `GET /apis` itself, never from a discovery cache (reference kubernetes.md C5). Kueue's modes stand
in its Configuration, in the ConfigMap of its manager; KServe's in `inferenceservice-config`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import yaml

from apps.clusters.capabilities import (
    KUEUE_CONFIG,
    KUEUE_CONFIG_KEY,
    KUEUE_NAMESPACE,
    KUEUE_VERSION,
    VERIFYING_CONTAINER,
    Capabilities,
    Keda,
    KServe,
    Kueue,
)
from apps.clusters.errors import Forbidden, InvalidObject, NotFound, ServerError
from apps.clusters.inventory import NodeFacts
from apps.clusters.rbac import KSERVE_CONFIG, KSERVE_NAMESPACE
from apps.core import clock

JSON = dict[str, Any]
_GATEWAY = "gateway.networking.k8s.io"
#: ConfigMap keys of KServe that name an image which it puts into pods (config/configmap/inferenceservice.yaml).
_KSERVE_IMAGES = ("storageInitializer", "agent", "logger", "batcher", "router")
_NAMESPACE_NAME = "kubernetes.io/metadata.name"


class Client(Protocol):
    """What is called of `KubernetesClient`."""

    def groups(self) -> JSON:
        """`GET /apis`."""
        ...

    def resources(self, group: str, version: str) -> JSON:
        """`GET /apis/<group>/<version>`."""
        ...

    def get(self, kind: str, name: str, namespace: str = "") -> JSON:
        """One object."""
        ...

    def create(self, manifest: Mapping[str, Any], *, dry_run: bool = False) -> Any:
        """One POST."""
        ...


def detect(client: Client, *, version: str, nodes: Sequence[NodeFacts] | None) -> Capabilities:
    """Return what the cluster can do. `nodes`: as just listed, None where they may not be.

    Raises ClusterError where the cluster as a whole fails; a single thing that may not be read does not fail it.
    """
    reasons: dict[str, str] = {}
    try:
        groups = api_groups(client.groups())
    except Forbidden as error:
        why = f"The portal may not read /apis there ({error.message})."
        names = ("kueue", "kserve", "keda", "metrics", "admission_policies", "dra", "http_routes")
        return Capabilities(
            kubernetes_version=version,
            username=whoami(client),
            checked_at=clock.now(),
            reasons=dict.fromkeys(names, why),
        )
    serving = groups.get("serving.kserve.io", ())
    return Capabilities(
        kubernetes_version=version,
        kueue=_kueue(client, groups, reasons),
        kserve=_kserve(client, serving, reasons),
        keda=Keda("keda.sh" in groups, groups.get("keda.sh", ())),
        metrics="metrics.k8s.io" in groups,
        admission_policies=_serves(
            client, groups, "admissionregistration.k8s.io", "v1", "validatingadmissionpolicies", reasons,
            "admission_policies",
        ),
        dra="v1" in groups.get("resource.k8s.io", ()),
        http_routes=_serves(client, groups, _GATEWAY, "v1", "httproutes", reasons, "http_routes"),
        mig_strategies=tuple(sorted({n.mig_strategy for n in nodes or () if n.mig_strategy and n.gpu_model})),
        gpu_models=tuple(sorted({n.gpu_model for n in nodes or () if n.gpu_model})),
        username=whoami(client),
        checked_at=clock.now(),
        reasons=reasons,
    )  # fmt: skip


def api_groups(listing: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return group → served versions of an APIGroupList. Raises ServerError where it is none."""
    groups = listing.get("groups")
    if not isinstance(groups, list):
        raise ServerError("the answer of /apis is no list of API groups")
    return {
        str(group.get("name")): tuple(str(v.get("version")) for v in group.get("versions") or [] if isinstance(v, dict))
        for group in groups
        if isinstance(group, dict)
    }


def whoami(client: Client) -> str:
    """Return the name under which the cluster knows the portal, "" where it does not tell (Kubernetes before 1.28)."""
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    try:
        answer = client.create(review).object
    except (Forbidden, NotFound, InvalidObject):
        return ""
    user = (answer.get("status") or {}).get("userInfo") or {}
    return str(user.get("username") or "")


def _serves(
    client: Client,
    groups: Mapping[str, Sequence[str]],
    group: str,
    version: str,
    resource: str,
    reasons: dict[str, str],
    name: str,
) -> bool | None:
    if version not in groups.get(group, ()):
        return False
    try:
        listing = client.resources(group, version)
    except NotFound:
        return False
    except Forbidden as error:
        reasons[name] = f"The portal may not read /apis/{group}/{version} there ({error.message})."
        return None
    return any(isinstance(r, dict) and r.get("name") == resource for r in listing.get("resources") or [])


# -- Kueue -------------------------------------------------------------------------------------------------------------


def _kueue(client: Client, groups: Mapping[str, tuple[str, ...]], reasons: dict[str, str]) -> Kueue:
    versions = groups.get("kueue.x-k8s.io", ())
    if not versions:
        return Kueue(installed=False)
    topology = _serves(client, groups, "kueue.x-k8s.io", KUEUE_VERSION, "topologies", reasons, "kueue.topology")
    visibility = any(group == "visibility.kueue.x-k8s.io" for group in groups)
    try:
        text = _config(client, KUEUE_CONFIG, KUEUE_NAMESPACE).get(KUEUE_CONFIG_KEY)
        settings = read_kueue_config(str(text or ""))
    except _NotReadable as error:
        for name in ("pod_integration", "fair_sharing", "managed_labels"):
            reasons[f"kueue.{name}"] = f"Kueue's configuration could not be read: {error}."
        return Kueue(True, versions, topology=bool(topology), visibility=visibility)
    labels, why = namespace_labels(settings)
    if why:
        reasons["kueue.managed_labels"] = why
    return Kueue(
        True,
        versions,
        pod_integration=pod_integration(settings),
        fair_sharing=fair_sharing(settings),
        managed_labels=labels,
        topology=bool(topology),
        visibility=visibility,
        frameworks=_frameworks(settings),
        feature_gates={str(k): bool(v) for k, v in (settings.get("featureGates") or {}).items()} or None,
    )


def read_kueue_config(text: str) -> JSON:
    """Return Kueue's Configuration from its YAML. Raises _NotReadable."""
    try:
        parsed = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise _NotReadable("it is not YAML") from error
    if not isinstance(parsed, dict) or parsed.get("kind") != "Configuration":
        raise _NotReadable(f"{KUEUE_CONFIG_KEY} holds no Configuration")
    return parsed


def _frameworks(settings: Mapping[str, Any]) -> tuple[str, ...]:
    integrations = settings.get("integrations") or {}
    return tuple(str(name) for name in integrations.get("frameworks") or ("batch/job",))


def pod_integration(settings: Mapping[str, Any]) -> bool:
    """Whether Kueue queues plain pods: the framework `pod` (without any list it manages batch jobs only)."""
    return "pod" in _frameworks(settings)


def fair_sharing(settings: Mapping[str, Any]) -> bool:
    """Whether fair sharing is on: the section is there and, in v1beta1, says `enable: true`."""
    section = settings.get("fairSharing")
    if not isinstance(section, Mapping):
        return False
    newer = not str(settings.get("apiVersion", "")).endswith("/v1beta1")
    return bool(section.get("enable", newer))


def namespace_labels(settings: Mapping[str, Any]) -> tuple[dict[str, str] | None, str]:
    """Return the labels that make Kueue manage a namespace ({}: none are needed), else None and why not.

    From `managedJobsNamespaceSelector`, else from the older `integrations.podOptions.namespaceSelector`. Its default,
    "not kube-system and kueue-system", needs no label.
    """
    selector = settings.get("managedJobsNamespaceSelector")
    if not isinstance(selector, Mapping):
        options = (settings.get("integrations") or {}).get("podOptions") or {}
        selector = options.get("namespaceSelector")
    if not isinstance(selector, Mapping):
        return {}, ""
    labels = {str(key): str(value) for key, value in (selector.get("matchLabels") or {}).items()}
    for term in selector.get("matchExpressions") or []:
        key, operator = str(term.get("key")), str(term.get("operator"))
        values = [str(value) for value in term.get("values") or []]
        if operator == "In" and key != _NAMESPACE_NAME and values:
            labels.setdefault(key, values[0])
        elif operator == "Exists" and key != _NAMESPACE_NAME:
            labels.setdefault(key, "true")
        elif operator not in ("NotIn", "DoesNotExist"):
            return None, f"Kueue manages namespaces by their names ({key} {operator}), which no label brings about."
    if _NAMESPACE_NAME in labels:
        return None, "Kueue manages a single namespace by its name, which no label brings about."
    return labels, ""


# -- KServe ------------------------------------------------------------------------------------------------------------


def _kserve(client: Client, versions: tuple[str, ...], reasons: dict[str, str]) -> KServe:
    if not versions:
        return KServe(installed=False)
    try:
        data = _config(client, KSERVE_CONFIG, KSERVE_NAMESPACE)
        deploy, ingress = _json(data, "deploy"), _json(data, "ingress")
        images = tuple(sorted({str(i) for key in _KSERVE_IMAGES if (i := _json(data, key).get("image"))}))
    except _NotReadable as error:
        reasons["kserve.mode"] = reasons["kserve.gateway_api"] = f"KServe's settings could not be read: {error}."
        return KServe(True, versions)
    mode = deploy.get("defaultDeploymentMode")
    return KServe(
        True,
        versions,
        str(mode) if mode else None,
        bool(ingress.get("enableGatewayApi", False)),
        version=kserve_version(images),
        gateway=_gateway(ingress),
        ingress_domain=str(ingress.get("ingressDomain") or ""),
        ingress_namespaces=_ingress_namespaces(ingress),
        images=images,
        verifying=_verifying(client, reasons),
    )


def kserve_version(images: Sequence[str]) -> str:
    """Return KServe's version as the tags of its images say; "" where they say none, or different ones."""
    found = {match.group(1) for image in images if (match := re.search(r":(v\d+\.\d+\.\d+[^@]*)(@|$)", image))}
    return found.pop() if len(found) == 1 else ""


def _gateway(ingress: Mapping[str, Any]) -> str:
    gateway = str(ingress.get("kserveIngressGateway") or "")
    return gateway if re.fullmatch(r"[a-z0-9][-a-z0-9]*/[a-z0-9][-a-z0-9.]*", gateway) else ""


def _ingress_namespaces(ingress: Mapping[str, Any]) -> tuple[str, ...]:
    """Return where requests come from: the Gateway's namespace, and that of Knative's local gateway service."""
    found = {_gateway(ingress).partition("/")[0]}
    service = str(ingress.get("localGatewayService") or "").split(".")
    if len(service) > 1:
        found.add(service[1])
    return tuple(sorted(found - {""}))


def _verifying(client: Client, reasons: dict[str, str]) -> bool | None:
    try:
        client.get("ClusterStorageContainer", VERIFYING_CONTAINER)
    except NotFound:
        return False
    except Forbidden as error:
        reasons["kserve.verifying"] = f"ClusterStorageContainers may not be read there ({error.message})."
        return None
    return True


def _json(data: Mapping[str, Any], key: str) -> JSON:
    try:
        parsed = json.loads(str(data.get(key) or "{}"))
    except ValueError as error:
        raise _NotReadable(f"{key} is not JSON") from error
    if not isinstance(parsed, dict):
        raise _NotReadable(f"{key} is no object")
    return parsed


# -- ConfigMaps --------------------------------------------------------------------------------------------------------


class _NotReadable(Exception):
    """Settings that could not be read; the message says why."""


def _config(client: Client, name: str, namespace: str) -> JSON:
    try:
        return client.get("ConfigMap", name, namespace).get("data") or {}
    except Forbidden as error:
        raise _NotReadable(f"the portal has no right to get ConfigMap {name} in {namespace}") from error
    except NotFound as error:
        raise _NotReadable(f"there is no ConfigMap {name} in {namespace}") from error


__all__ = ["api_groups", "detect", "fair_sharing", "namespace_labels", "pod_integration", "read_kueue_config", "whoami"]
