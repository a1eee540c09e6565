"""CPU, memory, storage and egress: quantities, counters, what a node can give at most. Pure (reference cost E1, E4).

All quantities are integer milliseconds × units: cores, GiB; a GiB of egress counts as 3,600,000, so that price ×
quantity ÷ 3,600,000 holds for every resource.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from apps.core.money import largest_remainder
from apps.metering.engine import HOUR_MS
from apps.metering.sources import labels as words
from apps.metering.sources.base import ResourceHold
from apps.rates.choices import Resource

GIB = 1 << 30
#: The pods of the node together asked for or used more than it has: scaled down pro rata.
CAPPED = "capped"


def core_ms(core_seconds: float) -> int:
    """Return core-seconds as core-milliseconds."""
    return max(0, round(core_seconds * 1000))


def gib_ms(byte_seconds: float) -> int:
    """Return byte-seconds as GiB-milliseconds."""
    return max(0, round(byte_seconds * 1000 / GIB))


def egress_ms(count: int) -> int:
    """Return transmitted bytes as a quantity: a GiB is 3,600,000."""
    return max(0, count) * HOUR_MS // GIB


def charged_ms(requested: int | None, used: int | None) -> int:
    """Return what is charged for: the larger of requested and used; what is unknown does not count."""
    return max(requested or 0, used or 0)


def rise(samples: Sequence[tuple[int, float]], start: int, end: int) -> int:
    """Return by how much a counter rose in (start, end], from its raw samples (ms, value).

    The sum of non-negative differences; after a reset (a smaller value) the new value counts, for the counter began
    at zero. The last sample at or before `start` is the baseline; without one the first sample is: a counter that
    appears may have been counting for years. Nothing is extrapolated to the edges, unlike `increase()`.
    """
    total = 0.0
    before: float | None = None
    for at, value in sorted(samples):
        if at > end:
            break
        if at > start and before is not None:
            total += value - before if value >= before else value
        before = value
    return round(total)


@dataclass(frozen=True, slots=True)
class Rise:
    """By how much one series of a counter rose in an hour, and from when to when it was seen (ms)."""

    first: int
    last: int
    value: int


def rise_of(samples: Sequence[tuple[int, float]], start: int, end: int) -> Rise | None:
    """Return the rise of one series; None where it has no sample."""
    if not samples:
        return None
    times = [at for at, _ in samples]
    return Rise(min(times), max(times), rise(samples, start, end))


def joined(rises: Iterable[Rise]) -> int:
    """Return an interface's rise over its series: replicas (overlapping in time) count once, successors add up."""
    total = best = 0
    until: int | None = None
    for found in sorted(rises, key=lambda item: (item.first, item.last, item.value)):
        if until is not None and found.first <= until:
            best, until = max(best, found.value), max(until, found.last)
        else:
            total, best, until = total + best, found.value, found.last
    return total + best


def capped(holds: Sequence[ResourceHold], capacity_ms: Mapping[tuple[str, str], int]) -> list[ResourceHold]:
    """Return the holds with each node's CPU and memory scaled down to what it has.

    `capacity_ms`: (node, resource) → milliseconds × units of the hour. Nodes that are not in there are left alone.
    Shares by largest remainder, so that they add up to the capacity exactly.
    """
    groups: dict[tuple[str, str], list[int]] = {}
    for index, hold in enumerate(holds):
        if hold.node and (hold.node, hold.resource) in capacity_ms:
            groups.setdefault((hold.node, hold.resource), []).append(index)
    result = list(holds)
    for key in sorted(groups):
        indexes = sorted(groups[key], key=lambda i: holds[i].key)
        limit = capacity_ms[key]
        wanted = [holds[i].quantity_ms for i in indexes]
        if sum(wanted) > limit:
            for i, part in zip(indexes, largest_remainder(limit, wanted), strict=True):
                result[i] = replace(holds[i], quantity_ms=part, flags=(*holds[i].flags, CAPPED))
    return result


# ---------------------------------------------------------------- OpenCost and Kubecost


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 else None


def allocation_resources(
    key: str, row: Mapping[str, Any], hour: int, found: dict[str, str] | None = None
) -> list[ResourceHold]:
    """Return CPU, memory, storage and egress of one row of the allocation API in the hour beginning at `hour` (ms).

    `cpuCoreHours`, `ramByteHours` (the larger of request and use, by its own sampling), `pvByteHours` and
    `networkTransferBytes`; what is missing or null is unknown and gives no row. `key` is the row's key, for rows whose
    properties are incomplete; `found` holds the one copy of each text that many rows repeat.
    """
    properties = row.get("properties") or {}
    namespace, pod, _container, workload = identity(key, properties)
    if not namespace:
        return []
    said = words.plain(properties.get("labels") or {})
    seconds = (_number(row.get("minutes")) or 0.0) * 60
    same = (found if found is not None else {}).setdefault
    name = str(properties.get("controller") or pod or key)
    kind, node = str(properties.get("controllerKind") or ""), str(properties.get("node") or "")
    project, purpose = words.first(said, words.PROJECT), words.first(said, words.PURPOSE)
    namespace, name, kind = same(namespace, namespace), same(name, name), same(kind, kind)
    node, project, purpose = same(node, node), same(project, project), same(purpose, purpose)

    def hold(resource: str, quantity: int, requested: int | None, used: int | None) -> ResourceHold:
        return ResourceHold(
            hour, resource, workload, namespace, name, quantity, kind, node, "",
            # One number, held once where they are equal.
            quantity if requested == quantity else requested, quantity if used == quantity else used,
            1000, (), project, purpose,
        )  # fmt: skip

    made = []
    for resource, hours, request, usage, convert in _OF_ROW:
        total = _number(row.get(hours))
        if not total:
            continue
        asked, taken = _number(row.get(request)), _number(row.get(usage))
        if quantity := convert(total * 3600):
            made.append(
                hold(
                    resource,
                    quantity,
                    None if asked is None else convert(asked * seconds),
                    None if taken is None else convert(taken * seconds),
                )
            )
    sent = _number(row.get("networkTransferBytes"))
    if sent and (quantity := egress_ms(round(sent))):
        made.append(hold(_EGRESS, quantity, None, quantity))
    return made


def identity(key: str, properties: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Return namespace, pod, container and workload key (pod uid, else the three) of a row of an allocation API."""
    namespace = str(properties.get("namespace") or "")
    pod, container = str(properties.get("pod") or ""), str(properties.get("container") or "")
    if not namespace:
        parts = key.split("/")
        if len(parts) >= 3:
            namespace, pod, container = parts[-3], pod or parts[-2], container or parts[-1]
    return namespace, pod, container, str(properties.get("uid") or f"{namespace}/{pod}/{container}")


_EGRESS = str(Resource.EGRESS)
#: (resource, hours, mean requested, mean used, conversion) in a row; "": a row never says.
_OF_ROW = (
    (str(Resource.CPU), "cpuCoreHours", "cpuCoreRequestAverage", "cpuCoreUsageAverage", core_ms),
    (str(Resource.MEMORY), "ramByteHours", "ramByteRequestAverage", "ramByteUsageAverage", gib_ms),
    (str(Resource.STORAGE), "pvByteHours", "", "", gib_ms),
)
