"""What the second wall costs: time in the database of the lists people open, with row security on and off."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.urls import reverse

from apps.approvals.models import ApprovalRequest
from apps.catalogue.models import Model, ModelVersion
from apps.clusters.models import Pool
from apps.core import clock
from apps.core.bootstrap import OWNER_ROLE
from apps.core.row_security import POLICY
from apps.costs.models import Period, Statement
from apps.metering import billing
from apps.quotas.models import QuotaRequest
from tests.bench import volume
from tests.bench.test_pages import NOW, plain_templates  # noqa: F401 (a fixture)
from tests.factories import client_for, make_user

pytestmark = pytest.mark.bench
#: Times a page is asked for; the quickest counts. More than this a page may not take longer, in per cent or ms.
TIMES, MORE_PERCENT, MORE_MS = 15, 50, 10.0


def _build() -> volume.Enterprise:
    """The enterprise of the other benchmarks without its usage, with 2,000 models and two years of statements."""
    made = volume.Enterprise(
        make_user("platform-admin@example.com"), make_user("group-owner@example.com"), make_user("lead@example.com")
    )
    start = billing.day_start(billing.month_of(NOW))
    volume._people(made)
    volume._supply(made, start)
    volume._workspaces(made, start)
    volume._requests(made, NOW)
    for number in range(24):
        month = date(2024 + number // 12, number % 12 + 1, 1)
        begin = NOW - timedelta(days=700 - 30 * number)
        Period.objects.create(month=month, start=begin, end=begin + timedelta(days=30), status="closed", currency="USD")
    with volume.unchecked():
        _statements()
    volume.fill(
        Model, "teams_team t CROSS JOIN generate_series(1, 10) k", team_id="t.id", slug="t.slug || '-model-' || k",
        name="t.name || ' model ' || k", purpose="'Scores payments.'",
    )  # fmt: skip
    volume.fill(
        ModelVersion, "catalogue_model m CROSS JOIN generate_series(1, 3) k", model_id="m.id", number="k",
        label="k || '.0.0'", scheme="'s3'", location="'s3://models/' || m.id", author_id=str(made.lead.pk),
        last_editor_id=str(made.lead.pk),
    )  # fmt: skip
    volume.analyze()
    return made


def _statements() -> None:
    volume.fill(
        Statement, "teams_team t JOIN teams_unit u ON u.id = t.unit_id CROSS JOIN costs_period p", period_id="p.id",
        number="'S-' || p.id || '-' || t.id", owner_kind="'team'", team_id="t.id", unit_id="u.id", unit_path="u.path",
        team_name="t.name", unit_name="u.name", cost_centre="t.cost_centre", own_amount="100", amount="120",
        currency="'USD'", digest="repeat('0', 64)", issued_at="p.end",
    )  # fmt: skip


@contextmanager
def _row_security(on: bool) -> Iterator[None]:
    """Switch row security as the owner, for the block, on every table behind the wall."""

    def switch(word: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET ROLE {OWNER_ROLE}")
            cursor.execute("SELECT polrelid::regclass::text FROM pg_policy WHERE polname = %s", [POLICY])
            for (name,) in cursor.fetchall():
                cursor.execute(f"ALTER TABLE {name} {word} ROW LEVEL SECURITY")
            cursor.execute("RESET ROLE")
            cursor.execute(f"SET ROLE {connection.settings_dict['OPTIONS'].get('assume_role') or 'NONE'}")

    if not on:
        switch("DISABLE")
    try:
        yield
    finally:
        if not on:
            switch("ENABLE")


def _in_database(client: Client, path: str) -> tuple[float, float]:
    """Return (all statements, those of the wall itself) of a page, in milliseconds, the quickest of several.

    The quickest, since what else the machine does only ever adds.
    """
    took: list[tuple[float, float]] = []
    for _ in range(TIMES):
        spent = [0.0, 0.0]

        def timed(execute: Callable[..., Any], sql: str, *rest: Any, spent: list[float] = spent) -> Any:
            began = time.perf_counter()
            try:
                return execute(sql, *rest)
            finally:
                passed = (time.perf_counter() - began) * 1000
                spent[0] += passed
                spent[1] += passed if sql.startswith("SELECT set_config('commons.") else 0.0

        with connection.execute_wrapper(timed):
            assert client.get(path).status_code == 200, path
        took.append((spent[0], spent[1]))
    return min(took)


@pytest.mark.requirement("row-security-4.1")
def test_what_the_wall_costs(transactional_db: None, plain_templates: None) -> None:  # noqa: F811 (the fixture)
    with clock.frozen(NOW):
        made = _build()
        counts = {model.__name__: model.objects.count() for model in (QuotaRequest, ApprovalRequest, Model, Statement)}
        print("\n" + ", ".join(f"{count:,} {name}" for name, count in counts.items()))
        pool = reverse(
            "quotas:pool-detail",
            kwargs={"pool_uid": Pool.objects.filter(cluster__workspaces__team__slug="team-000")[0].uid},
        )
        people = {"lead of a team": made.lead, "owner of 200 teams": made.owner, "platform admin": made.admin}
        pages = {
            "quota requests": "/quotas/requests/",
            "inbox": "/approvals/requests/?waiting=me",
            "models": "/catalogue/models/",
            "versions": "/catalogue/versions/",
            "statements": "/costs/statements/",
            "pool": pool,
            "home": "/",
        }
        slow = []
        for who, person in people.items():
            client = client_for(person)
            for name, path in pages.items():
                with _row_security(on=False):
                    before, _ = _in_database(client, path)
                after, own = _in_database(client, path)
                print(f"  {name:15} {who:20} off {before:6.1f} ms, on {after:6.1f} ms (the wall's own {own:.1f} ms)")
                if after > before * (1 + MORE_PERCENT / 100) + MORE_MS:
                    slow.append(f"{name}, {who}: {before:.1f} → {after:.1f} ms")
    print(f"  {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    assert not slow, slow
