"""What a cluster can do, as its last check found it, and in a sentence why something is not offered there.

Found over the network by `detecting.py`, stored in `Cluster.capabilities` (JSON) and read through `of()` only. None
means that it could not be told (no permission, say); `reasons` then says why, by the field's name.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from apps.clusters.choices import KueueMode

if TYPE_CHECKING:
    from apps.clusters.models import Cluster

#: The one version of Kueue's API that the portal speaks.
KUEUE_VERSION = "v1beta2"
#: The ClusterStorageContainer that hashes what it downloads (deployments.verifying).
VERIFYING_CONTAINER = "gpu-commons-verifying"
#: Kubernetes 1.x from which on ValidatingAdmissionPolicy is stable.
FIRST_POLICY_MINOR = 30
#: Where Kueue keeps its configuration: namespace, ConfigMap, key (its own manifests and chart name them so).
KUEUE_NAMESPACE, KUEUE_CONFIG, KUEUE_CONFIG_KEY = (
    "kueue-system",
    "kueue-manager-config",
    "controller_manager_config.yaml",
)


@dataclass(frozen=True, slots=True)
class Kueue:
    """Kueue: `installed` is whether its API group is served at all; the portal needs `v1beta2` of it.

    `managed_labels`: labels that make Kueue take a namespace as its own ({}: it needs none), None where it could not be
    told or the selector is more than labels (then `reasons["kueue.managed_labels"]` says so).
    """

    installed: bool | None = None
    api_versions: tuple[str, ...] = ()
    pod_integration: bool | None = None
    fair_sharing: bool | None = None
    managed_labels: dict[str, str] | None = None
    topology: bool = False
    visibility: bool = False
    frameworks: tuple[str, ...] | None = None
    feature_gates: dict[str, bool] | None = None

    @property
    def usable(self) -> bool:
        """Whether the portal can declare Kueue's objects."""
        return bool(self.installed) and KUEUE_VERSION in self.api_versions


@dataclass(frozen=True, slots=True)
class KServe:
    """KServe: `mode` is its default deployment mode (Standard, Knative …, as configured), None where not readable.

    `version`: as its images say ("" where they do not). `gateway`: "namespace/name" of the Gateway its routes hang on,
    `ingress_domain`: the domain of the names below it; `ingress_namespaces`: where traffic comes from. `images`: what
    KServe adds to pods by itself. `verifying`: whether the portal's verifying storage container is set up.
    """

    installed: bool | None = None
    api_versions: tuple[str, ...] = ()
    mode: str | None = None
    gateway_api: bool | None = None
    version: str = ""
    gateway: str = ""
    ingress_domain: str = ""
    ingress_namespaces: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    verifying: bool | None = None


@dataclass(frozen=True, slots=True)
class Keda:
    """KEDA, by the ScaledObject kind."""

    installed: bool | None = None
    api_versions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What one cluster can do. `checked_at` is None where nothing was ever found out.

    `username`: the name under which the cluster knows the portal ("": it did not say). `http_routes`: whether HTTPRoute
    of gateway.networking.k8s.io/v1 is served.
    """

    kubernetes_version: str = ""
    kueue: Kueue = field(default_factory=Kueue)
    kserve: KServe = field(default_factory=KServe)
    keda: Keda = field(default_factory=Keda)
    metrics: bool | None = None
    admission_policies: bool | None = None
    dra: bool | None = None
    http_routes: bool | None = None
    mig_strategies: tuple[str, ...] = ()
    gpu_models: tuple[str, ...] = ()
    username: str = ""
    checked_at: datetime | None = None
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def minor(self) -> int | None:
        """The minor version of Kubernetes 1.x (29, 36 …), None where unknown."""
        match = re.match(r"v?1\.(\d+)", self.kubernetes_version)
        return int(match.group(1)) if match else None


def of(cluster: Cluster) -> Capabilities:
    """Return what the last check of `cluster` found. A record of another portal version reads as far as it goes."""
    return from_json(cluster.capabilities or {})


def as_json(capabilities: Capabilities) -> dict[str, Any]:
    """Return the record as it is stored."""
    data = dataclasses.asdict(capabilities)
    data["checked_at"] = capabilities.checked_at.isoformat() if capabilities.checked_at else None
    return {key: list(value) if isinstance(value, tuple) else value for key, value in data.items()}


def from_json(data: Mapping[str, Any]) -> Capabilities:
    """Return the record from what is stored; unknown keys are dropped, absent ones have their default."""
    values = _known(Capabilities, data)
    for name, kind in (("kueue", Kueue), ("kserve", KServe), ("keda", Keda)):
        part = data.get(name)
        values[name] = kind(**_known(kind, part if isinstance(part, Mapping) else {}))
    checked = data.get("checked_at")
    values["checked_at"] = datetime.fromisoformat(checked) if isinstance(checked, str) else None
    return Capabilities(**values)


def _known(kind: type, data: Mapping[str, Any]) -> dict[str, Any]:
    names = {f.name for f in dataclasses.fields(kind)}
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items() if key in names}


_NO_CHANGE = frozenset({"checked_at", "reasons", "gpu_models", "mig_strategies"})


def differences(before: Capabilities, after: Capabilities) -> list[str]:
    """Return in words what changed between two records; empty where nothing did.

    What the nodes carry comes and goes with them (the inventory shows it), so it is no change of this kind.
    """
    old, new = _flat(as_json(before)), _flat(as_json(after))
    return [
        f"{key}: {_word(old.get(key))} → {_word(new.get(key))}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and key not in _NO_CHANGE
    ]


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping) and key in ("kueue", "kserve", "keda"):
            flat |= _flat(value, f"{key}.")
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


def _word(value: Any) -> str:
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(str(item) for item in value) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={item}" for key, item in sorted(value.items())) or "none"
    return str(value) or "none"


# -- what is offered ---------------------------------------------------------------------------------------------------

_UNCHECKED = "This cluster was not checked yet; what it can do is known after its first contact."
_NO_KUEUE = "Kueue was not found on this cluster."


def _kueue(cluster: Cluster, found: Capabilities) -> str | None:
    kueue = found.kueue
    if kueue.installed is None:
        return found.reasons.get("kueue") or _UNCHECKED
    if not kueue.installed:
        return _NO_KUEUE
    if KUEUE_VERSION not in kueue.api_versions:
        served = ", ".join(kueue.api_versions) or "none"
        return f"Kueue on this cluster serves {served}; the portal needs {KUEUE_VERSION} (Kueue 0.16 or newer)."
    return None


def kueue_missing(cluster: Cluster) -> str | None:
    """Return why Kueue cannot be used on a cluster at all, None where it can; what an admin chose plays no part."""
    return _kueue(cluster, of(cluster))


def _kueue_used(cluster: Cluster, found: Capabilities) -> str | None:
    if cluster.kueue_mode == KueueMode.OFF:
        return _kueue(cluster, found) or "Kueue is on this cluster, but the portal does not use it there."
    # In use and never looked at: the admin's word counts until a check says otherwise.
    return None if found.kueue.installed is None else _kueue(cluster, found)


def _borrow(cluster: Cluster, found: Capabilities) -> str | None:
    why = _kueue_used(cluster, found)
    return f"{why} Nothing would take a borrowed GPU back." if why else None


def _gpu_models_apart(cluster: Cluster, found: Capabilities) -> str | None:
    why = _kueue_used(cluster, found)
    if why is None or len(found.gpu_models) <= 1:
        return None
    return (
        f"{why} Without it a quota counts the GPUs of every model with the same resource name alike"
        f" ({', '.join(found.gpu_models)}); give each model a resource name of its own, or use Kueue."
    )


def _cpu_classes(cluster: Cluster, found: Capabilities) -> str | None:
    why = _kueue_used(cluster, found)
    return f"{why} Without it a quota counts the cores of every node alike." if why else None


def _topology(cluster: Cluster, found: Capabilities) -> str | None:
    if why := _kueue_used(cluster, found):
        return why
    return None if found.kueue.topology else "Kueue on this cluster serves no Topology."


def _pods_queued(cluster: Cluster, found: Capabilities) -> str | None:
    if why := _kueue_used(cluster, found):
        return why
    if cluster.kueue_mode == KueueMode.PODS:
        return None
    if found.kueue.pod_integration is False:
        return "Kueue's pod integration is off on this cluster, so pods of services do not queue."
    return "The portal uses Kueue for jobs only on this cluster, so pods of services do not queue."


def _fair_sharing(cluster: Cluster, found: Capabilities) -> str | None:
    if why := _kueue_used(cluster, found):
        return why
    if found.kueue.fair_sharing is None:
        return found.reasons.get("kueue.fair_sharing") or "Whether Kueue shares fairly here could not be told."
    return None if found.kueue.fair_sharing else "Fair sharing is not configured in this cluster's Kueue."


def _queue_positions(cluster: Cluster, found: Capabilities) -> str | None:
    if why := _kueue_used(cluster, found):
        return why
    if found.kueue.visibility:
        return None
    return "Kueue's visibility API (visibility.kueue.x-k8s.io) is not served, so positions in a queue are not known."


def _serving(cluster: Cluster, found: Capabilities) -> str | None:
    if found.kserve.installed is None:
        return found.reasons.get("kserve") or _UNCHECKED
    if not found.kserve.installed:
        return "KServe was not found on this cluster."
    if "v1beta1" not in found.kserve.api_versions:
        return f"KServe on this cluster serves {', '.join(found.kserve.api_versions)}; the portal needs v1beta1."
    return None


def _autoscaling(cluster: Cluster, found: Capabilities) -> str | None:
    if found.keda.installed is None:
        return found.reasons.get("keda") or _UNCHECKED
    return None if found.keda.installed else "KEDA was not found on this cluster."


def _served(name: str, absent: str) -> Callable[[Cluster, Capabilities], str | None]:
    def ask(cluster: Cluster, found: Capabilities) -> str | None:
        value = getattr(found, name)
        if value is None:
            return found.reasons.get(name) or _UNCHECKED
        return None if value else absent

    return ask


def _mig(cluster: Cluster, found: Capabilities) -> str | None:
    if found.checked_at is None:
        return _UNCHECKED
    if set(found.mig_strategies) & {"single", "mixed"}:
        return None
    return "No node of this cluster has MIG switched on (label nvidia.com/mig.strategy)."


def _enforcement(cluster: Cluster, found: Capabilities) -> str | None:
    if found.checked_at is None:
        return _UNCHECKED
    if found.minor is not None and found.minor < FIRST_POLICY_MINOR:
        return (
            f"Kubernetes {found.kubernetes_version} has no ValidatingAdmissionPolicy in its stable form: it came with"
            f" 1.{FIRST_POLICY_MINOR}."
        )
    if found.admission_policies is None:
        return found.reasons.get("admission_policies") or _UNCHECKED
    return None if found.admission_policies else "admissionregistration.k8s.io/v1 serves no ValidatingAdmissionPolicy."


_FEATURES: dict[str, tuple[str, Callable[[Cluster, Capabilities], str | None]]] = {
    "kueue": ("Queues by Kueue", _kueue_used),
    "borrow": ("Borrowing GPUs that are taken back", _borrow),
    "gpu_models_apart": ("Quota per GPU model", _gpu_models_apart),
    "cpu_classes": ("Quota per CPU class", _cpu_classes),
    "topology": ("Placement by topology", _topology),
    "pods_queued": ("Queueing pods of services", _pods_queued),
    "fair_sharing": ("Fair sharing of what is free", _fair_sharing),
    "queue_positions": ("Positions in the queue", _queue_positions),
    "mig": ("MIG slices", _mig),
    "serving": ("Serving models with KServe", _serving),
    "autoscaling": ("Autoscaling with KEDA", _autoscaling),
    "guard": (
        "Guarding what the portal owns",
        _served(
            "admission_policies",
            "admissionregistration.k8s.io/v1 serves no ValidatingAdmissionPolicy here (Kubernetes 1.30 or newer).",
        ),
    ),
    "metrics": (
        "Live CPU and memory use",
        _served("metrics", "metrics.k8s.io is not served: metrics-server is not installed."),
    ),
    "routes": (
        "Sharing traffic between two releases by weight",
        _served("http_routes", "gateway.networking.k8s.io/v1 serves no HTTPRoute here (Gateway API 1.0 or newer)."),
    ),
    "enforcement": ("Refusing models that nobody approved", _enforcement),
    "dra": (
        "Dynamic resource allocation",
        _served("dra", "resource.k8s.io/v1 is not served (Kubernetes 1.34 or newer)."),
    ),
}

#: Every feature that `missing` knows, in the order of the page, with its name for people.
FEATURES: dict[str, str] = {key: title for key, (title, _) in _FEATURES.items()}


def missing(cluster: Cluster, feature: str) -> str | None:
    """Return in a sentence why `feature` is not offered on `cluster`, None where it is. No query, no call.

    Raises KeyError for a feature that is not in `FEATURES`.
    """
    return _FEATURES[feature][1](cluster, of(cluster))
