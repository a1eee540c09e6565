"""From a reading and the portal's books to rows ready for COPY, hour by hour. No ORM, no network."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from apps.metering import capacity, engine
from apps.metering.choices import LineKind
from apps.metering.context import NOBODY, ClusterContext, FlavourInfo, Owner
from apps.metering.engine import HOUR_MS, Holding, HourQuantity, Span
from apps.metering.sources.base import HourCover, NodeReading, Reading, ResourceHold

#: Columns of COPY, in order; what follows `HASHED` columns is not part of the content hash.
FACT_COLUMNS = (
    "hour", "uid", "cluster_id", "team_id", "unit_id", "unit_path", "cost_centre", "team_name", "unit_name",
    "workspace_id", "environment", "namespace", "workload_key", "workload_name", "workload_kind", "pod", "container",
    "node", "flavour_id", "flavour_name", "gpu_model", "resource", "capacity_type", "spans", "allocated_unit_ms",
    "allocated_gpu_ms", "used_gpu_ms", "used_source", "coverage_permille", "flags",
    "project", "purpose", "release_uid", "service_class", "gpu_memory_mib",
    "source_id", "proof_id", "revision",
)  # fmt: skip
LINE_COLUMNS = (
    "hour", "uid", "cluster_id", "team_id", "unit_id", "unit_path", "cost_centre", "team_name", "unit_name",
    "workspace_id", "environment", "gpu_model", "kind", "flavour_id", "gpu_ms", "revision",
)  # fmt: skip
RESOURCE_COLUMNS = (
    "hour", "uid", "cluster_id", "team_id", "unit_id", "unit_path", "cost_centre", "team_name", "unit_name",
    "workspace_id", "environment", "namespace", "workload_key", "workload_name", "workload_kind", "node",
    "capacity_type", "resource", "quantity_ms", "requested_ms", "used_ms", "coverage_permille", "flags", "project",
    "purpose", "service_class", "source_id", "proof_id", "revision",
)  # fmt: skip

_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}

CAPACITY_SHORT = "capacity_short"
CAPACITY_UNKNOWN = "capacity_unknown"

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\x00": ""})


def copy_line(values: Iterable[Any]) -> str:
    """Return values as one line of PostgreSQL's COPY text format, without its end; None is NULL, tuples are arrays."""
    # One loop without a call per value: a big hour has ten million of them.
    parts: list[str] = []
    for value in values:
        if value is None:
            parts.append("\\N")
        elif type(value) is int:
            parts.append(str(value))
        elif type(value) is tuple:
            parts.append("{" + ",".join(map(str, value)) + "}")
        else:
            text = str(value)
            if "\\" in text or "\t" in text or "\n" in text or "\r" in text or "\x00" in text:
                text = text.translate(_ESCAPES)
            parts.append(text)
    return "\t".join(parts)


@dataclass(slots=True)
class HourRows:
    """One cluster-hour's rows as COPY lines without their last columns (source, proof, revision), and their hash."""

    hour: int
    facts: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    resources: list[str] = field(default_factory=list)
    flags: set[str] = field(default_factory=set)
    coverage_permille: int = 1000
    complete: bool = True
    reason: str = ""

    def content_hash(self) -> str:
        """Return the SHA-256 over the hour's rows, in the order of their uids: equal hashes mean equal rows."""
        digest = hashlib.sha256()
        for part in (self.facts, self.lines, self.resources):
            for line in sorted(part):
                digest.update(line.encode())
                digest.update(b"\n")
            digest.update(b"\n")
        return digest.hexdigest()


def row_uid(*parts: object) -> str:
    """Return the uid that a row's identity always has, so that ingesting again finds the same row."""
    text = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=16).hexdigest()
    # As uuid.UUID(bytes=…, version=5) does, at a quarter of its time: version in the 13th digit, variant in the 17th.
    return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{_VARIANT[text[16]]}{text[17:20]}-{text[20:]}"


def stamp(hour: int) -> str:
    """Return an hour in milliseconds as PostgreSQL reads it."""
    return datetime.fromtimestamp(hour // 1000, UTC).strftime("%Y-%m-%d %H:%M:%S+00")


def build_hours(context: ClusterContext, reading: Reading) -> dict[int, HourRows]:
    """Return the rows of every hour that the reading covers, in order of time."""
    covered = reading.hours
    if not covered:
        return {}
    holdings = [_with_model(context, holding) for holding in reading.holdings]
    quantities = engine.hour_quantities(holdings, context.share_of, hours=(min(covered), max(covered) + HOUR_MS))
    nodes = _by_hour(context, reading.nodes, covered)
    resources: dict[int, list[ResourceHold]] = {}
    for hold in reading.resources:
        resources.setdefault(hold.hour, []).append(hold)
    result: dict[int, HourRows] = {}
    for hour in sorted(covered):
        result[hour] = _hour(context, hour, quantities.get(hour, []), nodes.get(hour, []), covered[hour])
        _resources(context, result[hour], resources.get(hour, ()), quantities.get(hour, ()))
    return result


def _with_model(context: ClusterContext, holding: Holding) -> Holding:
    """Complete the GPU model: from the flavour where the source does not know it."""
    if holding.gpu_model:
        model = context.model_of(holding.gpu_model)
        return holding if model == holding.gpu_model else replace(holding, gpu_model=model)
    info = context.flavour_for(holding.resource, "", holding.flavour, holding.replicas)
    model = info.gpu_model if info else context.only_model
    return replace(holding, gpu_model=model) if model else holding


def _resources(
    context: ClusterContext, rows: HourRows, holds: Sequence[ResourceHold], quantities: Sequence[HourQuantity]
) -> None:
    """Add the resource facts of metered namespaces: those with an owner, and those that hold GPUs in the hour."""
    with_gpus = {quantity.holding.namespace for quantity in quantities}
    at = stamp(rows.hour)
    whole: dict[tuple[str, str, str, str], ResourceHold] = {}
    for hold in holds:
        # Sources that tell containers tell a pod several times: its parts add up.
        key = (hold.resource, hold.namespace, hold.key, hold.node)
        whole[key] = _added(whole[key], hold) if key in whole else hold
    for key in sorted(whole):
        hold = whole[key]
        owner = context.owner_of(rows.hour, hold.namespace)
        if not hold.quantity_ms or (owner.team_id is None and hold.namespace not in with_gpus):
            continue
        uid = row_uid(context.cluster_id, rows.hour, *key)
        rows.resources.append(
            copy_line(
                (
                    at, uid, context.cluster_id, owner.team_id, owner.unit_id, owner.unit_path, owner.cost_centre,
                    owner.team_name, owner.unit_name, owner.workspace_id, owner.environment, hold.namespace[:120],
                    hold.key[:300], hold.name[:253], hold.kind[:60], hold.node[:253], hold.capacity_type[:20],
                    hold.resource, hold.quantity_ms, hold.requested_ms, hold.used_ms, hold.coverage_permille,
                    tuple(sorted(hold.flags)), hold.project[:120], hold.purpose[:40],
                    context.class_of(rows.hour, owner.workspace_id),
                )
            )
        )  # fmt: skip


def _added(a: ResourceHold, b: ResourceHold) -> ResourceHold:
    requested, used = (
        None if x is None and y is None else (x or 0) + (y or 0)
        for x, y in ((a.requested_ms, b.requested_ms), (a.used_ms, b.used_ms))
    )
    return replace(
        a,
        quantity_ms=a.quantity_ms + b.quantity_ms,
        requested_ms=requested,
        used_ms=used,
        coverage_permille=min(a.coverage_permille, b.coverage_permille),
        flags=tuple(sorted({*a.flags, *b.flags})),
    )


@dataclass(slots=True)
class _Node:
    reading: NodeReading
    physical: int
    closed: int
    broken: int


def _by_hour(
    context: ClusterContext, nodes: Iterable[NodeReading], covered: Mapping[int, HourCover]
) -> dict[int, list[_Node]]:
    found: dict[int, list[_Node]] = {}
    for node in nodes:
        node = replace(node, gpu_model=context.model_of(node.gpu_model))
        # A node without a word on replicas counts units of a flavour: devices are what these make up.
        share = context.devices_of(node.resource, node.gpu_model) if node.resource else engine.WHOLE
        parts = [engine.split_by_hour(engine.merge(spans)) for spans in (node.spans, node.closed, node.broken)]
        for hour, spans in parts[0].items():
            if hour in covered:
                physical, closed, broken = (
                    engine.unit_ms(part) * share.numerator // share.denominator
                    for part in (spans, parts[1].get(hour, ()), parts[2].get(hour, ()))
                )
                found.setdefault(hour, []).append(_Node(node, physical, closed, broken))
    return found


def _hour(
    context: ClusterContext, hour: int, quantities: Sequence[HourQuantity], nodes: Sequence[_Node], cover: HourCover
) -> HourRows:
    rows = HourRows(
        hour,
        flags=set(cover.flags),
        coverage_permille=cover.coverage_permille,
        complete=cover.complete,
        reason=cover.reason,
    )
    attributed: dict[str, int] = {}
    unattributed: dict[str, int] = {}
    own: dict[tuple[int, int], int] = {}
    on_node: dict[str, int] = {}
    at = stamp(hour)
    for quantity in quantities:
        holding = quantity.holding
        owner = context.owner_of(hour, holding.namespace)
        info = context.flavour_for(holding.resource, holding.gpu_model, holding.flavour, holding.replicas)
        rows.facts.append(_fact(context, at, quantity, owner, info))
        model = holding.gpu_model
        target = attributed if owner.team_id is not None else unattributed
        target[model] = target.get(model, 0) + quantity.gpu_ms
        on_node[holding.node] = on_node.get(holding.node, 0) + quantity.gpu_ms
        if owner.workspace_id is not None and info is not None:
            key = (owner.workspace_id, info.id)
            own[key] = own.get(key, 0) + quantity.gpu_ms
    models = {node.reading.gpu_model for node in nodes} | attributed.keys() | unattributed.keys()
    models |= {pool.gpu_model for pool in context.pools.values()}
    for model in sorted(models):
        _capacity(context, rows, model, attributed.get(model, 0), unattributed.get(model, 0), own, on_node, nodes)
    return rows


def _fact(context: ClusterContext, at: str, quantity: HourQuantity, owner: Owner, info: FlavourInfo | None) -> str:
    holding = quantity.holding
    spans = tuple(
        number
        for span in quantity.spans
        for number in (span.start - quantity.hour, span.end - quantity.hour, span.units)
    )
    flags = set(quantity.flags)
    if info is None:
        flags.add(engine.NO_FLAVOUR)
    if not holding.gpu_model:
        flags.add(engine.NO_MODEL)
    uid = row_uid(
        context.cluster_id,
        quantity.hour,
        holding.key,
        holding.container,
        holding.node,
        holding.resource,
        holding.flavour,
    )
    return copy_line(
        (
            at, uid, context.cluster_id, owner.team_id, owner.unit_id, owner.unit_path, owner.cost_centre,
            owner.team_name, owner.unit_name, owner.workspace_id, owner.environment, holding.namespace[:120],
            holding.key[:300], holding.name[:253], holding.kind[:60], holding.pod[:253], holding.container[:253],
            holding.node[:253], info.id if info else None, info.name if info else holding.flavour[:120],
            holding.gpu_model[:120], holding.resource[:120], holding.capacity_type[:20], spans, quantity.unit_ms,
            quantity.gpu_ms, quantity.used_gpu_ms, quantity.used_source, quantity.coverage_permille,
            tuple(sorted(flags)),
            holding.project[:120], holding.purpose[:40], holding.release_uid,
            context.class_of(quantity.hour, owner.workspace_id), holding.memory_mib(quantity.hour),
        )
    )  # fmt: skip


def _physical(
    context: ClusterContext, hour: int, model: str, nodes: Sequence[_Node], on_node: Mapping[str, int]
) -> tuple[int | None, int, int]:
    """Return (physical, stranded, maintenance) of a model in an hour; physical None: unknown."""
    mine = [node for node in nodes if node.reading.gpu_model == model]
    if mine:
        physical = sum(node.physical for node in mine)
        stranded = sum(
            HOUR_MS * node.reading.stranded[0] // node.reading.stranded[1] if node.reading.stranded[0] else 0
            for node in mine
        )
        maintenance = sum(
            min(node.physical, node.broken + max(0, node.closed - on_node.get(node.reading.node, 0))) for node in mine
        )
        return physical, stranded, maintenance
    pool = context.pools.get(model)
    if pool is None or nodes:
        return (0 if nodes and pool is not None else None), 0, 0
    if pool.steps:
        spans = [Span(start, end, gpus) for start, end, gpus in pool.steps if gpus]
        return engine.unit_ms(engine.clip(spans, hour, hour + HOUR_MS)), 0, 0
    if pool.observed is not None:
        return pool.observed * HOUR_MS, 0, 0
    return None, 0, 0


def _capacity(
    context: ClusterContext,
    rows: HourRows,
    model: str,
    attributed: int,
    unattributed: int,
    own: Mapping[tuple[int, int], int],
    on_node: Mapping[str, int],
    nodes: Sequence[_Node],
) -> None:
    physical, stranded, maintenance = _physical(context, rows.hour, model, nodes, on_node)
    if physical is None:
        rows.flags.add(CAPACITY_UNKNOWN)
        return
    reservations, owners = _reservations(context, rows.hour, model, own)
    split = capacity.split_capacity(
        physical_gpu_ms=physical,
        attributed_gpu_ms=attributed,
        unattributed_gpu_ms=unattributed,
        stranded_gpu_ms=stranded,
        maintenance_gpu_ms=maintenance,
        reservations=reservations,
    )
    if split.short:
        rows.flags.add(CAPACITY_SHORT)
    pool = context.pools.get(model)
    whole = pool.whole_flavour_id if pool else None
    for kind, value in (
        (LineKind.PHYSICAL, split.physical_gpu_ms),
        (LineKind.ATTRIBUTED, split.attributed_gpu_ms),
        (LineKind.UNATTRIBUTED, split.unattributed_gpu_ms),
        (LineKind.UNSOLD, split.unsold_gpu_ms),
        (LineKind.STRANDED, split.stranded_gpu_ms),
        (LineKind.MAINTENANCE, split.maintenance_gpu_ms),
    ):
        if value:
            rows.lines.append(_line(context, rows.hour, model, kind, NOBODY, whole, value, ""))
    for key, value in split.reserved_unused:
        owner, flavour_id = owners[key]
        rows.lines.append(_line(context, rows.hour, model, LineKind.RESERVED_UNUSED, owner, flavour_id, value, key))


def _line(
    context: ClusterContext,
    hour: int,
    model: str,
    kind: str,
    owner: Owner,
    flavour_id: int | None,
    value: int,
    key: str,
) -> str:
    uid = row_uid(context.cluster_id, hour, "line", model, kind, key)
    return copy_line(
        (
            stamp(hour), uid, context.cluster_id, owner.team_id, owner.unit_id, owner.unit_path, owner.cost_centre,
            owner.team_name, owner.unit_name, owner.workspace_id, owner.environment, model[:120], str(kind), flavour_id,
            value,
        )
    )  # fmt: skip


def _reservations(
    context: ClusterContext, hour: int, model: str, own: Mapping[tuple[int, int], int]
) -> tuple[list[capacity.Reservation], dict[str, tuple[Owner, int]]]:
    """Return what each workspace × flavour was guaranteed in the hour, in physical milliseconds."""
    guaranteed: dict[tuple[int, int], int] = {}
    owners: dict[str, tuple[Owner, int]] = {}
    for quota in context.quotas:
        if quota.gpu_model != model:
            continue
        overlap = min(quota.end, hour + HOUR_MS) - max(quota.start, hour)
        if overlap > 0:
            key = (quota.workspace_id, quota.flavour_id)
            held = quota.guaranteed * overlap * quota.share.numerator // quota.share.denominator
            guaranteed[key] = guaranteed.get(key, 0) + held
            owners[_key(key)] = (context.as_of(hour, quota.owner) or quota.owner, quota.flavour_id)
    found = [capacity.Reservation(_key(key), value, own.get(key, 0)) for key, value in sorted(guaranteed.items())]
    return found, owners


def _key(pair: tuple[int, int]) -> str:
    return f"{pair[0]:012d}/{pair[1]:012d}"
