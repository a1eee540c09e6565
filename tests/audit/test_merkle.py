"""The Merkle tree against RFC 6962's recursive definition."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.audit import bundle_verifier
from apps.audit.merkle import EMPTY_ROOT, Frontier, includes, inclusion_proof, root_of

LEAVES = st.lists(st.integers(0, 2**32).map(lambda n: hashlib.sha256(str(n).encode()).digest()), max_size=70)


def oracle(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962 §2.1, as it stands there, over leaves that are hashed already."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\x01" + oracle(leaves[:split]) + oracle(leaves[split:])).digest()


@pytest.mark.requirement("audit-checkpoints-1.2")
@given(LEAVES)
def test_a_growing_tree_has_the_root_of_the_definition(leaves: list[bytes]) -> None:
    assert root_of(leaves) == oracle(leaves)
    frontier = Frontier()
    for at, leaf in enumerate(leaves):
        frontier.append(leaf)
        frontier = Frontier.load(at + 1, frontier.dump())
        assert frontier.root() == oracle(leaves[: at + 1])


@pytest.mark.requirement("audit-checkpoints-3.1")
@given(LEAVES.filter(bool), st.data())
def test_a_proof_holds_for_its_leaf_and_for_no_other(leaves: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    proof, root, size = inclusion_proof(leaves, index), oracle(leaves), len(leaves)
    for check in (includes, bundle_verifier.included):
        assert check(leaves[index], index, size, proof, root)
        assert not check(hashlib.sha256(leaves[index]).digest(), index, size, proof, root)
        assert not check(leaves[index], index, size, [*proof, EMPTY_ROOT], root)
        assert not check(leaves[index], size, size, proof, root)
        if proof:
            assert not check(leaves[index], index, size, proof[:-1], root)


@pytest.mark.parametrize(("size", "stored"), [(1, b""), (3, bytes(32)), (4, bytes(64))])
def test_a_frontier_of_another_size_is_refused(size: int, stored: bytes) -> None:
    with pytest.raises(ValueError, match="no frontier"):
        Frontier.load(size, stored)


def test_a_proof_of_a_leaf_outside_is_refused() -> None:
    with pytest.raises(IndexError):
        inclusion_proof([bytes(32)], 1)
