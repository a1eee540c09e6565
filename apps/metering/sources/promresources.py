"""CPU, memory, storage and network of an hour from Prometheus: seven requests (reference cost C2, E1, E4).

Means over the hour are sums over sixty evaluations, one a minute: a subquery over one second less than the hour holds
the same points on servers with closed (2.x) and with left-open (3.x) ranges. Counters (CPU-seconds, network bytes) come
as raw samples: the server cannot add up what lies between resets exactly, and takes far longer to try.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from apps.clusters.errors import InvalidObject, TooLarge
from apps.metering.engine import HOUR_MS
from apps.metering.sources.base import ResourceHold, SourceError
from apps.metering.sources.resources import Rise, capped, charged_ms, core_ms, egress_ms, gib_ms, joined, rise_of
from apps.rates.choices import Resource

#: purpose, query, time of evaluation in ms → series.
Ask = Callable[[str, str, int], Iterator[tuple[dict[str, str], list[Any]]]]
#: Raw samples reach back this far before the hour, for the counters' baseline.
BASELINE_MS = 5 * 60_000


@dataclass(frozen=True, slots=True)
class Pod:
    """What a pod is part of, and what it says about itself."""

    kind: str = ""
    name: str = ""
    node: str = ""
    project: str = ""
    purpose: str = ""


class Queries:
    """The seven queries; `selector`: extra label matchers, `step`: seconds between evaluations."""

    def __init__(self, selector: str, step: int) -> None:
        self._selector = selector
        self._step = step

    def _with(self, *matchers: str) -> str:
        return "{" + ",".join(part for part in (*matchers, self._selector) if part) + "}"

    def _sum(self, inner: str) -> str:
        return f"sum_over_time(({inner})[{HOUR_MS // 1000 - 1}s:{self._step}s])"

    def requests(self) -> str:
        """CPU and memory that pods with a node requested: constant for a pod's life, so the last value of the hour."""
        name = "kube_pod_container_resource_requests" + self._with('resource=~"cpu|memory"', 'node!=""')
        one = f"max by (uid, namespace, pod, container, node, resource) (last_over_time({name}[{HOUR_MS // 1000}s]))"
        return f"sum by (uid, namespace, pod, node, resource) ({one})"

    def held(self) -> str:
        """Minutes in which a pod was Pending or Running; what lies before its start had no node yet."""
        phase = "kube_pod_status_phase" + self._with('phase=~"Pending|Running"')
        return self._sum(f"max by (uid) ({phase})") + " > 0"

    def memory(self) -> str:
        """Memory held by pod, Σ over the minutes: the working set, as the kubelet evicts by."""
        one = f"max by (namespace, pod, container) (container_memory_working_set_bytes{self._real})"
        return f"sum by (namespace, pod) ({self._sum(one)})"

    def cpu(self) -> str:
        """Raw samples of the CPU-seconds that containers used."""
        return f"container_cpu_usage_seconds_total{self._real}[{(HOUR_MS + BASELINE_MS) // 1000}s]"

    @property
    def _real(self) -> str:
        return self._with('container!=""', 'container!="POD"', 'pod!=""')

    def nodes(self) -> str:
        """CPU and memory that nodes have, Σ over the minutes."""
        name = "kube_node_status_capacity" + self._with('resource=~"cpu|memory"')
        return self._sum(f"max by (node, resource) ({name})")

    def volumes(self) -> str:
        """Bytes provisioned by volume claims and bytes used on them, Σ over the minutes, told apart by `what`."""
        by = "max by (namespace, persistentvolumeclaim)"
        asked = f"{by} (kube_persistentvolumeclaim_resource_requests_storage_bytes{self._with()})"
        used = f"{by} (kubelet_volume_stats_used_bytes{self._with()})"
        return (
            f'label_replace({self._sum(asked)}, "what", "provisioned", "", "")'
            f' or label_replace({self._sum(used)}, "what", "used", "", "")'
        )

    def egress(self) -> str:
        """Raw samples of the bytes that pods transmitted; the loopback is no network."""
        window = (HOUR_MS + BASELINE_MS) // 1000
        outside = self._with('pod!=""', 'interface!="lo"')
        return f"container_network_transmit_bytes_total{outside}[{window}s]"


class ResourceReader:
    """Reads one hour."""

    def __init__(
        self,
        ask: Ask,
        *,
        selector: str,
        step_ms: int,
        started: Mapping[str, int] | None = None,
        completed: Mapping[str, int] | None = None,
    ) -> None:
        """`started`, `completed`: exact times of pods by uid, in ms, where they are known."""
        self._ask = ask
        self._started, self._completed = started or {}, completed or {}
        self._step_ms = step_ms
        self._queries = Queries(selector, step_ms // 1000)
        #: Whether the server refused a part of what was asked.
        self.unknown = False

    def read(
        self,
        hour: int,
        pods: Mapping[str, Pod],
        uids: Mapping[tuple[str, str], str],
        capacity_types: Mapping[str, str],
        coverage_permille: int,
    ) -> list[ResourceHold]:
        """Return the hour's holds. `pods` by uid, `uids` by (namespace, pod), capacity types by node.

        Raises SourceError. A query without any answer leaves its part unknown, never zero.
        """
        end = hour + HOUR_MS
        flags = ("source_gap",) if coverage_permille < 1000 else ()
        found: list[ResourceHold] = []
        nodes: dict[tuple[str, str], str] = {}
        for part in (
            lambda: self._compute(hour, end, pods, uids, nodes),
            lambda: self._volumes(hour, end),
            lambda: self._egress(hour, end, pods, uids, nodes),
        ):
            try:
                found += list(part())
            except SourceError as error:
                if not isinstance(error.__cause__, InvalidObject | TooLarge):
                    raise
                # The server will never answer this (too many samples, say): GPUs are metered, this part is unknown.
                self.unknown = True
        return [_finished(hold, capacity_types, coverage_permille, flags) for hold in found if hold.quantity_ms]

    def _compute(
        self,
        hour: int,
        end: int,
        pods: Mapping[str, Pod],
        uids: Mapping[tuple[str, str], str],
        nodes: dict[tuple[str, str], str],
    ) -> list[ResourceHold]:
        step = self._step_ms // 1000
        use: dict[tuple[str, str, str], float] = {}
        for labels, points in self._ask("memory use", self._queries.memory(), end):
            # A sample stands for the step before it.
            key = (labels.get("namespace", ""), labels.get("pod", ""), str(Resource.MEMORY))
            use[key] = float(points[0][1]) * step
        for (namespace, name), seconds in self._cpu(hour, end).items():
            use[(namespace, name, str(Resource.CPU))] = seconds
        held = {
            labels.get("uid", ""): float(points[0][1]) * step
            for labels, points in self._ask("pods held", self._queries.held(), end)
        }
        found: list[ResourceHold] = []
        seen: set[tuple[str, str, str]] = set()
        rows = sorted(
            (
                (labels.get("namespace", ""), labels.get("pod", ""), labels.get("uid", ""), labels.get("node", ""),
                 labels.get("resource", ""), float(points[0][1]))
                for labels, points in self._ask("resource requests", self._queries.requests(), end)
                if labels.get("resource") in (Resource.CPU, Resource.MEMORY) and labels.get("uid", "") in held
            ),
            key=lambda row: (row[:5], -row[5]),
        )  # fmt: skip
        rows = [(*row[:5], row[5] * self._seconds(row[2], held[row[2]], hour, end)) for row in rows]
        for namespace, name, uid, node, resource, amount in rows:
            nodes[(namespace, name)] = node
            # Of two pods of one name in an hour the exporter's figure goes to the first; it cannot tell them apart.
            used = None if (namespace, name, resource) in seen else use.get((namespace, name, resource))
            seen.add((namespace, name, resource))
            found.append(self._hold(hour, resource, uid, namespace, name, node, amount, used, pods))
        for (namespace, name, resource), used in sorted(use.items()):
            if (namespace, name, resource) not in seen and resource in (Resource.CPU, Resource.MEMORY) and used > 0:
                uid = uids.get((namespace, name), f"{namespace}/{name}")
                node = nodes.get((namespace, name)) or pods.get(uid, Pod()).node
                found.append(self._hold(hour, resource, uid, namespace, name, node, None, used, pods))
        return capped(found, self._capacity(end, step))

    def _seconds(self, uid: str, sampled: float, hour: int, end: int) -> float:
        """Return how long a pod held what it asked for: as sampled, never before its start nor after its completion."""
        first, last = max(hour, self._started.get(uid, hour)), min(end, self._completed.get(uid, end))
        return min(sampled, max(0, last - first) / 1000)

    def _cpu(self, hour: int, end: int) -> dict[tuple[str, str], float]:
        """Return the CPU-seconds used by (namespace, pod), from raw samples in milliseconds."""
        series: dict[tuple[str, str, str], list[Rise]] = {}
        for labels, points in self._ask("cpu use", self._queries.cpu(), end):
            key = (labels.get("namespace", ""), labels.get("pod", ""), labels.get("container", ""))
            found = rise_of([(round(float(t) * 1000), float(v) * 1000) for t, v in points], hour, end)
            if found is not None:
                series.setdefault(key, []).append(found)
        sums: dict[tuple[str, str], float] = {}
        for (namespace, name, _), parts in series.items():
            sums[(namespace, name)] = sums.get((namespace, name), 0.0) + joined(parts) / 1000
        return sums

    def _hold(
        self, hour: int, resource: str, uid: str, namespace: str, name: str, node: str, asked: float | None,
        used: float | None, pods: Mapping[str, Pod],
    ) -> ResourceHold:  # fmt: skip
        convert = core_ms if resource == Resource.CPU else gib_ms
        requested_ms, used_ms = (None if value is None else convert(value) for value in (asked, used))
        pod = pods.get(uid, Pod())
        return ResourceHold(
            hour=hour,
            resource=resource,
            key=uid,
            namespace=namespace,
            name=pod.name or name,
            kind=pod.kind,
            node=node,
            quantity_ms=charged_ms(requested_ms, used_ms),
            requested_ms=requested_ms,
            used_ms=used_ms,
            project=pod.project,
            purpose=pod.purpose,
        )

    def _capacity(self, end: int, step: int) -> dict[tuple[str, str], int]:
        found = {}
        for labels, points in self._ask("node resources", self._queries.nodes(), end):
            resource = labels.get("resource", "")
            if resource not in (Resource.CPU, Resource.MEMORY):
                continue
            convert = core_ms if resource == Resource.CPU else gib_ms
            found[(labels.get("node", ""), resource)] = convert(float(points[0][1]) * step)
        return found

    def _volumes(self, hour: int, end: int) -> Iterator[ResourceHold]:
        step = self._step_ms // 1000
        sizes: dict[tuple[str, str], dict[str, int]] = {}
        for labels, points in self._ask("volumes", self._queries.volumes(), end):
            key = (labels.get("namespace", ""), labels.get("persistentvolumeclaim", ""))
            sizes.setdefault(key, {})[labels.get("what", "")] = gib_ms(float(points[0][1]) * step)
        for (namespace, claim), size in sorted(sizes.items()):
            provisioned = size.get("provisioned")
            if provisioned:
                yield ResourceHold(
                    hour=hour,
                    resource=str(Resource.STORAGE),
                    key=f"pvc/{namespace}/{claim}",
                    namespace=namespace,
                    name=claim,
                    kind="PersistentVolumeClaim",
                    quantity_ms=provisioned,
                    requested_ms=provisioned,
                    used_ms=size.get("used"),
                )

    def _egress(
        self,
        hour: int,
        end: int,
        pods: Mapping[str, Pod],
        uids: Mapping[tuple[str, str], str],
        nodes: Mapping[tuple[str, str], str],
    ) -> Iterator[ResourceHold]:
        sent: dict[tuple[str, str], int] = {}
        series: dict[tuple[str, str, str], list[Rise]] = {}
        for labels, points in self._ask("egress", self._queries.egress(), end):
            key = (labels.get("namespace", ""), labels.get("pod", ""), labels.get("interface", ""))
            found = rise_of([(round(float(t) * 1000), float(v)) for t, v in points], hour, end)
            if found is not None:
                series.setdefault(key, []).append(found)
        for (namespace, name, _), parts in series.items():
            sent[(namespace, name)] = sent.get((namespace, name), 0) + joined(parts)
        for (namespace, name), count in sorted(sent.items()):
            uid = uids.get((namespace, name), f"{namespace}/{name}")
            pod = pods.get(uid, Pod())
            quantity = egress_ms(count)
            yield ResourceHold(
                hour=hour,
                resource=str(Resource.EGRESS),
                key=uid,
                namespace=namespace,
                name=pod.name or name,
                kind=pod.kind,
                node=nodes.get((namespace, name)) or pod.node,
                quantity_ms=quantity,
                used_ms=quantity,
                project=pod.project,
                purpose=pod.purpose,
            )


def _finished(
    hold: ResourceHold, capacity_types: Mapping[str, str], coverage_permille: int, flags: tuple[str, ...]
) -> ResourceHold:
    return replace(
        hold,
        capacity_type=capacity_types.get(hold.node, ""),
        coverage_permille=coverage_permille,
        flags=(*hold.flags, *flags),
    )
