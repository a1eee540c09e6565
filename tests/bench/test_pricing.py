"""One hour of a big cluster from facts to charges: in a whole hour, and in one inside which a price begins.

COMMONS_BENCH_PODS says how many GPU facts (default 100,000); three resource facts stand beside each.
"""

from __future__ import annotations

import os
import platform
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from apps.core import clock
from apps.core.partitions import ensure_month
from apps.costs import pricing
from apps.costs.models import Charge, DayCharge
from apps.metering import billing
from apps.metering.models import CapacityLine, HourFact, ResourceFact
from apps.metering.ports import Written
from apps.rates.models import Rate
from tests.bench.volume import analyze, fill
from tests.metering.world import MODEL, SINCE, World, add_rate, make_world, utc

pytestmark = pytest.mark.bench
PODS = int(os.environ.get("COMMONS_BENCH_PODS", "100000"))
HOUR = utc(2026, 11, 10, 10)
RESOURCES = {"cpu": "12 * 3600000", "memory": "96 * 3600000 + pod.n", "egress": "pod.n"}
#: Of CPU, the database's included: a hundred thousand pods an hour are priced while the next hour goes on.
TARGET_SECONDS = 60


def _write(world: World, hour: datetime) -> None:
    """Write the facts, resource facts and lines of one hour, as an ingest leaves them."""
    owner = {
        "team_id": "mod(pod.n, 1000) + 1", "unit_id": "mod(pod.n, 50) + 1", "unit_path": "ARRAY[1, mod(pod.n, 50) + 1]",
        "cost_centre": "'CC-' || mod(pod.n, 1000)", "team_name": "'Team ' || mod(pod.n, 1000)",
        "unit_name": "'Unit ' || mod(pod.n, 50)",
    }  # fmt: skip
    common = {
        "hour": f"'{hour.isoformat()}'", "cluster_id": str(world.cluster.pk), **owner,
        "namespace": "'team-' || mod(pod.n, 1000)", "workload_key": "'uid-' || pod.n",
        "workload_name": "'train-' || pod.n", "workload_kind": "'Job'", "node": "'node-' || pod.n / 8",
        "environment": "'production'", "coverage_permille": "1000", "source_id": str(world.source.pk),
        "capacity_type": "CASE WHEN mod(pod.n, 3) = 0 THEN 'spot' ELSE 'on_demand' END",
    }  # fmt: skip
    pods = f"generate_series(1, {PODS}) pod(n)"
    fill(
        HourFact, pods, **common, pod="'train-' || pod.n || '-0'", container="'main'", resource="'nvidia.com/gpu'",
        flavour_id=str(world.flavour.pk), flavour_name="'A100'", gpu_model=f"'{MODEL}'", revision="1",
        # One in ten starts somewhere in the hour.
        spans="CASE WHEN mod(pod.n, 10) = 0 THEN ARRAY[mod(pod.n, 3599) * 1000, 3600000, 1]"
        " ELSE ARRAY[0, 3600000, 1] END",
        allocated_unit_ms="CASE WHEN mod(pod.n, 10) = 0 THEN 3600000 - mod(pod.n, 3599) * 1000 ELSE 3600000 END",
        allocated_gpu_ms="CASE WHEN mod(pod.n, 10) = 0 THEN 3600000 - mod(pod.n, 3599) * 1000 ELSE 3600000 END",
    )  # fmt: skip
    for resource, quantity in RESOURCES.items():
        fill(ResourceFact, pods, **common, resource=f"'{resource}'", quantity_ms=quantity, revision="1")
    fill(
        CapacityLine, "generate_series(1, 1) pod(n)", hour=common["hour"], cluster_id=common["cluster_id"],
        gpu_model=f"'{MODEL}'", flavour_id=str(world.flavour.pk), kind="'unsold'", gpu_ms="36000000", revision="1",
    )  # fmt: skip


def _resource_rate(world: World, resource: str, start: datetime, end: datetime | None = None) -> Rate:
    valid = type(world.rate.valid)(start, end, "[)") if world.rate else None
    return Rate.objects.create(
        card=world.card, cluster=world.cluster, resource=resource, amount="0.01", currency="USD", valid=valid
    )


def _database_cpu() -> float:
    """CPU seconds of the connection's server process; 0 where it does not run on this machine."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        path = Path(f"/proc/{cursor.fetchone()[0]}/stat")
    if not path.exists():
        return 0.0
    spent = path.read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, spent)) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("what", ["whole", "one resource", "everything"])
def test_an_hour_is_priced(db: Any, what: str) -> None:
    """Whole: no price begins in the hour. One resource: that of a core. Everything: each price but that of egress."""
    change = HOUR + timedelta(minutes=20)
    with clock.frozen(HOUR + timedelta(hours=4)):
        world = make_world([], gpus=PODS, since=SINCE)
        assert world.rate is not None
        if what == "everything":
            Rate.objects.filter(pk=world.rate.pk).update(valid=type(world.rate.valid)(SINCE, change, "[)"))
            add_rate(world.card, world.flavour, "2.95", change)
        split = {"whole": [], "one resource": ["cpu"], "everything": ["cpu", "memory"]}[what]
        for resource in RESOURCES:
            if resource in split:
                _resource_rate(world, resource, SINCE, change)
            _resource_rate(world, resource, change if resource in split else SINCE)
        for table in ("metering_hourfact", "metering_capacityline", "metering_resourcefact", "costs_charge"):
            ensure_month(table, HOUR)
        _write(world, HOUR)
        analyze()
        written = Written(world.cluster.pk, [HOUR], [billing.day_of(HOUR)], [1])
        figures = []
        for _ in range(2):
            began, own, theirs = time.perf_counter(), time.process_time(), _database_cpu()
            pricing.price_hours(written)
            figures.append((time.perf_counter() - began, time.process_time() - own, _database_cpu() - theirs))
    print(
        f"\n{PODS:,} facts and {PODS * len(RESOURCES):,} resource facts, {what} split: priced in {figures[0][0]:.1f} s"
        f" (CPU {figures[0][1]:.1f} s of the portal, {figures[0][2]:.1f} s of the database), again in"
        f" {figures[1][0]:.1f} s (CPU {figures[1][1]:.1f} + {figures[1][2]:.1f} s; target {TARGET_SECONDS} s of CPU);"
        f" {Charge.objects.count():,} charges, {DayCharge.objects.count():,} daily;"
        f" {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    with connection.cursor() as cursor:
        cursor.execute("SELECT sum(quantity_ms), count(*) FILTER (WHERE rate_id IS NULL) FROM costs_charge")
        charged = cursor.fetchone()
        cursor.execute(
            "SELECT (SELECT sum(allocated_unit_ms) FROM metering_hourfact) + (SELECT sum(quantity_ms) FROM"
            " metering_resourcefact) + (SELECT sum(gpu_ms) FROM metering_capacityline)"
        )
        assert charged == (cursor.fetchone()[0], 0)
    assert figures[0][1] + figures[0][2] <= TARGET_SECONDS
