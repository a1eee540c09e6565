"""OpenCost and Kubecost allocation API as a source (reference cost C1): hourly steps of containers, nodes from assets.

Quantity = GPU count × minutes. The API's own resolution (OpenCost's default: five minutes) bounds the error of every
pod edge; `resolution_error_ms` says so on pages. Only exclusive GPUs: their MIG and time-slicing quantities are wrong.
Answers are parsed row by row: a hundred thousand pods are a quarter of a gigabyte of JSON.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from apps.clusters.clients.allocation import AllocationClient
from apps.clusters.errors import ClusterError, ServerError, Throttled
from apps.metering.engine import HOUR_MS, Holding, Span, Use, hour_of, model_label
from apps.metering.source_stream import BadAnswer, Rows, checked, many_rows
from apps.metering.sources import labels as known_labels
from apps.metering.sources.base import HourCover, NodeReading, Proof, Reading, SourceError, SourceRefused, ms
from apps.metering.sources.resources import allocation_resources, identity

#: Keys that are sums or idle capacity, not containers.
_NOT_WORKLOADS = ("__idle__", "__unallocated__", "__unmounted__", "__shared__", "__external__")
USED_SOURCE = "allocation_average"
DEFAULT_RESOLUTION_SECONDS = 300
#: A reading takes about so many rows at most: the window shrinks and grows with what the last one brought.
ROWS_AT_ONCE = 100_000
#: … and about so many seconds: an OpenCost computes every hour anew.
SECONDS_AT_ONCE = 10.0


class AllocationAdapter:
    """Reads windows of whole hours: one request for allocations, one for assets."""

    path = "/allocation"
    longest_window = timedelta(days=7)
    #: What is always sent along; a source's option `parameters` adds to it.
    parameters: Mapping[str, str] = {"step": "1h", "accumulate": "false"}

    def __init__(self, url: str, *, token: str = "", options: Mapping[str, Any] | None = None) -> None:
        self._options = dict(options or {})
        timeout = float(self._options.get("timeout_seconds", 60))
        self._client = AllocationClient(
            url,
            token=token,
            path=str(self._options.get("path") or self.path),
            assets_path=str(self._options.get("assets_path", "")),
            timeout=(3.0, timeout),
        )
        self.requests = 0
        #: How many hours the next reading takes: an hour first, to see how many rows it brings.
        self._hours_at_once = 1
        self._with_resources = bool(self._options.get("resources", True))
        self._seen: dict[str, str] = {}

    @property
    def max_window(self) -> timedelta:
        """The longest window of the next `read`: an hour at first, then what keeps a reading small in memory."""
        return min(self.longest_window, timedelta(hours=self._hours_at_once))

    @property
    def resolution_error_ms(self) -> int:
        """The most that one edge of a pod can be off, in milliseconds: the API's resolution."""
        return int(self._options.get("resolution_seconds", DEFAULT_RESOLUTION_SECONDS)) * 1000

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def read(self, start: datetime, end: datetime) -> Reading:
        """Read the hours of [start, end). Raises SourceError, SourceRefused for shared GPUs and sets of other hours."""
        reading = Reading()
        began = time.monotonic()
        first, last = ms(start), ms(end)
        rows_of = [0] * ((last - first) // HOUR_MS)
        only = set(self._options.get("clusters") or ())
        with many_rows(), self._answer(reading.proof, "allocation", start, end) as rows:
            for index, key, row in checked(rows):
                if index >= len(rows_of):
                    raise SourceRefused(f"the API gave more than {len(rows_of)} sets for {len(rows_of)} hours")
                if not isinstance(row, dict) or any(mark in key for mark in _NOT_WORKLOADS):
                    continue
                rows_of[index] += 1
                hour = first + index * HOUR_MS
                _check_window(key, row, hour)
                if only and (row.get("properties") or {}).get("cluster") not in only:
                    continue
                holding = _holding(key, row, hour, self._seen)
                if holding is not None:
                    reading.holdings.append(holding)
                if self._with_resources:
                    reading.resources.extend(allocation_resources(key, row, hour, self._seen))
        self._read_nodes(reading, start, end)
        known_nodes = {hour for node in reading.nodes for span in node.spans for hour in _hours(span, first, last)}
        for index, count in enumerate(rows_of[: rows.sets]):
            hour = first + index * HOUR_MS
            if count or hour in known_nodes:
                reading.hours[hour] = HourCover(coverage_permille=1000)
        self._seen.clear()
        if rows_of:
            an_hour = (time.monotonic() - began) / len(rows_of)
            in_time = int(SECONDS_AT_ONCE / max(an_hour, 0.001))
            self._hours_at_once = max(1, min(in_time, ROWS_AT_ONCE // max(1, max(rows_of))))
        return reading

    def _read_nodes(self, reading: Reading, start: datetime, end: datetime) -> None:
        with self._answer(reading.proof, "assets", start, end) as rows:
            found = {key: asset for _, key, asset in checked(rows) if isinstance(asset, dict)}
        reading.nodes = [node for key, asset in sorted(found.items()) if (node := _node(key, asset)) is not None]
        # The node's label names the model as flavours do; the driver's own name is second best.
        models = {node.node: node.gpu_model for node in reading.nodes if node.gpu_model}
        for position, holding in enumerate(reading.holdings):
            model = models.get(holding.node)
            if model and model != holding.gpu_model:
                reading.holdings[position] = replace(holding, gpu_model=model)

    @contextmanager
    def _answer(self, proof: Proof, what: str, start: datetime, end: datetime) -> Iterator[Rows]:
        """Ask for `what`; gives its rows as they arrive, their bytes going into the proof. Raises SourceError."""
        extra: dict[str, str] = {}
        if what == "allocation":
            given = self._options.get("parameters") or {}
            extra = {**self.parameters, **{str(name): str(value) for name, value in given.items()}}
        self.requests += 1
        try:
            with self._client.pieces(what, start, end, **extra) as (asked, pieces):
                feed = proof.stream(what, self._client.url, what, asked)

                def kept() -> Iterator[bytes]:
                    for piece in pieces:
                        feed.take(piece)
                        yield piece

                yield Rows(kept())
                feed.close()
        except ClusterError as error:
            pause = error.retry_after if isinstance(error, Throttled | ServerError) else 0.0
            raise SourceError(f"{what}: {error.message}", retry_after=pause) from error
        except BadAnswer as error:
            raise SourceError(f"{what}: {error}") from error


def _check_window(key: str, row: Mapping[str, Any], hour: int) -> None:
    """Refuse a set of another time than its hour: Kubecost answers with daily sets what it keeps no hourly ones of."""
    window = row.get("window")
    if not isinstance(window, dict):
        return
    begin, finish = _time(window.get("start")), _time(window.get("end"))
    if begin is None or finish is None or (begin, finish) == (hour, hour + HOUR_MS):
        return
    hours = (finish - begin) / HOUR_MS
    raise SourceRefused(
        f"{key}: the API answered with a set of {hours:g} hours beginning {window.get('start')} instead of one hour:"
        " it keeps hourly sets for a shorter time than is read again"
    )


def _hours(span: Span, first: int, last: int) -> range:
    return range(max(first, hour_of(span.start)), min(last, span.end), HOUR_MS)


def _time(value: Any) -> int | None:
    return _parsed_time(value) if isinstance(value, str) and value else None


@lru_cache(maxsize=10_000)
def _parsed_time(value: str) -> int | None:
    """Return a time in milliseconds: most pods of an hour begin where the hour does."""
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        return None
    return ms(at if at.tzinfo else at.replace(tzinfo=UTC))


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


@lru_cache(maxsize=1000)
def _model(name: str) -> str:
    return model_label(name)


def _holding(key: str, row: Mapping[str, Any], hour: int, found: dict[str, str]) -> Holding | None:
    """Return one container's hold in one hour; None where it holds no GPU. Raises SourceRefused for a shared GPU."""
    count, minutes, hours = _number(row.get("gpuCount")), _number(row.get("minutes")), _number(row.get("gpuHours"))
    if not count and not hours:
        return None
    properties = row.get("properties") or {}
    details = row.get("gpuAllocation") or {}
    if details.get("isGPUShared"):
        raise SourceRefused(
            f"{key} holds a shared GPU: allocation APIs misstate shared GPUs, use Prometheus as source of this cluster"
        )
    begin = max(_time(row.get("start")) or hour, hour)
    units, span = _quantity(key, count, minutes, hours, begin, hour)
    if span is None:
        return None
    namespace, pod, container, workload = identity(key, properties)
    if begin > hour and not properties.get("uid"):
        workload = f"{workload}@{(begin - hour) // 1000}"
    ratio = _number(details.get("gpuUsageAverage"))
    used = None
    if ratio is not None and 0 <= ratio <= 1.5:
        used = {hour: Use(min(1_000_000, round(ratio * 1_000_000)), 1000, USED_SOURCE)}
    labels = known_labels.plain(properties.get("labels") or {})

    def same(text: str) -> str:
        """Return the one copy of a text that many rows repeat."""
        return found.setdefault(text, text)

    return Holding(
        key=workload,
        namespace=same(namespace),
        name=same(str(properties.get("controller") or pod or workload)),
        kind=same(str(properties.get("controllerKind") or "")),
        resource="nvidia_com_gpu",
        spans=(span._replace(units=units),),
        container=same(container),
        node=same(str(properties.get("node") or "")),
        gpu_model=_model(str(details.get("gpuModel") or "")),
        flavour=same(labels.get("label_gpu_commons_flavour", "")),
        used=used,
        pod=pod,
        project=same(known_labels.first(labels, known_labels.PROJECT)),
        purpose=same(known_labels.first(labels, known_labels.PURPOSE)),
        release_uid=known_labels.release(labels),
    )


def _quantity(
    key: str, count: float | None, minutes: float | None, hours: float | None, begin: int, hour: int
) -> tuple[int, Span | None]:
    """Return units and span: whole count × minutes; a fractional average count is spread so that GPU-hours are kept."""
    limit = hour + HOUR_MS
    if count and minutes:
        whole = round(count)
        length = min(round(minutes * 60_000), limit - begin)
        if whole and abs(count - whole) < 1e-4:
            return whole, Span(begin, begin + length, whole) if length > 0 else None
        if not hours:
            hours = count * minutes / 60
    if not hours or hours < 0:
        raise SourceRefused(f"{key}: GPU count and minutes make no quantity")
    total = round(hours * HOUR_MS)
    units = max(1, -(-total // HOUR_MS))
    length = min(total // units, limit - begin)
    return units, Span(begin, begin + length, units) if length > 0 else None


def _node(key: str, asset: Mapping[str, Any]) -> NodeReading | None:
    """Return a node's GPUs from an asset; None for disks and nodes without GPUs. OpenCost writes `GPUHours`."""
    if not isinstance(asset, dict) or str(asset.get("type", "Node")).lower() != "node":
        return None
    gpus = round(_number(asset.get("gpuCount")) or 0)
    start, minutes = _time(asset.get("start")), _number(asset.get("minutes"))
    if gpus <= 0 or start is None:
        return None
    if minutes:
        end = start + round(minutes * 60_000)
    else:
        end = _time(asset.get("end")) or start
    properties, labels = asset.get("properties") or {}, asset.get("labels") or {}
    # OpenCost writes labels with or without the prefix of kube-state-metrics, or as the node has them.
    plain = known_labels.plain({name.removeprefix("label_"): value for name, value in labels.items()})
    model = known_labels.gpu_model(plain) or model_label(str(asset.get("gpuModel") or ""))
    return NodeReading(node=str(properties.get("name") or key), gpu_model=model, spans=(Span(start, end, gpus),))
