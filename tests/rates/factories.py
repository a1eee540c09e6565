"""Clusters, flavours and pools for tests of rates and quotas: rows, written directly."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from apps.clusters.models import Cluster, Flavour, Pool, PoolCapacity
from apps.core import clock


def make_cluster(slug: str = "atlas", **extra: Any) -> Cluster:
    """Make a cluster that nobody calls."""
    extra.setdefault("api_url", "https://atlas.example.com")
    return Cluster.objects.create(name=slug.capitalize(), slug=slug, **extra)


def make_flavour(slug: str = "a100-80gb", **extra: Any) -> Flavour:
    """Make a flavour: a whole A100 unless told otherwise."""
    values: dict[str, Any] = {
        "name": slug.upper(),
        "gpu_model": "NVIDIA-A100-SXM4-80GB",
        "node_labels": {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    }
    return Flavour.objects.create(slug=slug, **(values | extra))


def make_pool(
    cluster: Cluster | None = None,
    *flavours: Flavour,
    gpus: int = 50,
    since: datetime | None = None,
    best_effort: bool = False,
    factor: str = "1.00",
    **extra: Any,
) -> Pool:
    """Make a pool of 50 GPUs, committable from a year ago."""
    cluster = cluster or make_cluster()
    offered = list(flavours) or [make_flavour()]
    pool = Pool.objects.create(
        cluster=cluster,
        gpu_model=offered[0].gpu_model,
        best_effort=best_effort,
        commit_factor=Decimal(factor),
        observed_gpus=gpus,
        observed_at=clock.now(),
        **extra,
    )
    pool.flavours.set(offered)
    begin = since or clock.now() - timedelta(days=365)
    PoolCapacity.objects.create(pool=pool, committable_gpus=gpus, valid=(begin, None))
    return pool
