"""What a Prometheus is asked in a self-test: small instant queries, each about one trap (reference cost C3, C4, F)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from apps.metering.sources.labels import MODEL, POD

#: Series without which no GPU time can be metered.
NEEDED = ("kube_pod_container_resource_requests", "kube_pod_status_phase", "kube_node_status_capacity")
#: Series that sharpen it: metric → what is lost without it.
USEFUL = {
    "kube_node_status_allocatable": "broken GPUs do not show as maintenance",
    "kube_node_spec_unschedulable": "cordoned nodes do not show as maintenance",
    "kube_pod_info": "workloads show by the name of their pod",
}
TIMES = ("kube_pod_start_time", "kube_pod_completion_time")
#: Measures of GPU use, best first.
MEASURES = ("DCGM_FI_PROF_SM_ACTIVE", "DCGM_FI_PROF_GR_ENGINE_ACTIVE", "DCGM_FI_DEV_GPU_UTIL")
DCGM_MORE = ("DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_POWER_USAGE")
#: What the other resources of a workload are metered from: resource → series, any of which will do.
RESOURCES: Mapping[str, Sequence[str]] = {
    "CPU": ("container_cpu_usage_seconds_total",),
    "memory": ("container_memory_working_set_bytes",),
    "storage": ("kube_persistentvolumeclaim_resource_requests_storage_bytes", "kubelet_volume_stats_capacity_bytes"),
    "egress": ("container_network_transmit_bytes_total",),
}
#: The query behind `range_semantics`: 4 samples on closed ranges, 3 on left-open ones.
RANGES = "count_over_time(vector(1)[3m:1m])"
#: How far back hours are read again by themselves, and how far a month is.
REPULL, MONTH = timedelta(hours=48), timedelta(days=32)
SCRAPE_WINDOW_SECONDS = 1800


@dataclass(frozen=True, slots=True)
class Question:
    """One instant query, asked `back` before the time of the test; `what` as progress names it."""

    key: str
    what: str
    expression: str
    back: timedelta = timedelta()


def questions(resources: Sequence[str], selector: str = "") -> list[Question]:
    """Return the questions for GPU `resources` (prefixes as kube-state-metrics spells them) and extra matchers."""
    names = "|".join(re.escape(name) + (".*" if name.endswith("_") else "(_shared)?") for name in resources)
    gpu = f'resource=~"{names}"'.replace("\\", "\\\\")

    def pick(metric: str, *matchers: str) -> str:
        inner = ",".join(part for part in (*matchers, selector) if part)
        return metric + "{" + inner + "}"

    def named(metrics: Sequence[str], *matchers: str) -> str:
        return pick("", f'__name__=~"{"|".join(metrics)}"', *matchers)

    def some(label: str) -> str:
        return f'{label}!=""'

    def none(label: str) -> str:
        return f'{label}=""'

    everything = (*NEEDED, *USEFUL, *TIMES, *MEASURES, *DCGM_MORE, *(name for v in RESOURCES.values() for name in v))
    requests = pick("kube_pod_container_resource_requests", gpu, some("node"))
    capacity = pick("kube_node_status_capacity", gpu)
    models = " or ".join(pick("kube_node_labels", some(label)) for label in MODEL)
    dcgm = named(MEASURES)
    labelled = " or ".join(pick("kube_pod_labels", some(label)) for label in POD)
    alive = f"count({named(('kube_node_status_capacity', 'kube_node_info'))})"
    running = pick("kube_pod_status_phase", 'phase=~"Pending|Running"') + " == 1"
    finished = pick("kube_pod_status_phase", 'phase=~"Succeeded|Failed"') + " == 1"
    scraped = f"[{SCRAPE_WINDOW_SECONDS // 60}m]"
    measured = " or ".join(f"count_over_time({pick(name)}{scraped})" for name in MEASURES)
    return [
        Question("names", "Series", f"count by (__name__) ({named(everything)})"),
        Question("back_2d", "Retention: 48 hours", alive, REPULL),
        Question("back_32d", "Retention: a month", alive, MONTH),
        Question("clusters", "Clusters", f"count by (cluster) ({capacity})"),
        Question("nodes", "Nodes", f"count by (node) ({capacity} > 0)"),
        Question("unlabelled", "Labels of nodes", f"count by (node) ({capacity} > 0) unless on (node) ({models})"),
        Question(
            "namespace_labels",
            "Labels of namespaces",
            f"count({pick('kube_namespace_labels', some('label_gpu_commons_workspace'))})",
        ),
        Question("pod_labels", "Labels of pods", f"count({labelled})"),
        Question(
            "duplicates",
            "Duplicates",
            f"count(count by (uid, container, resource) ({pick('kube_pod_container_resource_requests', gpu)}) > 1)",
        ),
        Question("tellers", "Exporters", f"count by (job, instance) ({capacity})"),
        Question("holding", "GPUs held", f"count({requests} and on (uid) ({running}))"),
        Question("terminal", "Finished pods", f"count({requests} and on (uid) ({finished}))"),
        Question("scrapes", "Distance of samples", f"max(count_over_time({capacity}{scraped}))"),
        Question("dcgm_scrapes", "Distance of samples of use", f"max({measured})"),
        Question("exported", "Workload labels", f"count({named(MEASURES, some('exported_pod'))})"),
        Question(
            "plain",
            "Workload labels",
            f"count({named(MEASURES, none('exported_pod'), some('pod'))} and on (namespace, pod) {requests})",
        ),
        Question("sentinels", "Blank values", f"count({dcgm} > 100 or {dcgm} < 0)"),
        Question("vgpu", "Virtual GPUs", f"count({named(MEASURES, some('vgpu'))})"),
        Question(
            "device_rows",
            "Rows by device",
            f"count(count by (UUID, GPU_I_ID, instance) ({pick('DCGM_FI_DEV_GPU_UTIL')}) > 1)",
        ),
        Question("dra", "Dynamic resource allocation", f"count({named(MEASURES, some('dra_claim_name'))})"),
    ]


def options_of(options: Mapping[str, Any]) -> tuple[Sequence[str], str]:
    """Return (GPU resources, extra matchers) of a source's options."""
    from apps.metering.sources.base import gpu_resources

    return gpu_resources(options), str(options.get("cluster_filter", ""))
