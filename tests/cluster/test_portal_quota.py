"""The portal beside the cluster under test: adoption, the ladder, windows, the burst pool and the idle policy.

Time passes for the portal alone: the cluster's own clock goes on as it does.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from apps.clusters import capacity
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.clusters.models import Cluster
from apps.core import clock
from apps.core.actor import Actor
from apps.core.testing import settle
from apps.insights import idle, idle_actions
from apps.insights.choices import IdleStatus
from apps.provisioning import observing
from apps.quotas import adopting, recurrence
from apps.quotas.assess import Extras
from apps.quotas.changes import request_change
from apps.quotas.choices import ChangeKind, ReadingStatus, RequestStatus, Rung
from apps.quotas.models import Workspace
from apps.quotas.tasks import climb_ladder, drain_workspaces, read_namespaces, roll_quotas
from tests.cluster.conftest import await_that, fresh
from tests.cluster.fixtures import namespace
from tests.cluster.helpers import job
from tests.cluster.place import approved, hard, made_world, registered, work
from tests.cluster.test_portal_drift import create
from tests.factories import Company
from tests.insights import test_idle as idleness
from tests.metering import world as metering
from tests.provisioning.test_stopping import deployment, managers, owner_applies
from tests.quotas.conftest import World, make_rate
from tests.quotas.test_adopting import REASON, snapshot, theirs

pytestmark = [pytest.mark.cluster, pytest.mark.django_db]
GPU = "requests.nvidia.com/gpu"
SYSTEM = Actor.system("tests")
#: A Monday at noon.
MONDAY = datetime(2027, 1, 4, 12, tzinfo=UTC)
STOPS = ("provisioning.run_stop_orders",)


@pytest.fixture
def world(company: Company, kubeconfig: str, api: KubernetesClient) -> Iterator[World]:
    """The sample company with 50 A100 on the cluster under test, on a Monday at noon."""
    with clock.frozen(MONDAY):
        yield made_world(company, registered(kubeconfig))


def used(api: KubernetesClient, space: str) -> str:
    """How many GPUs are in use in a namespace, as its cluster says."""
    status = api.get("ResourceQuota", "gpu-commons", space).get("status") or {}
    return str((status.get("used") or {}).get(GPU, ""))


@pytest.mark.requirement("adoption-3.1", "adoption-2.1")
def test_a_namespace_is_adopted_and_nothing_of_theirs_changes(world: World, api: KubernetesClient) -> None:
    """Their objects stay as they are, byte for byte; ours come beside them; the limit is what they had."""
    Workspace.objects.filter(team=world.company.finance_team).delete()
    name, admin = fresh(), Actor.of(world.company.admin)
    labels = {"pod-security.kubernetes.io/enforce": "privileged"}
    bare = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    api.apply(bare, manager="their-tool")
    for manifest in theirs(name):
        if manifest["kind"] == "Pod":
            create(api, manifest)
        else:
            api.apply(manifest, manager="their-tool")
    before = snapshot(api, name)
    reading = adopting.request_reading(
        world.cluster.pk, name, world.company.finance_team.pk, "development", ["internal"], actor=admin
    )
    read_namespaces.run()
    reading.refresh_from_db()
    assert reading.status == ReadingStatus.DONE, reading.error
    change = adopting.request_adoption(reading.pk, {world.flavour.slug: 8}, REASON, actor=admin)
    approved(world, change)
    assert change.status == RequestStatus.ACTIVE
    assert hard(api, name)[GPU] == "8"
    assert before
    assert snapshot(api, name) == before
    space = api.get("Namespace", name)["metadata"]
    assert space["labels"]["gpu-commons/workspace"] == str(Workspace.objects.get(namespace=name).uid)
    assert {"their-tool", "gpu-commons"} <= {one["manager"] for one in space["managedFields"]}


@pytest.mark.requirement("quota-time-4.1", "quota-time-4.3", "quota-time-4.4")
def test_the_ladder_stops_admitting_drains_and_archives(world: World, api: KubernetesClient) -> None:
    """Nothing running is touched before its rung, and no namespace is ever deleted."""
    policy = {"last_rung": "archived", "drain_after_hours": 24, "archive_after_days": 30}
    change = request_change(
        ChangeKind.EXPIRY_POLICY, cluster_id=world.cluster.pk, workspace_id=world.workspaces["finance"].pk,
        values=policy, reason=REASON, actor=Actor.of(world["lead_finance"]),
    )  # fmt: skip
    approved(world, change)
    world.granted("finance", 4, valid_until=clock.now() + timedelta(days=10))
    work()
    space = world.workspaces["finance"].namespace
    assert hard(api, space)[GPU] == "4"
    create(api, job(space, "train", 1))
    await_that(lambda: used(api, space) == "1")

    def rung() -> tuple[str, str]:
        observing.observe_cluster(world.cluster.pk)
        roll_quotas.run()
        climb_ladder.run()
        work()
        return str(Workspace.objects.get(pk=world.workspaces["finance"].pk).rung), hard(api, space)[GPU]

    assert rung() == (Rung.NONE, "4")
    clock.advance(timedelta(days=10))
    assert rung() == (Rung.STOPPED_ADMITTING, "0")
    assert not api.get("Job", "train", space)["spec"].get("suspend")
    clock.advance(timedelta(hours=24))
    assert rung() == (Rung.DRAINED, "0")
    assert drain_workspaces.run() == 1
    settle(only=STOPS)
    assert api.get("Job", "train", space)["spec"]["suspend"] is True
    await_that(lambda: used(api, space) == "0")
    clock.advance(timedelta(days=31))
    assert rung() == (Rung.ARCHIVED, "0")
    assert hard(api, space)["pods"] == "0"
    assert api.get("Namespace", space)["status"]["phase"] == "Active"
    assert api.get("Job", "train", space)


def at(world: World, api: KubernetesClient, days: int, hour: int, key: str = GPU) -> str:
    """What a team's namespace may use on a day of the week after Monday."""
    clock.advance(MONDAY.replace(hour=hour) + timedelta(days=days) - clock.now())
    roll_quotas.run()
    work()
    return hard(api, world.workspaces["finance"].namespace)[key]


@pytest.mark.requirement("quota-time-1.4")
def test_windows_open_and_close_on_the_cluster(world: World, api: KubernetesClient) -> None:
    """Weekday nights: the quota below shows again in the morning."""
    world.granted("finance", 2)
    nights = Extras(recurrence=recurrence.PRESETS["nights"].plain())
    world.granted("finance", 30, valid_until=MONDAY + timedelta(days=14), extras=nights)
    work()
    times = ((0, 13), (0, 19), (1, 5), (1, 7), (1, 18))
    assert [at(world, api, *when) for when in times] == ["2", "30", "30", "2", "30"]


@pytest.mark.requirement("inventory-4.2", "inventory-4.4")
def test_a_burst_pool_is_promised_empty_and_its_nodes_come_and_go(world: World, api: KubernetesClient) -> None:
    """32 GPUs at weekends; nodes join for them and leave again, and the inventory says so each time."""
    product, resource = f"Burst-{fresh()[-6:]}", "example.com/burst"
    flavour = capacity.create_flavour("Burst", slug="burst", gpu_model=product, resource_name=resource, actor=SYSTEM)
    pool = capacity.create_pool(
        world.cluster.pk, product, actor=SYSTEM, flavour_ids=[flavour.pk], kind="elastic", max_gpus=32,
        startup_minutes=15,
    )  # fmt: skip
    capacity.set_committable(pool.pk, 32, clock.now(), actor=SYSTEM, reason="Framework agreement")
    make_rate(pool)

    def there() -> int | None:
        clock.advance(timedelta(minutes=1))
        settle(only=("clusters.probe",))
        pool.refresh_from_db()
        return pool.observed_gpus

    assert there() == 0
    world.granted("finance", 2)  # an everyday quota beside it, from another pool
    weekends = Extras(recurrence={"days": [5], "start": "00:00", "minutes": 48 * 60})
    request = world.granted(
        "finance", 32, flavour_id=flavour.pk, extras=weekends, valid_until=MONDAY + timedelta(weeks=2)
    )
    assert request.status == RequestStatus.SCHEDULED
    work()
    key = f"requests.{resource}"
    assert [at(world, api, *when, key) for when in ((4, 23), (5, 1))] == ["0", "32"]
    nodes = [fresh() for _ in range(4)]
    for name in nodes:
        api.create(_node(name, product, resource))
    assert there() == 32
    for name in nodes:
        api.delete("Node", name)
    assert there() == 0
    assert at(world, api, 7, 1, key) == "0"
    assert at(world, api, 7, 2) == "2"


def _node(name: str, product: str, resource: str) -> dict[str, Any]:
    amounts = {"cpu": "64", "memory": "512Gi", "pods": "110", resource: "8"}
    labels = {"nvidia.com/gpu.product": product, "nvidia.com/gpu.count": "8"}
    return {
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels},
        "spec": {"taints": [{"key": "gpu-commons-test/none", "effect": "NoSchedule"}]},
        "status": {"capacity": amounts, "allocatable": amounts, "conditions": [{"type": "Ready", "status": "True"}]},
    }  # fmt: skip


@pytest.mark.requirement("insights-3.5", "insights-3.7", "insights-3.8")
def test_what_is_idle_is_stopped_and_started_again(
    company: Company, kubeconfig: str, api: KubernetesClient, space: str
) -> None:
    """Noticed, not answered, stopped under a manager of its own; undone it is as it was, and its owner's alone."""
    with idleness.at(0):
        metered = metering.make_world(company.teams.values())
        real = registered(kubeconfig)
        for name in ("api_url", "ca_certificate", "credentials"):
            setattr(metered.cluster, name, getattr(real, name))
        Cluster.objects.filter(pk=real.pk).delete()
        metered.cluster.save()
        api.create(namespace(space))
        workspace = metered.workspaces["finance"]
        workspace.namespace, workspace.environment, workspace.idle_policy = space, "development", idleness.POLICY
        workspace.save()
        place = idleness.Place(metered, workspace, api)
    owner_applies(api, deployment(space, replicas=2))
    with idleness.at(4.2):
        place.metered(idleness.T0 + 4 * timedelta(hours=1), serve=0.0)
        assert idle.find_all() == 1
        assert place.case().status == IdleStatus.NOTICED
    with idleness.at(5.4):
        place.metered(idleness.T0 + 5 * timedelta(hours=1), serve=0.0)
        assert idle.find_all() == 1
        settle(only=STOPS)
        case = place.case()
        assert case.status == IdleStatus.STOPPED
        scaled = api.get("Deployment", "serve", space)
        assert scaled["spec"]["replicas"] == 0
        assert "gpu-commons-idle" in managers(scaled)
    with idleness.at(7.4):
        idle_actions.start_again(case.pk, actor=Actor.of(company.lead_finance))
        settle(only=STOPS)
        case.refresh_from_db()
        assert (case.status, case.saved_gpu_ms) == (IdleStatus.RESUMED, 2 * 2 * 3_600_000)
        back = api.get("Deployment", "serve", space)
        assert back["spec"]["replicas"] == 2
        assert "gpu-commons-idle" not in managers(back)
