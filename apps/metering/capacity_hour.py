"""One cluster, GPU model and hour: its capacity lines, what they follow from, and the reading that said so."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.db.models import Sum

from apps.clusters.choices import DeviceClass
from apps.clusters.models import Pool
from apps.metering import engine
from apps.metering.capacity import CapacitySplit, Reservation, split_capacity
from apps.metering.choices import LineKind
from apps.metering.engine import HOUR_MS, Span
from apps.metering.models import CapacityLine, HourFact, HourStatus, ResourceFact
from apps.metering.selectors import ProofView, proof_view
from apps.metering.sources.base import ms
from apps.quotas.models import Quota

_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Reserved:
    """What a workspace was guaranteed of a flavour in the hour, and held of it, in physical GPU-milliseconds."""

    workspace_id: int
    flavour_id: int
    guaranteed_gpu_ms: int
    allocated_gpu_ms: int

    @property
    def unused_gpu_ms(self) -> int:
        """Guaranteed and not held."""
        return max(0, self.guaranteed_gpu_ms - self.allocated_gpu_ms)


@dataclass(slots=True)
class CapacityHour:
    """The lines of one cluster, GPU model and hour, in integer GPU-milliseconds, physical first."""

    cluster_id: int
    gpu_model: str
    hour: datetime
    lines: list[CapacityLine]
    status: HourStatus | None
    reservations: list[Reserved] = field(default_factory=list)
    #: What the pool's dated capacity, set by an admin, comes to in the hour; None: there is none.
    pool_gpu_ms: int | None = None

    def of(self, kind: str) -> int:
        """Return Σ of the lines of a kind."""
        return sum(line.gpu_ms for line in self.lines if line.kind == kind)

    @property
    def physical(self) -> int:
        """What is physically there."""
        return self.of(LineKind.PHYSICAL)

    @property
    def total(self) -> int:
        """Σ of all lines but physical: the same, as integers (design invariant 6)."""
        return sum(line.gpu_ms for line in self.lines if line.kind != LineKind.PHYSICAL)

    @property
    def free(self) -> int:
        """Physical minus allocated, stranded and maintenance."""
        taken = (LineKind.ATTRIBUTED, LineKind.UNATTRIBUTED, LineKind.STRANDED, LineKind.MAINTENANCE)
        return self.physical - sum(self.of(kind) for kind in taken)

    @property
    def wanted(self) -> int:
        """Σ over owners of what was guaranteed and not held: the most that can be reserved but unused."""
        return sum(one.unused_gpu_ms for one in self.reservations)

    def again(self) -> CapacitySplit:
        """Return the lines worked out anew from what they follow from, by the quotas as they are on record now."""
        return split_capacity(
            physical_gpu_ms=self.physical,
            attributed_gpu_ms=self.of(LineKind.ATTRIBUTED),
            unattributed_gpu_ms=self.of(LineKind.UNATTRIBUTED),
            stranded_gpu_ms=self.of(LineKind.STRANDED),
            maintenance_gpu_ms=self.of(LineKind.MAINTENANCE),
            reservations=[
                Reservation(f"{a.workspace_id:012d}/{a.flavour_id:012d}", a.guaranteed_gpu_ms, a.allocated_gpu_ms)
                for a in self.reservations
            ],
        )

    @property
    def follows(self) -> bool:
        """Whether the lines that stand are those worked out anew: false where quotas of that hour changed since."""
        found = self.again()
        reserved, unsold = self.of(LineKind.RESERVED_UNUSED), self.of(LineKind.UNSOLD)
        return (found.reserved_unused_gpu_ms, found.unsold_gpu_ms) == (reserved, unsold)


def capacity_hour(cluster_id: int, gpu_model: str, hour: datetime) -> CapacityHour:
    """Return the lines of a cluster, GPU model and hour; none where nothing is metered. Not scoped: callers decide.

    Six queries.
    """
    rows = CapacityLine.objects.filter(cluster_id=cluster_id, hour=hour, gpu_model=gpu_model)
    order = {str(kind): at for at, kind in enumerate((LineKind.PHYSICAL, *LineKind))}
    lines = sorted(rows, key=lambda line: (order[line.kind], line.team_name, line.uid))
    status = HourStatus.objects.filter(cluster_id=cluster_id, hour=hour).first()
    found = CapacityHour(cluster_id, gpu_model, hour, lines, status)
    if not lines:
        return found
    found.reservations = _reservations(found)
    pool = Pool.objects.filter(cluster_id=cluster_id, gpu_model=gpu_model, device_class=DeviceClass.GPU).first()
    if pool is not None:
        first = ms(hour)
        steps = [
            Span(ms(row.valid.lower) if row.valid.lower else 0, ms(row.valid.upper) if row.valid.upper else first * 2,
                 row.committable_gpus)
            for row in pool.capacities.filter(valid__overlap=(hour, hour + _HOUR))
            if row.committable_gpus
        ]  # fmt: skip
        found.pool_gpu_ms = engine.unit_ms(engine.clip(steps, first, first + HOUR_MS)) if steps else None
    return found


def _reservations(found: CapacityHour) -> list[Reserved]:
    """Return what each workspace × flavour of the model was guaranteed in the hour, and held."""
    quotas = Quota.objects.filter(
        workspace__cluster_id=found.cluster_id, valid__overlap=(found.hour, found.hour + _HOUR), guaranteed__gt=0,
        flavour__gpu_model=found.gpu_model, flavour__pools__cluster_id=found.cluster_id,
    )  # fmt: skip
    guaranteed: dict[tuple[int, int], int] = {}
    first = ms(found.hour)
    for quota in quotas.select_related("flavour").distinct().order_by("pk"):
        low = ms(quota.valid.lower) if quota.valid.lower else first
        high = ms(quota.valid.upper) if quota.valid.upper else first + HOUR_MS
        overlap = min(high, first + HOUR_MS) - max(low, first)
        key = (quota.workspace_id, quota.flavour_id)
        held = quota.guaranteed * overlap * quota.flavour.numerator // quota.flavour.denominator
        guaranteed[key] = guaranteed.get(key, 0) + held
    facts = HourFact.objects.filter(
        cluster_id=found.cluster_id, hour=found.hour, workspace_id__in={key[0] for key in guaranteed}
    )
    own = {
        (row["workspace_id"], row["flavour_id"]): int(row["held"])
        for row in facts.order_by().values("workspace_id", "flavour_id").annotate(held=Sum("allocated_gpu_ms"))
    }
    return [Reserved(*key, value, own.get(key, 0)) for key, value in sorted(guaranteed.items())]


def proof_of_hour(found: CapacityHour, words: list[str]) -> ProofView | None:
    """Return the proof of the reading that an hour's lines came from; None: none is kept.

    Hours written before hours named their proof have that of their facts.
    """
    status = found.status
    if status is None:
        return None
    proof_id = status.proof_id
    for model in (HourFact, ResourceFact):
        if proof_id is None:
            rows = model.objects.filter(
                cluster_id=found.cluster_id, hour=found.hour, source_id=status.source_id, proof_id__isnull=False
            )
            proof_id = rows.values_list("proof_id", flat=True).first()
    return proof_view(proof_id, words)


__all__ = ["CapacityHour", "Reserved", "capacity_hour", "proof_of_hour"]
