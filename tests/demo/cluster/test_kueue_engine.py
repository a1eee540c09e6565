"""The admission engine alone: capacity is never exceeded, owners get their own back, nobody flips and flops."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.demo.cluster.kueue.engine import Group, Item, Plan, Queue, make_plan
from apps.demo.cluster.kueue.preemption import Policy
from apps.demo.cluster.kueue.quota import Key, Limits, Tree

GPU = "nvidia.com/gpu"
A100: Key = ("a100", GPU)
ANY = Policy(within="LowerPriority", reclaim="Any")


def queue(name: str, *flavors: str, **more: object) -> Queue:
    return Queue(name, (Group((GPU,), flavors or ("a100",)),), **{"policy": ANY, **more})  # type: ignore[arg-type]  # test helper


def item(uid: str, where: str, gpus: int, priority: int = 0, order: float = 0.0, **more: object) -> Item:
    return Item(uid, where, ((GPU, gpus * 1000),), priority, order, **more)  # type: ignore[arg-type]  # test helper


def limits(nominal: int, borrowing: int | None = None, lending: int | None = None) -> dict[Key, Limits]:
    def thousand(value: int | None) -> int | None:
        return None if value is None else value * 1000

    return {A100: Limits(nominal * 1000, thousand(borrowing), thousand(lending))}


class World:
    """Queues under one root cohort; carries plans out at once."""

    def __init__(self, cohorts: dict[str, str] | None = None, **queues: tuple[str, dict[Key, Limits]]) -> None:
        self.quotas = dict(queues)
        self.cohorts = {name: (parent, {}) for name, parent in (cohorts or {}).items()}
        self.queues = {name: queue(name) for name in queues}
        self.pending: list[Item] = []
        self.admitted: list[Item] = []
        self.clock = 0.0

    def tree(self) -> Tree:
        return Tree.build(self.quotas, self.cohorts)  # type: ignore[arg-type]  # no quota of their own

    def step(self) -> Plan:
        plan = make_plan(self.tree(), self.queues, self.pending, self.admitted)
        self.clock += 1
        gone = {target.uid for _, target in plan.preempt}
        evicted = [each for each in self.admitted if each.uid in gone]
        self.admitted = [each for each in self.admitted if each.uid not in gone]
        for each, found in plan.admit:
            self.pending.remove(each)
            self.admitted.append(replace(each, usage=found.usage, reserved=self.clock))
        self.pending += [replace(each, usage={}, reserved=0.0) for each in evicted]
        stuck = {uid for uid, (reason, _) in plan.waiting.items() if reason == "WaitingForPreemptedWorkloads"}
        self.pending = [replace(each, sticky=each.uid in stuck) for each in self.pending]
        return plan

    def settle(self, most: int = 50) -> int:
        for number in range(most):
            plan = self.step()
            if not plan.admit and not plan.preempt:
                return number
        raise AssertionError("never comes to rest")

    def running(self) -> set[str]:
        return {each.uid for each in self.admitted}


@pytest.mark.requirement("simulated-kueue-2.2")
def test_borrowing_reaches_as_far_as_cohort_and_limit() -> None:
    world = World(a=("c", limits(4, 2)), b=("c", limits(8, 0)))
    world.pending = [item(f"w{n}", "a", 1, order=n) for n in range(10)]
    world.settle()
    assert world.running() == {f"w{n}" for n in range(6)}
    plan = world.step()
    reason, message = plan.waiting["w6"]
    assert reason == "WaitingForQuota"
    assert "insufficient unused quota for nvidia.com/gpu in flavor a100, 1 more needed" in message
    world.pending.append(item("huge", "a", 7))
    assert world.step().waiting["huge"][0] == "ExceedsMaxQuota"


@pytest.mark.requirement("simulated-kueue-2.2")
def test_what_is_not_lent_stays_at_home() -> None:
    world = World(a=("c", limits(0)), b=("c", limits(8, None, 3)))
    world.pending = [item(f"w{n}", "a", 1, order=n) for n in range(8)]
    world.settle()
    assert len(world.admitted) == 3


@pytest.mark.requirement("simulated-kueue-2.2")
def test_hierarchical_cohorts_lend_across_units() -> None:
    world = World({"root": "", "left": "root", "right": "root"}, a=("left", limits(2)), b=("right", limits(6)))
    world.pending = [item(f"w{n}", "a", 1, order=n) for n in range(9)]
    world.settle()
    assert len(world.admitted) == 8


@pytest.mark.requirement("simulated-kueue-2.3")
def test_the_owner_takes_its_own_back_from_the_lowest_and_newest() -> None:
    world = World(a=("c", limits(4)), b=("c", limits(4)))
    world.pending = [
        item("old", "a", 2, 5, 1), item("own", "a", 2, 5, 0), item("low", "a", 2, 1, 2), item("high", "a", 2, 9, 3)
    ]  # fmt: skip
    world.settle()
    assert world.running() == {"old", "own", "low", "high"}
    world.pending.append(item("mine", "b", 2, 0, 9))
    plan = world.step()
    assert [(target.uid, target.reason) for _, target in plan.preempt] == [("low", "InCohortReclamation")]
    assert plan.waiting["mine"][0] == "WaitingForPreemptedWorkloads"
    world.settle()
    assert "mine" in world.running()
    assert "low" not in world.running()


@pytest.mark.requirement("simulated-kueue-2.3")
def test_an_owner_that_borrows_nothing_is_left_alone() -> None:
    """Finance's training never evicts what Marketing serves within its own quota."""
    world = World(a=("c", limits(4)), b=("c", limits(4)))
    world.pending = [item("served", "b", 4, 0, 0)]
    world.settle()
    world.pending = [item("train", "a", 6, 100, 1)]
    world.settle()
    assert world.running() == {"served"}


@pytest.mark.requirement("simulated-kueue-2.4")
def test_within_a_queue_only_lower_priority_gives_way() -> None:
    world = World(a=("", limits(4)))
    world.pending = [item("batch", "a", 4, 10, 0)]
    world.settle()
    world.pending.append(item("peer", "a", 4, 10, 1))
    world.settle()
    assert world.running() == {"batch"}
    world.pending.append(item("urgent", "a", 4, 100, 2))
    world.settle()
    assert world.running() == {"urgent"}


@pytest.mark.requirement("simulated-kueue-2.5")
def test_a_lowered_quota_leaves_the_running_ones_and_makes_them_reclaimable() -> None:
    world = World(a=("c", limits(4)), b=("c", limits(4)))
    world.pending = [item("w", "a", 4)]
    world.settle()
    world.quotas = {"a": ("c", limits(2)), "b": ("c", limits(6))}
    world.settle()
    assert world.running() == {"w"}
    world.pending.append(item("claim", "b", 6, 0, 1))
    world.settle()
    assert world.running() == {"claim"}


@pytest.mark.requirement("simulated-kueue-2.1")
def test_flavours_are_tried_in_order_and_those_that_do_not_match_are_told() -> None:
    quotas = {("a100", GPU): Limits(1000), ("h100", GPU): Limits(2000)}
    queues = {"a": queue("a", "a100", "h100")}
    blocked = (("a100", "flavor a100 doesn't match node affinity"),)
    tree = Tree.build({"a": ("", quotas)}, {})
    plan = make_plan(tree, queues, [item("one", "a", 1), item("two", "a", 1, order=1)], [])
    assert [found.flavors[GPU] for _, found in plan.admit] == ["a100", "h100"]
    tree = Tree.build({"a": ("", quotas)}, {})
    plan = make_plan(tree, queues, [item("one", "a", 3, blocked=blocked)], [])
    reason, message = plan.waiting["one"]
    assert "doesn't match node affinity" in message
    assert reason == "ExceedsMaxQuota"


@pytest.mark.requirement("simulated-kueue-2.6")
def test_strict_queues_do_not_let_the_second_pass() -> None:
    quotas = {"a": ("", limits(4))}
    waiting = [item("big", "a", 5), item("small", "a", 1, order=1)]
    strict = make_plan(Tree.build(quotas, {}), {"a": queue("a", strict=True)}, waiting, [])
    assert strict.admit == []
    best = make_plan(Tree.build(quotas, {}), {"a": queue("a")}, waiting, [])
    assert [each.uid for each, _ in best.admit] == ["small"]


@pytest.mark.requirement("simulated-kueue-2.7")
def test_an_older_workload_that_does_not_fit_hides_nobody() -> None:
    """Found by the property below: without its place at the head, the preemptor and its victim took turns for ever."""
    world = World(a=("c", limits(0)), b=("c", limits(4)))
    for number, (where, gpus) in enumerate((("a", 1), ("b", 3), ("b", 2), ("b", 1))):
        world.pending.append(item(f"w{number}", where, gpus, 1, number))
        world.settle()
    assert world.running() == {"w1", "w3"}


_quota = st.tuples(st.integers(0, 8), st.none() | st.integers(0, 6), st.none() | st.integers(0, 8))
_jobs = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(1, 6), st.sampled_from((1, 10, 100))), min_size=1, max_size=14
)


@pytest.mark.requirement("simulated-kueue-2.7")
@settings(max_examples=300, deadline=None)
@given(st.tuples(_quota, _quota, _quota), _jobs, st.booleans())
def test_capacity_is_never_exceeded_and_it_comes_to_rest(quotas: object, jobs: object, deep: bool) -> None:
    """Whatever is submitted when: use stays within the tree, and the rounds end."""
    cohorts = {"root": "", "unit": "root"} if deep else {"root": ""}
    homes = ("root", "unit" if deep else "root", "root")
    rows = {
        name: (home, limits(nominal, borrowing, None if lending is None else min(lending, nominal)))
        for name, home, (nominal, borrowing, lending) in zip("abc", homes, quotas, strict=True)  # type: ignore[call-overload]  # strategies
    }
    world = World(cohorts, **rows)
    for number, (where, gpus, priority) in enumerate(cast("list[tuple[str, int, int]]", jobs)):
        world.pending.append(item(f"w{number}", where, gpus, priority, number))
        world.settle()
        used: dict[str, int] = dict.fromkeys("abc", 0)
        for each in world.admitted:
            used[each.queue] += each.usage[A100]
        nominal = {name: quota[A100].nominal for name, (_, quota) in rows.items()}
        assert sum(used.values()) <= sum(nominal.values())
        for name, (_, quota) in rows.items():
            borrowing = quota[A100].borrowing
            if borrowing is not None:
                assert used[name] <= nominal[name] + borrowing


@pytest.mark.requirement("simulated-kueue-2.3")
@given(
    st.lists(st.tuples(st.integers(1, 4), st.sampled_from((1, 100))), min_size=1, max_size=10),
    st.integers(1, 6),
    st.sampled_from((0, 1, 100)),
)
def test_within_nominal_is_always_had_after_reclaim(borrowers: list[tuple[int, int]], gpus: int, rank: int) -> None:
    """An owner's workload within its nominal quota runs, whoever borrows, whatever the priorities."""
    world = World(a=("c", limits(3)), b=("c", limits(6)))
    world.pending = [item(f"w{n}", "a", size, priority, n) for n, (size, priority) in enumerate(borrowers)]
    world.settle()
    world.pending.append(item("mine", "b", gpus, rank, 99))
    world.settle()
    assert "mine" in world.running()
