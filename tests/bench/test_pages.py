"""Server time of the pages people open most, with an enterprise's year behind them."""

from __future__ import annotations

import os
import platform
import time

import pytest
from django.db import connection
from django.template.base import Template
from django.test import Client
from django.test.utils import CaptureQueriesContext

from apps.core import clock, memory
from tests.bench import volume
from tests.factories import client_for
from tests.metering.world import utc

pytestmark = pytest.mark.bench
NOW = utc(2026, 11, 18, 9, 20)
TARGET_MS, WARM, TIMES = 150, 3, 40
#: A team's page is no list: every room has its panel there.
REPORT, LIST, PANELS = 10, 20, 28


def counted(client: Client, path: str) -> int:
    """How many statements a page takes; savepoints and settings are none."""
    with CaptureQueriesContext(connection) as captured:
        assert client.get(path).status_code == 200, path
    skipped = ("SAVEPOINT", "RELEASE", "ROLLBACK", "SET ", "BEGIN", "COMMIT", "SELECT set_config")
    return sum(not query["sql"].startswith(skipped) for query in captured.captured_queries)


def p95(client: Client, path: str) -> float:
    """The 95th percentile of a page's time in the server, in milliseconds, from request to the last byte."""
    took = []
    for number in range(WARM + TIMES):
        began = time.perf_counter()
        response = client.get(path)
        assert response.content
        if number >= WARM:
            took.append((time.perf_counter() - began) * 1000)
    return sorted(took)[int(len(took) * 0.95) - 1]


def cpu_ms(client: Client, path: str, times: int = 11) -> float:
    """CPU of the portal's process for a page, in milliseconds, the median; the database's work is not in it."""
    took = []
    for _ in range(times):
        began = time.process_time()
        client.get(path)
        took.append((time.process_time() - began) * 1000)
    return sorted(took)[times // 2]


@pytest.fixture
def plain_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Render as production does: the test environment copies the context of every template and part of one."""
    monkeypatch.setattr(Template, "_render", lambda self, context: self.nodelist.render(context))


def test_pages_with_a_year_behind_them(transactional_db: None, plain_templates: None) -> None:
    began = time.perf_counter()
    with clock.frozen(NOW):
        made = volume.build(NOW)
        print(
            f"\n{volume.TEAMS} teams, {volume.CLUSTERS} clusters, {volume.MONTHS} months: "
            + ", ".join(f"{count:,} {what}" for what, count in made.rows.items())
            + f"; written in {time.perf_counter() - began:.0f} s"
        )
        admin, owner, lead = client_for(made.admin), client_for(made.owner), client_for(made.lead)
        pages = [
            ("home, owner of 200 teams", owner, "/", LIST),
            ("home, platform admin", admin, "/", LIST),
            ("home, team lead", lead, "/", LIST),
            ("team", lead, "/teams/team-000/", PANELS),
            ("unit of 200 teams", owner, "/units/enterprise/overview/", LIST),
            ("quota requests, all", admin, "/quotas/requests/", LIST),
            ("quota requests, a team's", lead, "/quotas/requests/", LIST),
            ("request form, one team", lead, "/quotas/requests/new/", LIST),
            ("request form, 200 teams", owner, "/quotas/requests/new/", LIST),
            ("approvals", owner, "/approvals/requests/?waiting=me", LIST),
            ("pools", lead, "/quotas/pools/", LIST),
            ("monthly report, 200 teams", owner, "/reports/monthly/enterprise/2026-10/", REPORT),
            ("monthly report, 20 teams", owner, "/reports/monthly/division-3/2026-10/", REPORT),
            ("ingest runs", admin, "/usage/runs/", LIST),
            ("clusters", admin, "/clusters/", LIST),
            ("charges", owner, "/costs/charges/", LIST),
        ]
        for _, client, path, _ in pages:
            assert client.get(path).status_code == 200, path
        memory.settle()  # as portal.wsgi does
        load = os.getloadavg()[0]
        slow, many = [], []
        for name, client, path, ceiling in pages:
            statements, took = counted(client, path), p95(client, path)
            print(f"  {name:28} p95 {took:6.1f} ms (target {TARGET_MS}), {statements:2} statements (at most {ceiling})")
            if took > TARGET_MS:
                slow.append(f"{name}: {took:.0f} ms")
            if statements > ceiling:
                many.append(f"{name}: {statements} statements, at most {ceiling}")
    print(f"  {platform.machine()}, {os.cpu_count()} cores, load before {load:.1f}, after {os.getloadavg()[0]:.1f}")
    assert not many, many
    assert not slow, slow
