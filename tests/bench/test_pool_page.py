"""Server time of a pool's page with a thousand workspaces in the pool, for a tenant and for an admin."""

from __future__ import annotations

import os
import platform
import random
import time
from datetime import timedelta
from typing import Any

import pytest
from django.template.base import Template
from django.urls import reverse

from apps.approvals import actions as approvals
from apps.approvals.models import ApprovalRequest, PolicyVersion
from apps.clusters.models import Node
from apps.core import clock, memory
from apps.core.actor import Actor
from apps.provisioning.models import Observation, WatchCursor
from apps.quotas.models import Quota, QuotaRequest, Workspace
from apps.teams.models import Team
from tests.bench.test_pages import LIST, TARGET_MS, TIMES, WARM, counted, p95
from tests.bench.volume import analyze
from tests.factories import client_for, grant, make_unit, make_user
from tests.metering.world import utc
from tests.quotas.conftest import POLICY
from tests.rates.factories import make_cluster, make_flavour, make_pool

pytestmark = pytest.mark.bench
NOW = utc(2026, 11, 18, 9, 20)
WORKSPACES, REQUESTS, NODES = 1000, 100, 500


def fill(people: dict[str, Any]) -> Any:
    """A pool of 4,000 GPUs: each workspace holds one quota or two that follow each other; a hundred ask for more."""
    dice = random.Random(4)
    cluster, flavour = make_cluster(), make_flavour()
    small = make_flavour(
        "a100-1g-10gb", sharing="mig", numerator=1, denominator=7, resource_name="nvidia.com/mig-1g.10gb"
    )
    pool = make_pool(cluster, flavour, small, gpus=8 * NODES)
    unit = make_unit("Enterprise")
    Team.objects.bulk_create(
        Team(name=f"Team {n:04}", slug=f"team-{n:04}", unit=unit, colour=n % 12, cost_centre="CC-1")
        for n in range(WORKSPACES)
    )
    teams = list(Team.objects.order_by("slug"))
    Workspace.objects.bulk_create(
        Workspace(team=team, cluster=cluster, environment="production", namespace=f"{team.slug}-production")
        for team in teams
    )
    spaces = list(Workspace.objects.order_by("namespace"))
    rows = []
    for space in spaces:
        start = NOW - timedelta(days=dice.randrange(1, 200))
        change = NOW + timedelta(days=dice.randrange(1, 120), minutes=dice.randrange(1440))
        two = dice.random() < 0.5
        chosen = small if dice.random() < 0.2 else flavour
        rows.append(Quota(workspace=space, flavour=chosen, guaranteed=dice.randrange(1, 4),
                          valid=(start, change if two or dice.random() < 0.5 else None)))  # fmt: skip
        if two:
            rows.append(Quota(workspace=space, flavour=chosen, guaranteed=dice.randrange(1, 4), valid=(change, None)))
    Quota.objects.bulk_create(rows)
    lead = people["lead"]
    QuotaRequest.objects.bulk_create(
        QuotaRequest(
            workspace=space, flavour=flavour, guaranteed=6, reason="More for the quarter.", requester=lead,
            valid_from=NOW + timedelta(days=number % 30), valid_until=NOW + timedelta(days=40 + number),
            recurrence={"days": [5], "start": "00:00", "minutes": 2880} if number % 10 == 0 else None,
            status="in_review" if number % 2 else "waiting_for_capacity",
        )
        for number, space in enumerate(spaces[:REQUESTS])
    )  # fmt: skip
    _line(pool)
    hard = {f"requests.{f.resource_name}": "4" for f in (flavour, small)} | {"requests.cpu": "256", "pods": "200"}
    used = dict.fromkeys(hard, "2")
    Observation.objects.bulk_create(
        Observation(cluster=cluster, kind="ResourceQuota", namespace=space.namespace, name="gpu-commons",
                    status={"hard": hard, "used": used}, observed_at=NOW)
        for space in spaces
    )  # fmt: skip
    WatchCursor.objects.create(cluster=cluster, kind="ResourceQuota", resource_version="1", seen_at=NOW)
    cut = {"nvidia.com/gpu": "4", "nvidia.com/mig-1g.10gb": "28"}
    Node.objects.bulk_create(
        Node(cluster=cluster, name=f"node-{n:04}", gpu_model=flavour.gpu_model, physical_gpus=8, observed_at=NOW,
             sharing="exclusive" if n % 5 else "mig", mig_strategy="mixed", gpu_memory_mib=81920,
             slices={} if n % 5 else {"1g.10gb": 28}, capacity={"nvidia.com/gpu": "8"} if n % 5 else cut,
             allocatable={"nvidia.com/gpu": "8"} if n % 5 else cut, labels=flavour.node_labels)
        for n in range(NODES)
    )  # fmt: skip
    grant(lead, "team_lead", team=teams[0])
    grant(people["admin"], "platform_admin")
    return pool


def _line(pool: Any) -> None:
    """Every other open request is approved and waits in the pool's line."""
    actor = make_user("publisher@example.com")
    grant(actor, "platform_admin")
    approvals.publish_policy("quota", "Quota", "quotas.request", POLICY, actor=Actor.of(actor))
    version = PolicyVersion.objects.get()
    for row in QuotaRequest.objects.filter(status="waiting_for_capacity").select_related("workspace__team"):
        row.estimate = {"delta_units": 3}
        row.approval = ApprovalRequest.objects.create(
            subject_type="quotas.request", subject_uid=row.uid, subject_digest="0" * 64, title="More",
            policy_version=version, status="waiting_for_capacity", requester=row.requester, team=row.workspace.team,
            unit=row.workspace.team.unit, queue=f"pool:{pool.uid}", submitted_at=NOW - timedelta(days=3),
        )  # fmt: skip
        row.save()


def test_a_pool_of_a_thousand_workspaces(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    # As production renders: the test environment copies the context of every template and part of one.
    monkeypatch.setattr(Template, "_render", lambda self, context: self.nodelist.render(context))
    people = {name: make_user(f"{name}@example.com") for name in ("lead", "admin")}
    with clock.frozen(NOW):
        pool = fill(people)
        analyze()
        pages = [
            ("pool, tenant", client_for(people["lead"]), reverse("quotas:pool-detail", kwargs={"pool_uid": pool.uid})),
            (
                "pool, admin",
                client_for(people["admin"]),
                reverse("clusters:pool-detail", kwargs={"pool_uid": pool.uid}),
            ),
            ("pools, tenant", client_for(people["lead"]), reverse("quotas:pool-list")),
        ]
        print(
            f"\n{WORKSPACES:,} workspaces, {Quota.objects.count():,} quotas, {REQUESTS} open requests, half of them in"
            f" the line, {NODES} nodes"
        )
        memory.settle()  # as portal.wsgi does
        load = os.getloadavg()[0]
        slow, many = [], []
        for name, client, path in pages:
            statements, cpu = counted(client, path), time.process_time()
            took = p95(client, path)
            cpu = (time.process_time() - cpu) * 1000 / (WARM + TIMES)
            print(
                f"  {name:28} p95 {took:6.1f} ms (target {TARGET_MS}), {cpu:5.1f} ms of CPU,"
                f" {statements:2} statements (at most {LIST})"
            )
            if took > TARGET_MS:
                slow.append(f"{name}: {took:.0f} ms")
            if statements > LIST:
                many.append(f"{name}: {statements} statements, at most {LIST}")
    print(f"  {platform.machine()}, {os.cpu_count()} cores, load before {load:.1f}, after {os.getloadavg()[0]:.1f}")
    assert not many, many
    assert not slow, slow
