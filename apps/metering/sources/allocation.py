"""OpenCost and Kubecost allocation API as a source (reference cost C1): hourly steps of containers, nodes from assets.

Quantity = GPU count × minutes. The API's own resolution (OpenCost's default: five minutes) bounds the error of every
pod edge; `resolution_error_ms` says so on pages. Only exclusive GPUs: their MIG and time-slicing quantities are wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from apps.clusters.clients.allocation import AllocationClient
from apps.clusters.errors import ClusterError, ServerError, Throttled
from apps.metering.engine import HOUR_MS, Holding, Span, Use, hour_of, model_label
from apps.metering.sources.base import HourCover, NodeReading, Proof, Reading, SourceError, SourceRefused, ms

#: Keys that are sums or idle capacity, not containers.
_NOT_WORKLOADS = ("__idle__", "__unallocated__", "__unmounted__", "__shared__", "__external__")
USED_SOURCE = "allocation_average"
DEFAULT_RESOLUTION_SECONDS = 300


class _Recording(AllocationClient):
    """Keeps the bytes of the last answer, for the proof."""

    last: bytes = b""

    def __init__(self, url: str, **kwargs: Any) -> None:
        super().__init__(url, **kwargs)
        send = self._session.request

        def request(*args: Any, **options: Any) -> Any:
            response = send(*args, **options)
            self.last = response.content
            return response

        self._session.request = request  # type: ignore[method-assign]  # one session of ours, wrapped to keep the bytes


class AllocationAdapter:
    """Reads windows of whole hours: one request for allocations, one for assets."""

    max_window = timedelta(days=1)

    def __init__(self, url: str, *, token: str = "", options: Mapping[str, Any] | None = None) -> None:
        self._options = dict(options or {})
        self._client = _Recording(
            url,
            token=token,
            path=str(self._options.get("path", "/allocation")),
            assets_path=str(self._options.get("assets_path", "")),
        )
        self.requests = 0

    @property
    def resolution_error_ms(self) -> int:
        """The most that one edge of a pod can be off, in milliseconds: the API's resolution."""
        return int(self._options.get("resolution_seconds", DEFAULT_RESOLUTION_SECONDS)) * 1000

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def read(self, start: datetime, end: datetime) -> Reading:
        """Read the hours of [start, end). Raises SourceError, SourceRefused for shared GPUs."""
        reading = Reading()
        steps = self._ask(reading.proof, "allocation", start, end)
        assets = self._ask(reading.proof, "assets", start, end)
        reading.nodes = [node for key, asset in sorted(assets.items()) if (node := _node(key, asset)) is not None]
        first, last = ms(start), ms(end)
        models = {node.node: node.gpu_model for node in reading.nodes if node.gpu_model}
        known_nodes = {hour for node in reading.nodes for span in node.spans for hour in _hours(span, first, last)}
        only = set(self._options.get("clusters") or ())
        for index in range((last - first) // HOUR_MS):
            hour = first + index * HOUR_MS
            if index >= len(steps):
                continue
            rows = {
                key: row
                for key, row in steps[index].items()
                if isinstance(row, dict) and not any(mark in key for mark in _NOT_WORKLOADS)
            }
            holdings = [h for key, row in sorted(rows.items()) if (h := _holding(key, row, hour, only)) is not None]
            if not rows and hour not in known_nodes:
                continue
            # The node's label names the model as flavours do; the driver's own name is second best.
            reading.holdings.extend(replace(h, gpu_model=models.get(h.node, h.gpu_model)) for h in holdings)
            reading.hours[hour] = HourCover(coverage_permille=1000)
        return reading

    def _ask(self, proof: Proof, what: str, start: datetime, end: datetime) -> Any:
        parameters = {"window": f"{start:%Y-%m-%dT%H:%M:%SZ},{end:%Y-%m-%dT%H:%M:%SZ}"}
        extra = {str(k): str(v) for k, v in (self._options.get("parameters") or {}).items()}
        self.requests += 1
        try:
            if what == "allocation":
                parameters |= {"step": "1h", "accumulate": "false", **extra}
                answer: Any = self._client.allocation(start, end, step="1h", **extra)
            else:
                answer = self._client.assets(start, end)
        except ClusterError as error:
            pause = error.retry_after if isinstance(error, Throttled | ServerError) else 0.0
            raise SourceError(f"{what}: {error.message}", retry_after=pause) from error
        proof.add(what, self._client.url, what, parameters, self._client.last)
        return answer


def _hours(span: Span, first: int, last: int) -> range:
    return range(max(first, hour_of(span.start)), min(last, span.end), HOUR_MS)


def _time(value: Any) -> int | None:
    if not isinstance(value, str) or not value:
        return None
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        return None
    return ms(at if at.tzinfo else at.replace(tzinfo=UTC))


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _holding(key: str, row: Mapping[str, Any], hour: int, only: set[str]) -> Holding | None:
    """Return one container's hold in one hour; None where it holds no GPU. Raises SourceRefused for a shared GPU."""
    count, minutes, hours = _number(row.get("gpuCount")), _number(row.get("minutes")), _number(row.get("gpuHours"))
    if not count and not hours:
        return None
    properties = row.get("properties") or {}
    if only and properties.get("cluster") not in only:
        return None
    details = row.get("gpuAllocation") or {}
    if details.get("isGPUShared"):
        raise SourceRefused(
            f"{key} holds a shared GPU: allocation APIs misstate shared GPUs, use Prometheus as source of this cluster"
        )
    begin = max(_time(row.get("start")) or hour, hour)
    units, span = _quantity(key, count, minutes, hours, begin, hour)
    if span is None:
        return None
    namespace, pod, container = (str(properties.get(name) or "") for name in ("namespace", "pod", "container"))
    parts = key.split("/")
    if not namespace and len(parts) >= 3:
        namespace, pod, container = parts[-3], pod or parts[-2], container or parts[-1]
    workload = str(properties.get("uid") or f"{namespace}/{pod}/{container}")
    if begin > hour and not properties.get("uid"):
        workload = f"{workload}@{(begin - hour) // 1000}"
    ratio = _number(details.get("gpuUsageAverage"))
    used = None
    if ratio is not None and 0 <= ratio <= 1.5:
        used = {hour: Use(min(1_000_000, round(ratio * 1_000_000)), 1000, USED_SOURCE)}
    labels = properties.get("labels") or {}
    return Holding(
        key=workload,
        namespace=namespace,
        name=str(properties.get("controller") or pod or workload),
        kind=str(properties.get("controllerKind") or ""),
        resource="nvidia_com_gpu",
        spans=(span._replace(units=units),),
        container=container,
        node=str(properties.get("node") or ""),
        gpu_model=model_label(str(details.get("gpuModel") or "")),
        flavour=str(labels.get("gpu_commons_flavour") or labels.get("gpu-commons/flavour") or ""),
        used=used,
        pod=pod,
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
    model = next(
        (
            str(labels[name])
            for name in ("nvidia_com_gpu_product", "label_nvidia_com_gpu_product", "nvidia.com/gpu.product")
            if labels.get(name)
        ),
        str(asset.get("gpuModel") or ""),
    )
    return NodeReading(
        node=str(properties.get("name") or key), gpu_model=model_label(model), spans=(Span(start, end, gpus),)
    )
