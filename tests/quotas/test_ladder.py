"""The expiry ladder as a pure rule: rungs, policies, and that no declaration on it ever leaves an object out."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.core.errors import Invalid
from apps.quotas import ladder
from apps.quotas.choices import Rung
from apps.quotas.ladder import ORDER, ExpiryPolicy, Facts, decide, sentence, upcoming
from apps.quotas.ladder_manifests import (
    ARCHIVED_LABEL,
    VIEWERS,
    archived,
    at_rung,
    restored,
    with_annotation,
    with_hard,
)
from apps.quotas.manifests import Manifest, WorkspaceSpec, with_gpus, workspace_manifests

NOW = datetime(2026, 12, 1, tzinfo=UTC)
TO_ARCHIVE = ExpiryPolicy(Rung.ARCHIVED, drain_after_hours=24, archive_after_days=30)


def facts(rung: str = Rung.NONE, hours: float = 0, **changes: Any) -> Facts:
    values: dict[str, Any] = {"holds": False, "over": False, "coming": False, "used": 0}
    return Facts(rung, NOW - timedelta(hours=hours), **(values | changes))


@pytest.mark.requirement("quota-time-4.1")
def test_without_a_policy_it_admits_nothing_new_and_nothing_else_ever_happens() -> None:
    policy = ExpiryPolicy()
    assert decide(policy, facts(), NOW) == Rung.STOPPED_ADMITTING
    stopped = facts(Rung.STOPPED_ADMITTING, hours=24 * 400)
    assert decide(policy, stopped, NOW) == Rung.STOPPED_ADMITTING
    assert upcoming(policy, stopped) is None
    assert policy.plain() == {}


@pytest.mark.requirement("quota-time-4.1")
def test_rungs_come_one_at_a_time_and_on_time() -> None:
    # Long outage: the end lies months back, still it stops, drains and archives in this order.
    assert decide(TO_ARCHIVE, facts(hours=5000), NOW) == Rung.STOPPED_ADMITTING
    assert decide(TO_ARCHIVE, facts(Rung.STOPPED_ADMITTING, 23.9), NOW) == Rung.STOPPED_ADMITTING
    assert decide(TO_ARCHIVE, facts(Rung.STOPPED_ADMITTING, 24), NOW) == Rung.DRAINED
    step = upcoming(TO_ARCHIVE, facts(Rung.DRAINED, 0))
    assert step is not None
    # 30 days after admitting stopped, which was a day before.
    assert (step.rung, step.at) == (Rung.ARCHIVED, NOW + timedelta(days=29))
    assert decide(TO_ARCHIVE, facts(Rung.DRAINED, 29 * 24), NOW) == Rung.ARCHIVED
    # Unknown use is not zero, and what runs keeps it from the archive.
    for used in (None, 3):
        assert decide(TO_ARCHIVE, facts(Rung.DRAINED, 29 * 24, used=used), NOW) == Rung.DRAINED
    # What comes later keeps it, too.
    assert decide(TO_ARCHIVE, facts(Rung.DRAINED, 90 * 24, coming=True), NOW) == Rung.DRAINED


@pytest.mark.requirement("quota-time-4.1", "quota-time-4.2")
def test_quota_that_is_held_leads_back_to_the_ground_unless_more_runs_than_that() -> None:
    for rung in (Rung.STOPPED_ADMITTING, Rung.DRAINED):
        assert decide(TO_ARCHIVE, facts(rung, 9000, holds=True), NOW) == Rung.NONE
        assert decide(TO_ARCHIVE, facts(rung, 9000, holds=True, over=True, used=9), NOW) == Rung.STOPPED_ADMITTING
    assert decide(TO_ARCHIVE, facts(holds=True, over=True, used=12), NOW) == Rung.STOPPED_ADMITTING


@pytest.mark.requirement("quota-time-4.1")
@settings(max_examples=200)
@given(
    last=st.sampled_from(ORDER[1:]),
    rung=st.sampled_from(ORDER),
    hours=st.integers(0, 20_000),
    holds=st.booleans(),
    over=st.booleans(),
    coming=st.booleans(),
    used=st.sampled_from([None, 0, 5]),
)
def test_no_step_goes_further_than_the_policy_or_skips_a_rung(
    last: Rung, rung: Rung, hours: int, holds: bool, over: bool, coming: bool, used: int | None
) -> None:
    policy = ExpiryPolicy(last, drain_after_hours=4, archive_after_days=2)
    found = decide(policy, facts(rung, hours, holds=holds, over=over, coming=coming, used=used), NOW)
    before, after = ORDER.index(rung), ORDER.index(Rung(found))
    assert after <= before + 1
    assert after <= max(before, ORDER.index(last))
    if after > ORDER.index(Rung.STOPPED_ADMITTING) and after > before:
        assert not holds


@pytest.mark.requirement("quota-time-4.4")
@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"last_rung": "deleted"}, "last_rung"),
        ({"last_rung": "none"}, "last_rung"),
        ({"last_rung": "drained", "drain_after_hours": -1}, "drain_after_hours"),
        ({"last_rung": "drained", "drain_after_hours": 1.5}, "drain_after_hours"),
        ({"last_rung": "archived", "archive_after_days": 0}, "archive_after_days"),
        ({"last_rung": "archived", "drain_after_hours": 48, "archive_after_days": 2}, "archive_after_days"),
        ({"last_rung": "drained", "delete_after_days": 3}, "delete_after_days"),
    ],
)
def test_a_policy_that_cannot_be_taken_says_why_at_its_field(values: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        ladder.check(values)
    assert field in refused.value.errors


@pytest.mark.requirement("quota-time-4.4")
def test_a_policy_is_said_in_words_and_stands_on_the_namespace() -> None:
    policy = ladder.check({"last_rung": "archived", "drain_after_hours": 0, "archive_after_days": 1})
    assert ladder.of(policy.plain()) == policy
    assert "at once" in sentence(policy)
    assert "Nothing is deleted" in sentence(policy)
    stored = json.loads(ladder.annotations_of(policy.plain())[ladder.ANNOTATION])
    assert stored == {"last_rung": "archived", "drain_after_hours": 0, "archive_after_days": 1}
    assert ladder.annotations_of({}) == {}


SPEC = WorkspaceSpec(
    namespace="finance-development",
    workspace_uid="5f3c0000-0000-4000-8000-000000000001",
    team_slug="finance",
    environment="development",
    group_prefix="corp:",
    cpu_cores=64,
    memory_gib=512,
    storage_gib=1024,
    pods=100,
    gpus={"nvidia.com/gpu": 8},
)


def workspace() -> list[Manifest]:
    """A workspace with a queue of Kueue's and something that somebody else had declared there."""
    queue = {
        "apiVersion": "kueue.x-k8s.io/v1beta2",
        "kind": "ClusterQueue",
        "metadata": {"name": SPEC.namespace},
        "spec": {"stopPolicy": "None"},
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": SPEC.namespace},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}}},
    }
    return [*workspace_manifests(SPEC), queue, claim]


def keys(manifests: list[Manifest]) -> set[tuple[str, str]]:
    return {(one["kind"], one["metadata"]["name"]) for one in manifests}


def one_of(manifests: list[Manifest], kind: str, name: str = "") -> Manifest:
    return next(one for one in manifests if one["kind"] == kind and name in ("", one["metadata"]["name"]))


@pytest.mark.requirement("quota-time-4.5", "quota-time-4.3")
def test_an_archive_lets_everybody_look_and_nothing_start_and_comes_back_whole() -> None:
    before = workspace()
    found = archived(before)
    hard = one_of(found, "ResourceQuota", "gpu-commons")["spec"]["hard"]
    assert {hard[key] for key in ("pods", "requests.nvidia.com/gpu", "requests.cpu", "count/jobs.batch")} == {"0"}
    assert hard["requests.storage"] == one_of(before, "ResourceQuota")["spec"]["hard"]["requests.storage"]
    assert one_of(found, "Namespace")["metadata"]["labels"][ARCHIVED_LABEL] == "true"
    assert one_of(found, "ClusterQueue")["spec"]["stopPolicy"] == "HoldAndDrain"
    viewers = one_of(found, "RoleBinding", VIEWERS)
    assert viewers["roleRef"]["name"] == "view"
    assert {subject["name"] for subject in viewers["subjects"]} == {"corp:finance-leads", "corp:finance-members"}
    for name in ("gpu-commons-leads", "gpu-commons-members"):
        binding = one_of(found, "RoleBinding", name)
        assert binding["subjects"] == []
        # A role reference can never change on a cluster.
        assert binding["roleRef"] == one_of(before, "RoleBinding", name)["roleRef"]
    assert archived(found) == found
    back = restored(found, workspace_manifests(SPEC))
    assert keys(back) == keys(found)
    assert one_of(back, "RoleBinding", VIEWERS)["subjects"] == []
    assert ARCHIVED_LABEL not in one_of(back, "Namespace")["metadata"]["labels"]


@pytest.mark.requirement("quota-time-4.1", "quota-time-4.2")
def test_kueues_queue_follows_the_rung_only_where_nothing_is_held() -> None:
    for rung, policy in ((Rung.STOPPED_ADMITTING, "Hold"), (Rung.DRAINED, "HoldAndDrain"), (Rung.NONE, "None")):
        assert one_of(at_rung(workspace(), rung, holds=False), "ClusterQueue")["spec"]["stopPolicy"] == policy
        assert one_of(at_rung(workspace(), rung, holds=True), "ClusterQueue")["spec"]["stopPolicy"] == "None"
    plain = workspace_manifests(SPEC)
    assert at_rung(plain, Rung.DRAINED, holds=False) == plain


events = st.lists(
    st.one_of(
        st.tuples(st.just("rung"), st.sampled_from(ORDER), st.booleans()),
        st.tuples(st.just("archive")),
        st.tuples(st.just("restore")),
        st.tuples(st.just("gpus"), st.integers(0, 64)),
        st.tuples(st.just("policy"), st.booleans()),
        st.tuples(st.just("limits"), st.integers(0, 500)),
    ),
    max_size=12,
)


@pytest.mark.requirement("quota-time-4.3")
@settings(max_examples=200)
@given(happenings=events)
def test_no_sequence_of_ends_and_returns_ever_drops_a_namespace_a_volume_or_any_object(
    happenings: list[tuple[Any, ...]],
) -> None:
    """Validates design invariant 5 on what is declared: objects that are declared once are declared for good."""
    current = workspace()
    storage = one_of(current, "ResourceQuota")["spec"]["hard"]["requests.storage"]
    for what, *args in happenings:
        before = keys(current)
        roles = {one["metadata"]["name"]: one["roleRef"] for one in current if one["kind"] == "RoleBinding"}
        if what == "rung":
            current = at_rung(current, args[0], holds=args[1])
        elif what == "archive":
            current = archived(current)
        elif what == "restore":
            current = restored(current, workspace_manifests(SPEC))
        elif what == "gpus":
            current = with_gpus(current, {"nvidia.com/gpu": args[0]})
        elif what == "policy":
            current = with_annotation(current, ladder.ANNOTATION, "{}" if args[0] else None)
        else:
            current = with_hard(current, {"pods": str(args[0])})
        assert before <= keys(current)
        assert one_of(current, "Namespace")["metadata"]["name"] == SPEC.namespace
        assert one_of(current, "PersistentVolumeClaim", "data")
        assert one_of(current, "ResourceQuota")["spec"]["hard"]["requests.storage"] == storage
        assert all(
            one["roleRef"] == roles.get(one["metadata"]["name"], one["roleRef"])
            for one in current
            if one["kind"] == "RoleBinding"
        )
