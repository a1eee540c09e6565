"""Who bears what nobody had allocated. Pure: whole quantities, split by largest remainder, nothing lost, nothing added.

Grain: per cluster × kind × flavour × rate over the whole month. Weight: the GPU time that each owner had allocated of
the same GPU model on the same cluster; of resources (CPU, memory …) without an owner, on the cluster, of any model.
Where nobody had allocated anything, it stays with the platform: there is nobody to share it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date

from apps.core.money import largest_remainder
from apps.costs.choices import RESOURCES, ChargeKind, Keeper, LineSort

MILLION = 1_000_000
#: The rules of a policy, in their order, with the keepers that each can have: only a reservation has an owner.
RULES: dict[str, tuple[Keeper, ...]] = {
    "unsold": (Keeper.PLATFORM, Keeper.SHARED),
    "reserved_unused": (Keeper.OWNERS, Keeper.PLATFORM, Keeper.SHARED),
    "stranded": (Keeper.PLATFORM, Keeper.SHARED),
    "maintenance": (Keeper.PLATFORM, Keeper.SHARED),
    "unattributed": (Keeper.PLATFORM, Keeper.SHARED),
    "resources": (Keeper.PLATFORM, Keeper.SHARED),
}
LABELS = {
    "unsold": "Unsold capacity",
    "reserved_unused": "Reserved but unused",
    "stranded": "Stranded by layout",
    "maintenance": "Maintenance",
    "unattributed": "Allocated, no owner known",
    "resources": "CPU, memory, storage and egress without an owner",
}
#: What holds where no policy was ever published: as version 1.
DEFAULT = {name: str(keepers[0]) for name, keepers in RULES.items()}


@dataclass(frozen=True, slots=True, order=True)
class Owner:
    """Whose statement a line is on: a team as part of a unit and cost centre at that time (a move makes two)."""

    team_id: int
    unit_id: int = 0
    cost_centre: str = ""


@dataclass(frozen=True, slots=True)
class Quantity:
    """What one owner (None: the platform) is charged for of one kind, cluster, flavour and rate in a month."""

    owner: Owner | None
    kind: str
    cluster_id: int
    flavour_id: int | None
    gpu_model: str
    rate_id: int | None
    quantity_ms: int
    gpu_ms: int
    first: date
    last: date
    sort: str = LineSort.CHARGE
    method: str = ""
    ratio_ppm: int | None = None


def rule_of(kind: str) -> str | None:
    """Return the rule that a common cost of `kind` falls under; None: not a common cost."""
    if kind in RESOURCES:
        return "resources"
    return kind if kind in RULES else None


def distribute(quantities: Iterable[Quantity], rules: Mapping[str, str], number: int) -> list[Quantity]:
    """Return the quantities with common cost moved to those who bear it under `rules` of policy version `number`.

    What an owner had allocated stays as it is. Σ quantity_ms and Σ gpu_ms per cluster, kind, flavour and rate are the
    same before and after.
    """
    rows = list(quantities)
    by_model, by_cluster = _weights(rows)
    found: list[Quantity] = []
    for row in rows:
        rule = rule_of(row.kind)
        if rule is None or (row.owner is not None and rule != "reserved_unused"):
            found.append(row)
            continue
        keeper = rules.get(rule, DEFAULT[rule])
        method = f"v{number}:{rule}:{keeper}"
        if keeper == Keeper.OWNERS and row.owner is not None:
            found.append(replace(row, sort=LineSort.DISTRIBUTED, method=method, ratio_ppm=MILLION))
            continue
        weights = by_cluster.get(row.cluster_id, {})
        if rule != "resources":
            weights = by_model.get((row.cluster_id, row.gpu_model), {})
        if keeper == Keeper.SHARED and any(weights.values()):
            found.extend(_shared(row, weights, f"{method}-by-allocated-gpu-time"))
        else:
            found.append(replace(row, owner=None))
    return _merged(found)


_Weights = dict[Owner, int]


def _weights(rows: Iterable[Quantity]) -> tuple[dict[tuple[int, str], _Weights], dict[int, _Weights]]:
    """Return what each owner had allocated, per (cluster, GPU model) and per cluster."""
    by_model: dict[tuple[int, str], _Weights] = {}
    by_cluster: dict[int, _Weights] = {}
    for row in rows:
        if row.owner is None or row.kind != ChargeKind.ALLOCATED:
            continue
        for weights in (
            by_model.setdefault((row.cluster_id, row.gpu_model), {}),
            by_cluster.setdefault(row.cluster_id, {}),
        ):
            weights[row.owner] = weights.get(row.owner, 0) + row.gpu_ms
    return by_model, by_cluster


def _shared(row: Quantity, weights: _Weights, method: str) -> Iterable[Quantity]:
    """Yield the parts of a row. GPU time is split first; what the price applies to follows by the same weights."""
    owners = sorted(owner for owner, weight in weights.items() if weight > 0)
    parts = [weights[owner] for owner in owners]
    units, gpus = largest_remainder(row.quantity_ms, parts), largest_remainder(row.gpu_ms, parts)
    ratios = largest_remainder(MILLION, parts)
    for owner, unit, gpu, ratio in zip(owners, units, gpus, ratios, strict=True):
        if unit or gpu:
            yield replace(
                row,
                owner=owner,
                quantity_ms=unit,
                gpu_ms=gpu,
                sort=LineSort.DISTRIBUTED,
                method=method,
                ratio_ppm=ratio,
            )


def _merged(rows: Iterable[Quantity]) -> list[Quantity]:
    """Return one row per owner, kind, price and method: reservations of several owners may meet on the platform."""
    found: dict[tuple[object, ...], Quantity] = {}
    for row in rows:
        key = (row.owner, row.kind, row.cluster_id, row.flavour_id, row.gpu_model, row.rate_id, row.sort, row.method)
        known = found.get(key)
        found[key] = (
            row
            if known is None
            else replace(
                known,
                quantity_ms=known.quantity_ms + row.quantity_ms,
                gpu_ms=known.gpu_ms + row.gpu_ms,
                first=min(known.first, row.first),
                last=max(known.last, row.last),
            )
        )
    return list(found.values())


__all__ = ["DEFAULT", "LABELS", "RULES", "Owner", "Quantity", "distribute", "rule_of"]
