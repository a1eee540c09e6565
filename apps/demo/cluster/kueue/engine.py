"""Admission by quota: which pending workloads start, which running ones give way, and why the others wait.

Pure: a snapshot in, a plan out; the caller carries it out and comes again when something moved. Flavour assignment and
preemption follow Kueue 0.19 with classic preemption (`flavorassigner.go`, `preemption/classical`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from apps.demo.cluster.kueue.preemption import Policy, Target, find_targets
from apps.demo.cluster.kueue.quota import Key, Tree

FIT, PREEMPT, NO_FIT = 2, 1, 0


@dataclass(frozen=True)
class Flavor:
    """A ResourceFlavor: where its nodes are and what a pod must tolerate to run there."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()
    taints: tuple[tuple[str, str, str], ...] = ()
    tolerated: frozenset[tuple[str, str, str]] = frozenset()


@dataclass(frozen=True)
class Group:
    """A resource group: covered resources, and flavours in the order in which they are tried."""

    resources: tuple[str, ...]
    flavors: tuple[str, ...]


@dataclass(frozen=True)
class Queue:
    """What admission needs of a ClusterQueue besides its place in the tree."""

    name: str
    groups: tuple[Group, ...]
    policy: Policy = field(default_factory=Policy)
    strict: bool = False
    active: bool = True
    borrow_stops: bool = True
    """`whenCanBorrow: MayStopSearch`: a flavour that fits by borrowing is taken, later ones are not tried."""
    preempt_stops: bool = False
    """`whenCanPreempt: MayStopSearch`."""


@dataclass(frozen=True)
class Item:
    """A workload. `order` is its age (smaller is older); `blocked` are flavours its pods cannot run on, and why."""

    uid: str
    queue: str
    requests: tuple[tuple[str, int], ...]
    priority: int = 0
    order: float = 0.0
    usage: dict[Key, int] = field(default_factory=dict, hash=False, compare=False)
    reserved: float = 0.0
    evicted: bool = False
    blocked: tuple[tuple[str, str], ...] = ()
    sticky: bool = False
    """Others give way to it: it keeps the head of its queue, or an older one that still does not fit would hide it
    and whoever was evicted would come back first, for ever."""


@dataclass(frozen=True)
class Assignment:
    """Which flavour serves which resource, and whether that is possible now, after preemption, or not."""

    mode: int
    flavors: dict[str, str]
    usage: dict[Key, int]
    level: int
    reason: str
    message: str


@dataclass
class Plan:
    """What to do now. `waiting` tells every other pending workload why it waits: (reason, message)."""

    admit: list[tuple[Item, Assignment]] = field(default_factory=list)
    preempt: list[tuple[Item, Target]] = field(default_factory=list)
    waiting: dict[str, tuple[str, str]] = field(default_factory=dict)


def by_rank(item: Item) -> tuple[bool, int, float, str]:
    """Order within a queue: whoever others are giving way to, then priority, then age."""
    return (not item.sticky, -item.priority, item.order, item.uid)


def make_plan(tree: Tree, queues: dict[str, Queue], pending: list[Item], admitted: list[Item]) -> Plan:
    """One round of admission over all queues. `tree` must be free of use; it is changed."""
    plan = Plan()
    running = {item.uid: item for item in admitted}
    for item in admitted:
        if item.queue in tree.queues:
            tree.add(item.queue, item.usage)
    lines: dict[str, list[Item]] = {}
    for item in sorted(pending, key=by_rank):
        if item.queue in queues and queues[item.queue].active:
            lines.setdefault(item.queue, []).append(item)
    heads: dict[str, Assignment] = {}
    while lines:
        for name, line in lines.items():
            if name not in heads:
                heads[name] = assign(tree, queues[name], line[0], list(running.values()))
        chosen = min(lines, key=lambda name: (heads[name].level, *by_rank(lines[name][0])))
        found, item = heads.pop(chosen), lines[chosen][0]
        queue = queues[item.queue]
        lines[item.queue].pop(0)
        stuck = False
        if found.mode == FIT:
            tree.add(item.queue, found.usage)
            running[item.uid] = replace(item, usage=found.usage, reserved=float("inf"))
            plan.admit.append((item, found))
        elif found.mode == PREEMPT:
            _give_way(tree, queue, item, found, running, plan)
            stuck = queue.strict
        else:
            plan.waiting[item.uid] = (found.reason, found.message)
            stuck = queue.strict
        if stuck:
            for later in lines[item.queue]:
                plan.waiting[later.uid] = ("WaitingForQuota", "a workload before it in a StrictFIFO queue waits")
            lines[item.queue].clear()
        if not lines[item.queue]:
            del lines[item.queue]
        if found.mode != NO_FIT:  # what the others of this tree may take has changed
            root = _root(tree, item.queue)
            heads = {name: each for name, each in heads.items() if _root(tree, name) != root}
    return plan


def _root(tree: Tree, queue: str) -> str:
    path = tree.queues[queue].path()
    return path[-1].name if path else f"/{queue}"


def _give_way(tree: Tree, queue: Queue, item: Item, found: Assignment, running: dict[str, Item], plan: Plan) -> None:
    """Mark the targets, and hold their place so that nobody else takes it before the one they gave way to."""
    targets = find_targets(tree, queue.policy, item.queue, item.priority, item.order, found.usage, running.values())
    for target in targets:
        victim = running.pop(target.uid)
        tree.remove(victim.queue, victim.usage)
        if not victim.evicted:
            plan.preempt.append((item, target))
    tree.add(item.queue, found.usage)
    count = len(targets)
    text = f"{found.message}. Pending the preemption of {count} workload(s)"
    plan.waiting[item.uid] = ("WaitingForPreemptedWorkloads", text)


def assign(tree: Tree, queue: Queue, item: Item, running: list[Item]) -> Assignment:
    """Choose flavours for a workload, group by group, in the order of the ClusterQueue."""
    requests = dict(item.requests)
    flavors: dict[str, str] = {}
    usage: dict[Key, int] = {}
    mode, level, reason, texts = FIT, 0, "", []
    covered = {name for group in queue.groups for name in group.resources}
    for name in sorted(set(requests) - covered):
        text = f"couldn't assign flavors to pod set main: resource {name} unavailable in ClusterQueue"
        return Assignment(NO_FIT, {}, {}, 0, "NoMatchingFlavor", text)
    for group in queue.groups:
        wanted = {name: requests[name] for name in group.resources if requests.get(name)}
        if not wanted:
            continue
        best = _group(tree, queue, group, item, wanted, running)
        mode, level = min(mode, best.mode), max(level, best.level)
        flavors |= best.flavors
        usage |= best.usage
        if best.mode != FIT:
            texts.append(best.message)
            if not reason or best.mode == NO_FIT:
                reason = best.reason
    text = f"couldn't assign flavors to pod set main: {', '.join(texts)}" if texts else ""
    return Assignment(mode, flavors, usage, level, reason, text)


def _group(
    tree: Tree, queue: Queue, group: Group, item: Item, wanted: dict[str, int], running: list[Item]
) -> Assignment:
    blocked = dict(item.blocked)
    best: Assignment | None = None
    texts: list[str] = []
    reasons: set[str] = set()
    for flavor in group.flavors:
        if flavor in blocked:
            texts.append(blocked[flavor])
            reasons.add("NoMatchingFlavor")
            continue
        found = _flavor(tree, queue, flavor, item, wanted, running)
        if found.message:
            texts.append(found.message)
            reasons.add(found.reason)
        if best is None or (found.mode, -found.level) > (best.mode, -best.level):
            best = found
        if found.mode == FIT and (found.level == 0 or queue.borrow_stops):
            break
        if found.mode == PREEMPT and queue.preempt_stops:
            break
    text = ", ".join(texts)
    if best is None:
        return Assignment(NO_FIT, {}, {}, 0, "NoMatchingFlavor", text)
    if best.mode == FIT:
        return best
    reason = best.reason
    if best.mode == NO_FIT and reasons == {"ExceedsMaxQuota"}:
        reason = "ExceedsMaxQuota"
    elif best.mode == NO_FIT and "WaitingForQuota" in reasons:
        reason = "WaitingForQuota"
    return replace(best, reason=reason, message=text)


def _flavor(
    tree: Tree, queue: Queue, flavor: str, item: Item, wanted: dict[str, int], running: list[Item]
) -> Assignment:
    node = tree.queues[queue.name]
    usage = {(flavor, name): amount for name, amount in wanted.items()}
    flavors = dict.fromkeys(wanted, flavor)
    mode, level, reason, texts, hopeful = FIT, 0, "", [], True
    for key, amount in usage.items():
        most, left = node.most(key), node.left(key)
        if amount > most:
            text = (
                f"insufficient quota for {key[1]} in flavor {flavor}, previously considered podsets requests (0) + "
                f"current podset request ({shown(amount)}) > maximum capacity ({shown(most)})"
            )
            return Assignment(NO_FIT, flavors, usage, 0, "ExceedsMaxQuota", text)
        height, may_reclaim = _level(tree, queue.name, key, amount)
        level = max(level, height)
        if amount > left:
            mode = PREEMPT
            more = shown(amount - left)
            texts.append(f"insufficient unused quota for {key[1]} in flavor {flavor}, {more} more needed")
            limits = node.quotas.get(key)
            within = limits is not None and limits.nominal >= amount
            hopeful = hopeful and (within or may_reclaim or queue.policy.while_borrowing)
    if mode == PREEMPT:
        reason = "WaitingForQuota"
        targets = find_targets(tree, queue.policy, queue.name, item.priority, item.order, usage, running)
        if not hopeful or not targets:
            mode = NO_FIT
    return Assignment(mode, flavors, usage, level, reason, ", ".join(texts))


def _level(tree: Tree, queue: str, key: Key, amount: int) -> tuple[int, bool]:
    """How far up the tree the workload must borrow from (0: within the queue's own quota), and whether it could
    reclaim there: whether the subtree that is large enough is not yet the whole tree."""
    node = tree.queues[queue]
    if node.parent is None or not node.borrows(key, amount):
        return 0, node.parent is not None
    rest = amount - node.own_left(key)
    for above in node.path():
        if not above.borrows(key, rest):
            return above.height(), above.parent is not None
        rest -= above.own_left(key)
    return node.path()[-1].height(), False


def shown(amount: int) -> str:
    """Thousandths as a quantity."""
    return str(amount // 1000) if amount % 1000 == 0 else f"{amount}m"
