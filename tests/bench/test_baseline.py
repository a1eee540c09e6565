"""CPU time of a cluster's baseline over a thousand workspaces: looked at, requested, approved, carried out."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from apps.approvals import actions as approvals
from apps.clusters import capabilities
from apps.clusters.capabilities import Capabilities, Kueue
from apps.core import clock
from apps.core.actor import Actor
from apps.provisioning.choices import DeclarationKind, DeclarationStatus
from apps.provisioning.manifests import render
from apps.provisioning.models import Declaration, DeclaredObject
from apps.quotas import baseline_look, book, change_granting, changes
from apps.quotas.choices import ChangeKind, RequestStatus
from apps.quotas.manifests import workspace_manifests
from apps.quotas.models import BaselineState, ChangeRequest, Quota, Workspace
from apps.teams.models import RoleGrant, Team
from tests.factories import Company, make_user
from tests.quotas.change_kinds import CHANGE_POLICY
from tests.rates.factories import make_cluster, make_flavour, make_pool

pytestmark = pytest.mark.bench
WORKSPACES = int(os.environ.get("COMMONS_BENCH_WORKSPACES", "1000"))
#: Seconds of CPU, of this process; a request that a person waits for, one transaction, and a portion of a sweep's.
LOOK, REQUEST, APPROVE, PORTION = 10.0, 15.0, 10.0, 3.0
REASON = "Kueue takes borrowed GPUs back from now on."


def fill(company: Company) -> Any:
    """A cluster without Kueue on which a thousand workspaces are declared and applied; Kueue has just been found."""
    cluster, flavour = make_cluster(), make_flavour()
    pool = make_pool(cluster, flavour, gpus=8 * WORKSPACES)
    unit = company.finance_team.unit
    Team.objects.bulk_create(
        Team(name=f"Team {n:04}", slug=f"team-{n:04}", unit=unit, colour=n % 12, cost_centre="CC-1")
        for n in range(WORKSPACES)
    )
    Workspace.objects.bulk_create(
        Workspace(team=team, cluster=cluster, environment="production", namespace=f"{team.slug}-production")
        for team in Team.objects.filter(slug__startswith="team-").order_by("slug")
    )
    spaces = list(Workspace.objects.filter(cluster=cluster).select_related("team__unit", "cluster").order_by("pk"))
    at = clock.now()
    since = DateTimeTZRange(at - timedelta(days=30), None, "[)")
    Quota.objects.bulk_create(Quota(workspace=one, flavour=flavour, guaranteed=4, valid=since) for one in spaces)
    numbers = book.numbers_of_cluster(spaces, at, queued=False)
    Declaration.objects.bulk_create(
        Declaration(cluster=cluster, kind=DeclarationKind.WORKSPACE, owner_uid=one.uid, team_id=one.team_id,
                    title=f"Workspace {one.namespace}", generation=1, observed_generation=1, declared_at=at,
                    status=DeclarationStatus.APPLIED)
        for one in spaces
    )  # fmt: skip
    owners = {row.owner_uid: row for row in Declaration.objects.filter(cluster=cluster)}
    rows = []
    for one in spaces:
        mine = numbers[one.pk]
        for item in render(workspace_manifests(book.spec_of(one, mine.limits, mine.shares))):
            rows.append(DeclaredObject(
                declaration=owners[one.uid], cluster=cluster, kind=item.key.kind, namespace=item.key.namespace,
                name=item.key.name, ordinal=item.ordinal, api_version=item.api_version, body=item.body,
                digest=item.digest, generation=1,
            ))  # fmt: skip
    DeclaredObject.objects.bulk_create(rows, batch_size=1000)
    cluster.kueue_mode = "jobs"
    cluster.kueue_namespace_labels = {"kueue.x-k8s.io/managed-namespace": "true"}
    found = Kueue(installed=True, api_versions=("v1beta2",))
    cluster.capabilities = capabilities.as_json(Capabilities(kueue=found, checked_at=at))
    cluster.save()
    assert pool.cluster_id == cluster.pk
    return cluster


def measured(name: str, target: float, work: Callable[[], Any]) -> tuple[Any, str]:
    """Run and print; returns what it returned, and in words by how much it missed its target."""
    with CaptureQueriesContext(connection) as queries:
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(
        f"  {name:28} {cpu:6.2f} s of CPU (target {target}), {wall:6.2f} s in all, {len(queries):5} statements,"
        f" load {os.getloadavg()[0]:.1f}"
    )
    return result, f"{name}: {cpu:.1f} s of CPU, at most {target}" if cpu > target else ""


def test_a_baseline_over_a_thousand_workspaces(company: Company) -> None:
    deputy = make_user("deputy")
    RoleGrant.objects.create(user=deputy, role="platform_admin", granted_by=company.admin)
    approvals.publish_policy("change", "Changes", "quotas.change", CHANGE_POLICY, actor=Actor.of(company.admin))
    cluster = fill(company)
    print(f"\n{WORKSPACES:,} workspaces, {DeclaredObject.objects.count():,} declared objects")
    missed = []

    due, late = measured("look", LOOK, lambda: baseline_look.look(cluster.pk))
    missed.append(late)
    assert due
    assert BaselineState.objects.get(cluster=cluster).workspaces == WORKSPACES
    _, late = measured("look, nothing new", 1.0, lambda: baseline_look.look(cluster.pk))
    missed.append(late)

    def ask() -> ChangeRequest:
        return changes.request_change(
            ChangeKind.BASELINE, cluster_id=cluster.pk, values={}, reason=REASON, actor=Actor.of(company.admin)
        )

    change, late = measured("request", REQUEST, ask)
    missed.append(late)
    assert len(change.change["declarations"]) == WORKSPACES + 1
    change.refresh_from_db()

    def approve() -> None:
        with transaction.atomic():
            approvals.decide(
                change.approval.pk, "approve", "Read and agreed.", actor=Actor.of(deputy),
                expected_digest=change.approval.subject_digest,
            )  # fmt: skip

    _, late = measured("approve", APPROVE, approve)
    missed.append(late)
    portions, first = 0, ""
    spent = time.process_time()
    while True:
        made, late = (
            measured("a portion", PORTION, lambda: change_granting.carry_out(change.pk))
            if portions == 0
            else (change_granting.carry_out(change.pk), "")
        )
        first = first or late
        if not made:
            break
        portions += 1
    missed.append(first)
    spent = time.process_time() - spent
    print(f"  {'carried out':28} {spent:6.2f} s of CPU in {portions} portions")
    change.refresh_from_db()
    assert len(change.generations) == WORKSPACES + 1
    Declaration.objects.update(observed_generation=F("generation"), status=DeclarationStatus.APPLIED)
    assert change.status == RequestStatus.APPLYING
    assert Decimal(DeclaredObject.objects.filter(kind="ClusterQueue").count()) == WORKSPACES
    print(f"  machine: {os.cpu_count()} cores, {platform.machine()}")
    assert not [late for late in missed if late]
