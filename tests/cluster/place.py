"""The portal beside the API server under test: the cluster registered, teams whose namespaces the suite sweeps."""

from __future__ import annotations

from typing import Any

from apps.approvals import actions as approvals
from apps.clusters.actions import register_cluster
from apps.clusters.models import Cluster
from apps.core.actor import Actor
from apps.core.testing import settle
from apps.quotas.models import ChangeRequest
from tests.cluster.conftest import fresh
from tests.factories import Company
from tests.quotas.change_kinds import CHANGE_POLICY
from tests.quotas.conftest import World, make_world

#: What workers do for declarations and decisions. None of the sweeps that look at a whole cluster's baseline: what it
#: declares has names of its own, which the suite would not sweep.
WORK = (
    "provisioning.apply",
    "provisioning.make_plans",
    "quotas.roll",
    "quotas.carry_out",
    "quotas.replan",
    "approvals.",
)


def registered(kubeconfig: str) -> Cluster:
    """Register the cluster under test under a name of its own."""
    name = fresh()
    row: Cluster = register_cluster(name, slug=name, kubeconfig=kubeconfig, actor=Actor.system("tests"))
    return row


def made_world(company: Company, cluster: Cluster) -> World:
    """A pool of 50 A100, prices, policies and a workspace per team, in namespaces that the suite sweeps."""
    teams = company.teams
    for team in teams.values():
        team.slug = fresh()
        team.save()
    world = make_world(company, cluster)
    world.workspaces = {name: world.workspaces[team.slug] for name, team in teams.items()}
    approvals.publish_policy("change", "Changes", "quotas.change", CHANGE_POLICY, actor=Actor.of(company.admin))
    return world


def work(*more: str) -> None:
    """Let the workers finish what is due; `more` names further sweeps."""
    settle(only=(*WORK, *more))


def approved(world: World, change: ChangeRequest) -> ChangeRequest:
    """Approve a change as the unit's owner and have it carried out."""
    work()
    change.refresh_from_db()
    assert change.approval is not None
    approvals.decide(
        change.approval.pk, "approve", "Seen, and right.", actor=Actor.of(world.company.vp),
        expected_digest=change.approval.subject_digest,
    )  # fmt: skip
    work()
    change.refresh_from_db()
    return change


def hard(live: Any, namespace: str, name: str = "gpu-commons") -> dict[str, str]:
    """The limits of a namespace as its cluster says."""
    found: dict[str, str] = live.get("ResourceQuota", name, namespace)["spec"]["hard"]
    return found
