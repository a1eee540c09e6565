"""One cluster-hour of 10,000 GPU pods from a real Prometheus to priced facts: time, requests and memory."""

from __future__ import annotations

import os
import platform
import resource
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from apps.core import clock
from apps.core.actor import Actor
from apps.costs.models import Charge
from apps.demo.cluster import SimulatedCluster
from apps.metering import actions, due
from apps.metering.models import HourFact, Source
from apps.metering.sources.base import ms
from tests.metering.prom import blocks, needs_prometheus, prometheus
from tests.metering.world import MODEL, make_world, utc

pytestmark = [pytest.mark.bench, pytest.mark.prometheus]
START = utc(2026, 11, 10, 10)
PODS, PER_NODE, SCRAPE = 10_000, 8, 300
TARGET_SECONDS, TARGET_MIB = 30, 400


def write(path: Path) -> None:
    """Write an hour of kube-state-metrics and dcgm-exporter for the pods, straight to the file."""
    base = ms(START) // 1000
    times = [base + offset + 17 for offset in range(-SCRAPE, 3600 + SCRAPE, SCRAPE)]
    nodes = [f"n{number:04d}" for number in range(PODS // PER_NODE)]

    with path.open("w") as file:

        def family(name: str, rows: Any) -> None:
            file.write(f"# TYPE {name} gauge\n")
            for labels, value in rows:
                head = f"{name}{{{labels}}} {value} "
                file.write("".join(f"{head}{at}\n" for at in times))

        def pods(extra: str = "") -> Any:
            for number in range(PODS):
                yield number, f'namespace="team-{number % 50}",pod="p{number}",uid="uid-{number:06d}"{extra}'

        gpu = 'resource="nvidia_com_gpu",unit="integer"'
        family("kube_node_status_capacity", ((f'node="{n}",{gpu}', PER_NODE) for n in nodes))
        family("kube_node_labels", ((f'node="{n}",label_nvidia_com_gpu_product="{MODEL}"', 1) for n in nodes))
        family(
            "kube_pod_container_resource_requests",
            ((f'{own},container="main",{gpu},node="{nodes[n // PER_NODE]}"', 1) for n, own in pods()),
        )
        family("kube_pod_status_phase", ((own, 1) for _, own in pods(',phase="Running"')))
        family("kube_pod_start_time", ((own, base - 7200) for _, own in pods()))
        family(
            "kube_pod_info",
            ((f'{own},created_by_kind="Job",created_by_name="job-{n % 2000}"', 1) for n, own in pods()),
        )
        exporter = 'namespace="gpu-operator",pod="dcgm-exporter",container="exporter"'
        family(
            "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
            (
                (
                    f'UUID="GPU-{n}",{exporter},exported_namespace="team-{n % 50}",exported_pod="p{n}",'
                    'exported_container="main"',
                    f"0.{n % 90 + 10}",
                )
                for n in range(PODS)
            ),
        )
        file.write("# EOF\n")


@needs_prometheus
def test_ten_thousand_pods_in_an_hour(db: Any, tmp_path: Path) -> None:
    write(tmp_path / "hour.om")
    blocks([tmp_path / "hour.om"], tmp_path / "tsdb")
    world = make_world([], gpus=PODS)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    load = os.getloadavg()[0]
    with prometheus(tmp_path / "tsdb", lookback=f"{SCRAPE}s") as url, clock.frozen(START + timedelta(hours=4)):
        Source.objects.filter(pk=world.source.pk).update(kind="prometheus", url=url)
        began = time.perf_counter()
        run = actions.ingest_hours(world.source.pk, START, START + timedelta(hours=1), actor=Actor.system("bench"))
        took = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(
        f"\n10,000 pods, one hour: {took:.1f} s (target {TARGET_SECONDS} s), {run.requests} requests,"
        f" {run.response_bytes / 1e6:.0f} MB read, peak {peak} MiB (target {TARGET_MIB} MiB; {before} MiB before);"
        f" {platform.machine()}, {os.cpu_count()} cores, load before {load:.1f}"
    )
    assert run.error == ""
    assert HourFact.objects.count() == PODS
    assert Charge.objects.filter(kind="unattributed", gpu_ms=3_600_000).count() == PODS
    assert HourFact.objects.exclude(used_gpu_ms=None).count() == PODS
    assert run.requests <= 8
    assert took <= TARGET_SECONDS
    assert peak <= TARGET_MIB


def test_thirteen_months_from_the_allocation_api(db: Any, company: Any, tmp_path: Path) -> None:
    now = utc(2026, 11, 22, 9)
    start = utc(2025, 10, 1)
    world = make_world(company.teams.values(), slug="atlas")
    load = os.getloadavg()[0]
    with SimulatedCluster(tmp_path / "cluster", clock=lambda: now) as cluster, clock.frozen(now):
        valid = DateTimeTZRange(start, None, "[)")
        Source.objects.filter(pk=world.source.pk).update(url=cluster.allocation_url, valid=valid)
        began = time.perf_counter()
        hours = 0
        while moved := due.ingest_due():
            hours += moved
        took = time.perf_counter() - began
    print(
        f"\n13 months, {hours:,} hours, {HourFact.objects.count():,} facts by the sweep: {took:.1f} s (target 60 s);"
        f" {platform.machine()}, {os.cpu_count()} cores, load before {load:.1f}"
    )
    assert hours == int((now - start).total_seconds() // 3600) - 1
    assert took <= 60
