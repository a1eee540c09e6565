"""Rows as the pure parts see them: rules, places, rooms, sizes, hours in staging."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from apps.catalogue import locations
from apps.catalogue.choices import SENSITIVITY
from apps.catalogue.manifest import Manifest
from apps.catalogue.models import ModelVersion
from apps.clusters.choices import DeviceClass, KueueMode
from apps.clusters.models import Cluster, Flavour
from apps.deployments.choices import ON_CLUSTER
from apps.deployments.feasibility import Held, Room, Size
from apps.deployments.models import Endpoint, PlacementRule, Release, ServingInterval
from apps.deployments.placement import Place, Rule
from apps.deployments.spec import Spec
from apps.provisioning.choices import DeclarationKind
from apps.provisioning.models import DeclaredObject
from apps.quotas import book, kueue_state
from apps.quotas.choices import Environment
from apps.quotas.ledger import in_force
from apps.quotas.models import Quota, Workspace


def manifest_of(version: ModelVersion) -> Manifest:
    """Return a sealed version's manifest, read from the bytes that its digest covers."""
    return locations.manifest_of(version)


def spec_of(release: Release) -> Spec:
    """Return a release's spec."""
    return Spec.from_json(release.spec)


def rules_in_force(at: datetime) -> list[Rule]:
    """Return the placement rules in force at a time."""
    rows = PlacementRule.objects.filter(valid__contains=at).order_by("pk")
    return [
        Rule(str(row.uid), row.data_class, row.location, tuple(row.jurisdictions), row.text, row.citation)
        for row in rows
    ]


def place_of(cluster: Cluster) -> Place:
    """Return where a cluster stands."""
    return Place(cluster.name, cluster.location, cluster.jurisdiction)


def size_of(flavour: Flavour, spec: Spec) -> Size:
    """Return what a release holds at its largest. A CPU class counts cores: they are its replicas' cores."""
    return Size.of(flavour.name, spec.max_replicas, spec.units_per_replica, own_cpu(flavour, spec), spec.memory_gib)


def own_cpu(flavour: Flavour, spec: Spec) -> int:
    """Return the cores of a replica that count against the workspace's own: none where the class counts them."""
    return 0 if flavour.device_class == DeviceClass.CPU else spec.cpu


def room_of(workspace: Workspace, flavour: Flavour, at: datetime) -> Room:
    """Return what a workspace holds of a flavour at a time: guaranteed, and with what it may borrow."""
    rows = [book.holding(row) for row in Quota.objects.filter(workspace=workspace, flavour=flavour).in_force(at)]
    item = in_force(rows, at)
    if item is None:
        return Room(0, 0)
    limit = book.gpu_limits(workspace, at).get(flavour.resource_name, item.guaranteed)
    # Of a CPU class the limit holds the workspace's own cores, too.
    own = workspace.cpu_cores if flavour.device_class == DeviceClass.CPU else 0
    kept = item.serving if share_decides(workspace, flavour) else None
    return Room(item.guaranteed, max(item.guaranteed, limit - own), kept)


def share_decides(workspace: Workspace, flavour: Flavour) -> bool:
    """Whether production's services have the share kept for serving alone: jobs queue there, and services do not.

    The cluster holds pods of production priority to exactly that share of GPUs (quotas.priorities), not of cores.
    """
    cluster = workspace.cluster
    if flavour.device_class == DeviceClass.CPU:
        return False
    if cluster.kueue_mode != KueueMode.JOBS or workspace.environment != Environment.PRODUCTION:
        return False
    return kueue_state.queued(workspace)


def held_elsewhere(workspace: Workspace, but: Endpoint | None) -> Held:
    """Return what the other endpoints of a workspace hold at their largest, candidates included; stopped ones too.

    A stopped endpoint keeps its place: starting it again must not find it given away.
    """
    rows = (
        Release.objects.filter(endpoint__workspace=workspace, status__in=ON_CLUSTER)
        .select_related("flavour")
        .exclude(endpoint=but)
        if but is not None
        else Release.objects.filter(endpoint__workspace=workspace, status__in=ON_CLUSTER).select_related("flavour")
    )
    units: dict[str, int] = {}
    cpu = memory = 0
    for release in rows:
        size = size_of(release.flavour, spec_of(release))
        units[size.flavour] = units.get(size.flavour, 0) + size.units
        cpu, memory = cpu + size.cpu, memory + size.memory_gib
    return Held(units, cpu, memory)


def staging_time(digest: str, at: datetime) -> timedelta:
    """Return for how long a release of exactly these bytes took all traffic of an endpoint in staging."""
    total = timedelta(0)
    rows = ServingInterval.objects.filter(
        version_digest=digest, workspace__environment=Environment.STAGING, traffic=100
    ).values_list("valid", flat=True)
    for valid in rows:
        total += min(valid.upper or at, at) - min(valid.lower, at)
    return total


def highest(classes: Sequence[str]) -> str:
    """Return the most sensitive of data classes; none is public."""
    known = [name for name in SENSITIVITY if name in classes]
    return str(known[-1]) if known else str(SENSITIVITY[0])


def being_removed(workspace: Workspace, name: str) -> bool:
    """Whether objects of a removed endpoint of this name are still on the cluster."""
    gone = Endpoint.objects.filter(workspace=workspace, name=name, removed_at__isnull=False).values("uid")
    return DeclaredObject.objects.filter(
        declaration__kind=DeclarationKind.RELEASE, declaration__owner_uid__in=gone
    ).exists()
