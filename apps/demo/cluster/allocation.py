"""The allocation API: shapes and units of OpenCost's `/allocation` and `/assets` (field names as of its 2026 tree).

Costs are the simulation's own list prices (history file, `prices`), there to be compared with, not to be billed.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from apps.demo.cluster.calls import stamp
from apps.demo.cluster.errors import Obj, bad_request
from apps.demo.cluster.history import Run
from apps.demo.cluster.kinds import NAMESPACE
from apps.demo.cluster.meter import Meter, NodeSpan
from apps.demo.cluster.store import Store
from apps.demo.cluster.windows import parse_span, parse_window

MAX_STEPS = 2400
"""A hundred days by the hour; the real API has no limit and runs out of memory instead."""

_GIB = 2**30
_PROPERTIES = ("cluster", "node", "namespace", "controllerKind", "controller", "pod", "container")
_SUMS = (
    "cpuCoreHours",
    "cpuCost",
    "cpuCostAdjustment",
    "cpuCostIdle",
    "gpuHours",
    "gpuCost",
    "gpuCostAdjustment",
    "gpuCostIdle",
    "ramByteHours",
    "ramCost",
    "ramCostAdjustment",
    "ramCostIdle",
    "pvByteHours",
    "pvCost",
    "networkTransferBytes",
    "networkReceiveBytes",
    "networkCost",
    "loadBalancerCost",
    "sharedCost",
    "externalCost",
    "totalCost",
)


def money(value: float) -> float:
    """OpenCost rounds money to five decimals."""
    return round(value, 5)


@dataclass(frozen=True)
class Query:
    """Parameters of an allocation request."""

    start: datetime
    end: datetime
    step: timedelta
    aggregate: tuple[str, ...]
    accumulate: bool
    idle: bool
    idle_by_node: bool

    @classmethod
    def parse(cls, raw: dict[str, str], now: datetime) -> Query:
        """Read query parameters. Raises 400 with a sentence for what is malformed or not simulated."""
        if not raw.get("window"):
            raise bad_request("missing window query parameter")
        for name in ("filter", "shareIdle", "shareNamespaces", "shareLabels", "sharelb"):
            if raw.get(name, "false") not in ("", "false"):
                raise bad_request(f"{name} is not simulated")
        start, end = parse_window(raw["window"], now)
        step = parse_span(raw["step"], "step") if raw.get("step") else end - start
        if (end - start) / step > MAX_STEPS:
            raise bad_request(f"the window has more than {MAX_STEPS} steps: ask for a shorter one or a longer step")
        aggregate = tuple(part.strip() for part in raw.get("aggregate", "").split(",") if part.strip())
        for part in aggregate:
            if part not in _PROPERTIES and not part.startswith("label:"):
                raise bad_request(f"unknown aggregation {part!r}")
        return cls(
            start,
            end,
            step,
            aggregate,
            _flag(raw, "accumulate"),
            _flag(raw, "includeIdle") or _flag(raw, "idle"),
            _flag(raw, "idleByNode"),
        )


def _flag(raw: dict[str, str], name: str) -> bool:
    value = raw.get(name, "false").lower()
    if value not in ("true", "false", "1", "0", ""):
        raise bad_request(f"{name} must be true or false")
    return value in ("true", "1")


class Allocations:
    """Answers the allocation API from the meter."""

    def __init__(self, meter: Meter, store: Store, cluster: str) -> None:
        self._meter = meter
        self._store = store
        self._cluster = cluster
        self._prices = meter.rules.prices

    def allocation(self, raw: dict[str, str]) -> Obj:
        """`/allocation`: one map per step, or one in all with `accumulate`."""
        query = Query.parse(raw, self._meter.clock())
        runs = self._meter.runs(query.start, query.end)
        sets: list[Obj] = []
        begin = query.start
        while begin < query.end:
            finish = min(begin + query.step, query.end)
            sets.append(self._step(query, runs, begin, finish))
            begin = finish
        if query.accumulate:
            window = (query.start, query.end)
            rows = [row for each in sets for row in each.values()]
            sets = [_group(rows, lambda row: str(row["name"]), window)]
        return {"code": 200, "status": "success", "data": sets}

    def _step(self, query: Query, runs: Iterable[Run], begin: datetime, finish: datetime) -> Obj:
        now = self._meter.clock()
        rows = []
        for run in runs:
            start, end = max(run.start, begin), min(run.end or now, finish, now)
            if start < end:
                rows.append(self._row(run, (begin, finish), start, end))
        if query.idle:
            rows += self._idle(rows, (begin, finish), by_node=query.idle_by_node)
        if query.aggregate:
            return _group(rows, lambda row: _key(row, query.aggregate), (begin, finish))
        return _group(rows, lambda row: str(row["name"]), (begin, finish))

    def _row(self, run: Run, window: tuple[datetime, datetime], start: datetime, end: datetime) -> Obj:
        hours = (end - start) / timedelta(hours=1)
        memory = run.memory_gib * _GIB
        busy = round(run.cpu * run.utilisation * 0.8, 6)
        properties: Obj = {
            "cluster": self._cluster,
            "node": run.node,
            "container": run.container,
            "controller": run.controller,
            "controllerKind": run.controller_kind,
            "namespace": run.namespace,
            "pod": run.pod,
            "providerID": f"simulated://{run.node}",
            "labels": dict(run.labels),
            "namespaceLabels": self._namespace_labels(run.namespace),
        }
        row = _blank(f"{self._cluster}/{run.node}/{run.namespace}/{run.pod}/{run.container}", window, start, end)
        row["properties"] = {name: value for name, value in properties.items() if value}
        gpu_cost = money(run.gpus * hours * self._prices["gpuHour"])
        cpu_cost = money(run.cpu * hours * self._prices["cpuCoreHour"])
        ram_cost = money(run.memory_gib * hours * self._prices["ramGiBHour"])
        row |= {
            "cpuCores": run.cpu,
            "cpuCoreRequestAverage": run.cpu,
            "cpuCoreLimitAverage": run.cpu,
            "cpuCoreUsageAverage": busy,
            "cpuCoreHours": round(run.cpu * hours, 9),
            "cpuCost": cpu_cost,
            "cpuEfficiency": round(busy / run.cpu, 6) if run.cpu else 0,
            "gpuCount": run.gpus,
            "gpuHours": round(run.gpus * hours, 9),
            "gpuCost": gpu_cost,
            # A ratio over a count: OpenCost's own defect, kept so that nobody trusts this field.
            "gpuEfficiency": round(run.utilisation / run.gpus, 6) if run.gpus else 0,
            "ramBytes": memory,
            "ramByteRequestAverage": memory,
            "ramByteLimitAverage": memory,
            "ramByteUsageAverage": round(memory * 0.6),
            "ramByteHours": round(memory * hours, 3),
            "ramCost": ram_cost,
            "ramEfficiency": 0.6 if memory else 0,
            "totalCost": money(gpu_cost + cpu_cost + ram_cost),
            "rawAllocationOnly": {
                "cpuCoreUsageMax": run.cpu,
                "ramByteUsageMax": memory,
                "gpuUsageMax": min(1.0, round(run.utilisation * 1.1, 6)),
            },
        }
        if run.gpus:
            row["gpuAllocation"] = {
                "gpuDevice": "nvidia0",
                "gpuModel": self._meter.rules.gpu.model,
                "gpuUUID": f"GPU-{uuid.uuid5(uuid.NAMESPACE_DNS, f'{self._cluster}/{run.node}/{run.pod}')}",
                "isGPUShared": False,
                "gpuUsageAverage": run.utilisation,
                "gpuRequestAverage": run.gpus,
            }
        return row

    def _namespace_labels(self, namespace: str) -> Obj:
        entry = self._store.get(NAMESPACE, "", namespace)
        if entry is None:
            return dict(self._meter.rules.namespaces.get(namespace, {}))
        return dict(entry.obj["metadata"].get("labels") or {})

    def _idle(self, rows: list[Obj], window: tuple[datetime, datetime], *, by_node: bool) -> list[Obj]:
        """Cost of capacity nobody held, per cluster or node. Like OpenCost's, idle has costs and no hours."""
        groups: dict[str, list[NodeSpan]] = {}
        for span in self._meter.nodes(*window):
            groups.setdefault(span.name if by_node else "", []).append(span)
        out = []
        for node, spans in groups.items():
            mine = [row for row in rows if not node or row["properties"].get("node") == node]
            title = f"{self._cluster}/{node}/__idle__" if node else f"{self._cluster}/__idle__"
            start, end = min(span.start for span in spans), max(_end(span) for span in spans)
            idle = _blank(title, window, start, end)
            idle["properties"] = {"cluster": self._cluster, **({"node": node} if node else {})}
            held = {name: sum(row[name] for row in mine) for name in ("cpuCost", "gpuCost", "ramCost")}
            cost = self._cost(spans)
            for name, amount in cost.items():
                idle[name] = money(amount - held[name])
            idle["totalCost"] = money(sum(idle[name] for name in cost))
            out.append(idle)
        return out

    def _cost(self, spans: list[NodeSpan]) -> dict[str, float]:
        prices = self._prices
        return {
            "cpuCost": sum(span.cpu * _hours(span) * prices["cpuCoreHour"] for span in spans),
            "gpuCost": sum(span.gpus * _hours(span) * prices["gpuHour"] for span in spans),
            "ramCost": sum(span.memory_gib * _hours(span) * prices["ramGiBHour"] for span in spans),
        }

    def assets(self, raw: dict[str, str]) -> Obj:
        """`/assets`: a map of nodes with their hours in the window, up to now."""
        if not raw.get("window"):
            raise bad_request("missing window query parameter")
        start, end = parse_window(raw["window"], self._meter.clock())
        data: Obj = {}
        for span in self._meter.nodes(start, end):
            unknown = "__undefined__/__undefined__/__undefined__"  # provider, account and project, as on bare metal
            key = f"{unknown}/Compute/{self._cluster}/Node/Kubernetes/{span.name}/{span.name}"
            if key in data:
                key += f"/{stamp(span.start)}"
            data[key] = self._asset(span, start, end)
        return {"code": 200, "status": "success", "data": data}

    def _asset(self, span: NodeSpan, start: datetime, end: datetime) -> Obj:
        hours = _hours(span)
        cost = {name: money(value) for name, value in self._cost([span]).items()}
        breakdown = {"idle": 0.0, "other": 0.0, "system": 0.0, "user": 0.0}
        gpu = self._meter.rules.gpu
        labels = {"nvidia_com_gpu_product": gpu.product} if span.gpus else {}
        return {
            "type": "Node",
            "properties": {
                "category": "Compute",
                "provider": "Custom",
                "service": "Kubernetes",
                "cluster": self._cluster,
                "name": span.name,
                "providerID": f"simulated://{span.name}",
            },
            "labels": labels,
            "window": {"start": stamp(start), "end": stamp(end)},
            "start": stamp(span.start),
            "end": stamp(_end(span)),
            "minutes": hours * 60,
            "nodeType": gpu.machine if span.gpus else "simulated-cpu",
            "pool": "gpu" if span.gpus else "cpu",
            "cpuCores": span.cpu,
            "ramBytes": span.memory_gib * _GIB,
            "cpuCoreHours": round(span.cpu * hours, 9),
            "ramByteHours": round(span.memory_gib * _GIB * hours, 3),
            "GPUHours": round(span.gpus * hours, 9),
            "cpuBreakdown": breakdown,
            "ramBreakdown": breakdown,
            "preemptible": 0.0,
            "discount": 0.0,
            "gpuCount": span.gpus,
            **cost,
            "adjustment": 0.0,
            "overhead": {"CpuOverheadFraction": 0.0, "RamOverheadFraction": 0.0, "OverheadCostFraction": 0.0},
            "totalCost": money(sum(cost.values())),
        }


def _end(span: NodeSpan) -> datetime:
    if span.end is None:
        raise ValueError("Meter.nodes cuts every span at now")
    return span.end


def _hours(span: NodeSpan) -> float:
    return max(0.0, (_end(span) - span.start) / timedelta(hours=1))


def _blank(name: str, window: tuple[datetime, datetime], start: datetime, end: datetime) -> Obj:
    """An allocation in which every key of the real object stands, at nothing."""
    zeros = (
        "cpuCores cpuCoreRequestAverage cpuCoreLimitAverage cpuCoreUsageAverage cpuCoreHours cpuCost cpuCostAdjustment "
        "cpuCostIdle cpuEfficiency gpuCount gpuHours gpuCost gpuCostAdjustment gpuCostIdle gpuEfficiency "
        "networkTransferBytes networkReceiveBytes networkCost networkCrossZoneCost networkCrossRegionCost "
        "networkInternetCost networkCostAdjustment loadBalancerCost loadBalancerCostAdjustment pvBytes pvByteHours "
        "pvCost"
    )
    more = (
        "pvCostAdjustment ramBytes ramByteRequestAverage ramByteLimitAverage ramByteUsageAverage ramByteHours ramCost "
        "ramCostAdjustment ramCostIdle ramEfficiency externalCost sharedCost totalCost totalEfficiency"
    )
    out: Obj = {
        "name": name,
        "properties": {},
        "window": {"start": stamp(window[0]), "end": stamp(window[1])},
        "start": _fine(start),
        "end": _fine(end),
        "minutes": (end - start) / timedelta(minutes=1),
    }
    out |= dict.fromkeys(zeros.split(), 0)
    out["pvs"] = None
    out |= dict.fromkeys(more.split(), 0)
    out |= {
        "rawAllocationOnly": None,
        "proportionalAssetResourceCosts": {},
        "lbAllocations": None,
        "sharedCostBreakdown": {},
        "gpuAllocation": None,
    }
    return out


def _fine(moment: datetime) -> str:
    """RFC 3339 with as many digits of a second as it has."""
    if not moment.microsecond:
        return stamp(moment)
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f").rstrip("0") + "Z"


def _key(row: Obj, aggregate: tuple[str, ...]) -> str:
    if row["name"].endswith("__idle__"):
        return "__idle__"
    parts = []
    for name in aggregate:
        if name.startswith("label:"):
            value = (row["properties"].get("labels") or {}).get(name[len("label:") :])
        else:
            value = row["properties"].get(name)
        parts.append(str(value) if value else "__unallocated__")
    return "/".join(parts)


def _group(rows: list[Obj], key: Callable[[Obj], str], window: tuple[datetime, datetime]) -> Obj:
    """Sum rows by key. A group of one stays whole; of more, only what all have in common stays in the properties."""
    groups: dict[str, list[Obj]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return {name: _sum(name, group, window) for name, group in groups.items()}


def _sum(name: str, rows: list[Obj], window: tuple[datetime, datetime]) -> Obj:
    if len(rows) == 1 and rows[0]["name"] == name:
        return rows[0]
    start = min(datetime.fromisoformat(row["start"]) for row in rows)
    end = max(datetime.fromisoformat(row["end"]) for row in rows)
    out = _blank(name, window, start, end)
    first = rows[0]["properties"]
    out["properties"] = {
        field: value for field, value in first.items() if all(row["properties"].get(field) == value for row in rows)
    }
    for field in _SUMS:
        out[field] = round(sum(row[field] for row in rows), 9)
    hours = (end - start) / timedelta(hours=1)
    for average, total in (("cpuCores", "cpuCoreHours"), ("gpuCount", "gpuHours"), ("ramBytes", "ramByteHours")):
        out[average] = out[total] / hours if hours else 0
    for average in ("cpuCoreRequestAverage", "cpuCoreLimitAverage", "cpuCoreUsageAverage"):
        out[average] = _mean(rows, average, hours)
    for average in ("ramByteRequestAverage", "ramByteLimitAverage", "ramByteUsageAverage"):
        out[average] = _mean(rows, average, hours)
    shared = [row for row in rows if row.get("gpuAllocation")]
    if shared:
        weight = sum(row["gpuHours"] for row in shared)
        used = sum(row["gpuAllocation"]["gpuUsageAverage"] * row["gpuHours"] for row in shared)
        out["gpuAllocation"] = {
            "isGPUShared": False,
            "gpuUsageAverage": used / weight if weight else 0,
            "gpuRequestAverage": out["gpuCount"],
        }
    return out


def _mean(rows: list[Obj], field: str, hours: float) -> float:
    if not hours:
        return 0
    return float(sum(row[field] * row["minutes"] / 60 for row in rows) / hours)
