"""The sample company on a simulated cluster of its own, with one clock for portal and cluster."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from django.db import connection
from django.test import Client

from apps.accounts.models import User
from apps.approvals import actions as approvals
from apps.approvals.models import ApprovalRequest
from apps.audit.models import AuditEvent
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.clusters.models import Cluster, Flavour
from apps.core import clock
from apps.core.actor import Actor
from apps.demo import company, seed
from apps.demo.cluster import SimulatedCluster
from apps.demo.cluster.history import DEFAULT_FILE
from apps.quotas import actions as quotas
from apps.quotas.models import QuotaRequest, Workspace
from tests.cluster.fixtures import client_of
from tests.factories import client_for

#: Monday, 5 October 2026: the month before it, September, has thirty days.
NOW = datetime(2026, 10, 5, 9, tzinfo=UTC)
REASON = "Nightly fraud training for the quarter end."
GPU = "requests.nvidia.com/gpu"


@dataclass
class Now:
    """The simulated cluster's clock: its threads do not see the frozen clock of the test."""

    at: datetime = NOW

    def __call__(self) -> datetime:
        return self.at


@dataclass
class Stage:
    """A simulated cluster and the clock it goes by."""

    cluster: SimulatedCluster
    now: Now
    folder: Path

    def advance(self, by: timedelta) -> datetime:
        """Let time pass for portal and cluster."""
        self.now.at = clock.advance(by)
        return self.now.at


def history(change: Callable[[dict[str, Any]], None] | None, folder: Path) -> Path:
    """Write a copy of the sample company's history, changed by `change`; returns the file."""
    rules: dict[str, Any] = json.loads(DEFAULT_FILE.read_text("utf-8"))
    if change is not None:
        change(rules)
    target = folder / "history.json"
    target.write_text(json.dumps(rules), "utf-8")
    return target


def without_workloads(rules: dict[str, Any]) -> None:
    """A cluster on which nothing ran yet."""
    rules["workloads"] = []


@contextmanager
def staged(folder: Path, change: Callable[[dict[str, Any]], None] | None = None, at: datetime = NOW) -> Iterator[Stage]:
    """Run a simulated cluster on a (changed) history until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    now = Now(at)
    with SimulatedCluster(
        folder / "cluster", history_file=history(change, folder), clock=now, bookmark_seconds=0.5
    ) as cluster:
        yield Stage(cluster, now, folder)


def context_of(stage: Stage) -> seed.Context:
    """What the launcher passes to the seeding command."""
    kubeconfig = stage.cluster.write_kubeconfig(stage.folder / "kubeconfig")
    return seed.Context(
        kubeconfig=kubeconfig,
        allocation_url=stage.cluster.allocation_url,
        tokens_file=stage.folder / "cluster" / "tokens.json",
    )


@dataclass
class World:
    """The seeded sample company."""

    stage: Stage
    context: seed.Context
    clients: dict[str, Client] = field(default_factory=dict)

    @property
    def simulated(self) -> SimulatedCluster:
        return self.stage.cluster

    @property
    def cluster(self) -> Cluster:
        return self.context.cluster

    @property
    def flavour(self) -> Flavour:
        return self.context.flavour

    @property
    def live(self) -> KubernetesClient:
        """A look at the cluster beside the portal."""
        return client_of(self.stage.cluster)

    def user(self, key: str) -> User:
        return self.context.users[key]

    def actor(self, key: str) -> Actor:
        return Actor.of(self.user(key))

    def client(self, key: str) -> Client:
        """The browser of a person, signed in."""
        if key not in self.clients:
            self.clients[key] = client_for(self.user(key))
        return self.clients[key]

    def workspace(self, team: str = "finance") -> Workspace:
        """The workspace that the sample company gave the team."""
        return Workspace.objects.filter(team__slug=team).earliest("pk")

    def form(self, team: str = "finance", **changes: Any) -> dict[str, Any]:
        """What a lead types into the request form."""
        values: dict[str, Any] = {
            "workspace": self.workspace(team).pk,
            "flavour": self.flavour.pk,
            "guaranteed": 8,
            "borrow_mode": "none",
            "borrow_limit": "",
            "valid_from": "",
            "valid_until": "",
            "reason": REASON,
        }
        return values | changes

    def ask(self, team: str = "finance", guaranteed: int = 8, **changes: Any) -> QuotaRequest:
        """Request quota as the team's lead."""
        values: dict[str, Any] = {
            "workspace_id": self.workspace(team).pk,
            "flavour_id": self.flavour.pk,
            "guaranteed": guaranteed,
            "borrow_mode": "none",
            "borrow_limit": 0,
            "valid_from": None,
            "valid_until": None,
            "reason": REASON,
        }
        return quotas.request_quota(**(values | changes), actor=self.actor(f"{team}-lead"))

    def approve(self, request: QuotaRequest, by: str = "vp") -> QuotaRequest:
        """Decide as the unit's owner."""
        request.refresh_from_db()
        approval = ApprovalRequest.objects.get(pk=request.approval_id)
        approvals.decide(
            approval.pk, "approve", "Within the plan.", actor=self.actor(by), expected_digest=approval.subject_digest
        )
        request.refresh_from_db()
        return request

    def hard(self, team: str = "finance") -> str | None:
        """The GPU limit of the team's namespace, read from the cluster itself; None: there is no such quota."""
        found = self.live.list("ResourceQuota", namespace=self.workspace(team).namespace).items
        limits = [item["spec"]["hard"][GPU] for item in found if GPU in item["spec"]["hard"]]
        return limits[0] if limits else None


def seeded(stage: Stage, *, steps: tuple[seed.Step, ...] = seed.STEPS) -> World:
    """Make the sample company through the actions that the demo's seeding calls. The clock must be frozen."""
    world = World(stage, context_of(stage))
    for _ in seed.run(world.context, steps):
        continue
    return world


#: Without the history of a year to read, and without what the teams held before.
FRESH = tuple(step for step in seed.STEPS if step.run not in (seed.source, seed.workspaces))


def fresh(stage: Stage) -> World:
    """The sample company as it stands on its first day: workspaces, and nothing in them."""
    world = seeded(stage, steps=FRESH)
    for plan in company.TEAMS:
        team = world.user(plan.lead).memberships.get().team
        quotas.create_workspace(team.pk, world.cluster.pk, plan.environment, plan.data_classes, actor=seed.SEEDER)
    return world


def until(condition: Callable[[], Any], seconds: float = 60.0, what: str = "") -> Any:
    """Poll `condition` until it holds and return its value. Raises AssertionError when the time is up."""
    deadline = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what or condition}"
        time.sleep(0.02)


def seal() -> None:
    """Let the deferred trigger chain the audit events of a test whose transaction never commits."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("SET CONSTRAINTS ALL DEFERRED")


def trail(*, since: int = 0) -> list[str]:
    """The audited actions in the order of the chain, after link number `since`."""
    seal()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT e.action FROM audit.link l"
            " JOIN audit.event e ON e.id = l.event_id AND e.occurred_at = l.occurred_at"
            " WHERE l.seq > %s ORDER BY l.seq",
            [since],
        )
        return [action for (action,) in cursor.fetchall()]


def in_order(expected: list[str], actions: list[str]) -> bool:
    """Whether `expected` is a subsequence of `actions`."""
    rest = iter(actions)
    return all(one in rest for one in expected)


def counts() -> dict[str, int]:
    """How many rows every table of the portal holds, audit included; what a refused input must not change."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname IN ('public', 'audit') AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY 1"
        )
        tables = [name for (name,) in cursor.fetchall()]
        cursor.execute(" UNION ALL ".join(f"SELECT '{name}', count(*) FROM {name}" for name in tables))  # noqa: S608 (names from the catalogue)
        return dict(cursor.fetchall())


__all__ = [
    "NOW",
    "REASON",
    "AuditEvent",
    "Stage",
    "World",
    "context_of",
    "counts",
    "fresh",
    "in_order",
    "seal",
    "seeded",
    "staged",
    "trail",
    "until",
    "without_workloads",
]  # fmt: skip
