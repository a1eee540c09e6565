"""How Kueue is configured here, in its own ConfigMap, and what its webhooks do to new Jobs, Deployments and Pods."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import yaml

from apps.demo.cluster.errors import Obj
from apps.demo.cluster.kinds import CLUSTER_QUEUE, CONFIG_MAP, DEPLOYMENT, JOB, LOCAL_QUEUE, NAMESPACE, POD, Kind
from apps.demo.cluster.selectors import selector_matches
from apps.demo.cluster.store import Store

NAMESPACE_NAME, CONFIG_NAME, CONFIG_KEY = "kueue-system", "kueue-manager-config", "controller_manager_config.yaml"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"
MANAGED_LABEL = "kueue.x-k8s.io/managed"
GATE = "kueue.x-k8s.io/admission"
FINALIZER = "kueue.x-k8s.io/resource-in-use"
DEFAULT_QUEUE = "default"
_NOT_SYSTEM: Obj = {
    "matchExpressions": [
        {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system", NAMESPACE_NAME]}
    ]
}


@dataclass(frozen=True)
class KueueOptions:
    """What the administrator of a cluster decides. `pods` is the integration of Pods and Deployments beside Jobs.

    `fair_sharing` is only shown in the configuration: admission here is always classic preemption.
    """

    pods: bool = True
    fair_sharing: bool = False
    managed_selector: Obj = field(default_factory=lambda: _NOT_SYSTEM, hash=False)

    def configuration(self) -> str:
        """`controller_manager_config.yaml`."""
        document: dict[str, Any] = {
            "apiVersion": "config.kueue.x-k8s.io/v1beta2",
            "kind": "Configuration",
            "managedJobsNamespaceSelector": self.managed_selector,
            "integrations": {"frameworks": ["batch/job", *(["pod", "deployment"] if self.pods else [])]},
        }
        if self.fair_sharing:
            strategies = ["LessThanOrEqualToFinalShare", "LessThanInitialShare"]
            document["fairSharing"] = {"preemptionStrategies": strategies}
        return str(yaml.safe_dump(document, sort_keys=False))

    def objects(self) -> list[tuple[Kind, Obj]]:
        """What an installation brings: its namespace and its ConfigMap."""
        meta = {"name": CONFIG_NAME, "namespace": NAMESPACE_NAME}
        return [
            (NAMESPACE, {"metadata": {"name": NAMESPACE_NAME}}),
            (CONFIG_MAP, {"metadata": meta, "data": {CONFIG_KEY: self.configuration()}}),
        ]


class Webhook:
    """Kueue's mutating webhooks: what it manages is created suspended or gated."""

    def __init__(self, store: Store, options: KueueOptions) -> None:
        self._store = store
        self._options = options

    def manages(self, namespace: str) -> bool:
        """Whether `managedJobsNamespaceSelector` selects the namespace."""
        found = self._store.get(NAMESPACE, "", namespace)
        labels = (found.obj["metadata"].get("labels") or {}) if found else {}
        return found is not None and selector_matches(self._options.managed_selector, labels)

    def __call__(self, kind: Kind, obj: Obj) -> None:
        """Change a new object in place."""
        if kind is CLUSTER_QUEUE:  # at once: a queue may be deleted before its first round
            finalizers = obj["metadata"].setdefault("finalizers", [])
            finalizers += [] if FINALIZER in finalizers else [FINALIZER]
        if kind not in (JOB, DEPLOYMENT, POD) or (kind is not JOB and not self._options.pods):
            return
        meta = obj["metadata"]
        owners = meta.get("ownerReferences") or []
        if kind is POD and any(owner.get("kind") == "Job" for owner in owners):
            return  # the Job is what Kueue manages
        namespace = meta.get("namespace", "")
        queue = (meta.get("labels") or {}).get(QUEUE_LABEL)
        has_default = self._store.get(LOCAL_QUEUE, namespace, DEFAULT_QUEUE) is not None
        if not (queue or has_default) or not self.manages(namespace):
            return
        queue = queue or DEFAULT_QUEUE
        meta.setdefault("labels", {})[QUEUE_LABEL] = queue
        if kind is JOB:
            obj["spec"]["suspend"] = True
        elif kind is DEPLOYMENT:
            template = obj["spec"].setdefault("template", {}).setdefault("metadata", {})
            template.setdefault("labels", {})[QUEUE_LABEL] = queue
        else:
            meta["labels"][MANAGED_LABEL] = "true"
            obj["spec"].setdefault("schedulingGates", []).append({"name": GATE})
