"""What workspaces hold and use now, and whether what was promised is there: three queries, so that it can be live."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fractions import Fraction
from typing import NamedTuple

from django.db.models import F

from apps.clusters.choices import DeviceClass, Health, KueueMode, PoolKind
from apps.clusters.models import Cluster, Flavour, Pool
from apps.core import clock
from apps.core.formats import age
from apps.provisioning.models import Declaration
from apps.provisioning.quota_usage import Used, used_units
from apps.quotas import live_return
from apps.quotas.assess import guaranteed_word
from apps.quotas.choices import BorrowMode
from apps.quotas.live_return import Excess
from apps.quotas.live_standing import Guarantee, PoolUse, Stand, Standing, judge, split
from apps.quotas.models import Quota, Workspace

#: Figures that are older claim nothing.
FRESH = timedelta(minutes=3)
#: Pods on GPU nodes use cores, too, and a namespace's quota counts them all under one name.
_CORES = "Cores of one class are not told apart from others, so it cannot be told."
_UNKNOWN = Stand(Standing.UNKNOWN, "This cluster has no pool of this flavour.")
_COLUMNS = (
    "workspace_id", "workspace__namespace", "workspace__cluster_id", "flavour_id", "flavour__name", "flavour__slug",
    "flavour__gpu_model", "flavour__resource_name", "flavour__numerator", "flavour__denominator", "guaranteed",
    "borrow_mode", "borrow_limit", "valid", "flavour__pools__pk", "flavour__pools__best_effort",
    "flavour__pools__observed_gpus", "flavour__pools__kind", "flavour__pools__max_gpus",
    "flavour__pools__startup_minutes", "flavour__device_class", "serving",
)  # fmt: skip


class _Held(NamedTuple):
    """A quota in force, with its flavour and pool, as bare columns."""

    workspace_id: int
    namespace: str
    cluster_id: int
    flavour_id: int
    flavour: str
    slug: str
    gpu_model: str
    resource: str
    numerator: int
    denominator: int
    guaranteed: int
    borrow_mode: str
    borrow_limit: int
    valid: object
    pool_id: int
    best_effort: bool
    observed: int | None
    kind: str
    max_gpus: int | None
    startup_minutes: int
    device_class: str
    serving: int

    @property
    def physical(self) -> int | None:
        """Devices that are there, or in an elastic pool come when they are needed; None: none was ever seen."""
        if self.kind == PoolKind.ELASTIC and self.max_gpus is not None:
            return max(self.max_gpus, self.observed or 0)
        return self.observed

    @property
    def key(self) -> Hashable:
        """Workspace and flavour."""
        return self.workspace_id, self.flavour_id

    @property
    def share(self) -> Fraction:
        """Whole devices a unit holds."""
        return Fraction(self.numerator, self.denominator)


@dataclass(frozen=True, slots=True)
class QuotaRow:
    """What a workspace holds of a flavour now. `used`, `hard` None: never observed (unknown, not zero).

    `used` counts the resource name in the namespace, which flavours of one GPU model may share. `standing`: whether
    the GPUs are there for it (in_force), still used by others (promised), or not known; `standing_why` says why.
    """

    workspace: Workspace
    flavour: Flavour
    pool: Pool | None
    guaranteed: int
    borrow: str
    borrow_limit: int
    maximum: int | None
    used: int | None
    used_at: datetime | None
    hard: int | None
    valid_until: datetime | None
    word: str
    standing: str = Standing.UNKNOWN.value
    standing_why: str = ""
    #: Whole devices of what is promised that are not there now.
    standing_missing: Fraction = Fraction(0)

    @property
    def usable(self) -> bool:
        """Whether work may start on it: not where it is 0, nor while its workspace is archived."""
        return self.maximum != 0 and self.workspace.archived_at is None

    @property
    def over(self) -> bool:
        """Whether more is in use than the limit allows: a shrunk quota stops nothing that runs."""
        return self.used is not None and self.hard is not None and self.used > self.hard

    @property
    def over_words(self) -> str:
        """What that means, in words; "" where it is not so."""
        if self.used is None or self.hard is None or not self.over:
            return ""
        return (
            f"{self.used:,} in use, {self.hard:,} allowed: nothing that runs is stopped, and nothing new starts until "
            f"{self.used - self.hard:,} end."
        )

    @property
    def share_used(self) -> int | None:
        """Used in per cent of the maximum, at most 100; None: unknown or unlimited."""
        if self.used is None or not self.maximum:
            return None
        return min(100, self.used * 100 // self.maximum)


@dataclass(slots=True)
class _Cluster:
    """What is held and used on one cluster, with how it stands."""

    held: list[_Held] = field(default_factory=list)
    stands: dict[Hashable, Stand] = field(default_factory=dict)


def _held(cluster_ids: Iterable[int], at: datetime) -> dict[int, list[_Held]]:
    """Return every quota in force on the clusters, by cluster. One query."""
    rows = (
        Quota.objects.filter(
            workspace__cluster_id__in=list(cluster_ids), flavour__pools__cluster_id=F("workspace__cluster_id")
        )
        .in_force(at)
        .order_by("workspace__namespace", "flavour__name", "pk")
        .values_list(*_COLUMNS)
    )
    found: dict[int, list[_Held]] = defaultdict(list)
    for row in rows.iterator(chunk_size=5000):
        one = _Held(*row)
        found[one.cluster_id].append(one)
    return found


def _stale(cluster: Cluster, seen: Sequence[datetime], at: datetime) -> str:
    """Return why figures of a cluster claim nothing; "": they are current."""
    if cluster.paused_at is not None:
        return f"{cluster} is paused, so nobody looks."
    if cluster.health in (Health.UNREACHABLE, Health.REFUSED):
        since = f" since {age(cluster.unreachable_since, now=at)}" if cluster.unreachable_since else ""
        return f"{cluster} does not answer{since}, so it cannot be told."
    oldest = min(seen, default=None)
    if oldest is not None and at - oldest > FRESH:
        return f"The figures are from {age(oldest, now=at)}, so it cannot be told."
    return ""


def _stands(
    cluster: Cluster, held: Sequence[_Held], used: Mapping[str, Used], at: datetime, own: Sequence[_Held]
) -> dict[Hashable, Stand]:
    """Return how every guarantee in the pools of `own` stands on a cluster."""
    pools = {row.pool_id for row in own}
    told = {row.pool_id for row in own if row.namespace in used}
    by_place: dict[tuple[str, str], list[_Held]] = defaultdict(list)
    for one in held:
        by_place[one.namespace, one.resource].append(one)
    within: dict[Hashable, int] = {}
    excess: list[Excess] = []
    loose: dict[str, dict[str, int]] = {}
    for namespace, seen in used.items():
        for resource, units in seen.units.items():
            rows = by_place.get((namespace, resource), [])
            filled, rest = split(int(units), [(row.key, row.guaranteed) for row in rows])
            within.update(filled)
            if rest and rows:
                for pool_id in {row.pool_id for row in rows if row.pool_id in pools}:
                    share = next(row.share for row in rows if row.pool_id == pool_id)
                    slugs = frozenset(row.slug for row in rows if row.pool_id == pool_id)
                    excess.append(Excess(pool_id, namespace, resource, rest, share, slugs))
            if rest:
                loose.setdefault(namespace, {})[resource] = rest
    excess += _after_the_end(cluster, loose, by_place, pools, at)

    def judged(back: Mapping[int, Fraction]) -> dict[Hashable, Stand]:
        found: dict[Hashable, Stand] = {}
        for pool_id in pools:
            rows = [row for row in held if row.pool_id == pool_id]
            mine = [one for one in excess if one.pool_id == pool_id]
            if rows:
                found.update(
                    _of_pool(cluster, rows, within, used, mine, back.get(pool_id, Fraction(0)), stale[pool_id])
                )
        return found

    stale = {pool_id: _why_stale(cluster, held, used, pool_id, at, seen=pool_id in told) for pool_id in pools}
    found = judged({})
    # Whether Kueue takes it back matters only where something waits for it.
    waits = any(found[row.key].standing != Standing.IN_FORCE for row in own if row.key in found)
    if waits and excess and cluster.kueue_mode != KueueMode.OFF:
        found = judged(live_return.returned(cluster, excess, at, FRESH))
    return found


def _why_stale(
    cluster: Cluster, held: Sequence[_Held], used: Mapping[str, Used], pool_id: int, at: datetime, *, seen: bool
) -> str:
    """Return why nothing may be claimed of a pool; "": its figures are current. `seen`: somebody's own use was."""
    rows = [row for row in held if row.pool_id == pool_id]
    if rows and rows[0].device_class != DeviceClass.GPU:
        return _CORES
    # Namespaces without a quota now count, too: their work may run on.
    stale = _stale(cluster, [one.at for one in used.values()], at)
    # Where nobody's own use was seen nothing is claimed anyway.
    return _unseen(cluster, rows, used) if not stale and seen else stale


def _of_pool(
    cluster: Cluster,
    rows: Sequence[_Held],
    within: Mapping[Hashable, int],
    used: Mapping[str, Used],
    excess: Sequence[Excess],
    returns: Fraction,
    stale: str,
) -> dict[Hashable, Stand]:
    """Return how every guarantee in a pool stands, where `returns` of the excess are taken back."""
    beyond = sum((one.gpus for one in excess), Fraction(0))
    use = PoolUse(
        Fraction(rows[0].physical) if rows[0].physical is not None else None,
        beyond,
        sum((one.gpus for one in excess if one.ended), Fraction(0)),
        cluster.kueue_mode == KueueMode.PODS and returns == beyond,
        stale,
        returns,
        live_return.unreturned_words(cluster),
    )
    outside = cluster.kueue_mode == KueueMode.JOBS
    guarantees = [
        Guarantee(
            row.key,
            row.guaranteed * row.share,
            within.get(row.key, 0) * row.share if row.namespace in used else None,
            row.valid.lower,  # type: ignore[attr-defined]  # a range; the column's type is not known here
            row.serving * row.share if outside else Fraction(0),
        )
        for row in rows
    ]
    return judge(guarantees, use)


def _unseen(cluster: Cluster, rows: Sequence[_Held], used: Mapping[str, Used]) -> str:
    """Return why use that should have been seen is missing; a namespace that was never made uses nothing."""
    missing = {row.workspace_id for row in rows if row.namespace not in used}
    if not missing:
        return ""
    uids = Workspace.objects.filter(pk__in=missing).values("uid")
    made = Declaration.objects.filter(cluster=cluster, owner_uid__in=uids, observed_generation__gt=0)
    return "The use of some of this pool's workspaces is not known." if made.exists() else ""


def _after_the_end(
    cluster: Cluster,
    loose: Mapping[str, Mapping[str, int]],
    by_place: Mapping[tuple[str, str], Sequence[_Held]],
    pools: set[int],
    at: datetime,
) -> list[Excess]:
    """Return what is in use by work whose quota there has ended. At most one query, and mostly none."""
    if not loose:
        return []
    slugs: dict[tuple[int, str, str, Fraction], set[str]] = defaultdict(set)
    past = Quota.objects.filter(
        workspace__cluster=cluster,
        workspace__namespace__in=list(loose),
        flavour__pools__in=pools,
        valid__endswith__lte=at,
    )
    columns = (
        "workspace__namespace", "flavour__resource_name", "flavour__pools__pk", "flavour__numerator",
        "flavour__denominator", "flavour__slug",
    )  # fmt: skip
    for namespace, resource, pool_id, numerator, denominator, slug in past.values_list(*columns).distinct():
        held = {row.pool_id for row in by_place.get((namespace, resource), [])}
        if loose[namespace].get(resource, 0) and pool_id not in held:
            slugs[pool_id, namespace, resource, Fraction(numerator, denominator)].add(slug)
    return [
        Excess(pool_id, namespace, resource, loose[namespace][resource], share, frozenset(found), ended=True)
        for (pool_id, namespace, resource, share), found in slugs.items()
    ]


def quota_rows(workspaces: Sequence[Workspace], at: datetime | None = None) -> list[QuotaRow]:
    """Return what the workspaces hold at `at`, by namespace and flavour, with use and standing.

    Three queries, however many there are; up to two more per cluster where work runs on without a quota, and one where
    Kueue may take back what runs beyond a quota.
    """
    now = at or clock.now()
    if not workspaces:
        return []
    mine = {workspace.pk: workspace for workspace in workspaces}
    clusters = {workspace.cluster_id: workspace.cluster for workspace in workspaces}
    held = _held(clusters, now)
    resources = {one.resource for rows in held.values() for one in rows}
    used = used_units(list(clusters), resources, limits=True) if resources else {}
    found: list[QuotaRow] = []
    for cluster_id, rows in sorted(held.items()):
        cluster = clusters[cluster_id]
        here = {namespace: one for (place, namespace), one in used.items() if place == cluster_id}
        own = [row for row in rows if row.workspace_id in mine]
        stands = _stands(cluster, rows, here, now, own)
        for row in own:
            workspace = mine[row.workspace_id]
            seen = here.get(row.namespace)
            pool = _pool(row, cluster)
            stand = stands.get(row.key, _UNKNOWN)
            units = seen.units.get(row.resource) if seen is not None else None
            limit = seen.limits.get(row.resource) if seen is not None else None
            unlimited = row.borrow_mode == BorrowMode.UNLIMITED
            found.append(
                QuotaRow(
                    workspace=workspace,
                    flavour=_flavour(row),
                    pool=pool,
                    guaranteed=row.guaranteed,
                    borrow=row.borrow_mode,
                    borrow_limit=row.borrow_limit,
                    maximum=None if unlimited else row.guaranteed + row.borrow_limit,
                    used=int(units) if units is not None else None,
                    used_at=seen.at if seen is not None else None,
                    hard=int(limit) if limit is not None else None,
                    valid_until=row.valid.upper,  # type: ignore[attr-defined]  # a range, as above
                    word=guaranteed_word(pool),
                    standing=stand.standing.value,
                    standing_why=stand.why,
                    standing_missing=stand.missing,
                )
            )
    order = {workspace.pk: index for index, workspace in enumerate(workspaces)}
    return sorted(found, key=lambda row: (row.workspace.namespace, order[row.workspace.pk], row.flavour.name))


def _pool(row: _Held, cluster: Cluster) -> Pool:
    return Pool(
        pk=row.pool_id,
        kind=row.kind,
        best_effort=row.best_effort,
        observed_gpus=row.observed,
        max_gpus=row.max_gpus,
        startup_minutes=row.startup_minutes,
        device_class=row.device_class,
        cluster=cluster,
    )


def _flavour(row: _Held) -> Flavour:
    return Flavour(
        pk=row.flavour_id,
        name=row.flavour,
        slug=row.slug,
        gpu_model=row.gpu_model,
        resource_name=row.resource,
        device_class=row.device_class,
        numerator=row.numerator,
        denominator=row.denominator,
    )


__all__ = ["FRESH", "QuotaRow", "quota_rows"]
