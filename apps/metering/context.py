"""Who owned what, which flavours and quotas stood: everything besides the reading that a cluster's hours depend on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import Count, Sum

from apps.clusters.choices import DeviceClass
from apps.clusters.models import Pool
from apps.metering import ports
from apps.metering.engine import HOUR_MS, WHOLE, Holding, Share, default_share, hour_of, sanitised
from apps.metering.models import NamespaceOwner, ResourceRule, WorkspaceClass
from apps.metering.sources.base import at_ms, ms
from apps.quotas.models import Quota, Workspace
from apps.teams.models import FormerPlace, Team

FAR = 1 << 60
#: Drivers of dynamic resource allocation, as the exporter's labels name them (sanitised).
CLAIM_DRIVERS = frozenset({"gpu_nvidia_com", "mig_nvidia_com", "gpu_amd_com", "gpu_intel_com"})


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner of a namespace as a fact copies it."""

    team_id: int | None = None
    unit_id: int | None = None
    unit_path: tuple[int, ...] = ()
    cost_centre: str = ""
    team_name: str = ""
    unit_name: str = ""
    workspace_id: int | None = None
    environment: str = ""


NOBODY = Owner()


@dataclass(frozen=True, slots=True)
class FlavourInfo:
    """What metering needs of a flavour."""

    id: int
    slug: str
    name: str
    gpu_model: str
    resource: str
    share: Share


@dataclass(frozen=True, slots=True)
class PoolInfo:
    """A pool's dated committable capacity: (from ms, until ms, GPUs), and what was observed last."""

    gpu_model: str
    steps: tuple[tuple[int, int, int], ...]
    observed: int | None
    whole_flavour_id: int | None


@dataclass(frozen=True, slots=True)
class QuotaInfo:
    """A quota over time, in milliseconds since the epoch."""

    workspace_id: int
    owner: Owner
    flavour_id: int
    gpu_model: str
    share: Share
    guaranteed: int
    start: int
    end: int


@dataclass(slots=True)
class ClusterContext:
    """The state of the portal's books for one cluster."""

    cluster_id: int
    owners: dict[str, Owner] = field(default_factory=dict)
    flavours: list[FlavourInfo] = field(default_factory=list)
    pools: dict[str, PoolInfo] = field(default_factory=dict)
    quotas: list[QuotaInfo] = field(default_factory=list)
    #: Owners as recorded by an earlier ingest: they stand (design: ownership as of that hour).
    recorded: dict[tuple[int, str], Owner] = field(default_factory=dict)
    #: Owners given with an import, by namespace; they win over workspaces.
    given: dict[str, Owner] = field(default_factory=dict)
    #: Owners of closed hours as their facts carry them, nobody included: they stand whatever happened since.
    closed: dict[tuple[int, str], Owner] = field(default_factory=dict)
    #: Claimed namespaces: (from ms, until ms, owner).
    claims: dict[str, list[tuple[int, int, Owner]]] = field(default_factory=dict)
    #: (claims there are, Σ of their versions): another pair means that somebody claimed or released since.
    claims_seen: tuple[int, int] = (0, 0)
    #: Service classes by workspace: (from ms, until ms, class).
    classes: dict[int, list[tuple[int, int, str]]] = field(default_factory=dict)
    #: The table of resources: (resource, GPU model or "") → (from ms, until ms, share).
    rules: dict[tuple[str, str], list[tuple[int, int, Share]]] = field(default_factory=dict)
    #: What teams were before they were moved or renamed: team → (from ms, until ms, place); hours keep their owner.
    former: dict[int, list[tuple[int, int, FormerPlace]]] = field(default_factory=dict)
    _found: dict[tuple[str, str, str, int], FlavourInfo | None] = field(default_factory=dict)

    def owner_of(self, hour: int, namespace: str) -> Owner:
        """Return who owns `namespace` in `hour`: as billed, as given, as recorded, else by workspace or claim."""
        key = (hour, namespace)
        return (
            self.closed.get(key)
            or self.as_of(hour, self.given.get(namespace))
            or self.recorded.get(key)
            or self.as_of(hour, self.owners.get(namespace) or self.claimed(hour, namespace))
            or NOBODY
        )

    def as_of(self, hour: int, owner: Owner | None) -> Owner | None:
        """Return an owner as their team was in `hour`: in which unit, of which name, paid by which cost centre."""
        if owner is None or owner.team_id not in self.former:
            return owner
        for start, end, place in self.former[owner.team_id]:
            if start <= hour < end:
                return replace(
                    owner, unit_id=place.unit_id, unit_path=tuple(place.unit_path), cost_centre=place.cost_centre,
                    team_name=place.team_name, unit_name=place.unit_name,
                )  # fmt: skip
        return owner

    def claimed(self, hour: int, namespace: str) -> Owner | None:
        """Return who claimed `namespace` for the hour."""
        for start, end, owner in self.claims.get(namespace, ()):
            if start <= hour < end:
                return owner
        return None

    def class_of(self, hour: int, workspace_id: int | None) -> str:
        """Return the service class a workspace is charged at in `hour`; "": standard."""
        for start, end, name in self.classes.get(workspace_id or 0, ()):
            if start <= hour < end:
                return name
        return ""

    def flavour_for(self, resource: str, gpu_model: str, hint: str = "", replicas: int = 1) -> FlavourInfo | None:
        """Return the flavour of a holding: by its stated flavour, else by resource and GPU model.

        Without a model the only flavour of that resource is taken; a resource with several is ambiguous and unknown. On
        a node whose devices are cut into `replicas`, a flavour of whole devices does not describe what is held.
        """
        key = (resource, gpu_model, hint, replicas)
        if key not in self._found:
            self._found[key] = self._find(sanitised(resource), gpu_model, hint.casefold(), replicas)
        return self._found[key]

    def _find(self, resource: str, gpu_model: str, hint: str, replicas: int) -> FlavourInfo | None:
        if hint:
            named = [f for f in self.flavours if hint in (f.slug.casefold(), f.name.casefold())]
            named = named or [f for f in self.flavours if hint == f.gpu_model.casefold()]
            return named[0] if named else None
        fitting = [f for f in self.flavours if not resource or f.resource == resource]
        if not fitting and resource in CLAIM_DRIVERS:
            # A claim's driver is no resource name: the model decides, and a claimed device is a whole one.
            fitting = [f for f in self.flavours if f.share == WHOLE]
        if replicas > 1:
            fitting = [f for f in fitting if f.share != WHOLE]
            fitting.sort(key=lambda f: f.share != Share(1, replicas))
        if gpu_model:
            fitting = [f for f in fitting if _model(f.gpu_model) == _model(gpu_model)]
            return fitting[0] if fitting else None
        models = {f.gpu_model for f in fitting}
        return fitting[0] if len(models) == 1 else None

    def share_of(self, holding: Holding, hour: int) -> Share:
        """Return what one unit of a holding is of a device: flavour, then rule, then what the name says."""
        info = self.flavour_for(holding.resource, holding.gpu_model, holding.flavour, holding.replicas)
        if info is not None:
            return info.share
        if holding.replicas == 1:
            name = sanitised(holding.resource)
            for key in ((name, holding.gpu_model), (name, "")):
                for start, end, share in self.rules.get(key, ()):
                    if start <= hour < end:
                        return share
        return default_share(holding.resource, holding.gpu_model, holding.replicas)

    def devices_of(self, resource: str, gpu_model: str) -> Share:
        """Return what a node's unit of `resource` is of a device where only shared flavours are offered of it."""
        fitting = [
            f.share for f in self.flavours if f.resource == resource and _model(f.gpu_model) == _model(gpu_model)
        ]
        return fitting[0] if fitting and WHOLE not in fitting else WHOLE

    def model_of(self, name: str) -> str:
        """Return a GPU model as the cluster's pools spell it; elsewhere without the mark of time-slicing."""
        if not name or name in self.pools:
            return name
        return next((model for model in self.pools if _model(model) == _model(name)), name.removesuffix("-SHARED"))

    @property
    def only_model(self) -> str:
        """The GPU model, where the cluster has pools of one model only; else ""."""
        return next(iter(self.pools)) if len(self.pools) == 1 else ""


def _model(name: str) -> str:
    """Return a model to compare by: GPU feature discovery marks time-sliced devices in their product."""
    return name.casefold().removesuffix("-shared")


def owner_of_team(team: Team, workspace: Workspace | None = None, *, environment: str = "") -> Owner:
    """Return what a fact copies of a team (with its unit loaded)."""
    return Owner(
        team_id=team.pk,
        unit_id=team.unit_id,
        unit_path=tuple(team.unit.path),
        cost_centre=team.cost_centre or team.unit.cost_centre,
        team_name=team.name,
        unit_name=team.unit.name,
        workspace_id=workspace.pk if workspace else None,
        environment=workspace.environment if workspace else environment,
    )


def load(cluster_id: int, start: datetime, end: datetime) -> ClusterContext:
    """Read the context of a cluster for the hours in [start, end): a fixed number of queries."""
    context = ClusterContext(cluster_id)
    workspaces = list(Workspace.objects.filter(cluster_id=cluster_id).select_related("team__unit"))
    owners = {workspace.pk: owner_of_team(workspace.team, workspace) for workspace in workspaces}
    context.owners = {workspace.namespace: owners[workspace.pk] for workspace in workspaces}
    # Cores are not metered as GPU time: CPU classes stay out, with the quotas of their flavours.
    gpu_pools = Pool.objects.filter(cluster_id=cluster_id, device_class=DeviceClass.GPU)
    pools = gpu_pools.prefetch_related("flavours", "capacities").order_by("pk")
    shares: dict[int, FlavourInfo] = {}
    for pool in pools:
        infos = [
            FlavourInfo(
                flavour.pk,
                flavour.slug,
                flavour.name,
                flavour.gpu_model,
                sanitised(flavour.resource_name),
                Share(flavour.numerator, flavour.denominator),
            )
            for flavour in sorted(pool.flavours.all(), key=lambda item: (item.numerator != item.denominator, item.pk))
        ]
        for info in infos:
            shares.setdefault(info.id, info)
        steps = sorted(
            (
                ms(capacity.valid.lower) if capacity.valid.lower else 0,
                ms(capacity.valid.upper) if capacity.valid.upper else FAR,
                capacity.committable_gpus,
            )
            for capacity in pool.capacities.all()
        )
        whole = next((info.id for info in infos if info.share.numerator == info.share.denominator), None)
        context.pools[pool.gpu_model] = PoolInfo(pool.gpu_model, tuple(steps), pool.observed_gpus, whole)
    context.flavours = list(shares.values())
    quotas = Quota.objects.filter(workspace__cluster_id=cluster_id, valid__overlap=(start, end), guaranteed__gt=0)
    for quota in quotas.order_by("pk"):
        held = shares.get(quota.flavour_id)
        if held is not None and quota.workspace_id in owners:
            context.quotas.append(
                QuotaInfo(
                    workspace_id=quota.workspace_id,
                    owner=owners[quota.workspace_id],
                    flavour_id=quota.flavour_id,
                    gpu_model=held.gpu_model,
                    share=held.share,
                    guaranteed=quota.guaranteed,
                    start=ms(quota.valid.lower) if quota.valid.lower else 0,
                    end=ms(quota.valid.upper) if quota.valid.upper else FAR,
                )
            )
    context.former = former_places(start)
    context.claims_seen = claims_seen(cluster_id)
    context.claims = claims_of(cluster_id, start, end)
    context.classes = classes_of(cluster_id, start, end)
    context.rules = rules_of(start, end)
    context.recorded = recorded_owners(cluster_id, start, end)
    hours = [at_ms(hour) for hour in range(hour_of(ms(start)), ms(end), HOUR_MS)]
    if frozen := ports.frozen(cluster_id, hours):
        context.closed = closed_owners(cluster_id, sorted(frozen))
    return context


def former_places(start: datetime) -> dict[int, list[tuple[int, int, FormerPlace]]]:
    """Return what teams were at some time after `start`, by team."""
    found: dict[int, list[tuple[int, int, FormerPlace]]] = {}
    for place in FormerPlace.objects.filter(valid__endswith__gt=start).order_by("pk"):
        found.setdefault(place.team_id, []).append((*bounds(place.valid), place))
    return found


def claims_of(cluster_id: int, start: datetime, end: datetime) -> dict[str, list[tuple[int, int, Owner]]]:
    """Return the claims that touch [start, end), by namespace."""
    found: dict[str, list[tuple[int, int, Owner]]] = {}
    claims = NamespaceOwner.objects.filter(cluster_id=cluster_id, valid__overlap=(start, end))
    for claim in claims.select_related("team__unit").order_by("pk"):
        owner = owner_of_team(claim.team, environment=claim.environment)
        found.setdefault(claim.namespace, []).append((*bounds(claim.valid), owner))
    return found


def claims_seen(cluster_id: int) -> tuple[int, int]:
    """Return the number of a cluster's claims and the sum of their versions: what changes when any of them does."""
    found = NamespaceOwner.objects.filter(cluster_id=cluster_id).aggregate(rows=Count("pk"), versions=Sum("version"))
    return found["rows"], found["versions"] or 0


def classes_of(cluster_id: int, start: datetime, end: datetime) -> dict[int, list[tuple[int, int, str]]]:
    """Return the service classes that touch [start, end), by workspace."""
    found: dict[int, list[tuple[int, int, str]]] = {}
    rows = WorkspaceClass.objects.filter(workspace__cluster_id=cluster_id, valid__overlap=(start, end))
    for row in rows.order_by("pk"):
        found.setdefault(row.workspace_id, []).append((*bounds(row.valid), row.service_class))
    return found


def rules_of(start: datetime, end: datetime) -> dict[tuple[str, str], list[tuple[int, int, Share]]]:
    """Return the rules that count in [start, end), by (resource as kube-state-metrics prints it, GPU model)."""
    found: dict[tuple[str, str], list[tuple[int, int, Share]]] = {}
    rules = ResourceRule.objects.filter(valid__overlap=(start, end), device_class=DeviceClass.GPU)
    for rule in rules.order_by("pk"):
        entry = (*bounds(rule.valid), Share(rule.numerator, rule.denominator))
        found.setdefault((sanitised(rule.resource), rule.gpu_model), []).append(entry)
    return found


def bounds(valid: Any) -> tuple[int, int]:
    """Return a range of time in milliseconds, open ends as far away as needed."""
    return (ms(valid.lower) if valid.lower else 0, ms(valid.upper) if valid.upper else FAR)


_OWNER = (
    "hour, namespace, team_id, unit_id, unit_path, cost_centre, team_name, unit_name, workspace_id, environment,"
    " revision"
)


def _owners(sql: str, parameters: list[Any]) -> dict[tuple[int, str], Owner]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        # Ordered by revision: where several stand, the newest row wins.
        return {(ms(row[0]), row[1]): Owner(row[2], row[3], tuple(row[4]), *row[5:10]) for row in cursor.fetchall()}


def recorded_owners(cluster_id: int, start: datetime, end: datetime) -> dict[tuple[int, str], Owner]:
    """Return the owners that facts of [start, end) already carry, by (hour ms, namespace)."""
    # `hour` and `cluster_id` select partitions and rows through the index of both tables.
    tables = ("metering_resourcefact", "metering_hourfact")
    parts = [
        f"(SELECT DISTINCT {_OWNER} FROM {table}"  # noqa: S608 (own constants)
        " WHERE cluster_id = %s AND hour >= %s AND hour < %s AND team_id IS NOT NULL)"
        for table in tables
    ]
    sql = " UNION ".join(parts) + " ORDER BY hour, namespace, revision, team_id"
    return _owners(sql, [cluster_id, start, end] * len(tables))


def closed_owners(cluster_id: int, hours: list[datetime]) -> dict[tuple[int, str], Owner]:
    """Return the owners, nobody included, of every namespace in closed hours: as billed first, late rows after."""
    tables = ("metering_latefact", "metering_lateresource", "metering_resourcefact", "metering_hourfact")
    parts = [
        f"(SELECT DISTINCT {_OWNER}, {rank} AS rank FROM {table}"  # noqa: S608 (own constants)
        " WHERE cluster_id = %s AND hour >= %s AND hour <= %s AND hour = ANY(%s))"
        for rank, table in enumerate(tables)
    ]
    sql = " UNION ".join(parts) + " ORDER BY hour, namespace, rank, revision, team_id NULLS FIRST"
    return _owners(sql, [cluster_id, hours[0], hours[-1], hours] * len(tables))


def teams_given(team_map: Mapping[str, str], workspaces: Iterable[tuple[str, Owner]]) -> dict[str, Owner]:
    """Return the owners for a map namespace → team slug (an import's `--team-map`). Raises KeyError for a bad slug."""
    slugs = set(team_map.values())
    teams = {team.slug: team for team in Team.objects.filter(slug__in=slugs).select_related("unit")}
    known = dict(workspaces)
    found: dict[str, Owner] = {}
    for namespace, slug in team_map.items():
        team = teams[slug]
        own = known.get(namespace)
        found[namespace] = own if own is not None and own.team_id == team.pk else owner_of_team(team)
    return found
