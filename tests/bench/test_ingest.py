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
from django.db import connection
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange
from django.db.models import Count

from apps.core import clock
from apps.core.actor import Actor
from apps.costs.models import Charge
from apps.demo.cluster import SimulatedCluster
from apps.metering import actions, due
from apps.metering.models import HourFact, ResourceFact, Source
from apps.metering.sources.base import ms
from apps.metering.sources.prometheus import PrometheusAdapter
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
        family(
            "kube_node_status_capacity",
            (
                (f'node="{n}",{resource}', amount)
                for n in nodes
                for resource, amount in ((gpu, PER_NODE), ('resource="cpu"', 128), ('resource="memory"', 1 << 40))
            ),
        )
        family("kube_node_labels", ((f'node="{n}",label_nvidia_com_gpu_product="{MODEL}"', 1) for n in nodes))
        family(
            "kube_pod_container_resource_requests",
            (
                (f'{own},container="main",{resource},node="{nodes[n // PER_NODE]}"', amount)
                for n, own in pods()
                for resource, amount in ((gpu, 1), ('resource="cpu"', 12), ('resource="memory"', 96 << 30))
            ),
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
        family("DCGM_FI_DEV_FB_USED", ((
            f'UUID="GPU-{n}",{exporter},exported_namespace="team-{n % 50}",exported_pod="p{n}",'
            'exported_container="main"', 40_000) for n in range(PODS)))  # fmt: skip
        family(
            "kube_pod_labels",
            ((f'{own},label_gpu_commons_project="project-{n % 200}",label_app="x"', 1) for n, own in pods()),
        )

        def counter(name: str, rows: Any, per_second: int) -> None:
            """Counters as the kubelet tells them: one sample every 60 s."""
            file.write(f"# TYPE {name} gauge\n")
            for labels in rows:
                head = f"{name}{{{labels}}} "
                file.write("".join(f"{head}{(at - base + 900) * per_second} {at}\n" for at in kubelet))

        kubelet = range(base - SCRAPE + 17, base + 3600 + SCRAPE, 60)
        running = [f'namespace="team-{n % 50}",pod="p{n}"' for n in range(PODS)]
        cores = (f'{own},container="main",id="/kubepods/{n}"' for n, own in enumerate(running))
        counter("container_cpu_usage_seconds_total", cores, 9)
        family("container_memory_working_set_bytes", ((f'{own},container="main"', 80 << 30) for own in running))
        counter("container_network_transmit_bytes_total", (f'{own},interface="eth0"' for own in running), 1_000_000)
        family(
            "kube_persistentvolumeclaim_resource_requests_storage_bytes",
            ((f'namespace="team-{n % 50}",persistentvolumeclaim="data-{n}"', 1 << 40) for n in range(2_000)),
        )
        file.write("# EOF\n")


@needs_prometheus
def test_ten_thousand_pods_in_an_hour(db: Any, tmp_path: Path) -> None:
    write(tmp_path / "hour.om")
    blocks([tmp_path / "hour.om"], tmp_path / "tsdb")
    world = make_world([], gpus=PODS)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    load = os.getloadavg()[0]
    with connection.cursor() as cursor:
        # The test's own transaction is open while the source is read; the portal's is not.
        cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
    with prometheus(tmp_path / "tsdb", lookback=f"{SCRAPE}s") as url, clock.frozen(START + timedelta(hours=4)):
        Source.objects.filter(pk=world.source.pk).update(kind="prometheus", url=url)
        began, own = time.perf_counter(), time.process_time()
        adapter = PrometheusAdapter(url)
        run = actions.ingest_hours(
            world.source.pk, START, START + timedelta(hours=1), actor=Actor.system("bench"), adapter=adapter
        )
        adapter.close()
        took, own = time.perf_counter() - began, time.process_time() - own
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(
        f"\n10,000 pods, one hour: {took:.1f} s (target {TARGET_SECONDS} s; {own:.1f} s of it the portal's own CPU),"
        f" {adapter.requests - adapter.resource_requests} + {adapter.resource_requests} requests,"
        f" {run.response_bytes / 1e6:.0f} MB read, peak {peak} MiB (target {TARGET_MIB} MiB; {before} MiB before);"
        f" {platform.machine()}, {os.cpu_count()} cores, load before {load:.1f}"
    )
    assert run.error == ""
    assert HourFact.objects.count() == PODS
    assert Charge.objects.filter(kind="unattributed", gpu_ms=3_600_000).count() == PODS
    assert HourFact.objects.exclude(used_gpu_ms=None).count() == PODS
    assert HourFact.objects.filter(project="", gpu_memory_mib=None).count() == 0
    assert dict(ResourceFact.objects.values_list("resource").annotate(rows=Count("uid")).order_by()) == {
        "cpu": PODS, "memory": PODS, "egress": PODS, "storage": 2_000,
    }  # fmt: skip
    assert adapter.requests - adapter.resource_requests <= 8
    assert adapter.resource_requests <= 8
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
