"""The queries of the Prometheus adapter. Pure strings; every trap they avoid is named beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

#: Window of `last_over_time` over constants, seen from five minutes after the hour: reaches back before its start.
LOOKBACK = "70m"

#: Measures of use, best first: metric → (name of the source, divisor to a ratio).
USE = {
    "DCGM_FI_PROF_SM_ACTIVE": ("sm_active", 1),
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE": ("engine_active", 1),
    "DCGM_FI_DEV_GPU_UTIL": ("gpu_util", 100),
}
#: The workload's labels, as the exporter writes them and as Prometheus renames them where honorLabels is false.
_WORKLOAD = "namespace, pod, container, exported_namespace, exported_pod, exported_container"


@dataclass(frozen=True, slots=True)
class Queries:
    """Queries for GPU `resources` (prefixes in kube-state-metrics spelling); `selector`: extra label matchers."""

    resources: tuple[str, ...]
    selector: str = ""

    @property
    def _resource(self) -> str:
        names = "|".join(re.escape(name) + (".*" if name.endswith("_") else "(_shared)?") for name in self.resources)
        return f'resource=~"{names}"'.replace("\\", "\\\\")

    def _with(self, *matchers: str) -> str:
        return "{" + ",".join(part for part in (*matchers, self.selector) if part) + "}"

    def held(self) -> str:
        """GPUs held: requests of pods with a node that are Pending or Running.

        Requests come from the pod's spec: unscheduled pods have no node, finished ones keep emitting; the phase gate
        drops both. Several kube-state-metrics or HA Prometheus servers show the same pod several times: the reader
        takes the maximum by uid, never the sum.
        """
        requests = "kube_pod_container_resource_requests" + self._with(self._resource, 'node!=""')
        phase = "kube_pod_status_phase" + self._with('phase=~"Pending|Running"') + " == 1"
        return f"{requests} and on (uid) ({phase})"

    def requests(self) -> str:
        """Every request seen in the hour or just after it, with its names: also of pods shorter than a scrape."""
        matchers = self._with(self._resource, 'node!=""')
        return (
            "max by (uid, namespace, pod, container, resource, node)"
            f" (last_over_time(kube_pod_container_resource_requests{matchers}[{LOOKBACK}]))"
        )

    def times(self) -> str:
        """Start and completion of pods in one answer, told apart by the label `what`."""
        start, end = (
            f"max by (uid) (last_over_time({name}{self._with()}[{LOOKBACK}]))"
            for name in ("kube_pod_start_time", "kube_pod_completion_time")
        )
        return f'label_replace({start}, "what", "start", "", "") or label_replace({end}, "what", "completion", "", "")'

    def owners(self) -> str:
        """What created a pod: the workload that people know by name."""
        return (
            f"max by (uid, created_by_kind, created_by_name) (last_over_time(kube_pod_info{self._with()}[{LOOKBACK}]))"
        )

    def nodes(self) -> str:
        """Capacity and allocatable of GPUs by node, and nodes closed to scheduling, in one answer by `what`."""
        capacity = f"max by (node, resource) (kube_node_status_capacity{self._with(self._resource)})"
        allocatable = f"max by (node, resource) (kube_node_status_allocatable{self._with(self._resource)})"
        closed = f"max by (node) (kube_node_spec_unschedulable{self._with()} == 1)"
        # Old exporters without capacity: what is allocatable stands for it.
        both = f"{capacity} or {allocatable}"
        return (
            f'label_replace({both}, "what", "capacity", "", "")'
            f' or label_replace({allocatable}, "what", "allocatable", "", "")'
            f' or label_replace({closed}, "what", "closed", "", "")'
        )

    def node_labels(self) -> str:
        """GPU model, count, MIG strategy and capacity type of nodes."""
        labels = (
            "node, label_nvidia_com_gpu_product, label_nvidia_com_gpu_count, label_nvidia_com_mig_strategy,"
            " label_gpu_commons_capacity_type"
        )
        return f"max by ({labels}) (last_over_time(kube_node_labels{self._with()}[{LOOKBACK}]))"

    def use(self) -> str:
        """Mean use over a container's devices from the best measure there is, by metric and the workload's labels.

        One value per device first (`max`: replicas of the exporter), then the mean over the container's devices. Blank
        sentinels of old exporters (INT64 …792, INT32 …632, FP64 140737488355328) lie far above 100. The labels are
        normalised by the reader (`workload_of`): doing it here costs the server a regular expression per sample.
        """
        valid = [f"({metric}{self._with()} <= 100 >= 0)" for metric in USE]
        best = " or on (UUID, GPU_I_ID, pod, exported_pod) ".join(valid)
        devices = f"max by (__name__, UUID, GPU_I_ID, {_WORKLOAD}) ({best})"
        return f"avg by (__name__, {_WORKLOAD}) ({devices})"

    def devices(self) -> str:
        """Number of devices seen with a container in the hour: a missing exporter shows as coverage, not idleness."""
        seen = " or ".join(f"last_over_time({metric}{self._with()}[{LOOKBACK}])" for metric in USE)
        return f"count by ({_WORKLOAD}) (max by (UUID, GPU_I_ID, {_WORKLOAD}) ({seen}))"


def workload_of(labels: Mapping[str, str]) -> tuple[str, str, str]:
    """Return (namespace, pod, container) of a DCGM series: the `exported_*` labels where there are any.

    With honorLabels false (the chart's default) `namespace`, `pod` and `container` are the exporter's own.
    """
    mark = "exported_" if labels.get("exported_pod") else ""
    return labels.get(f"{mark}namespace", ""), labels.get(f"{mark}pod", ""), labels.get(f"{mark}container", "")
