"""From rows to the ledger: what a pool can promise, what it has promised, what a workspace may request when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction

from django.db.models import Q

from apps.clusters import selectors as cluster_selectors
from apps.clusters.capacity import physical_reach
from apps.clusters.choices import DeviceClass, KueueMode
from apps.clusters.models import Cluster, Flavour, Pool
from apps.quotas import enforcing, idle_policy, kueue_state, ladder, renewal
from apps.quotas.choices import BorrowMode, LendMode
from apps.quotas.kueue import QueueSpec, Share
from apps.quotas.ledger import Holding, Room, Step, gpus, in_force, instants, room_over_windows
from apps.quotas.manifests import WorkspaceSpec
from apps.quotas.models import Quota, Workspace

#: `(workspace id, flavour id)` → what it holds over time, in order.
Holdings = dict[tuple[int, int], list[Holding]]


def pool_of(cluster_id: int, flavour_id: int) -> Pool | None:
    """Return the pool that offers a flavour on a cluster, or None where that cluster does not offer it."""
    return Pool.objects.select_related("cluster").filter(cluster_id=cluster_id, flavours=flavour_id).first()


def holding(row: Quota) -> Holding:
    """Return a quota row as the ledger sees it."""
    return Holding(
        row.valid.lower,
        row.valid.upper,
        row.guaranteed,
        row.borrow_mode,
        row.borrow_limit,
        key=row.pk,
        lend_mode=row.lend_mode,
        lend_limit=row.lend_limit,
        serving=row.serving,
    )


def holdings_of(rows: Iterable[Quota]) -> Holdings:
    """Return quota rows by workspace and flavour, each in order of time."""
    found: Holdings = {}
    for row in rows:
        found.setdefault((row.workspace_id, row.flavour_id), []).append(holding(row))
    for items in found.values():
        items.sort(key=lambda item: item.start)
    return found


def steps(holdings: Iterable[Holding], flavour: Flavour) -> list[Step]:
    """Return holdings as promises in whole devices."""
    return [
        Step(item.start, item.end, gpus(item.guaranteed, flavour.numerator, flavour.denominator)) for item in holdings
    ]


def capacity(pool: Pool, start: datetime, end: datetime | None) -> list[Step]:
    """Return a pool's dated committable GPUs times its factor; a gap is zero."""
    factor = Fraction(pool.commit_factor)
    return [
        Step(low, high, factor * count) for low, high, count in cluster_selectors.capacity_steps(pool.pk, start, end)
    ]


@dataclass(frozen=True, slots=True)
class PoolBook:
    """A pool's capacity and promises from a time on."""

    pool: Pool
    capacity: list[Step]
    promises: Holdings
    flavours: Mapping[int, Flavour]
    holds: Sequence[renewal.Hold] = ()

    def others(self, workspace_id: int, flavour_id: int, *, asked_at: datetime | None = None) -> list[Step]:
        """Return every promise but those of one workspace and flavour, and what open renewals of others hold.

        `asked_at`: the place of a renewal among renewals; only those that were asked for earlier count against it.
        """
        taken = [
            step
            for (workspace, flavour), items in self.promises.items()
            if (workspace, flavour) != (workspace_id, flavour_id)
            for step in steps(items, self.flavours[flavour])
        ]
        counted = [
            hold
            for hold in self.holds
            if (hold.workspace_id, hold.flavour_id) != (workspace_id, flavour_id)
            and (asked_at is None or hold.asked_at < asked_at)
        ]
        held = renewal.kept(counted, lambda *key: steps(self.own(*key), self.flavours[key[1]]))
        return taken + [step for found in held.values() for step in found]

    def all_promises(self) -> list[Step]:
        """Return every promise."""
        return [step for (_, flavour), items in self.promises.items() for step in steps(items, self.flavours[flavour])]

    def own(self, workspace_id: int, flavour_id: int) -> list[Holding]:
        """Return what one workspace holds of one flavour."""
        return self.promises.get((workspace_id, flavour_id), [])

    def room(self, workspace_id: int, flavour: Flavour, guaranteed: int, start: datetime, end: datetime | None) -> Room:
        """Tell whether `guaranteed` units of a flavour fit for a workspace over the whole window."""
        return self.room_in(workspace_id, flavour, guaranteed, [(start, end)])

    def room_in(
        self,
        workspace_id: int,
        flavour: Flavour,
        guaranteed: int,
        windows: Sequence[tuple[datetime, datetime | None]],
        *,
        asked_at: datetime | None = None,
    ) -> Room:
        """Tell the same over every window of a recurring quota, or for a renewal with its place among renewals."""
        return room_over_windows(
            self.capacity,
            self.others(workspace_id, flavour.pk, asked_at=asked_at),
            gpus(guaranteed, flavour.numerator, flavour.denominator),
            windows,
            own=steps(self.own(workspace_id, flavour.pk), flavour),
        )


def load(pool: Pool, start: datetime, end: datetime | None = None) -> PoolBook:
    """Read a pool's book over `[start, end)`. Lock the pool row first where a promise follows."""
    flavours = {flavour.pk: flavour for flavour in pool.flavours.all()}
    rows = Quota.objects.filter(
        workspace__cluster_id=pool.cluster_id, flavour_id__in=flavours, valid__overlap=(start, end)
    )
    held = renewal.holds(pool, flavours)
    return PoolBook(pool, capacity(pool, start, end), holdings_of(rows), flavours, held)


def takes_back(pool: Pool) -> bool:
    """Whether something on the pool's cluster takes a borrowed GPU back when its owner wants it: Kueue does.

    Where it manages jobs alone it takes back jobs alone; what that means for a promise is told by `live_return`.
    """
    return pool.cluster.kueue_mode != KueueMode.OFF


def _maximum(item: Holding | None, pool: Pool, flavour: Flavour, at: datetime, queued: bool) -> int:
    """Return how many units may be requested at once.

    Borrowed is only what something takes back: Kueue, where the workspace is `queued`; and in a best-effort pool, which
    guarantees nothing (design §5).
    """
    if item is None:
        return 0
    if not (queued or pool.best_effort) or item.borrow_mode == BorrowMode.NONE:
        return item.guaranteed
    if item.borrow_mode == BorrowMode.LIMITED:
        return item.guaranteed + item.borrow_limit
    # Unlimited renders what is (or, in an elastic pool, can be) physically there.
    devices = physical_reach(pool, at)
    return max(item.guaranteed, devices * flavour.denominator // flavour.numerator)


@dataclass(frozen=True, slots=True)
class Numbers:
    """What a workspace may request: by resource name, as a ResourceQuota counts, and by flavour, as Kueue does."""

    limits: dict[str, int]
    shares: list[Share]


def _share(item: Holding | None, flavour: Flavour, maximum: int) -> Share:
    """Return a holding as Kueue sees it."""
    if item is None:
        return Share(flavour.slug, flavour.resource_name)
    lend = {LendMode.ALL: None, LendMode.NONE: 0}.get(LendMode(item.lend_mode), item.lend_limit)
    return Share(flavour.slug, flavour.resource_name, item.guaranteed, maximum, lend, item.serving)


def gpu_limits(
    workspace: Workspace, at: datetime, *, replaced: Mapping[int, list[Holding]] | None = None
) -> dict[str, int]:
    """Return resource name → units that the workspace may request at `at`, for every resource its cluster offers."""
    return numbers(workspace, at, replaced=replaced, queued=kueue_state.queued(workspace)).limits


def numbers(
    workspace: Workspace, at: datetime, *, queued: bool, replaced: Mapping[int, list[Holding]] | None = None
) -> Numbers:
    """Return what the workspace may request at `at`, of everything its cluster offers.

    `queued`: Kueue runs the workspace. `replaced`: flavour id → holdings to count instead of the stored ones (what a
    request would make of them).
    """
    pools = list(Pool.objects.filter(cluster_id=workspace.cluster_id).prefetch_related("flavours"))
    rows = Quota.objects.filter(workspace=workspace).filter(Q(valid__contains=at))
    current = {flavour_id: items for (_, flavour_id), items in holdings_of(rows).items()} | dict(replaced or {})
    return _numbers(workspace, pools, current, at, queued)


def numbers_of_cluster(workspaces: Sequence[Workspace], at: datetime, *, queued: bool) -> dict[int, Numbers]:
    """Return the same for many workspaces of one cluster, by workspace id, in three queries."""
    if not workspaces:
        return {}
    pools = list(Pool.objects.filter(cluster_id=workspaces[0].cluster_id).prefetch_related("flavours"))
    rows = Quota.objects.filter(workspace__in=[workspace.pk for workspace in workspaces], valid__contains=at)
    held: dict[int, dict[int, list[Holding]]] = {}
    for (workspace_id, flavour_id), items in holdings_of(rows).items():
        held.setdefault(workspace_id, {})[flavour_id] = items
    return {one.pk: _numbers(one, pools, held.get(one.pk, {}), at, queued) for one in workspaces}


def numbers_anew(workspace: Workspace, held: Mapping[int, list[Holding]], at: datetime, *, queued: bool) -> Numbers:
    """Return the same for a workspace that is not stored yet and would hold `held` (flavour id → holdings)."""
    pools = list(Pool.objects.filter(cluster_id=workspace.cluster_id).prefetch_related("flavours"))
    return _numbers(workspace, pools, held, at, queued)


def _numbers(
    workspace: Workspace, pools: Sequence[Pool], current: Mapping[int, list[Holding]], at: datetime, queued: bool
) -> Numbers:
    limits: dict[str, int] = {}
    shares: list[Share] = []
    if any(pool.device_class == DeviceClass.CPU for pool in pools):
        # Cores of a class come on top of those that go with the workspace's GPUs.
        limits["cpu"] = workspace.cpu_cores
    for pool in pools:
        for flavour in pool.flavours.all():
            item = in_force(current.get(flavour.pk, []), at)
            units = _maximum(item, pool, flavour, at, queued)
            limits[flavour.resource_name] = limits.get(flavour.resource_name, 0) + units
            shares.append(_share(item, flavour, units))
    return Numbers(limits, shares)


def spec_of(
    workspace: Workspace,
    limits: Mapping[str, int],
    shares: Sequence[Share] = (),
    state: kueue_state.State = kueue_state.PLAIN,
    enforcement: str | None = None,
) -> WorkspaceSpec:
    """Return what a workspace's objects are rendered from. `state`: what the cluster's baseline has.

    `enforcement`: what is decided for it; None: asked of whoever decides it.
    """
    cluster: Cluster = workspace.cluster
    queue = None
    if state.queues:
        queue = QueueSpec(
            unit=workspace.team.unit.slug,
            mode=state.mode,
            fair_weight=workspace.fair_weight,
            rung=str(workspace.rung),
            namespace_labels=dict(cluster.kueue_namespace_labels or {}),
        )
        shares = kueue_state.offered(shares, state)
    return WorkspaceSpec(
        namespace=workspace.namespace,
        workspace_uid=str(workspace.uid),
        team_slug=workspace.team.slug,
        environment=workspace.environment,
        group_prefix=cluster.group_prefix,
        cpu_cores=workspace.cpu_cores,
        memory_gib=workspace.memory_gib,
        storage_gib=workspace.storage_gib,
        pods=workspace.pods,
        gpus=dict(limits),
        annotations=idle_policy.annotations_of(workspace.idle_policy) | ladder.annotations_of(workspace.expiry_policy),
        jobs=workspace.jobs,
        deployments=workspace.deployments,
        volume_claims=workspace.volume_claims,
        shares=list(shares),
        priorities=state.priorities,
        queue=queue,
        enforcement=enforcing.modes([workspace])[workspace.pk] if enforcement is None else enforcement,
    )


def indistinguishable(workspace: Workspace, flavour: Flavour, start: datetime, end: datetime | None) -> Flavour | None:
    """Return a flavour held in the window that the cluster could not tell apart from `flavour` in this namespace.

    A ResourceQuota counts a resource name; it knows neither GPU models nor shares of a GPU. Kueue does, by the labels
    of the nodes.
    """
    others = (
        Flavour.objects.filter(
            pk__in=Quota.objects.filter(workspace=workspace, valid__overlap=(start, end))
            .exclude(guaranteed=0, borrow_mode=BorrowMode.NONE)
            .values("flavour_id"),
            resource_name=flavour.resource_name,
        )
        .exclude(gpu_model=flavour.gpu_model, numerator=flavour.numerator, denominator=flavour.denominator)
        .order_by("pk")
    )
    by_labels = kueue_state.queued(workspace)
    return next((other for other in others if not (by_labels and kueue_state.apart(flavour, other))), None)


__all__ = [
    "Holdings",
    "Numbers",
    "PoolBook",
    "capacity",
    "gpu_limits",
    "indistinguishable",
    "instants",
    "load",
    "numbers",
    "numbers_anew",
    "numbers_of_cluster",
    "pool_of",
    "spec_of",
]
