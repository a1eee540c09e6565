"""The Merkle tree over the trail's leaves (RFC 6962 §2.1): roots that grow link by link, and proofs of inclusion. Pure.

A tree's leaf hash is the `leaf` of a link: SHA-256(0x00 ‖ canonical). A node is SHA-256(0x01 ‖ left ‖ right).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

#: RFC 6962: the root of an empty tree is the hash of nothing.
EMPTY_ROOT = hashlib.sha256(b"").digest()
_HASH = 32


def node(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(slots=True)
class Frontier:
    """The right edge of a growing tree: the roots of its perfect subtrees, largest first. Log₂(size) hashes."""

    size: int = 0
    hashes: list[bytes] = field(default_factory=list)

    def append(self, leaf: bytes) -> None:
        """Add the next leaf: equal subtrees at the right edge join, as a binary counter carries."""
        self.hashes.append(leaf)
        self.size += 1
        rest = self.size
        while rest % 2 == 0:
            right, left = self.hashes.pop(), self.hashes.pop()
            self.hashes.append(node(left, right))
            rest //= 2

    def root(self) -> bytes:
        """Return the root over all leaves so far."""
        if not self.hashes:
            return EMPTY_ROOT
        found = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            found = node(left, found)
        return found

    def dump(self) -> bytes:
        """Return the hashes one after the other; with the size that is the whole state."""
        return b"".join(self.hashes)

    @classmethod
    def load(cls, size: int, stored: bytes) -> Frontier:
        """Return the state that `dump` wrote. Raises ValueError where hashes and size do not belong together."""
        if len(stored) != _HASH * size.bit_count():
            raise ValueError(f"{len(stored)} bytes are no frontier of {size} leaves")
        return cls(size, [stored[at : at + _HASH] for at in range(0, len(stored), _HASH)])


def root_of(leaves: Iterable[bytes]) -> bytes:
    """Return the root over leaves."""
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    return frontier.root()


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Return the audit path of leaf `index` (from 0) in the tree over `leaves`, lowest sibling first.

    Works level by level: a node without a right sibling goes up unchanged, which is RFC 6962's split at the largest
    power of two. Raises IndexError for a leaf outside the tree.
    """
    if not 0 <= index < len(leaves):
        raise IndexError(index)
    level, path = list(leaves), []
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            path.append(level[sibling])
        pairs = [node(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)]
        level = pairs + level[len(pairs) * 2 :]
        index //= 2
    return path


def includes(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether `proof` shows that `leaf` is number `index` (from 0) of the `size` leaves under `root`."""
    if not 0 <= index < size:
        return False
    found, at, last, rest = leaf, index, size - 1, list(proof)
    while last > 0:
        if at % 2 == 1 or at < last:
            if not rest:
                return False
            sibling = rest.pop(0)
            found = node(sibling, found) if at % 2 == 1 else node(found, sibling)
        at, last = at // 2, last // 2
    return not rest and found == root
