"""The monthly report with a large enterprise behind it: 1,000 teams, 24 months of daily charges and usage.

Scale down with COMMONS_BENCH_TEAMS and COMMONS_BENCH_MONTHS. Facts are not written: no figure of the page reads them.
"""

from __future__ import annotations

import os
import time
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.template.base import Template
from django.test import Client
from django.test.utils import CaptureQueriesContext

from apps.core import clock, memory
from apps.costs import rollups
from apps.costs.models import DayCharge
from apps.insights.report_models import WorkloadMonth
from apps.metering import billing
from apps.metering.models import DayUsage, HourStatus
from tests.bench import volume
from tests.factories import client_for, make_user
from tests.metering.world import utc

pytestmark = pytest.mark.bench
NOW = utc(2026, 11, 18, 9, 20)
TEAMS = int(os.environ.get("COMMONS_BENCH_TEAMS", "1000"))
MONTHS = int(os.environ.get("COMMONS_BENCH_MONTHS", "24"))
TARGET_MS, WARM, TIMES, STATEMENTS = 150, 3, 40, 10
_SKIPPED = ("SAVEPOINT", "RELEASE", "ROLLBACK", "SET ", "BEGIN", "COMMIT", "SELECT set_config")


def fill() -> volume.Enterprise:
    """Write the company, its prices and its days; two clusters a team, three rows a day of each workspace."""
    began = time.perf_counter()
    start = billing.day_start(volume._months_before(billing.month_of(NOW), MONTHS - 1))
    made = volume.Enterprise(
        make_user("platform-admin@example.com"), make_user("group-owner@example.com"), make_user("lead@example.com")
    )
    volume._people(made)
    volume._supply(made, start)
    volume._workspaces(made, start)
    end = clock.hour_floor(NOW) - timedelta(hours=1)
    days = f"generate_series(DATE '{start.date()}', DATE '{end.date()}', interval '1 day') d"
    hours = f"generate_series('{start.isoformat()}'::timestamptz, '{end.isoformat()}', interval '1 hour') h"
    owner = {
        "team_id": "o.team_id", "unit_id": "o.unit_id", "team_name": "o.team_name", "unit_name": "o.unit_name",
        "cost_centre": "o.cost_centre", "cluster_id": "o.cluster_id", "flavour_id": "o.flavour_id",
        "gpu_model": f"'{volume.MODEL}'",
    }  # fmt: skip
    share = "(1 + o.workspace_id %% 6) * (20 + extract(day FROM d)::int) * 2160000::bigint"
    source = f"{volume._OWNER} CROSS JOIN {days}"
    with volume.unchecked():
        made.rows["day usage"] = volume.fill(
            DayUsage, source, **owner, workspace_id="o.workspace_id", day="d", allocated_gpu_ms=share,
            used_gpu_ms=f"{share} / 2", measured_gpu_ms=share, idle_gpu_ms=f"{share} / 9", workloads="1",
        )  # fmt: skip
        for kind in ("allocated", "reserved_unused"):
            made.rows[f"day charges, {kind}"] = volume.fill(
                DayCharge, source, **owner, day="d", kind=f"'{kind}'", rate_id="o.rate_id", quantity_ms=share,
                gpu_ms=share,
            )  # fmt: skip
        volume.fill(
            HourStatus, f"rates_rate r CROSS JOIN {hours}", cluster_id="r.cluster_id", hour="h", state="'final'",
            coverage_permille="1000", revision="1", facts="40",
        )  # fmt: skip
        made.rows["workloads"] = volume.fill(
            WorkloadMonth, f"{volume._OWNER} CROSS JOIN generate_series(DATE '{start.date()}', DATE '{end.date()}',"
            " interval '1 month') d", month="d", team_id="o.team_id", unit_id="o.unit_id", cluster_id="o.cluster_id",
            workspace_id="o.workspace_id", team_name="o.team_name", namespace="o.namespace", workload_kind="'Job'",
            workload_name="'training'", flavour_id="o.flavour_id", flavour_name="o.flavour", hours="700",
            allocated_gpu_ms="2520000000", allocated_unit_ms="2520000000", used_gpu_ms="1260000000",
            covered_gpu_ms="2520000000", idle_gpu_ms="360000000", savable_gpu_ms="180000000", idle_hours="100",
            currency="'USD'", product="9702000000", savable_product="693000000", amount="2695", last_hour="d",
            made_at="d",
        )  # fmt: skip
    print(f"\n  days written after {time.perf_counter() - began:.0f} s")
    every = [start.date() + timedelta(days=number) for number in range((end - start).days + 1)]
    with connection.cursor() as cursor:
        cursor.execute("SELECT id FROM clusters_cluster ORDER BY id")
        clusters = [pk for (pk,) in cursor.fetchall()]
    for cluster in clusters:
        rollups.roll_up(cluster, every)
    volume.analyze()
    return made


def measured(client: Client, path: str) -> tuple[int, float, float]:
    """Return how many statements a page takes, the 95th percentile of its time in the server, and its CPU, in ms."""
    with CaptureQueriesContext(connection) as captured:
        assert client.get(path).status_code == 200, path
    count = sum(not query["sql"].startswith(_SKIPPED) for query in captured.captured_queries)
    took, cpu = [], time.process_time()
    for number in range(WARM + TIMES):
        began = time.perf_counter()
        assert client.get(path).content
        if number >= WARM:
            took.append((time.perf_counter() - began) * 1000)
    cpu = (time.process_time() - cpu) * 1000 / (WARM + TIMES)
    return count, sorted(took)[int(len(took) * 0.95) - 1], cpu


@pytest.fixture
def plain_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Render as production does: the test environment copies the context of every template and part of one."""
    monkeypatch.setattr(Template, "_render", lambda self, context: self.nodelist.render(context))


@pytest.mark.requirement("monthly-report-2.8")
def test_report_of_a_thousand_teams(
    transactional_db: None, plain_templates: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volume, "TEAMS", TEAMS)
    monkeypatch.setattr(volume, "MONTHS", MONTHS)
    began = time.perf_counter()
    slow: list[Any] = []
    with clock.frozen(NOW):
        made = fill()
        print(f"\n{TEAMS} teams, {MONTHS} months: {made.rows}; written in {time.perf_counter() - began:.0f} s")
        client = client_for(made.owner)
        memory.settle()  # as portal.wsgi does
        for month in ("2026-10", "2026-11"):
            for unit in ("enterprise", "division-3"):
                count, took, cpu = measured(client, f"/reports/monthly/{unit}/{month}/")
                print(
                    f"  {unit} {month}: p95 {took:6.1f} ms (target {TARGET_MS}), {cpu:5.1f} ms of CPU,"
                    f" {count} statements"
                )
                assert count <= STATEMENTS
                if took > TARGET_MS:
                    slow.append((unit, month, took))
        print(f"  load {os.getloadavg()[0]:.1f}")
    assert not slow, slow
