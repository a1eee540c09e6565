"""What nodes carry: exact, or said to be unknown; every physical GPU on exactly one part."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.clusters import mig
from apps.clusters.capacity_view import compose, flavour_capacity
from apps.clusters.choices import Sharing
from apps.clusters.inventory import NodeFacts, read_node
from apps.clusters.models import Flavour
from apps.clusters.node_layout import PartKind, layout

A100 = "NVIDIA-A100-SXM4-80GB"
MIB = {A100: 81920, "NVIDIA-A100-SXM4-40GB": 40960, "NVIDIA-A30": 24576, "NVIDIA-H100-80GB-HBM3": 81559}
L = "nvidia.com/"


def node(
    name: str = "n1", *, offered: dict[str, int] | None = None, usable: dict[str, int] | None = None,
    ready: bool = True, cordoned: bool = False, taints: list[dict[str, str]] | None = None, **labels: object,
) -> NodeFacts:  # fmt: skip
    """Read a node of these labels (`gpu_count` → nvidia.com/gpu.count), capacity and allocatable."""
    capacity = {f"{L}{key}": str(value) for key, value in (offered or {}).items()}
    spelled = {L + key.replace("mig_", "mig.").replace("gpu_", "gpu."): str(value) for key, value in labels.items()}
    body: dict[str, Any] = {
        "metadata": {"name": name, "labels": spelled},
        "spec": {"unschedulable": cordoned, "taints": taints or []},
        "status": {
            "capacity": {"cpu": "64", **capacity},
            "allocatable": {"cpu": "64", **capacity, **{f"{L}{k}": str(v) for k, v in (usable or {}).items()}},
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }
    return read_node(body)


def mixed(name: str = "n1", gpus: int = 8, whole: int = 0, product: str = A100, **slices: int) -> NodeFacts:
    """A node with MIG strategy mixed: `whole` GPUs uncut, the rest as `p3g_40gb=2` tells."""
    made = {f"mig-{key[1:].replace('_', '.')}": count for key, count in slices.items()}
    return node(
        name, gpu_product=product, gpu_count=gpus, gpu_memory=MIB[product], mig_strategy="mixed",
        offered={"gpu": whole, **made},
    )  # fmt: skip


@pytest.mark.requirement("inventory-1.2")
@pytest.mark.parametrize(
    ("model", "memory", "profile", "most", "share"),
    [
        ("NVIDIA-A30", 24576, "1g.6gb", 4, Fraction(1, 4)),
        ("NVIDIA-A30", 0, "2g.12gb", 2, Fraction(1, 2)),
        ("NVIDIA-A100-SXM4-40GB", 0, "1g.5gb", 7, Fraction(1, 7)),
        ("NVIDIA-A100-SXM4-40GB", 40960, "1g.10gb", 4, Fraction(1, 7)),  # twice the memory: four, not seven
        ("NVIDIA-A100-SXM4-80GB", 81920, "1g.10gb", 7, Fraction(1, 7)),
        ("NVIDIA-A100-80GB-PCIe", 0, "3g.40gb", 2, Fraction(3, 7)),
        ("NVIDIA-H100-80GB-HBM3", 81559, "1g.10gb+me", 7, Fraction(1, 7)),
        ("NVIDIA-H100-NVL", 95830, "4g.47gb", 1, Fraction(4, 7)),
        ("NVIDIA-GH200-480GB", 97871, "3g.48gb", 2, Fraction(3, 7)),
        ("NVIDIA-H200", 143771, "2g.35gb", 3, Fraction(2, 7)),
        ("NVIDIA-B200", 183359, "7g.180gb", 1, Fraction(1)),
        ("NVIDIA-GB200", 189471, "1g.47gb", 4, Fraction(1, 7)),
        ("NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition", 97887, "2g.48gb", 2, Fraction(1, 2)),
    ],
)
def test_profiles_fit_as_often_as_the_guide_says(
    model: str, memory: int, profile: str, most: int, share: Fraction
) -> None:
    """By compute and by memory slices, whichever is scarcer."""
    cut = mig.geometry(model, memory, profile)
    assert cut is not None
    assert (cut.most(profile), cut.share(profile)) == (most, share)


@pytest.mark.requirement("inventory-1.2")
@pytest.mark.parametrize(
    ("model", "memory", "profile"),
    [("Tesla-T4", 15360, ""), ("NVIDIA-RTX-A6000", 49140, ""), ("NVIDIA-A10", 23028, ""), ("NVIDIA-H100-PCIe", 0, ""),
     ("NVIDIA-A100-SXM4-40GB", 40960, "1g.12gb"), ("NVIDIA-A100-SXM4-40GB", 200_000, "")],
)  # fmt: skip
def test_a_cut_that_is_not_in_the_table_is_unknown(model: str, memory: int, profile: str) -> None:
    """A model without MIG, one that comes in several sizes, a profile of another model."""
    assert mig.geometry(model, memory, profile) is None


@pytest.mark.requirement("inventory-1.1")
def test_a_node_tells_model_memory_strategy_replicas_and_slices() -> None:
    """Each way of sharing, with what is kept of labels and taints."""
    cut = mixed(gpus=8, whole=4, p3g_40gb=4, p1g_10gb=14)
    assert (cut.gpu_model, cut.physical_gpus, cut.gpu_memory_mib) == (A100, 8, 81920)
    assert (cut.mig_strategy, cut.slices) == ("mixed", {"3g.40gb": 4, "1g.10gb": 14})
    single = node(
        gpu_product="NVIDIA-A100-SXM4-40GB-MIG-3g.20gb", gpu_count=4, gpu_memory=20096, mig_strategy="single",
        offered={"gpu": 4},
    )  # fmt: skip
    assert (single.gpu_model, single.physical_gpus, single.slices) == ("NVIDIA-A100-SXM4-40GB", 2, {"3g.20gb": 4})
    assert single.gpu_memory_mib == 40960  # of the GPU; the label is of a slice
    shared = node(
        gpu_product="Tesla-T4-SHARED", gpu_count=2, gpu_replicas=4, gpu_memory=15360, offered={"gpu": 8},
        taints=[{"key": "nvidia.com/gpu", "effect": "NoSchedule"},
                {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}],
    )  # fmt: skip
    assert (shared.sharing, shared.replicas, shared.physical_gpus) == (Sharing.TIME_SLICED, 4, 2)
    assert shared.taints == [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]
    assert shared.labels["nvidia.com/gpu.product"] == "Tesla-T4-SHARED"


@pytest.mark.requirement("inventory-1.3")
@pytest.mark.parametrize(
    ("labels", "offered", "words"),
    [
        ({}, {"gpu": 8}, "no label nvidia.com/gpu.product"),
        ({"gpu_product": A100, "gpu_count": 4}, {"gpu": 8}, "labelled with 4"),
        ({"gpu_product": A100}, {}, "neither a count nor"),
        ({"gpu_product": "T4-SHARED", "gpu_count": 2}, {"gpu": 8}, "gpu.replicas"),
        ({"gpu_product": "T4", "gpu_count": 2}, {"gpu.shared": 8}, "gpu.replicas"),
        ({"gpu_product": "T4-SHARED", "gpu_count": 2, "gpu_replicas": 4}, {"gpu": 2}, "do not divide"),
        ({"gpu_product": "T4-SHARED", "gpu_count": 2, "gpu_replicas": 4}, {"gpu": 12}, "more or less"),
        ({"gpu_product": A100, "gpu_count": 8, "mig_strategy": "single"}, {"mig-1g.10gb": 7}, "strategy single"),
        ({"gpu_product": f"{A100}-MIG-1g.10gb", "mig_strategy": "mixed"}, {"gpu": 7}, "strategy single"),
        ({"gpu_product": f"{A100}-MIG-1g.10gb"}, {"gpu": 10}, "do not fill whole GPUs"),
        ({"gpu_product": f"{A100}-MIG-1g.10gb", "gpu_count": 21}, {"gpu": 14}, "labelled with 21"),
        ({"gpu_product": f"{A100}-MIG-1g.5gb"}, {"gpu": 7}, "not known"),
        ({"gpu_product": A100, "mig_strategy": "mixed"}, {"mig-1g.10gb": 7}, "no label nvidia.com/gpu.count"),
        ({"gpu_product": A100, "gpu_count": 1, "mig_strategy": "mixed"}, {"mig-3g.40gb": 3}, "cannot be cut out"),
        ({"gpu_product": A100, "gpu_count": 2, "mig_strategy": "mixed"}, {"gpu": 2, "mig-1g.10gb": 1}, "cannot be cut"),
        ({"gpu_product": A100, "gpu_count": 1, "mig_strategy": "mixed"}, {"mig-1g.5gb": 7}, "not known"),
        ({"gpu_product": A100, "gpu_count": 1, "mig_strategy": "mixed", "mig-1g.10gb.count": 5}, {"mig-1g.10gb": 7},
         "labelled with 5"),
        ({"gpu_product": A100, "gpu_count": 2}, {"gpu": 1, "gpu.shared": 1}, "both"),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_unknown_with_the_reason(
    labels: dict[str, object], offered: dict[str, int], words: str
) -> None:
    """Its GPUs are counted nowhere; the page says why."""
    found = node(offered=offered, **labels)
    assert words in found.problem
    assert (found.physical_gpus, found.slices) == (0, {})
    seen = compose([found])
    assert (seen.physical, seen.parts, seen.unknown) == (0, (), (("n1", found.problem),))


@pytest.mark.requirement("inventory-2.1")
def test_a_pool_is_split_into_its_parts() -> None:
    """Eight uncut, a mixed node with three cut differently, a time-sliced one, one drained, one ill device."""
    seen = compose(
        [
            node("a", gpu_product=A100, gpu_count=8, offered={"gpu": 8}, usable={"gpu": 7}),
            mixed("b", gpus=8, whole=5, p3g_40gb=2, p1g_10gb=14),
            node("c", gpu_product=f"{A100}-SHARED", gpu_count=2, gpu_replicas=4, offered={"gpu": 8}),
            node("d", gpu_product=A100, gpu_count=8, offered={"gpu": 8}, cordoned=True),
            node("e", gpu_product=A100, gpu_count=4, offered={"gpu": 4}, ready=False),
        ]
    )
    parts = {(part.kind, part.profile): (part.units, part.gpus) for part in seen.parts}
    assert parts == {
        (PartKind.EXCLUSIVE, ""): (12, 12),
        (PartKind.MIG, "3g.40gb"): (2, Fraction(6, 7)),
        (PartKind.MIG, "1g.10gb"): (14, 2),
        (PartKind.TIME_SLICED, ""): (8, 2),
        (PartKind.STRANDED, ""): (None, Fraction(1, 7)),
        (PartKind.UNHEALTHY, ""): (None, 1),
        (PartKind.MAINTENANCE, ""): (None, 12),
    }
    assert seen.physical == 30 == sum(part.gpus for part in seen.parts)
    assert seen.drained == ("d", "e")
    (stranded,) = seen.stranded_layouts
    assert (stranded.words, stranded.slices, stranded.of) == ("14 × 1g.10gb, 2 × 3g.40gb on 3 GPUs", 1, 7)


@pytest.mark.requirement("inventory-2.1")
def test_a_device_that_a_node_does_not_offer_is_there_and_ill() -> None:
    """GPU feature discovery counts eight, the device plugin offers seven, or none yet."""
    for offered in (7, 0):
        seen = compose([node(gpu_product=A100, gpu_count=8, offered={"gpu": offered})])
        assert seen.physical == 8
        assert seen.gpus(PartKind.UNHEALTHY) == 8 - offered


def _flavour(**values: Any) -> Flavour:
    given_ = {"gpu_model": A100, "name": "f", "slug": "f", **values}
    return Flavour(**given_)


@pytest.mark.requirement("inventory-2.2")
def test_a_flavour_has_what_its_own_nodes_are_cut_into() -> None:
    """Instances, replicas and whole GPUs share names; the share and the labels keep them apart."""
    nodes = [
        node("a", gpu_product=A100, gpu_count=8, offered={"gpu": 8}, usable={"gpu": 6}),
        mixed("b", gpus=4, whole=2, p1g_10gb=7, p3g_40gb=2),
        node("c", gpu_product=f"{A100}-SHARED", gpu_count=2, gpu_replicas=4, offered={"gpu": 8}),
        node("d", gpu_product=f"{A100}-MIG-2g.20gb", mig_strategy="single", offered={"gpu": 6}),
        node("e", gpu_product=A100, gpu_count=8, offered={"gpu": 8}, cordoned=True),
    ]

    def capacity(**values: Any) -> tuple[int, int]:
        found = flavour_capacity(_flavour(**values), nodes)
        return found.built, found.offered

    sliced = {"sharing": "mig", "denominator": 7}
    assert capacity() == (18, 8)  # never 8 + 2 + 8 + 6 + 8
    assert capacity(**sliced, numerator=1, resource_name=f"{L}mig-1g.10gb") == (7, 7)
    assert capacity(**sliced, numerator=2, node_labels={f"{L}gpu.product": f"{A100}-MIG-2g.20gb"}) == (6, 6)
    assert capacity(sharing="time_sliced", denominator=4) == (8, 8)
    assert capacity(sharing="time_sliced", denominator=8) == (0, 0)
    assert capacity(node_labels={f"{L}gpu.product": "other"}) == (0, 0)


@st.composite
def _facts(draw: st.DrawFn) -> NodeFacts:
    """Nodes of one model, shared in every way, some drained, some with ill devices; some contradict themselves."""
    gpus = draw(st.integers(0, 8))
    way = draw(st.sampled_from(["exclusive", "sliced", "single", "mixed", "nonsense"]))
    ready, cordoned = draw(st.booleans()), draw(st.booleans())
    labels: dict[str, object] = {"gpu_product": A100, "gpu_count": gpus, "gpu_memory": 81920}
    offered: dict[str, int] = {}
    if way == "exclusive":
        offered = {"gpu": draw(st.integers(0, gpus))}
    elif way == "sliced":
        replicas = draw(st.integers(2, 10))
        renamed = draw(st.booleans())
        labels |= {"gpu_replicas": replicas, "gpu_product": A100 if renamed else f"{A100}-SHARED"}
        offered = {"gpu.shared" if renamed else "gpu": gpus * replicas}
    elif way == "single":
        cut = mig.geometry(A100)
        assert cut is not None
        profile = draw(st.sampled_from(sorted(cut.profiles)))
        count = gpus * cut.most(profile)
        labels |= {"gpu_product": f"{A100}-MIG-{profile}", "mig_strategy": "single", "gpu_count": count}
        offered = {"gpu": count}
    else:
        labels |= {"mig_strategy": "mixed"}
        profiles = st.sampled_from(["1g.10gb", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"])
        offered = {f"mig-{key}": n for key, n in draw(st.dictionaries(profiles, st.integers(0, 16))).items()}
        offered["gpu"] = draw(st.integers(0, 8 if way == "nonsense" else gpus))
    usable = {key: draw(st.integers(0, value)) for key, value in offered.items()}
    return node(
        draw(st.text("abc", min_size=1)), offered=offered, usable=usable, ready=ready, cordoned=cordoned, **labels
    )


@pytest.mark.requirement("inventory-2.1")
@given(st.lists(_facts(), max_size=6))
def test_parts_sum_to_what_is_physically_there(nodes: list[NodeFacts]) -> None:
    """Exactly, no part negative, and an unknown node on none of them."""
    seen = compose(nodes)
    assert all(part.gpus >= 0 and (part.units is None or part.units >= 0) for part in seen.parts)
    assert sum((part.gpus for part in seen.parts), Fraction(0)) == seen.physical
    assert seen.physical == sum(one.physical_gpus for one in nodes)
    assert {name for name, _ in seen.unknown} == {one.name for one in nodes if one.problem}
    for part in seen.parts:
        if part.units is not None and part.kind == PartKind.EXCLUSIVE:
            assert part.gpus == part.units


@pytest.mark.requirement("inventory-1.4")
@given(_facts())
def test_physical_gpus_never_exceed_the_label(found: NodeFacts) -> None:
    """However often a GPU is offered; and the offers never hold more than the GPUs there are."""
    label = int(found.labels.get("nvidia.com/gpu.count", "0"))
    assert found.physical_gpus <= label
    cut = layout(found)
    held = sum((offer.share * offer.built for offer in cut.offers), Fraction(0))
    assert held + cut.stranded + cut.missing == found.physical_gpus
    assert min(cut.stranded, cut.missing) >= 0


@pytest.mark.requirement("inventory-2.2")
@given(st.lists(_facts(), max_size=6))
def test_the_capacity_of_flavours_is_no_sum_of_allocatable(nodes: list[NodeFacts]) -> None:
    """What all flavours of a model can hold together never exceeds its physical GPUs, in fractions of them."""
    offers = {(o.resource, o.share, o.kind.value) for one in nodes for o in layout(one).offers}
    total = Fraction(0)
    for resource, share, kind in offers:
        shape = _flavour(resource_name=resource, sharing=kind, numerator=share.numerator, denominator=share.denominator)
        found = flavour_capacity(shape, nodes)
        assert 0 <= found.offered <= found.built
        total += share * found.built
    assert total <= sum(one.physical_gpus for one in nodes)
