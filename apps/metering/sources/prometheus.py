"""Prometheus (kube-state-metrics and dcgm-exporter) as a source: eight requests an hour (cost C3, C4, E2).

Range queries start one step after the hour and end at its end: sixty points on servers with closed (2.x) and with
left-open (3.x) ranges. Range selectors occur only around constants (`last_over_time`), where a boundary cannot matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from apps.clusters.clients.prometheus import PrometheusClient
from apps.clusters.errors import ClusterError, ServerError, Throttled
from apps.metering.engine import CLAIMED, HAMI_CORES, HOUR_MS, Holding, Use, spans_from_samples
from apps.metering.sources import labels as words
from apps.metering.sources import promql
from apps.metering.sources.base import HourCover, Reading, SourceError, at_ms, gpu_resources, ms
from apps.metering.sources.gpunodes import Node, away_spans, node_readings
from apps.metering.sources.promholders import HeldPod, Measured, Owner, Owners, claimed_pods, with_cores
from apps.metering.sources.promresources import Pod as ResourcePod
from apps.metering.sources.promresources import ResourceReader
from apps.metering.sources.series import series_of

#: The cluster hands GPUs out through resource claims that neither exporter tells of.
CLAIMS_UNKNOWN = "claims_unknown"
#: The server refused to answer for a part of CPU, memory, storage or network.
RESOURCES_UNKNOWN = "resources_unknown"
#: How long after an hour events of it are still looked for (a completion is scraped after it happened).
LOOK_AFTER = timedelta(minutes=5)


class _Reader(PrometheusClient):
    """Hands out the bytes of an answer, for the proof and for parsing one series at a time."""

    def fetch(self, path: str, parameters: Mapping[str, str]) -> bytes:
        """Return the response body of one API call. Raises clusters.errors."""
        url = f"{self.url}/api/v1/{path}"
        body: bytes = self._attempt(lambda: self._session.request("POST", url, params=dict(parameters))).content
        return body


class PrometheusAdapter:
    """Reads one hour at a time. Requests: see `promql` and `promresources`; `requests` counts them."""

    max_window = timedelta(hours=1)

    def __init__(self, url: str, *, token: str = "", options: Mapping[str, Any] | None = None) -> None:
        self._options = dict(options or {})
        timeout = float(self._options.get("timeout_seconds", 60))
        self._client = _Reader(url, token=token, timeout=(3.0, timeout))
        self._queries = promql.Queries(
            resources=tuple(gpu_resources(self._options)), selector=str(self._options.get("cluster_filter", ""))
        )
        self._step = int(self._options.get("step_seconds", 60))
        self._with_resources = bool(self._options.get("resources", True))
        self.requests = 0
        #: Of these, what was asked for CPU, memory, storage and network.
        self.resource_requests = 0

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
        pods = self._pods(reading, hour, nodes)
        started, completed = self._times(reading, hour)
        unadvertised = any(node.unadvertised for node in nodes.values())
        owners = self._owners(reading, hour) if pods or unadvertised or self._with_resources else Owners()
        measured = self._devices(reading, hour) if pods or unadvertised else Measured()
        claimed = claimed_pods(measured, pods, owners)
        use = self._use(reading, hour, pods, claimed, measured) if pods or claimed else {}
        away = away_spans(present, self.step_ms, window)
        for pod in (*pods, *claimed):
            node = nodes.get(pod.node, Node())
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
            owner = owners.by_uid.get(pod.uid, Owner())
            workload = (pod.namespace, pod.name, pod.container)
            memory = measured.memory.get(workload)
            reading.holdings.append(
                Holding(
                    key=pod.uid,
                    namespace=pod.namespace,
                    name=owner.name or pod.name,
                    kind=owner.kind,
                    resource=pod.resource,
                    spans=spans,
                    container=pod.container,
                    node=pod.node,
                    gpu_model=node.model or pod.model,
                    capacity_type=node.capacity_type,
                    flags=flags | {CLAIMED} if pod.claimed else flags,
                    used={hour: use[workload]} if workload in use else None,
                    pod=pod.name,
                    project=owner.project,
                    purpose=owner.purpose,
                    release_uid=owner.release,
                    memory=None if memory is None else {hour: memory},
                    replicas=1 if pod.claimed or pod.resource == HAMI_CORES else node.cut,
                )
            )
        reading.nodes.extend(node_readings(nodes, self.step_ms, away))
        coverage = min(1000, len(present) * 1000 // expected)
        marks: tuple[str, ...] = ("source_gap",) if coverage < 1000 else ()
        if unadvertised and not claimed:
            marks = (*marks, CLAIMS_UNKNOWN)
        if self._with_resources and self._resources(reading, hour, nodes, owners, coverage, (started, completed)):
            marks = (*marks, RESOURCES_UNKNOWN)
        missing = f"{expected - len(present)} of {expected} samples of the hour are missing"
        reading.hours[hour] = HourCover(
            coverage_permille=coverage,
            complete=coverage >= 500,
            flags=marks,
            reason=missing if coverage < 1000 else "",
        )

    def _resources(
        self,
        reading: Reading,
        hour: int,
        nodes: Mapping[str, Node],
        owners: Owners,
        coverage: int,
        times: tuple[Mapping[str, int], Mapping[str, int]],
    ) -> bool:
        """Read CPU, memory, storage and network; returns whether a part of them stays unknown."""
        reader = ResourceReader(
            lambda purpose, query, at: self._ask(reading, purpose, "query", {"query": query, "time": str(at // 1000)}),
            selector=str(self._options.get("cluster_filter", "")),
            step_ms=self.step_ms,
            started=times[0],
            completed=times[1],
        )
        about = {uid: ResourcePod(o.kind, o.name, o.node, o.project, o.purpose) for uid, o in owners.by_uid.items()}
        types = {name: node.capacity_type for name, node in nodes.items()}
        before = self.requests
        reading.resources.extend(reader.read(hour, about, owners.uids, types, coverage))
        self.resource_requests += self.requests - before
        return reader.unknown

    def _nodes(self, reading: Reading, hour: int) -> tuple[dict[str, Node], set[int]]:
        """Return the nodes, and the sample times at which kube-state-metrics told of them."""
        nodes: dict[str, Node] = {}
        present: set[int] = set()
        named: set[int] = set()
        for labels, points in self._range(reading, "nodes", self._queries.nodes(), hour):
            samples = [(int(float(t) * 1000), int(float(v))) for t, v in points]
            node = nodes.setdefault(labels.get("node", ""), Node())
            what, resource = labels.get("what", ""), labels.get("resource", "")
            if what == "labelled":
                node.labelled = [t for t, _ in samples]
                named.update(node.labelled)
                continue
            present.update(t for t, _ in samples)
            if what == "closed":
                node.closed = [(t, v) for t, v in samples if v]
            elif what == "capacity":
                node.capacity[resource] = samples
            else:
                node.allocatable[resource] = samples
        if nodes:
            for labels, _ in self._instant(reading, "node labels", self._queries.node_labels(), hour):
                node = nodes.setdefault(labels.get("node", ""), Node())
                node.model = words.gpu_model(labels) or node.model
                node.mig = words.first(labels, words.MIG_STRATEGY) or node.mig
                node.count = words.number(labels, words.COUNT) or node.count
                node.replicas = words.number(labels, words.REPLICAS) or node.replicas
                node.capacity_type = words.capacity_type(labels) or node.capacity_type
        return nodes, present or named

    def _pods(self, reading: Reading, hour: int, nodes: Mapping[str, Node]) -> list[HeldPod]:
        """Return every container that requests GPUs and has a node in or just after the hour, with its held samples."""
        pods: dict[tuple[str, str, str, str], HeldPod] = {}
        for labels, points in self._instant(reading, "requests", self._queries.requests(), hour):
            key = _pod_key(labels)
            if key[0] and key[3] and points:
                pods[key] = HeldPod(
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
        return with_cores([pods[key] for key in sorted(pods)], nodes)

    def _times(self, reading: Reading, hour: int) -> tuple[dict[str, int], dict[str, int]]:
        started: dict[str, int] = {}
        completed: dict[str, int] = {}
        for labels, points in self._instant(reading, "times", self._queries.times(), hour):
            target = started if labels.get("what") == "start" else completed
            value = int(float(points[0][1]) * 1000)
            if value > 0:
                target[labels.get("uid", "")] = value
        return started, completed

    def _owners(self, reading: Reading, hour: int) -> Owners:
        found = Owners()
        for labels, _ in self._instant(reading, "owners", self._queries.owners(), hour):
            uid = labels.get("uid", "")
            owner = found.by_uid.setdefault(uid, Owner())
            if "created_by_name" in labels or "pod" in labels:
                owner.kind, owner.name = labels.get("created_by_kind", ""), labels.get("created_by_name", "")
                # A pod that was scheduled within the hour shows without and with its node.
                owner.node = labels.get("node", "") or owner.node
                found.uids[(labels.get("namespace", ""), labels.get("pod", ""))] = uid
            else:
                owner.project = words.first(labels, words.PROJECT) or owner.project
                owner.purpose = words.first(labels, words.PURPOSE) or owner.purpose
                owner.release = words.release(labels) or owner.release
        return found

    def _devices(self, reading: Reading, hour: int) -> Measured:
        found = Measured()
        for labels, points in self._instant(reading, "devices", self._queries.devices(), hour):
            key, value = promql.workload_of(labels), float(points[0][1])
            what = labels.get("what", "")
            if what == "memory":
                found.memory[key] = round(value)
            elif what == "claims":
                found.claims.append((labels, int(value)))
            else:
                found.devices[key] = int(value)
        return found

    def _use(
        self, reading: Reading, hour: int, pods: list[HeldPod], claimed: list[HeldPod], measured: Measured
    ) -> dict[tuple[str, str, str], Use]:
        """Return measured use by (namespace, pod, container): mean over devices and samples, never extrapolated.

        What is held through a claim has no request in any pod's spec: the exporter's samples tell when it was held.
        """
        found: dict[tuple[str, str, str], tuple[int, int, str]] = {}
        held = {(pod.namespace, pod.name, pod.container): pod for pod in (*pods, *claimed)}
        through: dict[tuple[str, str, str], list[HeldPod]] = {}
        for pod in claimed:
            through.setdefault((pod.namespace, pod.name, pod.container), []).append(pod)
        for labels, points in self._range(reading, "use", self._queries.use(), hour):
            key = promql.workload_of(labels)
            source, divisor = promql.USE.get(labels.get("__name__", ""), ("", 1))
            if key not in held or not source:
                continue
            for pod in through.get(key, ()):
                seen = [(int(float(t) * 1000), pod.units) for t, _ in points]
                pod.samples = _largest([*pod.samples, *seen])
            values = [value for _, text in points if 0 <= (value := float(text) / divisor) <= 1.0]
            if values:
                before = found.get(key)
                if before is None or len(values) > before[1]:
                    found[key] = (round(sum(values) * 1_000_000), len(values), source)
        result: dict[tuple[str, str, str], Use] = {}
        for key, (ppm, count, source) in found.items():
            pod = held[key]
            expected = max(1, len(pod.samples)) * max(1, pod.units)
            devices = pod.units if pod.resource == HAMI_CORES else measured.devices.get(key, pod.units)
            seen_samples = min(count, max(1, len(pod.samples))) * min(devices, pod.units)
            result[key] = Use(min(1_000_000, ppm // count), min(1000, seen_samples * 1000 // expected), source)
        return result


def _pod_key(labels: Mapping[str, str]) -> tuple[str, str, str, str]:
    return (labels.get("uid", ""), labels.get("container", ""), labels.get("resource", ""), labels.get("node", ""))


def _largest(samples: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return one sample per time, the largest: replicas of an exporter tell the same pod several times."""
    return sorted(dict(sorted(samples)).items())
