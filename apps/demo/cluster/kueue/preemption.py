"""Whom to evict so that a workload fits: classic preemption with reclaim inside the cohort tree. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from apps.demo.cluster.kueue.quota import Key, Node, Tree

WITHIN, RECLAIM, WHILE_BORROWING = "InClusterQueue", "InCohortReclamation", "InCohortReclaimWhileBorrowing"
SENTENCES = {
    WITHIN: "prioritization in the ClusterQueue",
    RECLAIM: "reclamation within the cohort",
    WHILE_BORROWING: "reclamation within the cohort while borrowing",
}


@dataclass(frozen=True)
class Policy:
    """`spec.preemption` of a ClusterQueue."""

    within: str = "Never"
    reclaim: str = "Never"
    while_borrowing: bool = False
    threshold: int | None = None


@dataclass(frozen=True)
class Target:
    """A workload to evict, and on which ground."""

    uid: str
    reason: str


class Running(Protocol):
    """What preemption reads of an admitted workload."""

    @property
    def uid(self) -> str: ...
    @property
    def queue(self) -> str: ...
    @property
    def priority(self) -> int: ...
    @property
    def order(self) -> float: ...
    @property
    def usage(self) -> dict[Key, int]: ...
    @property
    def reserved(self) -> float: ...
    @property
    def evicted(self) -> bool: ...


@dataclass
class _Candidate:
    item: Running
    top: Node | None
    """The lowest cohort that both queues are in; None inside one queue."""
    reason: str
    no_borrowing: bool
    """May be taken only where the preemptor does not borrow afterwards."""


def find_targets(
    tree: Tree,
    policy: Policy,
    queue: str,
    priority: int,
    order: float,
    wanted: dict[Key, int],
    running: Iterable[Running],
) -> list[Target]:
    """A small set of workloads without which `wanted` fits in `queue`; empty where there is none.

    The tree is left as it was. Candidates come from queues that borrow, lowest priority first, newest first; those
    already on their way out before all others.
    """
    node = tree.queues[queue]
    tight = {key for key, amount in wanted.items() if amount > node.left(key)}
    if not tight:
        return []
    items = [each for each in running if each.queue in tree.queues and any(key in tight for key in each.usage)]
    own, hierarchical, others = _candidates(tree, node, policy, priority, order, wanted, tight, items)

    def rank(each: _Candidate) -> tuple[bool, int, float, str]:
        return (not each.item.evicted, each.item.priority, -each.item.reserved, each.item.uid)

    parts = [sorted(part, key=rank) for part in (hierarchical, others, own)]
    ordered = [each for part in parts for each in part if each.item.evicted]
    ordered += [each for part in parts for each in part if not each.item.evicted]
    forbidden = not policy.while_borrowing
    under = all(not node.borrows(key) and node.usage.get(key, 0) < node.subtree.get(key, 0) for key in tight)
    if (not hierarchical and not others) or (forbidden and not under):
        attempts = [True]
    elif forbidden and not hierarchical:
        attempts = [False, True]
    else:
        attempts = [True, False]
    for borrowing in attempts:
        targets = _attempt(tree, node, wanted, tight, ordered, borrowing)
        if targets:
            return targets
    return []


def _fits(node: Node, wanted: dict[Key, int], borrowing: bool) -> bool:
    for key, amount in wanted.items():
        if amount > node.left(key) or (not borrowing and node.borrows(key, amount)):
            return False
    return True


def _attempt(
    tree: Tree, node: Node, wanted: dict[Key, int], tight: set[Key], ordered: list[_Candidate], borrowing: bool
) -> list[Target]:
    taken: list[_Candidate] = []
    fits = False
    for each in ordered:
        if not _valid(tree, node, each, tight, borrowing):
            continue
        tree.remove(each.item.queue, each.item.usage)
        taken.append(each)
        fits = _fits(node, wanted, borrowing)
        if fits:
            break
    kept = list(taken)
    if fits:
        for each in reversed(taken[:-1]):  # give back whoever is not needed after all
            tree.add(each.item.queue, each.item.usage)
            if _fits(node, wanted, borrowing):
                kept.remove(each)
            else:
                tree.remove(each.item.queue, each.item.usage)
    for each in kept:
        tree.add(each.item.queue, each.item.usage)
    return [Target(each.item.uid, each.reason) for each in kept] if fits else []


def _valid(tree: Tree, node: Node, each: _Candidate, tight: set[Key], borrowing: bool) -> bool:
    if each.top is None:
        return True
    if borrowing and each.no_borrowing:
        return False
    other = tree.queues[each.item.queue]
    if other.within(tight):
        return False
    for above in other.path():
        if above is each.top:
            return True
        if above.within(tight):
            return False
    return True


def _candidates(
    tree: Tree,
    node: Node,
    policy: Policy,
    priority: int,
    order: float,
    wanted: dict[Key, int],
    tight: set[Key],
    items: list[Running],
) -> tuple[list[_Candidate], list[_Candidate], list[_Candidate]]:
    own = []
    if policy.within != "Never":
        own = [
            _Candidate(each, None, WITHIN, False)
            for each in items
            if each.queue == node.name and _lower(policy.within, each, priority, order)
        ]
    hierarchical: list[_Candidate] = []
    others: list[_Candidate] = []
    if node.parent is None or policy.reclaim == "Never":
        return own, hierarchical, others
    by_queue: dict[str, list[Running]] = {}
    for each in items:
        by_queue.setdefault(each.queue, []).append(each)
    advantage, rest = _fits_in_quota(node, wanted)
    skip: Node | None = None
    for above in node.path():
        for other in _borrowers(above, skip, node, tight):
            for each in by_queue.get(other.name, []):
                if not _lower(policy.reclaim, each, priority, order):
                    continue
                if advantage:
                    hierarchical.append(_Candidate(each, above, RECLAIM, False))
                elif not policy.while_borrowing or _above_threshold(each, policy, priority):
                    others.append(_Candidate(each, above, RECLAIM, True))
                else:
                    others.append(_Candidate(each, above, WHILE_BORROWING, False))
        fits, rest = _fits_in_quota(above, rest)
        advantage = advantage or fits
        skip = above
    return own, hierarchical, others


def _above_threshold(each: Running, policy: Policy, priority: int) -> bool:
    if each.priority >= priority:
        return True
    return policy.threshold is not None and each.priority > policy.threshold


def _lower(policy: str, each: Running, priority: int, order: float) -> bool:
    if policy == "Any":
        return True
    if policy == "LowerOrNewerEqualPriority" and each.priority == priority:
        return order < each.order
    return each.priority < priority


def _fits_in_quota(node: Node, wanted: dict[Key, int]) -> tuple[bool, dict[Key, int]]:
    fits = all(not node.borrows(key, amount) for key, amount in wanted.items())
    return fits, {key: max(0, amount - node.own_left(key)) for key, amount in wanted.items()}


def _borrowers(cohort: Node, skip: Node | None, preemptor: Node, tight: set[Key]) -> list[Node]:
    """Queues below a cohort that borrow, without the subtree looked at before."""
    out: list[Node] = []
    for child in cohort.children:
        if child is skip or child is preemptor or child.within(tight):
            continue
        out += [child] if child.is_queue else _borrowers(child, skip, preemptor, tight)
    return out
