"""The quota tree of Kueue: what a ClusterQueue may still take, with borrowing, lending and hierarchical Cohorts.

Pure. The arithmetic is that of Kueue 0.19 (`pkg/cache/scheduler/resource_node.go`): a node keeps to itself what its
lending limit withholds, everything else is visible in its parent; use goes into a node's own part first.
Amounts are whole numbers in thousandths of the resource's unit, so that `1500m` CPU is exact.
"""

from __future__ import annotations

from dataclasses import dataclass, field

Key = tuple[str, str]
"""(flavour, resource)."""


@dataclass(frozen=True)
class Limits:
    """Quota of one flavour and resource; None is no limit."""

    nominal: int
    borrowing: int | None = None
    lending: int | None = None


@dataclass
class Node:
    """A ClusterQueue or a Cohort in the tree."""

    name: str
    is_queue: bool
    parent: Node | None = None
    children: list[Node] = field(default_factory=list)
    quotas: dict[Key, Limits] = field(default_factory=dict)
    subtree: dict[Key, int] = field(default_factory=dict)
    usage: dict[Key, int] = field(default_factory=dict)

    def kept(self, key: Key) -> int:
        """What is never lent out to the parent."""
        limits = self.quotas.get(key)
        if limits is None or limits.lending is None:
            return 0
        return max(0, self.subtree.get(key, 0) - limits.lending)

    def own_left(self, key: Key) -> int:
        """What is left of the part that is never lent."""
        return max(0, self.kept(key) - self.usage.get(key, 0))

    def left(self, key: Key) -> int:
        """What the node may still take. Negative where more is in use than there is (quota was lowered)."""
        if self.parent is None:
            return self.subtree.get(key, 0) - self.usage.get(key, 0)
        above = self.parent.left(key)
        limits = self.quotas.get(key)
        if limits is not None and limits.borrowing is not None:
            stored = self.subtree.get(key, 0) - self.kept(key)
            taken = max(0, self.usage.get(key, 0) - self.kept(key))
            above = min(above, stored - taken + limits.borrowing)
        return self.own_left(key) + above

    def most(self, key: Key) -> int:
        """What the node could take if nothing were in use."""
        if self.parent is None:
            return self.subtree.get(key, 0)
        limits = self.quotas.get(key)
        reach = self.kept(key) + self.parent.most(key)
        if limits is not None and limits.borrowing is not None:
            reach = min(reach, self.subtree.get(key, 0) + limits.borrowing)
        return reach

    def add(self, key: Key, amount: int) -> None:
        """Take; what goes beyond the node's own part counts in the parent, too."""
        own = self.own_left(key)
        self.usage[key] = self.usage.get(key, 0) + amount
        if self.parent is not None and amount > own:
            self.parent.add(key, amount - own)

    def remove(self, key: Key, amount: int) -> None:
        """Give back."""
        stored = self.usage.get(key, 0) - self.kept(key)
        self.usage[key] = self.usage.get(key, 0) - amount
        if stored > 0 and self.parent is not None:
            self.parent.remove(key, min(amount, stored))

    def borrows(self, key: Key, more: int = 0) -> bool:
        """Whether use, with `more`, is above the node's own and its children's quota."""
        return self.usage.get(key, 0) + more > self.subtree.get(key, 0)

    def within(self, keys: set[Key]) -> bool:
        """Whether the node borrows none of these."""
        return not any(self.borrows(key) for key in keys)

    def path(self) -> list[Node]:
        """Parent, its parent, … up to the root."""
        out = []
        node = self.parent
        while node is not None:
            out.append(node)
            node = node.parent
        return out

    def height(self) -> int:
        """Steps to the furthest leaf."""
        return max((child.height() + 1 for child in self.children), default=0)


@dataclass
class Tree:
    """All queues and cohorts. Cohorts that only somebody's `cohortName` names exist, too, without quota."""

    queues: dict[str, Node] = field(default_factory=dict)
    cohorts: dict[str, Node] = field(default_factory=dict)

    @classmethod
    def build(
        cls,
        queues: dict[str, tuple[str, dict[Key, Limits]]],
        cohorts: dict[str, tuple[str, dict[Key, Limits]]],
    ) -> Tree:
        """From name → (parent's name or empty, quotas). A cohort in a circle of parents hangs on nothing."""
        tree = cls()
        for name, (_, quotas) in cohorts.items():
            tree.cohorts[name] = Node(name, False, quotas=quotas)
        for name, (parent, _) in cohorts.items():
            if parent and not _circular(name, cohorts):
                tree._hang(tree.cohorts[name], parent)
        for name, (parent, quotas) in queues.items():
            node = tree.queues[name] = Node(name, True, quotas=quotas)
            if parent:
                tree._hang(node, parent)
        for node in [*tree.cohorts.values(), *tree.queues.values()]:
            if node.parent is None:
                _sum_up(node)
        return tree

    def _hang(self, node: Node, parent: str) -> None:
        above = self.cohorts.setdefault(parent, Node(parent, False))
        node.parent = above
        above.children.append(node)

    def add(self, queue: str, usage: dict[Key, int]) -> None:
        """Count a workload's use."""
        for key, amount in usage.items():
            self.queues[queue].add(key, amount)

    def remove(self, queue: str, usage: dict[Key, int]) -> None:
        """Count it no longer."""
        for key, amount in usage.items():
            self.queues[queue].remove(key, amount)


def _circular(name: str, cohorts: dict[str, tuple[str, dict[Key, Limits]]]) -> bool:
    seen = {name}
    parent = cohorts[name][0]
    while parent:
        if parent in seen:
            return True
        seen.add(parent)
        parent = cohorts[parent][0] if parent in cohorts else ""
    return False


def _sum_up(node: Node) -> None:
    node.subtree = {key: limits.nominal for key, limits in node.quotas.items()}
    for child in node.children:
        _sum_up(child)
        for key, amount in child.subtree.items():
            node.subtree[key] = node.subtree.get(key, 0) + amount - child.kept(key)
