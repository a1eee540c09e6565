"""Proposals from nodes, rules of pools, CPU classes, elastic and reserved pools, and their pages."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.urls import reverse

from apps.audit.models import AuditEvent
from apps.clusters import capacity, pool_inventory, probing, proposals
from apps.clusters.inventory import NodeFacts
from apps.clusters.models import Cluster, Flavour, Node, Pool
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.core.testing import assert_queries
from tests.clusters.test_inventory import A100, L, mixed, node
from tests.factories import Company, client_for
from tests.rates.factories import make_cluster, make_flavour, make_pool

SYSTEM = Actor.system("tests")
TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}


def cpu_node(name: str, cores: int = 64, **labels: str) -> NodeFacts:
    """A node without GPUs."""
    return NodeFacts(name, ready=True, capacity={"cpu": str(cores)}, allocatable={"cpu": str(cores - 1)}, labels=labels)


def observed(cluster: Cluster, *nodes: NodeFacts) -> Cluster:
    """Record what a probe found."""
    probing.record(cluster, probing.Probe("v1.36.2", nodes=list(nodes)))
    return cluster


def exclusive(name: str, product: str = A100, gpus: int = 8, **more: Any) -> NodeFacts:
    """A node whose GPUs are not shared."""
    return node(name, gpu_product=product, gpu_count=gpus, gpu_memory=81920, offered={"gpu": gpus}, **more)


def keys(cluster: Cluster) -> list[str]:
    """The keys of everything proposed."""
    return [one.proposal.key for entry in proposals.for_cluster(cluster).pools for one in entry.flavours]


def events(name: str) -> list[dict[str, Any]]:
    """Payloads of audit events."""
    rows = AuditEvent.objects.filter(action=name).order_by("occurred_at", "uid")
    return [row.data["changes"] for row in rows]


@pytest.mark.requirement("inventory-3.1")
def test_flavours_are_proposed_from_what_nodes_carry() -> None:
    """Exclusive, MIG mixed and single, time-sliced under either name; share, memory, labels, tolerations."""
    both = [{"key": "team", "value": "x", "effect": "NoSchedule"}, TAINT]
    found = proposals.propose(
        [
            exclusive("a", taints=[TAINT]),
            exclusive("b", taints=both),
            mixed("c", gpus=4, whole=2, p3g_40gb=2, p1g_10gb=7),
            node("d", gpu_product="NVIDIA-A30-MIG-1g.6gb", mig_strategy="single", gpu_memory=5952, offered={"gpu": 8}),
            node("e", gpu_product="Tesla-T4-SHARED", gpu_count=2, gpu_replicas=4, gpu_memory=15360, offered={"gpu": 8}),
            node("f", gpu_product="Tesla-T4", gpu_count=1, gpu_replicas=2, gpu_memory=15360, offered={"gpu.shared": 2}),
            node("g", gpu_product="T4-SHARED", gpu_count=2, offered={"gpu": 8}),  # contradicts itself
            cpu_node("h", **{proposals.INSTANCE_TYPE: "m7i.16xlarge"}),
        ]
    )
    rows = {
        (one.resource_name, one.sharing, f"{one.numerator}/{one.denominator}"): one
        for pool in found
        for one in pool.flavours
    }
    assert [pool.gpu_model for pool in found] == [A100, "NVIDIA-A30", "Tesla-T4", "cpu-m7i.16xlarge"]
    assert set(rows) == {
        (f"{L}gpu", "exclusive", "1/1"),
        (f"{L}mig-3g.40gb", "mig", "3/7"),
        (f"{L}mig-1g.10gb", "mig", "1/7"),
        (f"{L}gpu", "mig", "1/4"),
        (f"{L}gpu", "time_sliced", "1/4"),
        (f"{L}gpu.shared", "time_sliced", "1/2"),
        ("cpu", "exclusive", "1/1"),
    }
    whole = rows[f"{L}gpu", "exclusive", "1/1"]
    assert (whole.units, whole.nodes, whole.memory_mib) == (18, 3, 81920)
    assert whole.node_labels == {f"{L}gpu.product": A100}
    assert whole.tolerations == ()  # one of its nodes has no taint
    assert whole.kept_out == 2
    single = rows[f"{L}gpu", "mig", "1/4"]
    assert (single.memory_mib, single.node_labels) == (5952, {f"{L}gpu.product": "NVIDIA-A30-MIG-1g.6gb"})
    assert rows[f"{L}gpu", "time_sliced", "1/4"].memory_mib == 3840
    assert rows[f"{L}mig-3g.40gb", "mig", "3/7"].name == "A100 SXM4 80GB 3g.40gb"
    tainted = proposals.propose([exclusive("a", taints=[TAINT]), exclusive("b", taints=both)])[0].flavours[0]
    assert tainted.tolerations == (
        {"key": "nvidia.com/gpu", "operator": "Equal", "value": "present", "effect": "NoSchedule"},
    )
    assert tainted.kept_out == 1


@pytest.mark.django_db
@pytest.mark.requirement("inventory-3.2")
def test_accepting_makes_flavours_and_pools_once() -> None:
    """In one audited action; pressing twice makes nothing twice; what nodes no longer have is refused."""
    cluster = observed(make_cluster(), exclusive("a"), mixed("b", gpus=4, whole=0, p3g_40gb=8))
    existing = make_flavour("whole", gpu_model=A100, node_labels={})
    chosen = keys(cluster)
    (pool,) = proposals.accept_proposals(cluster.pk, chosen, actor=SYSTEM)
    assert (pool.gpu_model, pool.observed_gpus, pool.kind) == (A100, 12, "fixed")
    assert existing in pool.flavours.all()  # of the same shape: taken, not made again
    sliced = pool.flavours.get(sharing="mig")
    assert (sliced.resource_name, sliced.numerator, sliced.denominator) == (f"{L}mig-3g.40gb", 3, 7)
    assert proposals.accept_proposals(cluster.pk, chosen, actor=SYSTEM) == []
    assert (Flavour.objects.count(), Pool.objects.count()) == (2, 1)
    assert events("clusters.proposals.accepted") == [
        {"cluster": "atlas", "flavours": [sliced.slug], "pools": [A100]}
    ]  # fmt: skip
    observed(cluster, exclusive("a"), mixed("b", gpus=4, whole=3, p1g_10gb=7))
    (again,) = proposals.accept_proposals(cluster.pk, keys(cluster), actor=SYSTEM)  # a new cut: added to the pool
    assert again.pk == pool.pk
    assert pool.flavours.count() == 3
    with pytest.raises(Conflict):
        proposals.accept_proposals(cluster.pk, chosen, actor=SYSTEM)


@pytest.mark.django_db
@pytest.mark.requirement("inventory-3.3")
def test_two_models_under_one_name_need_kueue() -> None:
    """Refused with the explanation; allowed with Kueue, or where the names differ; what exists stays."""
    cluster = observed(make_cluster(), exclusive("a"), exclusive("b", "NVIDIA-H100-80GB-HBM3"))
    chosen = keys(cluster)
    assert "Tesla" not in str(proposals.rivals(proposals.for_cluster(cluster), cluster))
    with pytest.raises(Invalid) as caught:
        proposals.accept_proposals(cluster.pk, chosen, actor=SYSTEM)
    assert "cannot tell GPU models apart" in caught.value.errors["flavours"][0]
    assert not Pool.objects.exists()
    assert not Flavour.objects.exists()
    proposals.accept_proposals(cluster.pk, [key for key in chosen if A100 in key], actor=SYSTEM)
    found = proposals.for_cluster(cluster).pools
    assert [bool(entry.clash) for entry in found] == [False, True]
    own = capacity.create_flavour(
        "H100", slug="h100", gpu_model="NVIDIA-H100-80GB-HBM3", resource_name="nvidia.com/h100", actor=SYSTEM
    )
    capacity.create_pool(cluster.pk, own.gpu_model, actor=SYSTEM, flavour_ids=[own.pk])
    Cluster.objects.update(kueue_mode="jobs")
    proposals.accept_proposals(cluster.pk, chosen, actor=SYSTEM)
    assert Flavour.objects.filter(resource_name=f"{L}gpu", pools__cluster=cluster).count() == 2
    Cluster.objects.update(kueue_mode="off")
    assert Pool.objects.count() == 2
    assert all(entry.clash is None for entry in proposals.for_cluster(Cluster.objects.get()).pools)


def _cpu_flavour(name: str = "m7i", **values: Any) -> Flavour:
    given = {
        "slug": f"cpu-{name}", "gpu_model": f"cpu-{name}", "resource_name": "cpu", "device_class": "cpu",
        "node_labels": {proposals.INSTANCE_TYPE: name}, "actor": SYSTEM,
    }  # fmt: skip
    return capacity.create_flavour(f"CPU {name}", **(given | values))


@pytest.mark.django_db
@pytest.mark.requirement("inventory-3.4")
def test_a_cpu_class_is_counted_in_cores_and_apart() -> None:
    """One class without Kueue, several with it; the pool's cores are those of the nodes that its labels select."""
    cluster = observed(
        make_cluster(), exclusive("gpu"), cpu_node("a", **{proposals.INSTANCE_TYPE: "m7i"}),
        cpu_node("b", **{proposals.INSTANCE_TYPE: "m7i"}), cpu_node("c", 8, **{proposals.INSTANCE_TYPE: "r7i"}),
        cpu_node("m", 4, **{"node-role.kubernetes.io/control-plane": "", proposals.INSTANCE_TYPE: "m7i"}),
    )  # fmt: skip
    flavour = _cpu_flavour()
    with pytest.raises(Invalid) as caught:
        capacity.create_pool(cluster.pk, "cpu-m7i", actor=SYSTEM, flavour_ids=[flavour.pk])
    assert "there is another class" in caught.value.errors["flavours"][0]
    Cluster.objects.update(kueue_mode="jobs")
    pool = capacity.create_pool(cluster.pk, "cpu-m7i", actor=SYSTEM, flavour_ids=[flavour.pk])
    assert (pool.device_class, pool.unit, pool.observed_gpus) == ("cpu", "cores", 128)
    seen = pool_inventory.read(pool)
    assert (seen.cores.built, seen.cores.offered, seen.flavours[0].limit) == (128, 126, 128)
    other = _cpu_flavour("r7i")
    assert capacity.create_pool(cluster.pk, "cpu-r7i", actor=SYSTEM, flavour_ids=[other.pk]).observed_gpus == 8
    Cluster.objects.update(kueue_mode="off")
    third = _cpu_flavour("x2")
    with pytest.raises(Invalid):
        capacity.create_pool(cluster.pk, "cpu-x2", actor=SYSTEM, flavour_ids=[third.pk])
    gpu = make_flavour(gpu_model="cpu-m7i")
    with pytest.raises(Invalid):
        capacity.create_pool(make_cluster("other").pk, "cpu-m7i", actor=SYSTEM, flavour_ids=[gpu.pk, flavour.pk])


@pytest.mark.django_db
@pytest.mark.requirement("inventory-3.4")
@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"resource_name": "nvidia.com/gpu"}, "resource_name"),
        ({"node_labels": {}}, "node_labels"),
        ({"sharing": "time_sliced", "denominator": 2}, "sharing"),
        ({"device_class": "gpu"}, "resource_name"),
        ({"device_class": "tpu"}, "device_class"),
    ],
)
def test_a_cpu_flavour_is_checked(changes: dict[str, Any], field: str) -> None:
    """With the message at the field."""
    with pytest.raises(Invalid) as caught:
        _cpu_flavour(**changes)
    assert field in caught.value.errors


@pytest.mark.django_db
@pytest.mark.requirement("inventory-4.1", "inventory-4.2")
def test_an_elastic_pool_promises_no_more_than_it_can_grow_to(frozen_clock: datetime) -> None:
    """Empty at rest is normal; an unlimited borrow reaches as far as the pool grows."""
    cluster, flavour = make_cluster(), make_flavour()
    for wrong, field in (
        ({"max_gpus": None}, "max_gpus"), ({"max_gpus": 0}, "max_gpus"),
        ({"startup_minutes": 10_000}, "startup_minutes"),
        ({"reserved_until": frozen_clock + timedelta(days=1)}, "reserved_until"),
    ):  # fmt: skip
        given: dict[str, Any] = {"kind": "elastic", "max_gpus": 32, **wrong}
        with pytest.raises(Invalid) as caught:
            capacity.create_pool(cluster.pk, flavour.gpu_model, actor=SYSTEM, flavour_ids=[flavour.pk], **given)
        assert field in caught.value.errors
    pool = capacity.create_pool(
        cluster.pk, flavour.gpu_model, actor=SYSTEM, flavour_ids=[flavour.pk], kind="elastic", max_gpus=32,
        startup_minutes=10,
    )  # fmt: skip
    with pytest.raises(Invalid) as caught:
        capacity.set_committable(pool.pk, 33, frozen_clock, actor=SYSTEM)
    assert "grow to 32" in caught.value.errors["gpus"][0]
    capacity.set_committable(pool.pk, 32, frozen_clock, actor=SYSTEM)
    observed(cluster, cpu_node("a"))
    pool.refresh_from_db()
    assert (pool.observed_gpus, capacity.physical_reach(pool)) == (0, 32)
    assert pool.start_words == "from a pool that starts in 10 minutes"
    assert pool_inventory.flavour_limits(pool) == {flavour.pk: None}
    with pytest.raises(Invalid):
        capacity.edit_pool(pool.pk, actor=SYSTEM, max_gpus=31)
    fixed = make_pool(make_cluster("fixed"), flavour, gpus=5)
    assert capacity.physical_reach(fixed) == 5
    fixed.observed_gpus = None
    assert capacity.physical_reach(fixed) == 5  # what may be promised, where nothing was observed


@pytest.mark.django_db
@pytest.mark.requirement("inventory-3.5")
def test_a_pool_is_changed_with_its_trail(company: Company) -> None:
    """Before and after are audited; nothing changed is no event; only admins; a stale form is refused."""
    pool = make_pool()
    with pytest.raises(NotAllowed):
        capacity.edit_pool(pool.pk, actor=Actor.of(company["lead_finance"]), open_names=True)
    admin = Actor.of(company.admin)
    changed = capacity.edit_pool(
        pool.pk, actor=admin, open_names=True, commit_factor=Decimal("1.50"), kind="reserved",
        reserved_until=clock.now() + timedelta(days=90), expected_version=pool.version,
    )  # fmt: skip
    assert (changed.open_names, changed.commit_factor, changed.version) == (True, Decimal("1.50"), pool.version + 1)
    (event,) = events("clusters.pool.changed")
    assert (event["before"]["kind"], event["after"]["kind"]) == ("fixed", "reserved")
    assert set(event["before"]) == {"kind", "commit_factor", "open_names", "reserved_until"}
    assert capacity.edit_pool(pool.pk, actor=admin, open_names=True).version == changed.version
    with pytest.raises(Conflict):
        capacity.edit_pool(pool.pk, actor=admin, open_names=False, expected_version=pool.version)
    for wrong in ({"commit_factor": Decimal(0)}, {"kind": "borrowed"}, {"max_gpus": 4}):
        with pytest.raises(Invalid):
            capacity.edit_pool(pool.pk, actor=admin, **wrong)
    foreign = make_flavour("h100", gpu_model="H100")
    with pytest.raises(Invalid):
        capacity.edit_pool(pool.pk, actor=admin, flavour_ids=[foreign.pk])
    sliced = make_flavour("slice", sharing="mig", denominator=7, resource_name=f"{L}mig-1g.10gb")
    assert sliced in capacity.edit_pool(pool.pk, actor=admin, flavour_ids=[sliced.pk]).flavours.all()


@pytest.mark.django_db
@pytest.mark.requirement("inventory-2.1", "inventory-1.3", "inventory-2.4")
def test_pages_show_parts_stranded_slices_and_contradictions(company: Company) -> None:
    """On the cluster's page, the pool's and the list of nodes; nothing observed is said to be nothing observed."""
    client = client_for(company.admin)
    cluster = make_cluster()
    pool = make_pool(cluster, make_flavour(gpu_model=A100))
    pages = [
        reverse("clusters:pool-detail", kwargs={"pool_uid": pool.uid}),
        reverse("clusters:cluster-detail", kwargs={"slug": cluster.slug}),
    ]
    for url in pages:
        assert "Nothing observed yet" in client.get(url).content.decode()
    observed(
        cluster, exclusive("a"), mixed("b", gpus=1, whole=0, p3g_40gb=2), exclusive("c", cordoned=True),
        node("odd", gpu_product=A100, gpu_count=4, offered={"gpu": 8}),
    )  # fmt: skip
    for url in pages:
        body = client.get(url).content.decode()
        assert "Stranded by MIG layout" in body
        assert "0.143" in body
        assert "offers 8 GPUs and is labelled with 4" in body
        assert "In maintenance" in body
    assert "2 × 3g.40gb on 1 GPU" in client.get(pages[0]).content.decode()
    nodes = reverse("clusters:node-list")
    assert "MIG mixed: 2 × 3g.40gb" in client.get(nodes).content.decode()
    body = client.get(nodes, {"state": "unknown"}).content.decode()
    assert "Contradicts itself" in body
    assert ">b<" not in body
    assert "odd" not in client.get(nodes, {"state": "cordoned", "cluster": cluster.slug}).content.decode()
    observed(cluster, *(exclusive(f"n{number}") for number in range(60)))
    for url in (pages[0], nodes):
        with assert_queries(20):
            assert client.get(url).status_code == 200


@pytest.mark.django_db
@pytest.mark.requirement("inventory-3.1", "inventory-3.2", "inventory-3.3")
def test_an_admin_accepts_proposals_and_edits_the_pool(company: Company) -> None:
    """Through the pages; what clashes is shown with its explanation and cannot be chosen."""
    client = client_for(company.admin)
    cluster = observed(make_cluster(), exclusive("a"), exclusive("b", "NVIDIA-H100-80GB-HBM3"))
    url = reverse("clusters:proposals", kwargs={"slug": cluster.slug})
    body = client.get(url).content.decode()
    assert "Two GPU models under one resource name" in body
    chosen = keys(cluster)
    assert client.post(url, {"keys": []}).status_code == 400
    refused = client.post(url, {"keys": chosen})
    assert refused.status_code == 400
    assert "cannot tell GPU models apart" in refused.content.decode()
    made = client.post(url, {"keys": [key for key in chosen if A100 in key]})
    pool = Pool.objects.get()
    assert (made.status_code, made["Location"]) == (
        303,
        reverse("clusters:pool-capacity", kwargs={"pool_uid": pool.uid}),
    )
    body = client.get(url).content.decode()
    assert "Cannot be offered as things are" in body
    assert "exists" in body
    edit = reverse("clusters:pool-edit", kwargs={"pool_uid": pool.uid})
    form = {"kind": "elastic", "max_gpus": "", "startup_minutes": "15", "commit_factor": "1.00", "open_names": "on"}
    assert client.post(edit, form).status_code == 400
    assert client.post(edit, form | {"max_gpus": "32", "version": "77"}).status_code == 409
    assert client.post(edit, form | {"max_gpus": "32", "version": str(pool.version)}).status_code == 303
    body = client.get(reverse("clusters:pool-detail", kwargs={"pool_uid": pool.uid})).content.decode()
    assert "grows to 32 GPUs, starts in 15 minutes" in body
    empty = reverse("clusters:proposals", kwargs={"slug": make_cluster("empty").slug})
    assert "Nothing to propose" in client.get(empty).content.decode()
    assert client_for(company.auditor).get(url).status_code == 403
    assert Node.objects.count() == 2
