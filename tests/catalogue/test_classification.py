"""The classification over a lineage: never below an ancestor, unless a second person decided so; no circles."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.catalogue.choices import REGULATED, SENSITIVITY
from apps.catalogue.classification import Ancestor, Cycle, Node, classify, effective, ordered, post_order, rank

CLASSES = st.lists(st.sampled_from(SENSITIVITY), max_size=3, unique=True)


@st.composite
def lineages(draw: Any, *, exceptions: bool = False) -> dict[int, Node]:
    """Versions that are made from earlier ones, so that there is no circle; some are sealed already."""
    count = draw(st.integers(1, 8))
    nodes: dict[int, Node] = {}
    for key in range(count):
        parents = draw(st.lists(st.integers(0, key - 1), max_size=3, unique=True)) if key else []
        sources = [(f"v{parent}", draw(CLASSES), parent) for parent in parents]
        sources += [(f"d{index}", draw(CLASSES), None) for index in range(draw(st.integers(0, 2)))]
        lowered = draw(st.one_of(st.none(), CLASSES)) if exceptions else None
        nodes[key] = Node(f"v{key}", draw(CLASSES), draw(CLASSES), tuple(sources), None, lowered)
    return nodes


def ancestors(nodes: dict[int, Node], key: int) -> set[int]:
    """By recursion, apart from the engine: what a version was made from, at any distance, and itself."""
    found = {key}
    for _, _, parent in nodes[key].sources:
        if parent is not None:
            found |= ancestors(nodes, parent)
    return found


@pytest.mark.requirement("catalogue-5.1")
@given(lineages())
def test_never_lower_than_any_ancestor_without_an_exception(nodes: dict[int, Node]) -> None:
    for key in nodes:
        found = effective(key, nodes)
        expected: set[str] = set()
        for one in ancestors(nodes, key):
            node = nodes[one]
            expected |= {*node.model, *node.own, *(one for _, classes, _ in node.sources for one in classes)}
        assert set(found.classes) == expected
        assert list(found.classes) == sorted(expected, key=lambda one: (-rank(one), one))
        highest = max((rank(one) for one in expected), default=-1)
        assert (rank(found.highest) if found.highest else -1) == highest
        assert found.regulated == any(one in REGULATED for one in expected)
        # Every class has an origin, and no origin names a class that is not there.
        assert {one.data_class for one in found.origins} == expected


@pytest.mark.requirement("catalogue-5.1")
@given(lineages(exceptions=True))
def test_an_exception_lowers_what_is_inherited_and_nothing_that_is_stated(nodes: dict[int, Node]) -> None:
    for key, node in nodes.items():
        found = effective(key, nodes)
        stated = {*node.model, *node.own}
        assert stated <= set(found.classes)
        if node.lowered is not None:
            assert set(found.classes) == stated | set(node.lowered)
        else:
            for _, classes, parent in node.sources:
                inherited = effective(parent, nodes).classes if parent is not None else ()
                assert {*classes, *inherited} <= set(found.classes)


@pytest.mark.requirement("catalogue-5.1")
@given(lineages(), st.integers(0, 7))
def test_a_sealed_ancestor_counts_as_it_was_sealed(nodes: dict[int, Node], which: int) -> None:
    key = which % len(nodes)
    before = {one: effective(one, nodes).classes for one in nodes}
    old = nodes[key]
    nodes[key] = Node(old.name, (), (), (), sealed=before[key])
    for one in nodes:
        assert effective(one, nodes).classes == before[one]


@pytest.mark.requirement("catalogue-5.1")
def test_origins_name_where_each_class_comes_from() -> None:
    found = classify(
        ["internal"], ["personal"], [Ancestor("payments", ["cardholder"]), Ancestor("base", [], ["health"])]
    )
    assert [(one.data_class, one.origin, one.detail) for one in found.origins] == [
        ("health", "inherited", "base"), ("cardholder", "source", "payments"), ("personal", "version", ""),
        ("internal", "model", ""),
    ]  # fmt: skip
    lowered = classify(["internal"], [], [Ancestor("base", [], ["health"])], ["internal"])
    assert lowered.classes == ("internal",)
    assert [(one.data_class, one.origin) for one in lowered.origins] == [("health", "lowered"), ("internal", "model")]


@pytest.mark.requirement("catalogue-5.1")
def test_an_unknown_class_ranks_highest() -> None:
    assert ordered(["public", "never heard of", "health"])[0] == "never heard of"


@pytest.mark.requirement("catalogue-5.2")
@given(st.integers(2, 12), st.randoms())
def test_a_circle_is_found_with_its_way_round(size: int, random: Any) -> None:
    keys = list(range(size))
    random.shuffle(keys)
    parents = {keys[index]: [keys[(index + 1) % size]] for index in range(size)}
    with pytest.raises(Cycle) as caught:
        post_order(keys[0], lambda at: parents[at])
    way = caught.value.path
    assert way[0] == way[-1]
    assert len(way) == size + 1
    assert all(following in parents[at] for at, following in pairwise(way))


@pytest.mark.requirement("catalogue-5.2")
def test_a_long_chain_needs_no_recursion() -> None:
    order = post_order(0, lambda at: [at + 1] if at < 20_000 else [])
    assert order[0] == 20_000
    assert order[-1] == 0
