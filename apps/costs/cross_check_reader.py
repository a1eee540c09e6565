"""Reads the dollars of OpenCost and Kubecost for a day, exactly as they write them, row by row."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from apps.clusters.clients.allocation import AllocationClient
from apps.clusters.errors import ClusterError
from apps.costs.cross_check_causes import HOUR_MS, Theirs
from apps.metering.source_stream import BadAnswer, Rows, checked

#: Without idle capacity where the server lets us choose; what it adds all the same is told apart.
PARAMETERS = {
    "aggregate": "namespace,pod",
    "accumulate": "true",
    "includeIdle": "false",
    "idle": "false",
    "shareIdle": "false",
}
_IDLE = "__idle__"


class CannotRead(Exception):
    """Their figures are not to be had now; the message says why, and is shown."""


class _Exact(Rows):
    """Numbers as Decimal, from the text: five decimals as floats would not add up."""

    decoder = json.JSONDecoder(parse_float=Decimal)


@dataclass(frozen=True, slots=True)
class Pod:
    """When their first sample of a pod with GPUs lies, in ms since the epoch."""

    namespace: str
    pod: str
    start_ms: int


@dataclass(slots=True)
class Day:
    """What they say about a day."""

    total: Decimal = Decimal(0)
    exclusive: Decimal = Decimal(0)
    exclusive_gpu_ms: Decimal = Decimal(0)
    shared: Decimal = Decimal(0)
    idle: Decimal = Decimal(0)
    rows: int = 0
    pods: list[Pod] = field(default_factory=list)

    def sums(self) -> Theirs:
        """Return the figures that are compared."""
        return Theirs(self.total, self.exclusive, self.exclusive_gpu_ms, self.shared, self.idle)


def read_day(url: str, path: str, token: str, start: datetime, end: datetime, *, only: Iterable[str] = ()) -> Day:
    """Ask for [start, end); `only`: names of clusters to keep where the server knows several. Raises CannotRead."""
    client: AllocationClient | None = None
    try:
        client = AllocationClient(url, path=path, token=token)
        with client.pieces("allocation", start, end, **PARAMETERS) as (_, pieces):
            return sum_up(((key, row) for _, key, row in checked(_Exact(pieces))), only=set(only))
    except (ClusterError, BadAnswer) as error:
        raise CannotRead(str(error) or type(error).__name__) from error
    finally:
        if client is not None:
            client.close()


def sum_up(rows: Iterable[tuple[str, Any]], *, only: set[str]) -> Day:
    """Add up the rows of an answer. Raises BadAnswer for a row that is none, or an amount that is no number."""
    day = Day()
    for key, row in rows:
        if not isinstance(row, dict):
            raise BadAnswer(f"{key} is no allocation")
        properties = row.get("properties") or {}
        if only and properties.get("cluster") not in only:
            continue
        day.rows += 1
        total = _amount(row, "totalCost")
        day.total += total
        if _IDLE in key:
            day.idle += total
            continue
        gpu = _amount(row, "gpuCost") + _amount(row, "gpuCostAdjustment")
        hours = _amount(row, "gpuHours")
        if (row.get("gpuAllocation") or {}).get("isGPUShared"):
            day.shared += gpu
            continue
        day.exclusive += gpu
        day.exclusive_gpu_ms += hours * HOUR_MS
        if hours and (pod := _pod(key, properties, row)) is not None:
            day.pods.append(pod)
    return day


def _amount(row: Mapping[str, Any], name: str) -> Decimal:
    """Return a number of a row; what is left out, or null (their NaN), counts for nothing. Raises BadAnswer."""
    value = row.get(name)
    if value is None:
        return Decimal(0)
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or not Decimal(value).is_finite():
        raise BadAnswer(f"{name} is no number")
    return Decimal(value)


def _pod(key: str, properties: Mapping[str, Any], row: Mapping[str, Any]) -> Pod | None:
    parts = key.split("/")
    namespace = str(properties.get("namespace") or (parts[-2] if len(parts) > 1 else ""))
    pod = str(properties.get("pod") or parts[-1])
    text = row.get("start")
    if not isinstance(text, str) or not text:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadAnswer(f"{key}: {text!r} is no time") from error
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return Pod(namespace, pod, int(at.timestamp() * 1000))
