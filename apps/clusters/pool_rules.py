"""What may be offered together: rules of pools and flavours, each with its explanation. Reads only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from django.db.models import Max, Q

from apps.clusters.capacity_view import cpu_capacity, is_cpu_node
from apps.clusters.choices import DeviceClass, KueueMode, PoolKind
from apps.clusters.models import Cluster, Flavour, Node, Pool, PoolCapacity
from apps.clusters.pool_ports import PoolSettings
from apps.core.errors import Invalid

#: The longest a node may take to start, in minutes: a day.
MOST_STARTUP = 24 * 60
MOST_GPUS = 1_000_000


def clash(cluster: Cluster, gpu_model: str, resource_names: Iterable[str]) -> str | None:
    """Return why a GPU model cannot be offered under these resource names on a cluster; None: nothing against it.

    A ResourceQuota counts a resource name and knows no models; Kueue tells them apart by the flavour's node labels.
    """
    if cluster.kueue_mode != KueueMode.OFF:
        return None
    taken = (
        Flavour.objects.filter(
            pools__cluster=cluster, resource_name__in=set(resource_names), device_class=DeviceClass.GPU
        )
        .exclude(gpu_model=gpu_model)
        .order_by("resource_name", "gpu_model")
        .values_list("resource_name", "gpu_model")
        .first()
    )
    if taken is None:
        return None
    resource, other = taken
    return (
        f"{cluster} would count {gpu_model} and {other} under one name, {resource}: a ResourceQuota cannot tell GPU"
        " models apart. Use Kueue on this cluster, which keeps them apart by node labels, or give one of the models a"
        " resource name of its own in the device plugin."
    )


def cpu_class_clash(cluster: Cluster, flavours: Sequence[Flavour], pool: Pool | None = None) -> str | None:
    """Return why a CPU class cannot be offered on a cluster; None: nothing against it. One query or two.

    Without Kueue `requests.cpu` is one number for all nodes: it means a class only where there is no other.
    """
    if cluster.kueue_mode != KueueMode.OFF:
        return None
    why = (
        "Without Kueue a ResourceQuota counts cores whatever node they are on, so only a single CPU class can be kept."
    )
    others = Pool.objects.filter(cluster=cluster, device_class=DeviceClass.CPU)
    if pool is not None:
        others = others.exclude(pk=pool.pk)
    if len(flavours) > 1:
        return f"{why} Offer one class from this pool, or use Kueue."
    if (other := others.order_by("pk").first()) is not None:
        return f"{why} {cluster} offers {other.gpu_model} already. Use Kueue there to offer another."
    nodes = [node for node in Node.objects.filter(cluster=cluster, gpu_model="", physical_gpus=0) if is_cpu_node(node)]
    labels = flavours[0].node_labels if flavours else {}
    chosen = cpu_capacity(labels, nodes).nodes
    if nodes and 0 < chosen < len(nodes):
        return f"{why} Its labels select {chosen} of {len(nodes)} CPU nodes of {cluster}: there is another class."
    return None


def check_settings(pool: Pool, wanted: PoolSettings, now: datetime) -> dict[str, str]:
    """Return what is wrong with the settings of a pool, by field."""
    errors: dict[str, str] = {}
    if wanted.kind not in PoolKind.values:
        errors["kind"] = "Choose where the capacity comes from."
    if not 0 < wanted.commit_factor <= 10:
        errors["commit_factor"] = "The factor lies above 0 and at most at 10; 1 promises what is there."
    if wanted.kind == PoolKind.ELASTIC:
        if wanted.max_gpus is None or not 1 <= wanted.max_gpus <= MOST_GPUS:
            errors["max_gpus"] = f"Say how far the pool can grow: from 1 to {MOST_GPUS:,} {pool.unit}."
        elif (most := most_committable(pool, now)) > wanted.max_gpus:
            errors["max_gpus"] = f"{most:,} {pool.unit} are committable now or later. Lower that first."
        if not 0 <= wanted.startup_minutes <= MOST_STARTUP:
            errors["startup_minutes"] = f"From 0 to {MOST_STARTUP:,} minutes."
    else:
        if wanted.max_gpus is not None:
            errors["max_gpus"] = "Only an elastic pool has a maximum."
        if wanted.startup_minutes:
            errors["startup_minutes"] = "Only an elastic pool starts when it is asked for."
    if wanted.reserved_until is not None:
        if wanted.kind != PoolKind.RESERVED:
            errors["reserved_until"] = "Only a reserved pool has an end of its reservation."
        elif wanted.reserved_until <= now and wanted.reserved_until != pool.reserved_until:
            errors["reserved_until"] = "The end of the reservation lies in the past."
    return errors


def most_committable(pool: Pool, since: datetime) -> int:
    """Return the most GPUs that may be promised of a pool at any time from `since` on; 0 where nothing is set."""
    if pool._state.adding:
        return 0
    later = Q(valid__endswith__gt=since) | Q(valid__upper_inf=True)
    found = PoolCapacity.objects.filter(later, pool=pool).aggregate(most=Max("committable_gpus"))
    return int(found["most"] or 0)


def refuse_clashes(cluster: Cluster, gpu_model: str, flavours: Sequence[Flavour], pool: Pool | None = None) -> None:
    """Raise Invalid (field `flavours`) where the cluster could not tell what a pool offers from what others do."""
    device_class = flavours[0].device_class if flavours else DeviceClass.GPU
    if device_class == DeviceClass.CPU:
        reason = cpu_class_clash(cluster, flavours, pool)
    else:
        reason = clash(cluster, gpu_model, [flavour.resource_name for flavour in flavours])
    if reason is not None:
        raise Invalid({"flavours": reason})
