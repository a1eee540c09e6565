"""The queries of the Prometheus adapter. Pure strings; every trap they avoid is named beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from apps.metering.sources import labels

#: Window of `last_over_time` over constants, seen from five minutes after the hour: reaches back before its start.
LOOKBACK = "70m"

#: The hour without its first millisecond: a sample on the hour belongs to the hour before, on every server.
WHOLE_HOUR = "3599999ms"
#: More than any device has: blank sentinels of exporters lie above.
BLANK_MIB = 4_194_304
#: What the exporter adds to a series of a device that is held through a resource claim.
_CLAIM = "dra_claim_name, dra_driver_name, modelName, GPU_I_PROFILE, pod_uid, Hostname, hostname"

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
        """What created a pod (the workload that people know by name), and the labels it carries for us.

        Pods without any of those labels fall out: their series would say no more than the uid. kube-state-metrics tells
        labels only that its allow-list names.
        """
        info = (
            "max by (uid, namespace, pod, node, created_by_kind, created_by_name)"
            f" (last_over_time(kube_pod_info{self._with()}[{LOOKBACK}]))"
        )
        carrying = [self._with(f'{name}!=""') for name in labels.POD]
        labelled = " or ".join(f"last_over_time(kube_pod_labels{matcher}[{LOOKBACK}])" for matcher in carrying)
        return f"{info} or max by (uid, {', '.join(labels.POD)}) ({labelled})"

    def nodes(self) -> str:
        """Capacity and allocatable of GPUs by node, and nodes closed to scheduling, in one answer by `what`."""
        capacity = f"max by (node, resource) (kube_node_status_capacity{self._with(self._resource)})"
        allocatable = f"max by (node, resource) (kube_node_status_allocatable{self._with(self._resource)})"
        closed = f"max by (node) (kube_node_spec_unschedulable{self._with()} == 1)"
        # Nodes whose GPUs no resource speaks of (resource claims), by their labels.
        with_gpus = self._with('label_nvidia_com_gpu_product!=""')
        named = f"max by (node) (kube_node_labels{with_gpus})"
        # Old exporters without capacity: what is allocatable stands for it.
        both = f"{capacity} or {allocatable}"
        return (
            f'label_replace({both}, "what", "capacity", "", "")'
            f' or label_replace({allocatable}, "what", "allocatable", "", "")'
            f' or label_replace({closed}, "what", "closed", "", "")'
            f' or label_replace({named}, "what", "labelled", "", "")'
        )

    def node_labels(self) -> str:
        """GPU model, count, MIG strategy, configured replicas and capacity type of nodes."""
        names = ", ".join(("node", *labels.NODE))
        return f"max by ({names}) (last_over_time(kube_node_labels{self._with()}[{LOOKBACK}]))"

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
        """Devices seen with a container, GPU memory held, and devices held through claims, told apart by `what`.

        A missing exporter shows as coverage, not idleness. Memory is the mean of the hour's samples by device, summed
        over a container's devices; one millisecond less than the hour, so that no server counts a sample twice.
        """
        seen = " or ".join(f"last_over_time({metric}{self._with()}[{LOOKBACK}])" for metric in USE)
        devices = f"count by ({_WORKLOAD}) (max by (UUID, GPU_I_ID, {_WORKLOAD}) ({seen}))"
        mean = f"avg_over_time(DCGM_FI_DEV_FB_USED{self._with()}[{WHOLE_HOUR}] offset 5m) < {BLANK_MIB}"
        memory = f"sum by ({_WORKLOAD}) (max by (UUID, GPU_I_ID, {_WORKLOAD}) ({mean}))"
        by = f"{_WORKLOAD}, {_CLAIM}"
        matcher = self._with('dra_claim_name!=""')
        claimed = " or ".join(f"last_over_time({metric}{matcher}[{LOOKBACK}])" for metric in USE)
        claims = f"count by ({by}) (max by (UUID, GPU_I_ID, {by}) ({claimed}))"
        return (
            f'label_replace({devices}, "what", "devices", "", "") or label_replace({memory}, "what", "memory", "", "")'
            f' or label_replace({claims}, "what", "claims", "", "")'
        )


def workload_of(labels: Mapping[str, str]) -> tuple[str, str, str]:
    """Return (namespace, pod, container) of a DCGM series: the `exported_*` labels where there are any.

    With honorLabels false (the chart's default) `namespace`, `pod` and `container` are the exporter's own.
    """
    mark = "exported_" if labels.get("exported_pod") else ""
    return labels.get(f"{mark}namespace", ""), labels.get(f"{mark}pod", ""), labels.get(f"{mark}container", "")
