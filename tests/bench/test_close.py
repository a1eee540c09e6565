"""The close of a month of millions of facts: checklist, all statements, hashes, FOCUS; and what a million facts weigh.

COMMONS_BENCH_FACTS says how many (default 1,000,000; the target is for 10,000,000). The rows are written by the
database itself: 1,000 teams in 50 units on 5 clusters, one fact per pod and hour, one charge per fact.
"""

from __future__ import annotations

import os
import platform
import time
from datetime import date, timedelta
from tempfile import TemporaryFile
from typing import Any

import pytest
from django.db import connection

from apps.core import clock
from apps.core.actor import Actor
from apps.core.partitions import ensure_month
from apps.costs import focus, freezing, period_books, periods, pricing
from apps.costs.checklist import checklist
from apps.costs.models import Charge, Period, PricedHour, Statement, StatementLine
from apps.costs.statement_digests import digest_from_rows
from apps.metering.models import CapacityLine, HourFact, HourStatus
from apps.metering.writer import roll_up
from tests.bench.volume import analyze, fill, unchecked
from tests.factories import make_company, make_team, make_unit
from tests.metering.world import MODEL, make_world, utc

pytestmark = pytest.mark.bench
FACTS = int(os.environ.get("COMMONS_BENCH_FACTS", "1000000"))
TEAMS, UNITS, CLUSTERS, HOURS = 1000, 50, 5, 720
TARGET_SECONDS = 60
MONTH, START, END = date(2026, 9, 1), utc(2026, 9, 1), utc(2026, 10, 1)


@pytest.mark.requirement("periods-4.7")
def test_a_month_is_frozen(db: Any) -> None:
    company = make_company()
    units = [make_unit(f"Unit {number}", company.root) for number in range(UNITS)]
    teams = [make_team(f"Team {number}", units[number % UNITS], slug=f"team-{number}") for number in range(TEAMS)]
    pods = max(1, FACTS // (HOURS * CLUSTERS))
    worlds = [make_world([], gpus=pods + 10, since=START, slug=f"c{number}") for number in range(CLUSTERS)]
    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE place (n int PRIMARY KEY, team bigint, unit bigint, path bigint[])")
        cursor.executemany(
            "INSERT INTO place VALUES (%s, %s, %s, %s)",
            [(n, team.pk, team.unit_id, team.unit.path) for n, team in enumerate(teams)],
        )
    for table in ("metering_hourfact", "metering_capacityline", "costs_charge", "metering_resourcefact"):
        ensure_month(table, MONTH)
    began = time.perf_counter()
    with clock.frozen(END + timedelta(days=1)):
        for number, world in enumerate(worlds):
            with unchecked():
                _write(world, pods, number * pods)
            days = [MONTH + timedelta(days=number) for number in range(30)]
            roll_up(world.cluster.pk, days)
            pricing.roll_up(world.cluster.pk, days)
        written = time.perf_counter() - began
        analyze()
        periods.make_periods()
        period = Period.objects.get(month=MONTH)
        finance = Actor.of(company.finance)
        periods.start_closing(period.pk, actor=finance)
        began = time.perf_counter()
        checklist(period)
        checked = time.perf_counter() - began
        periods.close(period.pk, actor=finance)
        load = os.getloadavg()[0]
        began = time.perf_counter()
        assert freezing.freeze_due() == 1
        took = time.perf_counter() - began
    period.refresh_from_db()
    assert period.status == "closed", period.freeze_error
    began = time.perf_counter()
    with TemporaryFile() as file:
        told = focus.write(period, file)
        focus_bytes = file.tell()
    exported = time.perf_counter() - began
    assert told
    facts = HourFact.objects.count()
    assert Statement.objects.filter(owner_kind="team").count() == min(TEAMS, pods * CLUSTERS)
    statement = Statement.objects.filter(owner_kind="team").latest("pk")
    assert statement.digest == digest_from_rows(statement)
    weights = {name: _size(name) for name in ("metering_hourfact", "costs_charge", "metering_capacityline")}
    print(
        f"\n{facts:,} facts and {Charge.objects.count():,} charges of {TEAMS:,} teams: frozen in {took:.1f} s, the"
        f" checklist before it {checked:.1f} s, FOCUS by day {exported:.1f} s ({focus_bytes / 1e6:.0f} MB, checked by"
        f" its rules; target {TARGET_SECONDS} s together for 10,000,000);"
        f" {Statement.objects.count():,} statements, {StatementLine.objects.count():,} lines;"
        f" written in {written:.0f} s; per million facts: "
        + ", ".join(f"{name} {size / facts:,.0f} MB" for name, size in weights.items())
        + f"; {platform.machine()}, {os.cpu_count()} cores, load before {load:.1f}"
    )
    assert period_books.charged(period).count == 0
    assert checked + took + exported <= TARGET_SECONDS * max(1.0, facts / 10_000_000)


def _write(world: Any, pods: int, first: int) -> None:
    """Write a month of one cluster: facts, lines, charges and states, as ingest and pricing leave them."""
    hours = f"generate_series('{START:%Y-%m-%d}'::timestamptz, '{END:%Y-%m-%d}'::timestamptz - interval '1 h', '1 h') h"
    cluster, flavour, rate = str(world.cluster.pk), str(world.flavour.pk), str(world.rate.pk)
    owner = {
        "team_id": "p.team", "unit_id": "p.unit", "unit_path": "p.path", "cost_centre": "'CC-' || p.n",
        "team_name": "'Team ' || p.n", "unit_name": "'Unit ' || mod(p.n, 50)",
    }  # fmt: skip
    fill(
        HourFact,
        f"{hours} CROSS JOIN generate_series(0, {pods - 1}) pod(n) JOIN place p ON p.n = mod(pod.n + {first}, {TEAMS})",
        hour="h", cluster_id=cluster, **owner, namespace="'team-' || p.n", workload_key="'uid-' || pod.n",
        workload_name="'train-' || pod.n", pod="'train-' || pod.n || '-0'", node="'node-' || pod.n / 8",
        container="'main'", environment="'production'", workload_kind="'Job'", resource="'nvidia.com/gpu'",
        flavour_id=flavour, flavour_name="'H100'", gpu_model=f"'{MODEL}'", spans="'{0,3600000,1}'::int[]",
        allocated_unit_ms="3600000", allocated_gpu_ms="3600000", used_gpu_ms="1800000", coverage_permille="1000",
        source_id=str(world.source.pk), project="'p'",
    )  # fmt: skip
    line = {"hour": "h", "cluster_id": cluster, "gpu_model": f"'{MODEL}'", "flavour_id": flavour}
    for kind, gpus in (("physical", pods + 10), ("attributed", pods), ("unsold", 10)):
        fill(CapacityLine, hours, **line, kind=f"'{kind}'", gpu_ms=str(gpus * 3_600_000))
    charge = {"hour": "hour", "cluster_id": "cluster_id", "flavour_id": "flavour_id", "gpu_model": "gpu_model",
              "rate_id": rate, "fact_uid": "uid", "uid": "uid"}  # fmt: skip
    same = {name: name for name in owner}
    where = f"WHERE cluster_id = {cluster}"
    fill(
        Charge, f"metering_hourfact {where}", **charge, **same, kind="'allocated'", quantity_ms="allocated_unit_ms",
        gpu_ms="allocated_gpu_ms",
    )  # fmt: skip
    fill(
        Charge, f"metering_capacityline {where} AND kind = 'unsold'", **charge, kind="kind", quantity_ms="gpu_ms",
        gpu_ms="gpu_ms",
    )  # fmt: skip
    fill(HourStatus, hours, cluster_id=cluster, hour="h", state="'final'", revision="1", inputs_hash="md5(h::text)")
    fill(PricedHour, hours, cluster_id=cluster, hour="h", revision="1", priced_at="now()")


def _size(table: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits WHERE inhparent = %s::regclass", [table]
        )
        return int(cursor.fetchone()[0])
