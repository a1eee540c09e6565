"""A capacity line's page: the lines of one cluster, GPU model and hour with rates, amounts, and who may see them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import connection

from apps.clusters.models import Cluster
from apps.core.errors import NotVisible
from apps.core.money import Money
from apps.costs.choices import HELD, UNALLOCATED, ChargeKind
from apps.costs.models import Charge
from apps.costs.priced import PricedCharge, priced
from apps.costs.report_figures import Reach, reach_of
from apps.costs.reporting import OTHERS
from apps.costs.spare_drill import clusters_seen
from apps.costs.tally import Tally, total_of
from apps.metering import billing, capacity_hour
from apps.metering.choices import LineKind
from apps.metering.models import CapacityLine
from apps.metering.selectors import ProofView
from apps.teams import scope


@dataclass(slots=True)
class MoneyLine:
    """One line of the hour: quantity, and its charges where they are open to the reader. `amount` None: unknown.

    `told` False: the amount is of foreign teams, which the reader does not see.
    """

    kind: str
    gpu_ms: int
    owner: str = ""
    charges: list[PricedCharge] = field(default_factory=list)
    amount: Money | None = None
    told: bool = True
    guaranteed_gpu_ms: int | None = None
    held_gpu_ms: int | None = None

    @property
    def label(self) -> str:
        """The line in words."""
        text = str(LineKind(self.kind).label)
        return f"{text}: {self.owner}" if self.owner else text


@dataclass(slots=True)
class HourView:
    """The page of a cluster, GPU model and hour."""

    cluster: Cluster
    hour: capacity_hour.CapacityHour
    lines: list[MoneyLine]
    proof: ProofView | None
    #: Whether the reader sees every owner, the ingest runs, and excerpts of answers.
    everything: bool

    @property
    def spare_amount(self) -> Money | None:
        """Σ of what nobody held."""
        return total_of(line.amount for line in self.lines if line.kind in UNALLOCATED)


def hour_view(cluster: Cluster, gpu_model: str, hour: datetime, user: Any) -> HourView:
    """Return the lines of a cluster, GPU model and hour as a person may see them. Raises NotVisible.

    Sums of the pool are open to whoever was charged for something on the cluster in the month, or had a reservation
    there in the hour; other owners of reservations stand under one name. Without lines: nothing is metered.
    """
    reach = reach_of(None, user)
    found = capacity_hour.capacity_hour(cluster.pk, gpu_model, hour)
    own = {line.uid for line in found.lines if _mine(line, reach)}
    if not reach.everything and not own:
        seen = clusters_seen(reach, billing.month_of(hour))
        if seen is None or cluster.pk not in seen:
            raise NotVisible
    runs = scope.of(user).everywhere("metering.run.view")
    proof = capacity_hour.proof_of_hour(found, [gpu_model] if runs else []) if found.lines else None
    return HourView(cluster, found, _lines(found, own, reach), proof, runs)


def _mine(line: CapacityLine, reach: Reach) -> bool:
    if line.kind != LineKind.RESERVED_UNUSED:
        return False
    return reach.everything or line.unit_id in reach.units or line.team_id in reach.teams


def _lines(found: capacity_hour.CapacityHour, own: set[Any], reach: Reach) -> list[MoneyLine]:
    charges: dict[Any, list[PricedCharge]] = {}
    window = {"hour": found.hour, "cluster_id": found.cluster_id, "gpu_model": found.gpu_model}
    for one in priced(Charge.objects.filter(**window, kind__in=UNALLOCATED)):
        charges.setdefault(one.charge.fact_uid, []).append(one)
    held = _held(found) if reach.everything else {}
    result: list[MoneyLine] = []
    foreign: MoneyLine | None = None
    owners = {(one.workspace_id, one.flavour_id): one for one in found.reservations}
    for line in found.lines:
        kind = str(line.kind)
        if kind == LineKind.RESERVED_UNUSED:
            reserved = owners.get((line.workspace_id or 0, line.flavour_id or 0))
            guaranteed = reserved.guaranteed_gpu_ms if reserved else 0
            allocated = reserved.allocated_gpu_ms if reserved else 0
            if line.uid in own:
                place = f"{line.team_name}, {line.environment}" if line.environment else line.team_name
                shown = MoneyLine(kind, line.gpu_ms, place, guaranteed_gpu_ms=guaranteed, held_gpu_ms=allocated)
                result.append(shown)
            else:
                if foreign is None:
                    foreign = MoneyLine(kind, 0, OTHERS, guaranteed_gpu_ms=0, held_gpu_ms=0)
                    result.append(foreign)
                shown = foreign
                shown.gpu_ms += line.gpu_ms
                shown.guaranteed_gpu_ms = (shown.guaranteed_gpu_ms or 0) + guaranteed
                shown.held_gpu_ms = (shown.held_gpu_ms or 0) + allocated
            shown.charges += charges.get(line.uid, [])
        elif kind in (LineKind.ATTRIBUTED, LineKind.UNATTRIBUTED):
            result.append(MoneyLine(kind, line.gpu_ms, amount=held.get(kind), told=reach.everything))
        else:
            result.append(MoneyLine(kind, line.gpu_ms, charges=charges.get(line.uid, [])))
    if foreign is not None:
        foreign.charges = _as_one(foreign.charges)
    for shown in result:
        if shown.charges:
            tally = Tally(str(settings.COMMONS_CURRENCY))
            for one in shown.charges:
                one.add_to(tally)
            shown.amount = tally.amount
    return result


def _as_one(charges: list[PricedCharge]) -> list[PricedCharge]:
    """Return charges added up by rate: how many owners there are, and what each had, is theirs to know."""
    sums: dict[int | None, PricedCharge] = {}
    for one in charges:
        key = one.charge.rate_id
        if key in sums:
            sums[key].charge.quantity_ms += one.charge.quantity_ms
            sums[key].charge.gpu_ms += one.charge.gpu_ms
        else:
            sums[key] = one
    return list(sums.values())


def _held(found: capacity_hour.CapacityHour) -> dict[str, Money | None]:
    """Return what the GPU time that somebody held of the model cost in the hour, by line: one query."""
    lines = {str(ChargeKind.ALLOCATED): str(LineKind.ATTRIBUTED), str(ChargeKind.UNATTRIBUTED): "unattributed"}
    tallies: dict[str, Tally] = {}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.kind, coalesce(r.currency, ''), sum(c.quantity_ms)::bigint, sum(c.gpu_ms)::bigint,"
            " coalesce(sum(c.quantity_ms * r.amount), 0) FROM costs_charge c LEFT JOIN rates_rate r ON r.id = c.rate_id"
            " WHERE c.hour = %s AND c.cluster_id = %s AND c.gpu_model = %s AND c.kind = ANY(%s) GROUP BY 1, 2",
            [found.hour, found.cluster_id, found.gpu_model, [str(kind) for kind in HELD]],
        )
        for kind, currency, quantity, gpu_ms, product in cursor.fetchall():
            tally = tallies.setdefault(lines[kind], Tally(str(settings.COMMONS_CURRENCY)))
            tally.add_product(quantity, gpu_ms, product, currency)
    return {kind: tally.amount for kind, tally in tallies.items()}


__all__ = ["HourView", "MoneyLine", "hour_view"]
