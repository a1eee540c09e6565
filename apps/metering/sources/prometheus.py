"""Prometheus (kube-state-metrics and dcgm-exporter) as a source: eight requests an hour (cost C3, C4, E2).

Range queries start one step after the hour and end at its end: sixty points on servers with closed (2.x) and with
left-open (3.x) ranges. Range selectors occur only around constants (`last_over_time`), where a boundary cannot matter.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from apps.clusters.clients.prometheus import PrometheusClient
from apps.clusters.errors import ClusterError, ServerError, Throttled
from apps.metering.engine import HOUR_MS, Holding, Share, Span, Use, default_share, merge, spans_from_samples
from apps.metering.sources import promql
from apps.metering.sources.base import HourCover, NodeReading, Reading, SourceError, at_ms, gpu_resources, ms
from apps.metering.sources.series import series_of

#: How long after an hour events of it are still looked for (a completion is scraped after it happened).
LOOK_AFTER = timedelta(minutes=5)


class _Reader(PrometheusClient):
    """Hands out the bytes of an answer, for the proof and for parsing one series at a time."""

    def fetch(self, path: str, parameters: Mapping[str, str]) -> bytes:
        """Return the response body of one API call. Raises clusters.errors."""
        url = f"{self.url}/api/v1/{path}"
        body: bytes = self._attempt(lambda: self._session.request("POST", url, params=dict(parameters))).content
        return body


@dataclass(slots=True)
class _Pod:
    """What is known of one container's request for one resource."""

    uid: str
    container: str
    resource: str
    node: str
    units: int
    namespace: str = ""
    name: str = ""
    samples: list[tuple[int, int]] = field(default_factory=list)


@dataclass(slots=True)
class _Node:
    capacity: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    allocatable: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    closed: list[tuple[int, int]] = field(default_factory=list)
    model: str = ""
    count: int = 0
    mig: str = ""
    capacity_type: str = ""


class PrometheusAdapter:
    """Reads one hour at a time. Requests: see `promql`; `requests` counts them."""

    max_window = timedelta(hours=1)

    def __init__(self, url: str, *, token: str = "", options: Mapping[str, Any] | None = None) -> None:
        self._options = dict(options or {})
        timeout = float(self._options.get("timeout_seconds", 60))
        self._client = _Reader(url, token=token, timeout=(3.0, timeout))
        self._queries = promql.Queries(
            resources=tuple(gpu_resources(self._options)), selector=str(self._options.get("cluster_filter", ""))
        )
        self._step = int(self._options.get("step_seconds", 60))
        self.requests = 0

    @property
    def step_ms(self) -> int:
        """The distance of samples, in milliseconds; an edge without exact time is off by at most this plus a scrape."""
        return self._step * 1000

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def read(self, start: datetime, end: datetime) -> Reading:
        """Read the hours of [start, end), one after the other. Raises SourceError."""
        reading = Reading()
        hour = ms(start)
        while hour < ms(end):
            self._hour(reading, hour)
            hour += HOUR_MS
        return reading

    # ------------------------------------------------------------ requests

    def _range(
        self, reading: Reading, purpose: str, query: str, hour: int
    ) -> Iterator[tuple[dict[str, str], list[Any]]]:
        parameters = {
            "query": query,
            "start": str((hour + self.step_ms) // 1000),
            "end": str((hour + HOUR_MS) // 1000),
            "step": str(self._step),
        }
        return self._ask(reading, purpose, "query_range", parameters)

    def _instant(
        self, reading: Reading, purpose: str, query: str, hour: int
    ) -> Iterator[tuple[dict[str, str], list[Any]]]:
        at = at_ms(hour + HOUR_MS) + LOOK_AFTER
        return self._ask(reading, purpose, "query", {"query": query, "time": str(ms(at) // 1000)})

    def _ask(
        self, reading: Reading, purpose: str, path: str, parameters: dict[str, str]
    ) -> Iterator[tuple[dict[str, str], list[Any]]]:
        self.requests += 1
        try:
            body = self._client.fetch(path, parameters)
        except ClusterError as error:
            pause = error.retry_after if isinstance(error, Throttled | ServerError) else 0.0
            raise SourceError(f"{purpose}: {error.message}", retry_after=pause) from error
        shown = {key: value for key, value in parameters.items() if key != "query"}
        reading.proof.add(purpose, f"{self._client.url}/api/v1/{path}", parameters["query"], shown, body)
        try:
            yield from series_of(body)
        except ValueError as error:
            raise SourceError(f"{purpose}: the answer is no query result") from error

    # ------------------------------------------------------------ one hour

    def _hour(self, reading: Reading, hour: int) -> None:
        window = (hour, hour + HOUR_MS)
        nodes, present = self._nodes(reading, hour)
        expected = HOUR_MS // self.step_ms
        if not present:
            return
        pods = self._pods(reading, hour)
        started, completed = self._times(reading, hour)
        owners = self._owners(reading, hour) if pods else {}
        use = self._use(reading, hour, pods) if pods else {}
        away = _away(present, self.step_ms, window)
        for pod in pods:
            node = nodes.get(pod.node, _Node())
            spans, flags = spans_from_samples(
                sorted(pod.samples),
                self.step_ms,
                started=started.get(pod.uid),
                completed=completed.get(pod.uid),
                units=pod.units,
                away=away,
                window=window,
            )
            if not spans:
                continue
            kind, owner = owners.get(pod.uid, ("", ""))
            measured = use.get((pod.namespace, pod.name, pod.container))
            reading.holdings.append(
                Holding(
                    key=pod.uid,
                    namespace=pod.namespace,
                    name=owner or pod.name,
                    kind=kind,
                    resource=pod.resource,
                    spans=spans,
                    container=pod.container,
                    node=pod.node,
                    gpu_model=node.model,
                    capacity_type=node.capacity_type,
                    flags=flags,
                    used={hour: measured} if measured else None,
                    pod=pod.name,
                )
            )
        reading.nodes.extend(_node_readings(nodes, self.step_ms, window, away))
        coverage = min(1000, len(present) * 1000 // expected)
        bridged = coverage < 1000
        reading.hours[hour] = HourCover(
            coverage_permille=coverage,
            complete=coverage >= 500,
            flags=("source_gap",) if bridged else (),
            reason=f"{expected - len(present)} of {expected} samples of the hour are missing" if bridged else "",
        )

    def _nodes(self, reading: Reading, hour: int) -> tuple[dict[str, _Node], set[int]]:
        """Return the nodes, and the sample times at which kube-state-metrics told anything at all."""
        nodes: dict[str, _Node] = {}
        present: set[int] = set()
        for labels, points in self._range(reading, "nodes", self._queries.nodes(), hour):
            samples = [(int(float(t) * 1000), int(float(v))) for t, v in points]
            present.update(t for t, _ in samples)
            node = nodes.setdefault(labels.get("node", ""), _Node())
            what, resource = labels.get("what", ""), labels.get("resource", "")
            if what == "closed":
                node.closed = [(t, v) for t, v in samples if v]
            elif what == "capacity":
                node.capacity[resource] = samples
            else:
                node.allocatable[resource] = samples
        if nodes:
            for labels, _ in self._instant(reading, "node labels", self._queries.node_labels(), hour):
                node = nodes.setdefault(labels.get("node", ""), _Node())
                node.model = labels.get("label_nvidia_com_gpu_product", "") or node.model
                node.mig = labels.get("label_nvidia_com_mig_strategy", "") or node.mig
                count = labels.get("label_nvidia_com_gpu_count", "")
                node.count = int(count) if count.isdigit() else node.count
                node.capacity_type = labels.get("label_gpu_commons_capacity_type", "")
        return nodes, present

    def _pods(self, reading: Reading, hour: int) -> list[_Pod]:
        """Return every container that requests GPUs and has a node in or just after the hour, with its held samples."""
        pods: dict[tuple[str, str, str, str], _Pod] = {}
        for labels, points in self._instant(reading, "requests", self._queries.requests(), hour):
            key = _pod_key(labels)
            if key[0] and key[3] and points:
                pods[key] = _Pod(
                    *key,
                    units=int(float(points[0][1])),
                    namespace=labels.get("namespace", ""),
                    name=labels.get("pod", ""),
                )
        for labels, points in self._range(reading, "held", self._queries.held(), hour):
            key = _pod_key(labels)
            pod = pods.get(key)
            if pod is None:
                continue
            samples = [(int(float(t) * 1000), int(float(v))) for t, v in points]
            pod.samples = samples if not pod.samples else _largest([*pod.samples, *samples])
        return [pods[key] for key in sorted(pods)]

    def _times(self, reading: Reading, hour: int) -> tuple[dict[str, int], dict[str, int]]:
        started: dict[str, int] = {}
        completed: dict[str, int] = {}
        for labels, points in self._instant(reading, "times", self._queries.times(), hour):
            target = started if labels.get("what") == "start" else completed
            value = int(float(points[0][1]) * 1000)
            if value > 0:
                target[labels.get("uid", "")] = value
        return started, completed

    def _owners(self, reading: Reading, hour: int) -> dict[str, tuple[str, str]]:
        return {
            labels.get("uid", ""): (labels.get("created_by_kind", ""), labels.get("created_by_name", ""))
            for labels, _ in self._instant(reading, "owners", self._queries.owners(), hour)
        }

    def _use(self, reading: Reading, hour: int, pods: list[_Pod]) -> dict[tuple[str, str, str], Use]:
        """Return measured use by (namespace, pod, container): mean over devices and samples, never extrapolated."""
        found: dict[tuple[str, str, str], tuple[int, int, str]] = {}
        held = {(pod.namespace, pod.name, pod.container): pod for pod in pods}
        for labels, points in self._range(reading, "use", self._queries.use(), hour):
            key = promql.workload_of(labels)
            source, divisor = promql.USE.get(labels.get("__name__", ""), ("", 1))
            if key not in held or not source:
                continue
            values = [value for _, text in points if 0 <= (value := float(text) / divisor) <= 1.0]
            if values:
                before = found.get(key)
                if before is None or len(values) > before[1]:
                    found[key] = (round(sum(values) * 1_000_000), len(values), source)
        devices = {
            promql.workload_of(labels): int(float(points[0][1]))
            for labels, points in self._instant(reading, "devices", self._queries.devices(), hour)
        }
        result: dict[tuple[str, str, str], Use] = {}
        for key, (ppm, count, source) in found.items():
            pod = held[key]
            expected = max(1, len(pod.samples)) * max(1, pod.units)
            seen = min(count, max(1, len(pod.samples))) * min(devices.get(key, pod.units), pod.units)
            result[key] = Use(min(1_000_000, ppm // count), min(1000, seen * 1000 // expected), source)
        return result


def _pod_key(labels: Mapping[str, str]) -> tuple[str, str, str, str]:
    return (labels.get("uid", ""), labels.get("container", ""), labels.get("resource", ""), labels.get("node", ""))


def _largest(samples: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return one sample per time, the largest: replicas of an exporter tell the same pod several times."""
    return sorted(dict(sorted(samples)).items())


def _away(present: set[int], step_ms: int, window: tuple[int, int]) -> tuple[Span, ...]:
    """Return the times without any answer of kube-state-metrics: holes there say nothing about pods."""
    missing = [t for t in range(window[0] + step_ms, window[1] + 1, step_ms) if t not in present]
    return merge([Span(t - step_ms, t, 1) for t in missing])


def _filled(samples: list[tuple[int, int]], step_ms: int, away: tuple[Span, ...]) -> tuple[Span, ...]:
    spans, _ = spans_from_samples(samples, step_ms, away=away)
    return spans


def _node_readings(
    nodes: Mapping[str, _Node], step_ms: int, window: tuple[int, int], away: tuple[Span, ...]
) -> Iterator[NodeReading]:
    """Return the physical GPUs of every node: whole devices as reported, MIG by the devices its parts make up."""
    for name in sorted(nodes):
        node = nodes[name]
        parts = {resource: default_share(resource, node.model) for resource in node.capacity}
        whole = [resource for resource, share in parts.items() if share == Share()]
        sliced = [resource for resource, share in parts.items() if share != Share()]
        spans: list[Span] = []
        broken: list[Span] = []
        for resource in whole:
            spans.extend(_filled(node.capacity[resource], step_ms, away))
            usable = dict(node.allocatable.get(resource, ()))
            lost = [(t, v - usable[t]) for t, v in node.capacity[resource] if t in usable and v > usable[t]]
            broken.extend(_filled(lost, step_ms, away))
        stranded = (0, 1)
        if sliced:
            # Every slice as a fraction of a device, over the common denominator of the model's slices.
            denominator = parts[sliced[0]].denominator
            held = sum(parts[r].numerator * max((v for _, v in node.capacity[r]), default=0) for r in sliced)
            free_whole = max((v for r in whole for _, v in node.capacity[r]), default=0)
            devices = max(-(-held // denominator), node.count - free_whole if node.mig == "mixed" else 0)
            times = sorted({t for r in sliced for t, _ in node.capacity[r]})
            spans.extend(_filled([(t, devices) for t in times], step_ms, away))
            stranded = (devices * denominator - held, denominator)
        if spans:
            yield NodeReading(
                node=name,
                gpu_model=node.model,
                spans=_stack(spans),
                closed=_filled(
                    [(t, sum(s.units for s in spans if s.start < t <= s.end)) for t, _ in node.closed], step_ms, away
                ),
                broken=tuple(broken),
                stranded=stranded,
            )


def _stack(spans: list[Span]) -> tuple[Span, ...]:
    """Return overlapping spans added up (different devices of one node), unlike merge, which takes the maximum."""
    edges = sorted({edge for span in spans for edge in (span.start, span.end)})
    pieces = [
        Span(a, b, units)
        for a, b in itertools.pairwise(edges)
        if (units := sum(span.units for span in spans if span.start <= a and span.end >= b))
    ]
    return merge(pieces)
