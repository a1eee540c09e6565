"""Import of the whole Philly trace: 82,247 jobs, 978,078 GPU-hours, from the file to priced facts and roll-ups."""

from __future__ import annotations

import os
import platform
import resource
import time
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, transaction
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from apps.core import clock
from apps.core.actor import Actor
from apps.costs.models import Charge
from apps.metering import due
from apps.metering.importing import import_intervals
from apps.metering.imports import parse
from apps.metering.models import HourFact, Source
from apps.metering.rows import copy_line
from tests.metering.test_philly import DATA, SINCE, needs_data
from tests.metering.world import make_world

pytestmark = pytest.mark.bench
TARGET_SECONDS = 60


@needs_data
def test_import_of_the_whole_trace(db: Any) -> None:
    make_world([], gpus=1300, rate="1.20", since=SINCE).source.delete()
    load = os.getloadavg()[0]
    began = time.perf_counter()
    call_command(
        "import_usage",
        str(DATA / "philly_2017_jobs.csv.gz"),
        cluster="dc1",
        epoch="2017-09-01",
        stdout=StringIO(),
    )
    took = time.perf_counter() - began
    facts, charges = HourFact.objects.count(), Charge.objects.count()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(
        f"\n82,247 jobs: {took:.1f} s (target {TARGET_SECONDS} s), {facts:,} facts, {charges:,} charges,"
        f" peak {peak} MiB; {platform.machine()}, {os.cpu_count()} cores, load before {load:.1f}"
    )
    assert took <= TARGET_SECONDS


PODS = int(os.environ.get("COMMONS_BENCH_PODS", "100000"))
TARGET_RATIO = 10.0


def _bare_copy(source_id: int, intervals: list[Any]) -> float:
    """Return the seconds of a COPY of the same rows into the same table, its indexes and constraints, then undone."""
    lines = "".join(
        copy_line(
            (source_id, i.key, i.workload, i.namespace, i.units, i.flavour, i.start_ms, i.end_ms, i.used_permille)
        )
        + "\n"
        for i in intervals
    )
    columns = "source_id, key, workload, namespace, units, flavour, start_ms, end_ms, used_permille"
    with transaction.atomic(), connection.cursor() as cursor:
        began = time.perf_counter()
        with cursor.copy(f"COPY metering_usageinterval ({columns}) FROM STDIN") as copy:
            copy.write(lines)
        took = time.perf_counter() - began
        transaction.set_rollback(True)
    return took


@pytest.mark.requirement("metering-4.1")
def test_an_hour_of_a_hundred_thousand_pods(db: Any) -> None:
    """From the file's bytes to stored intervals within ten times a bare COPY of the same rows; then to facts."""
    world = make_world([], gpus=PODS, rate="1.20")
    world.source.delete()
    file = "workload,namespace,gpus,start,end,utilisation\n" + "".join(
        f"train-{index:06d},team-{index % 997:03d},1,2026-11-10T10:00:{index % 60:02d}Z,2026-11-10T11:00:00Z,"
        f"{index % 100}\n"
        for index in range(PODS)
    )
    chunks = [file[at : at + 65536].encode() for at in range(0, len(file), 65536)]
    load = os.getloadavg()[0]
    warm = Source.objects.create(cluster=world.cluster, kind="csv", name="Warm", valid=DateTimeTZRange(SINCE, SINCE))
    began = time.perf_counter()
    parsed = parse(chunks, now=clock.now())
    parsing = time.perf_counter() - began
    bare = min(_bare_copy(warm.pk, parsed.intervals) for _ in range(2))
    warm.delete()
    began = time.perf_counter()
    run = import_intervals(world.cluster.pk, parsed, actor=Actor.system("bench"))
    storing = time.perf_counter() - began
    began = time.perf_counter()
    assert due.ingest_due(only=run.source_id) == 1
    metering = time.perf_counter() - began
    ratio = (parsing + storing) / bare
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(
        f"\n{PODS:,} rows: bare COPY {bare:.2f} s; parse {parsing:.2f} s, store {storing:.2f} s: {ratio:.1f} × (target"
        f" {TARGET_RATIO:.0f} ×); metered, priced and rolled up in {metering:.1f} s more; peak {peak} MiB;"
        f" {platform.machine()}, {os.cpu_count()} cores, load before {load:.1f}"
    )
    assert run.report["taken"] == PODS
    assert HourFact.objects.count() == PODS
    assert ratio <= TARGET_RATIO
