"""A pool over time: the sweep equals the sum at every instant; what the layout gives; the page at size."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st

from apps.clusters import capacity
from apps.clusters.models import Cluster, Flavour, Node, Pool, PoolCapacity
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Invalid
from apps.core.testing import assert_queries
from apps.provisioning.quota_usage import Used
from apps.quotas import book, pool_calendar, pool_layout, pools, selectors
from apps.quotas.assess import Extras
from apps.quotas.ledger import Step, at_instant, breaches, instants
from apps.quotas.models import Quota, QuotaRequest
from tests.factories import client_for
from tests.quotas.conftest import REASON, World
from tests.rates.factories import make_flavour, make_pool

ZERO = datetime(2026, 12, 1, tzinfo=UTC)
SYSTEM = Actor.system("tests")


@st.composite
def _steps(draw: st.DrawFn) -> list[Step]:
    """Promises of sevenths and thirds of GPUs, some of nothing, some without end."""
    made = []
    for _ in range(draw(st.integers(0, 12))):
        start = draw(st.integers(-30, 120))
        length = draw(st.none() | st.integers(1, 60))
        count = Fraction(draw(st.integers(0, 40)), draw(st.sampled_from([1, 3, 4, 7])))
        end = None if length is None else ZERO + timedelta(days=start + length, hours=draw(st.integers(0, 23)))
        made.append(Step(ZERO + timedelta(days=start), end, count))
    return made


def slowly(
    capacity: Sequence[Step], promises: Sequence[Step], requests: Sequence[Step], begin: datetime, days: int
) -> list[pool_calendar.CalendarStep]:
    """The calendar by its definition: at every instant the sum of all steps in force (quadratic)."""
    end = begin + timedelta(days=days)
    moments = [*instants(begin, end, capacity, promises, requests), end]
    return [
        pool_calendar.CalendarStep(
            low, high, at_instant(capacity, low), at_instant(promises, low), at_instant(requests, low)
        )
        for low, high in itertools.pairwise(moments)
    ]


@pytest.mark.requirement("inventory-5.1")
@given(_steps(), _steps(), _steps())
def test_the_sweep_is_the_sum_at_every_instant(a: list[Step], b: list[Step], c: list[Step]) -> None:
    """Whatever begins and ends when."""
    assert pool_calendar.calendar_of(a, b, c, ZERO, 90) == slowly(a, b, c, ZERO, 90)


@pytest.mark.requirement("inventory-5.1")
@given(_steps(), _steps(), _steps())
def test_a_day_is_shown_as_at_its_tightest(a: list[Step], b: list[Step], c: list[Step]) -> None:
    """One row a day, without a gap; each is one of the day's moments, and none of them is tighter."""
    steps = pool_calendar.calendar_of(a, b, c, ZERO, 90)
    days = pool_calendar.by_day(steps)
    assert len(days) == 90
    assert (days[0].start, days[-1].end) == (ZERO, ZERO + timedelta(days=90))
    assert all(one.end == after.start for one, after in itertools.pairwise(days))
    for day in days:
        inside = [step for step in steps if step.start < day.end and step.end > day.start]
        figures = {(step.committable, step.promised, step.requested) for step in inside}
        assert (day.committable, day.promised, day.requested) in figures
        assert day.free - day.requested == min(step.free - step.requested for step in inside)


@pytest.mark.django_db
@pytest.mark.requirement("inventory-5.1", "inventory-5.2")
def test_rows_read_barely_say_what_the_ledger_says(world: World, frozen_clock: datetime) -> None:
    """Promises, open requests with windows, and what is too much once capacity is lost."""
    world.granted("finance", 20)
    world.granted("marketing", 10, valid_until=frozen_clock + timedelta(days=10))
    days = {"days": [5], "start": "00:00", "minutes": 2880}
    world.ask("research", 15, extras=Extras(recurrence=days), valid_until=frozen_clock + timedelta(days=30))
    world.ask("finance", 25)
    time = pool_calendar.read(world.pool)
    view = book.load(world.pool, time.begin)
    requests = list(time.requests)
    assert time.calendar() == slowly(view.capacity, view.all_promises(), requests, time.begin, 90)
    assert sum(1 for step in requests if step.gpus == 15) == 4 + (frozen_clock.weekday() in (5, 6))
    assert [step.gpus for step in requests if step.end is None] == [5]
    assert time.breaches() == []
    assert pools.breaches_now() == []
    PoolCapacity.objects.filter(pool=world.pool).update(committable_gpus=24)
    assert pool_calendar.read(world.pool).breaches() == breaches(
        [Step(time.begin, None, Fraction(24))], view.all_promises(), time.begin
    )
    (broken,) = pools.breaches_now()
    assert (broken.pool, broken.since, broken.gpus) == (world.pool, time.begin, 6)
    page = client_for(world["lead_finance"]).get(reverse("quotas:pool-detail", kwargs={"pool_uid": world.pool.uid}))
    assert "by up to 6 GPUs" in page.content.decode()


def cut(world: World, *, whole: int, slices: int = 0, **more: Any) -> Node:
    """A node of the pool's model, cut into whole GPUs and 1g instances."""
    offered = {"nvidia.com/gpu": str(whole), "nvidia.com/mig-1g.10gb": str(slices)}
    return Node.objects.create(
        cluster=world.cluster, name=f"n{Node.objects.count()}", gpu_model=world.pool.gpu_model,
        physical_gpus=whole + -(-slices // 7), sharing="mig" if slices else "exclusive", gpu_memory_mib=81920,
        mig_strategy="mixed", slices={"1g.10gb": slices} if slices else {}, capacity=offered, allocatable=offered,
        observed_at=clock.now(), **more,
    )  # fmt: skip


@pytest.mark.django_db
@pytest.mark.requirement("inventory-2.3", "inventory-2.4")
def test_more_promised_than_the_nodes_are_cut_into_is_a_warning(world: World) -> None:
    """Ten exclusive fit the pool of fifty, but only eight GPUs are uncut: told before asking and on the page."""
    sliced = make_flavour("1g", sharing="mig", denominator=7, resource_name="nvidia.com/mig-1g.10gb")
    world.pool.flavours.add(sliced)
    assert [one.limit for one in pool_layout.flavour_promises(world.pool)] == [None, None]  # nothing was observed
    cut(world, whole=6)
    cut(world, whole=2, slices=7, schedulable=False)  # drained for hours; the promise is for months
    found = {one.flavour.pk: one for one in pool_layout.flavour_promises(world.pool)}
    assert (found[world.flavour.pk].limit, found[sliced.pk].limit) == (8, 7)
    assert found[world.flavour.pk].capacity.offered == 6
    assert world.ask("marketing", 8).estimate is not None
    draft = _draft(world, 10)
    (warning,) = [text for text in selectors.assess(draft).warnings if "is cut into" in text]
    assert "8 units" in warning
    assert "10 would be promised" in warning
    assert not [text for text in selectors.assess(_draft(world, 8)).warnings if "is cut into" in text]
    world.granted("finance", 10)  # never refused
    url = reverse("quotas:pool-detail", kwargs={"pool_uid": world.pool.uid})
    body = client_for(world["lead_finance"]).get(url).content.decode()
    assert "more promised than there are" in body
    assert "125\N{NO-BREAK SPACE}%" in body
    Node.objects.filter(name="n0").update(problem="It offers 9 GPUs and is labelled with 6.")
    assert [one.limit for one in pool_layout.flavour_promises(world.pool)] == [None, None]


@pytest.mark.django_db
@pytest.mark.requirement("inventory-2.3")
def test_what_a_workspace_could_have_is_what_the_nodes_are_cut_into(world: World) -> None:
    """Twelve GPUs of the pool are free, but of the exclusive flavour only nine are uncut, and others hold four."""
    sliced = make_flavour("1g", sharing="mig", denominator=7, resource_name="nvidia.com/mig-1g.10gb")
    world.pool.flavours.add(sliced)
    world.granted("marketing", 4)
    request = world.ask("finance", 46)
    evidence = selectors.request_evidence(request)
    assert (evidence["room_free"], evidence["room_cut"]) == ("46", False)  # nothing was observed
    cut(world, whole=9, slices=21)
    cut(world, whole=0, slices=35)
    evidence = selectors.request_evidence(request)
    assert (evidence["room_free"], evidence["room_cut"]) == ("5", True)
    url = reverse("quotas:request-detail", kwargs={"request_uid": request.uid})
    assert (
        "promised to nobody else, at the tightest moment" in client_for(world["lead_finance"]).get(url).content.decode()
    )


@given(
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from([(1, 1), (1, 7), (3, 7), (1, 4)]), st.integers(0, 30))),
    st.dictionaries(st.integers(0, 9), st.integers(0, 60)),
)
def test_sums_of_a_pool_are_exact_in_whole_numbers(
    held: list[tuple[int, tuple[int, int], int]], used: dict[int, int]
) -> None:
    """Sevenths beside quarters: the row says what adding fractions says."""
    pool = Pool(pk=1, cluster_id=1, commit_factor=Decimal(1), device_class="gpu", observed_gpus=100)
    shares = [(1, 1), (1, 7), (3, 7), (1, 4)]
    flavours = {
        pk: Flavour(pk=pk, numerator=n, denominator=d, resource_name=f"gpu-{pk}") for pk, (n, d) in enumerate(shares)
    }
    rows: dict[tuple[int, int], list[pools._Held]] = {}
    for space, share, units in held:
        rows.setdefault((1, shares.index(share)), []).append(pools._Held((1, f"ns-{space}"), units, 1))
    now = datetime(2026, 11, 22, tzinfo=UTC)
    names = {flavour.resource_name: Fraction(1, 2) for flavour in flavours.values()}
    seen = {(1, f"ns-{space}"): Used(now, {name: count * part for name, part in names.items()})
            for space, count in used.items()}  # fmt: skip
    row = pools._pool_row(pool, flavours, rows, seen, set(), 100)
    own: dict[tuple[int, int], Fraction] = {}
    for space, share, units in held:
        key = (space, shares.index(share))
        own[key] = own.get(key, Fraction(0)) + units * Fraction(*share)
    assert row.guaranteed == sum(own.values())
    assert row.borrowable == sum((Fraction(*share) for _, share, _ in held), Fraction(0))
    if row.used is not None and row.borrowed is not None:
        use = {(space, pk): Fraction(used[space], 2) * Fraction(*shares[pk]) for space, pk in own if space in used}
        assert row.used == sum(use.values(), Fraction(0))
        assert row.borrowed == sum((max(Fraction(0), use[key] - own[key]) for key in use), Fraction(0))


def _draft(world: World, guaranteed: int) -> Any:
    from apps.quotas.assess import check

    return check(
        world.workspaces["finance"], world.flavour, guaranteed=guaranteed, borrow_mode="none", borrow_limit=0,
        valid_from=None, valid_until=None,
    )  # fmt: skip


@pytest.mark.django_db
@pytest.mark.requirement("inventory-4.3", "inventory-4.2")
def test_promises_beyond_a_reservation_and_slow_starts_are_told(world: World, frozen_clock: datetime) -> None:
    """Only what is promised after the reservation's end counts."""
    until = frozen_clock + timedelta(days=30)
    world.granted("finance", 10, valid_until=until)
    capacity.edit_pool(world.pool.pk, actor=SYSTEM, kind="reserved", reserved_until=until)
    world.pool.refresh_from_db()
    assert pool_layout.outlasting(world.pool) is None
    world.granted("marketing", 7)
    found = pool_layout.outlasting(world.pool)
    assert found is not None
    assert (found.until, found.gpus) == (until, 7)
    url = reverse("quotas:pool-detail", kwargs={"pool_uid": world.pool.uid})
    client = client_for(world["lead_finance"])
    assert "up to 7 GPUs are promised beyond it" in client.get(url).content.decode()
    capacity.edit_pool(
        world.pool.pk, actor=SYSTEM, kind="elastic", reserved_until=None, max_gpus=64, startup_minutes=12
    )
    assert "from a pool that starts in 12 minutes" in client.get(url).content.decode()
    world.pool.refresh_from_db()
    assert any("starts in 12 minutes" in text for text in selectors.assess(_draft(world, 12)).warnings)


@pytest.mark.django_db
@pytest.mark.requirement("inventory-3.5")
def test_best_effort_does_not_end_while_somebody_may_borrow(world: World) -> None:
    """Nothing else on that cluster would allow it; with Kueue it may end."""
    capacity.edit_pool(world.pool.pk, actor=SYSTEM, best_effort=True)
    world.pool.refresh_from_db()
    world.granted("finance", 10, borrow_mode="limited", borrow_limit=2)
    with pytest.raises(Invalid) as refused:
        capacity.edit_pool(world.pool.pk, actor=SYSTEM, best_effort=False)
    assert "One workspace may borrow here" in refused.value.errors["best_effort"][0]
    Cluster.objects.update(kueue_mode="jobs")
    assert not capacity.edit_pool(world.pool.pk, actor=SYSTEM, best_effort=False).best_effort


@pytest.mark.django_db
@pytest.mark.requirement("inventory-3.4")
def test_cores_are_kept_out_of_gpus(world: World) -> None:
    """A CPU class has a ledger of its own; its cores come on top of those that go with the workspace's GPUs."""
    cores = make_flavour("cpu-m7i", gpu_model="cpu-m7i", resource_name="cpu", device_class="cpu")
    pool = make_pool(world.cluster, cores, gpus=512, device_class="cpu")
    world.granted("finance", 20)
    world.granted("finance", 64, flavour_id=cores.pk)
    rows = {row.pool.pk: row for row in pools.pool_rows()}
    assert (rows[world.pool.pk].guaranteed, rows[pool.pk].guaranteed) == (20, 64)
    assert (rows[pool.pk].unit, rows[pool.pk].used) == ("cores", None)
    workspace = world.workspaces["finance"]
    limits = book.gpu_limits(workspace, clock.now())
    assert limits == {"nvidia.com/gpu": 20, "cpu": workspace.cpu_cores + 64}
    url = reverse("quotas:pool-detail", kwargs={"pool_uid": pool.uid})
    body = client_for(world["lead_finance"]).get(url).content.decode()
    assert "Fixed pool, in cores" in body
    assert "over the next 90 days, in cores" in body


@pytest.mark.django_db
@pytest.mark.requirement("inventory-5.1")
def test_the_page_takes_as_many_queries_for_many_as_for_few(world: World) -> None:
    """Thirty quota rows and an open request more: not one query more, and never more than twenty."""
    world.granted("finance", 5)
    cut(world, whole=6)
    client = client_for(world["lead_finance"])
    url = reverse("quotas:pool-detail", kwargs={"pool_uid": world.pool.uid})
    client.get(url)
    with assert_queries(20) as few:
        assert client.get(url).status_code == 200
    now = clock.now()
    space = world.workspaces["marketing"]
    Quota.objects.bulk_create(
        Quota(workspace=space, flavour=world.flavour, guaranteed=1 + number % 3,
              valid=(now + timedelta(hours=12 * number), now + timedelta(hours=12 * number + 6)))
        for number in range(80)
    )  # fmt: skip
    QuotaRequest.objects.create(
        workspace=world.workspaces["research"], flavour=world.flavour, guaranteed=3, reason=REASON, valid_from=now,
        requester=world["lead_research"],
    )  # fmt: skip
    with assert_queries(20) as many:
        body = client.get(url).content.decode()
    assert len(many.captured_queries) == len(few.captured_queries)
    assert "One row a day" in body


@pytest.mark.django_db
@pytest.mark.requirement("inventory-3.4")
def test_rules_about_gpus_do_not_decide_on_cores(world: World) -> None:
    """A small number of cores is no small number of GPUs: nothing is approved by a rule that counts GPUs; metering and
    findings of idle GPUs leave them out."""
    from apps.insights.reading import holders
    from apps.metering.context import load

    cores = make_flavour("cpu-m7i", gpu_model="cpu-m7i", resource_name="cpu", device_class="cpu")
    make_pool(world.cluster, cores, gpus=512, device_class="cpu")
    request = world.ask("finance", 2, flavour_id=cores.pk)
    assert request.status == "in_review"
    assert request.approval is not None
    assert request.approval.facts["delta_cores"] == 2
    assert "delta_gpus" not in request.approval.facts
    world.approve(request)
    world.granted("finance", 2)
    now = clock.now()
    context = load(world.cluster.pk, now, now + timedelta(hours=1))
    assert list(context.pools) == [world.pool.gpu_model]
    assert {quota.gpu_model for quota in context.quotas} == {world.pool.gpu_model}
    assert {row.flavour_id for row in holders(world.cluster, now + timedelta(minutes=1), 7)} == {world.flavour.pk}
