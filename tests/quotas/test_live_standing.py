"""Promised or in force: never claimed on stale figures, and told apart while others still use the GPUs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from django.urls import reverse
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.clusters.models import Cluster
from apps.core import clock
from apps.provisioning.models import Declaration, DeclaredObject, Observation
from apps.quotas.live_rows import quota_rows
from apps.quotas.live_standing import Guarantee, PoolUse, Standing, judge, split
from apps.quotas.models import Quota, QuotaRequest
from tests.quotas.conftest import World

AT = datetime(2026, 11, 22, 9, tzinfo=UTC)


def promise(key: str, guaranteed: int, used: int | None, days: int = 0) -> Guarantee:
    seen = None if used is None else Fraction(used)
    return Guarantee(key, Fraction(guaranteed), seen, AT + timedelta(days=days))


def pool(physical: int | None = 10, beyond: int = 0, ended: int = 0, *, back: bool = False, stale: str = "") -> PoolUse:
    there = None if physical is None else Fraction(physical)
    return PoolUse(there, Fraction(beyond), Fraction(ended), back, stale)


@pytest.mark.requirement("feasibility-4.1")
def test_a_guarantee_waits_while_work_of_an_ended_quota_goes_on() -> None:
    found = judge([promise("new", 6, 0)], pool(beyond=8, ended=8))["new"]
    assert (found.standing, found.missing) == (Standing.PROMISED, 4)
    assert found.why == "Promised: 4 GPUs are still used by work whose quota ended."
    assert judge([promise("new", 6, 0)], pool(beyond=4, ended=4))["new"].standing == Standing.IN_FORCE
    assert judge([promise("new", 6, 6)], pool(beyond=4))["new"].standing == Standing.IN_FORCE


@pytest.mark.requirement("feasibility-4.1")
def test_the_older_guarantee_is_served_first_and_reclaim_serves_all() -> None:
    both = [promise("newer", 4, 0, days=1), promise("older", 4, 0)]
    found = judge(both, pool(beyond=5))
    assert (found["older"].standing, found["newer"].standing) == (Standing.IN_FORCE, Standing.PROMISED)
    assert found["newer"].why == "Promised: 3 GPUs are still used by work beyond its own quota."
    assert {one.standing for one in judge(both, pool(beyond=10, back=True)).values()} == {Standing.IN_FORCE}
    assert "carry less" in judge(both, pool(physical=6))["newer"].why


@pytest.mark.requirement("feasibility-4.2")
def test_nothing_is_claimed_on_missing_figures() -> None:
    one = [promise("mine", 4, 0)]
    assert judge(one, pool(stale="old"))["mine"].standing == Standing.UNKNOWN
    assert judge(one, pool(physical=None))["mine"].standing == Standing.UNKNOWN
    assert judge([promise("mine", 4, None)], pool())["mine"].standing == Standing.UNKNOWN
    assert judge([promise("mine", 4, None)], pool(back=True))["mine"].standing == Standing.UNKNOWN


@pytest.mark.requirement("feasibility-4.1", "feasibility-4.2")
@settings(max_examples=200)
@given(
    held=st.lists(st.tuples(st.integers(0, 8), st.one_of(st.none(), st.integers(0, 8))), min_size=1, max_size=6),
    physical=st.integers(0, 24),
    beyond=st.integers(0, 10),
)
def test_what_is_in_force_could_all_start_at_once(
    held: list[tuple[int, int | None]], physical: int, beyond: int
) -> None:
    """The GPUs that guarantees in force do not use yet are free, all of them together."""
    guarantees = [
        promise(str(index), guaranteed, None if used is None else min(used, guaranteed), index)
        for index, (guaranteed, used) in enumerate(held)
    ]
    found = judge(guarantees, pool(physical, beyond))
    free = max(0, physical - beyond - sum(int(one.used or 0) for one in guarantees))
    needs = sum(
        int(one.guaranteed) - int(one.used)
        for one in guarantees
        if found[one.key].standing == Standing.IN_FORCE and one.used is not None
    )
    assert needs <= free
    assert all(found[one.key].standing == Standing.UNKNOWN for one in guarantees if one.used is None and one.guaranteed)


@pytest.mark.requirement("feasibility-4.3")
@settings(max_examples=200)
@given(
    held=st.lists(
        st.tuples(st.integers(0, 8), st.integers(0, 8), st.integers(0, 8)).map(
            lambda found: (found[0], min(found[0], found[1]), min(found[0], found[2]))
        ),
        min_size=1,
        max_size=6,
    ),
    physical=st.integers(0, 24),
    beyond=st.integers(0, 10),
    returns=st.integers(0, 12),
)
def test_what_is_taken_back_serves_managed_work_alone(
    held: list[tuple[int, int, int]], physical: int, beyond: int, returns: int
) -> None:
    """All in force could start at once: their managed part on what is free or comes back, the rest on what is free."""
    guarantees = [
        Guarantee(str(index), Fraction(whole), Fraction(used), AT + timedelta(days=index), Fraction(outside))
        for index, (whole, used, outside) in enumerate(held)
    ]
    there = PoolUse(Fraction(physical), Fraction(beyond), Fraction(0), False, "", Fraction(returns), "Jobs alone.")
    found = judge(guarantees, there)
    left = physical - beyond - sum(used for _, used, _ in held)
    started = [one for one in guarantees if one.guaranteed and found[one.key].standing == Standing.IN_FORCE]
    needs = [(one.guaranteed - (one.used or 0), one.outside) for one in started]
    assert sum(min(need, outside) for need, outside in needs) <= max(0, left)
    assert sum(need for need, _ in needs) <= max(0, left + min(returns, beyond))
    if beyond:
        assert all(one.why.endswith("Jobs alone.") for one in found.values() if one.standing == Standing.PROMISED)


@pytest.mark.requirement("feasibility-4.1")
def test_one_resource_name_fills_one_flavour_after_the_other() -> None:
    assert split(7, [("a", 4), ("b", 2)]) == ({"a": 4, "b": 2}, 1)
    assert split(3, [("a", 4), ("b", 2)]) == ({"a": 3, "b": 0}, 0)


def use(world: World, team: str, used: int, at: datetime | None = None) -> None:
    """Let the observer have seen a namespace's use."""
    Observation.objects.update_or_create(
        cluster=world.cluster, kind="ResourceQuota", namespace=world.workspaces[team].namespace, name="gpu-quota",
        defaults={
            "status": {"hard": {"requests.nvidia.com/gpu": "40"}, "used": {"requests.nvidia.com/gpu": str(used)}},
            "observed_at": at or clock.now(),
        },
    )  # fmt: skip


def standing(world: World, team: str) -> tuple[str, str]:
    """A team's standing now."""
    workspace = world.workspaces[team]
    workspace.refresh_from_db()
    (row,) = quota_rows([workspace])
    return row.standing, row.standing_why


@pytest.fixture
def after(world: World) -> World:
    """Marketing's 45 GPUs ended an hour ago, its work goes on; finance got 20 of them."""
    request = world.granted("marketing", 45)
    now = clock.now()
    Quota.objects.filter(request=request).update(valid=(now - timedelta(days=9), now - timedelta(hours=1)))
    world.granted("finance", 20)
    use(world, "marketing", 38)
    use(world, "finance", 0)
    return world


@pytest.mark.django_db
@pytest.mark.requirement("feasibility-4.1")
def test_it_is_promised_until_the_observer_sees_free_gpus(after: World, client_for: Any) -> None:
    state, why = standing(after, "finance")
    assert (state, why) == ("promised", "Promised: 8 GPUs are still used by work whose quota ended.")
    client = client_for(after["lead_finance"])
    page = client.get(
        reverse("quotas:workspace-detail", kwargs={"workspace_uid": after.workspaces["finance"].uid})
    ).content.decode()
    assert "8 GPUs are still used by work whose quota ended" in page
    assert "marketing" not in page.lower()
    (row,) = client.get("/api/v1/quotas").json()["results"]
    assert (row["standing"], row["standing_why"]) == (state, why)
    request = QuotaRequest.objects.get(workspace=after.workspaces["finance"])
    request.status = "active"
    request.applied_at = clock.now()
    request.save()
    url = reverse("quotas:request-detail", kwargs={"request_uid": request.uid})
    assert "Promised" in client.get(url).content.decode()
    use(after, "marketing", 30)
    assert standing(after, "finance") == ("in_force", "")
    assert "Its GPUs are there." in client.get(url).content.decode()


def queue_seen(world: World, team: str, cell: dict[str, str] | None, at: datetime | None = None) -> None:
    """Let the observer have seen what a team's queue uses."""
    Observation.objects.update_or_create(
        cluster=world.cluster, kind="ClusterQueue", namespace="", name=world.workspaces[team].namespace,
        defaults={
            "status": {"flavours": {world.flavour.slug: {world.flavour.resource_name: cell}} if cell else {}},
            "observed_at": at or clock.now(),
        },
    )  # fmt: skip


@pytest.mark.django_db
@pytest.mark.requirement("feasibility-4.3")
def test_a_kueue_for_jobs_alone_takes_back_only_what_its_queues_hold(after: World) -> None:
    """Marketing's 38 go on; 12 of 50 are free, finance has 20: eight have to come back."""
    after.cluster.kueue_mode = "jobs"
    after.cluster.save()
    state, why = standing(after, "finance")
    assert state == "promised"
    assert why.startswith("Promised: 8 GPUs are still used by work whose quota ended.")
    assert "jobs, and no other pods" in why
    # The observer sees that seven run in the queue, of nine that are reserved: one is missing still.
    queue_seen(after, "marketing", {"reserved": "9", "used": "7", "borrowed": "9"})
    assert standing(after, "finance")[1].startswith("Promised: 1 GPU is still used")
    queue_seen(after, "marketing", {"reserved": "9", "used": "9", "borrowed": "9"})
    assert standing(after, "finance") == ("in_force", "")
    # For the serving share nothing is evicted: 12 are free, and 8 come back for jobs alone.
    Quota.objects.filter(workspace=after.workspaces["finance"]).update(serving=13)
    assert standing(after, "finance")[0] == "promised"
    Quota.objects.filter(workspace=after.workspaces["finance"]).update(serving=12)
    assert standing(after, "finance")[0] == "in_force"
    # What was seen long ago, or is the queue's own, comes back from nobody.
    queue_seen(after, "marketing", {"reserved": "9", "used": "9", "borrowed": "9"}, clock.now() - timedelta(minutes=4))
    assert standing(after, "finance")[0] == "promised"
    queue_seen(after, "marketing", {"reserved": "9", "used": "9", "borrowed": "0"})
    assert standing(after, "finance")[0] == "promised"
    use(after, "marketing", 30)
    assert standing(after, "finance") == ("in_force", "")


@pytest.mark.django_db
@pytest.mark.requirement("feasibility-4.3")
def test_where_kueue_manages_pods_a_namespace_needs_a_queue(after: World) -> None:
    after.cluster.kueue_mode = "pods"
    after.cluster.save()
    state, why = standing(after, "finance")
    assert (state, "have none yet" in why) == ("promised", True)
    workspace = after.workspaces["marketing"]
    declaration = Declaration.objects.get(owner_uid=workspace.uid)
    DeclaredObject.objects.create(
        declaration=declaration, cluster=after.cluster, api_version="kueue.x-k8s.io/v1beta2", kind="ClusterQueue",
        namespace="", name=workspace.namespace, body=b"{}", ordinal=99, generation=1,
    )  # fmt: skip
    assert standing(after, "finance") == ("in_force", "")


@pytest.mark.django_db
@pytest.mark.requirement("feasibility-4.2")
def test_stale_and_unreachable_claim_nothing(after: World) -> None:
    use(after, "marketing", 0, clock.now() - timedelta(minutes=10))
    state, why = standing(after, "finance")
    assert state == "unknown"
    assert "10 min ago" in why
    use(after, "marketing", 0)
    assert standing(after, "finance")[0] == "in_force"
    Cluster.objects.update(health="unreachable", unreachable_since=clock.now() - timedelta(minutes=2))
    state, why = standing(after, "finance")
    assert (state, "does not answer since" in why) == ("unknown", True)


@pytest.mark.django_db
@pytest.mark.requirement("feasibility-4.2")
def test_a_workspace_whose_use_should_be_known_and_is_not_leaves_it_open(after: World) -> None:
    use(after, "marketing", 0)
    after.granted("research", 10)
    # Its namespace is not made yet: it uses nothing.
    assert standing(after, "finance")[0] == "in_force"
    Declaration.objects.filter(owner_uid=after.workspaces["research"].uid).update(observed_generation=1)
    assert standing(after, "finance")[0] == "unknown"


@pytest.mark.django_db
@pytest.mark.requirement("feasibility-4.1", "feasibility-5.1")
def test_any_number_of_rows_takes_four_queries(world: World, query_limit: Any) -> None:
    for team in world.workspaces:
        world.granted(team, 5)
        use(world, team, 2)
    rows = list(world.workspaces.values())
    for row in rows:
        row.refresh_from_db()
        assert row.cluster
    with query_limit(4):
        assert {row.standing for row in quota_rows(rows)} == {"in_force"}
