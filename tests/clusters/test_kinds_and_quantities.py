"""Kinds, names, quantities and inventory: pure."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.clusters import kinds
from apps.clusters.choices import Sharing
from apps.clusters.inventory import read_node
from apps.clusters.quantities import parse, same


@pytest.mark.parametrize(
    ("text", "number"),
    [("8", "8"), ("500m", "0.5"), ("1Gi", "1073741824"), ("1024Mi", "1073741824"), ("1e3", "1000"), ("1E", "1e18"),
     ("2Ti", "2199023255552"), (".5", "0.5"), ("1k", "1000"), ("100u", "0.0001")],
)  # fmt: skip
def test_a_quantity_is_its_number(text: str, number: str) -> None:
    """Decimal and binary suffixes, decimal exponents."""
    assert parse(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "8 GPUs", "1KiB", "--1", "0x10", True, None, "1ee3", "Gi"])
def test_what_is_no_quantity_is_refused(text: object) -> None:
    """No guessing."""
    with pytest.raises(ValueError, match="no quantity"):
        parse(text)
    assert not same(text, text)


@given(st.integers(0, 10**9))
def test_spellings_of_one_quantity_are_the_same(number: int) -> None:
    """n cores are n·1000 millicores; n Gi are n·1024 Mi."""
    assert same(str(number), f"{number * 1000}m")
    assert same(f"{number}Gi", f"{number * 1024}Mi")
    assert not same(str(number), f"{number * 1000 + 1}m")


_BAD = ["a/../../x", "..", "a/b", "a%2fb", "", "A", "-a", "a-", "a..b", "a" * 254, "a b", "a?x=1", "a#b", "ä"]


@pytest.mark.requirement("clusters-2.2")
@pytest.mark.parametrize("name", _BAD)
def test_a_name_never_leaves_its_place_in_the_path(name: str) -> None:
    """Names and namespaces are checked against their grammar."""
    with pytest.raises(ValueError, match="name"):
        kinds.check_name(kinds.KINDS["ResourceQuota"], name)
    with pytest.raises(ValueError, match="namespace"):
        kinds.check_namespace(kinds.KINDS["ResourceQuota"], name)
    if "/" in name or ".." in name or not name or "%" in name:
        with pytest.raises(ValueError, match="name"):
            kinds.check_name(kinds.KINDS["RoleBinding"], name)


@pytest.mark.requirement("clusters-2.2")
@given(st.text(max_size=40))
def test_no_accepted_name_holds_a_path_character(name: str) -> None:
    """Whatever text: what passes has no slash, percent, question mark or pair of dots."""
    for kind in kinds.KINDS.values():
        try:
            accepted = kinds.check_name(kind, name)
        except ValueError:
            continue
        assert not set(accepted) & set("/%?#\\ ")
        assert ".." not in accepted


def test_rbac_names_may_have_colons_and_others_may_not() -> None:
    """`system:node` is a name of a ClusterRole only."""
    assert kinds.check_name(kinds.KINDS["ClusterRole"], "system:node")
    with pytest.raises(ValueError, match="no name"):
        kinds.check_name(kinds.KINDS["ConfigMap"], "system:node")


def _node(labels: dict[str, str], **allocatable: str) -> dict[str, Any]:
    resources = {"cpu": "64", **{key.replace("__", "/").replace("_", "-"): value for key, value in allocatable.items()}}
    return {
        "metadata": {"name": "n1", "labels": labels},
        "status": {"allocatable": resources, "conditions": [{"type": "Ready", "status": "True"}]},
    }


@pytest.mark.requirement("clusters-4.4")
@pytest.mark.parametrize(
    ("labels", "resources", "model", "physical", "sharing"),
    [
        ({"nvidia.com/gpu.product": "A100", "nvidia.com/gpu.count": "8"}, {"nvidia.com/gpu": "8"}, "A100", 8,
         "exclusive"),
        # Time-slicing: 8 GPUs offered four times each.
        ({"nvidia.com/gpu.product": "T4-SHARED", "nvidia.com/gpu.count": "8", "nvidia.com/gpu.replicas": "4"},
         {"nvidia.com/gpu": "32"}, "T4", 8, "time_sliced"),
        # … and without the count label.
        ({"nvidia.com/gpu.product": "T4-SHARED", "nvidia.com/gpu.replicas": "4"}, {"nvidia.com/gpu": "32"}, "T4", 8,
         "time_sliced"),
        ({"nvidia.com/gpu.product": "T4", "nvidia.com/gpu.replicas": "4"}, {"nvidia.com/gpu.shared": "32"}, "T4", 8,
         "time_sliced"),
        # MIG single: a slice is counted as a GPU, seven 1g to a device.
        ({"nvidia.com/gpu.product": "A100-SXM4-40GB-MIG-1g.5gb", "nvidia.com/gpu.count": "14",
          "nvidia.com/mig.strategy": "single"}, {"nvidia.com/gpu": "14"}, "A100-SXM4-40GB", 2, "mig"),
        # MIG mixed: slices are resources of their own, the count is of devices.
        ({"nvidia.com/gpu.product": "A100-SXM4-40GB", "nvidia.com/gpu.count": "2", "nvidia.com/mig.strategy": "mixed"},
         {"nvidia.com/mig-1g.5gb": "7", "nvidia.com/mig-3g.20gb": "2"}, "A100-SXM4-40GB", 2, "mig"),
        ({}, {}, "", 0, "exclusive"),
        # A device reported unhealthy leaves allocatable, yet it is there.
        ({"nvidia.com/gpu.product": "A100", "nvidia.com/gpu.count": "8"}, {"nvidia.com/gpu": "7"}, "A100", 8,
         "exclusive"),
    ],
)  # fmt: skip
def test_physical_gpus_are_counted_never_the_sum_of_resources(
    labels: dict[str, str], resources: dict[str, str], model: str, physical: int, sharing: str
) -> None:
    """By the labels of GPU feature discovery and each sharing mode's trap."""
    node = _node(labels)
    node["status"]["allocatable"].update(resources)
    facts = read_node(node)
    assert (facts.gpu_model, facts.physical_gpus, str(facts.sharing)) == (model, physical, sharing)
    assert facts.ready
    assert facts.schedulable


def test_a_cordoned_or_unready_node_says_so() -> None:
    """spec.unschedulable and the Ready condition."""
    node = _node({})
    node["spec"] = {"unschedulable": True}
    node["status"]["conditions"] = [{"type": "Ready", "status": "Unknown"}]
    facts = read_node(node)
    assert (facts.ready, facts.schedulable) == (False, False)
    assert facts.sharing == Sharing.EXCLUSIVE
