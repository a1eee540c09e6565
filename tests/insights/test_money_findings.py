"""Findings in money from metered and priced hours: idle work at its rates, spikes explained, savings measured."""

from __future__ import annotations

import itertools
from datetime import date, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st

from apps.core import clock
from apps.core.money import MILLISECONDS_PER_HOUR as HOUR_MS
from apps.core.money import Money
from apps.insights import findings, realised, selectors, workloads
from apps.insights.choices import FindingKind, FindingStatus
from apps.insights.models import Finding, WorkloadMonth
from apps.insights.together import Worth, together
from apps.metering.models import HourFact
from apps.quotas.idle_policy import IdlePolicy
from tests.factories import Company, client_for
from tests.insights.conftest import HOUR, ingest
from tests.metering.world import World, add_rate, hold, utc

#: Midnight after a Tuesday; the four weeks before it.
END = utc(2026, 11, 18)
START = END - timedelta(weeks=4)


@pytest.fixture
def idle(world: World) -> Finding:
    """Research holds two GPUs: one trains, one is forgotten for four weeks but for two hours of work."""
    busy = START + timedelta(days=10)
    ingest(
        world,
        [
            hold("notebook", "research-prod", START, busy, 1, used=0.001),
            hold("notebook", "research-prod", busy, busy + 2 * HOUR, 1, used=0.9),
            hold("notebook", "research-prod", busy + 2 * HOUR, END, 1, used=0.001),
            hold("training", "research-prod", START, END, 1, used=0.8),
            hold("unmeasured", "finance-prod", START, END, 1),
        ],
        START,
        END,
    )
    assert findings.find_all() == 1
    return Finding.objects.get()


@pytest.mark.requirement("monthly-report-3.1", "monthly-report-3.6")
def test_idle_work_is_counted_hour_by_hour(idle: Finding, world: World, company: Company) -> None:
    """Two runs, each without its first four hours; 672 − 2 idle hours, 662 of them would have been saved."""
    assert (idle.kind, idle.team, idle.workspace) == (
        FindingKind.IDLE_WORK, company.teams["research"], world.workspaces["research"],
    )  # fmt: skip
    assert idle.evidence["idle_gpu_ms"] == 670 * HOUR_MS
    assert idle.gpu_ms == idle.evidence["savable_gpu_ms"] == 662 * HOUR_MS
    assert idle.amount == Decimal("3.85") * 662
    assert Decimal(idle.proposal["monthly"]) == (Decimal("3.85") * 662 * 730 / 672).quantize(Decimal("0.01"))
    assert idle.title.startswith("Research (research-prod): 5,621 USD; 50 % from idle workloads: shutting down after 4")
    page = client_for(company.lead_research).get(
        reverse("insights:finding-detail", kwargs={"finding_uid": idle.uid})
    )  # fmt: skip
    shown = " ".join(page.content.decode().split())
    assert page.status_code == 200
    assert "notebook" in shown
    assert "training" not in shown.split("<main")[1]
    assert "672" in shown
    place = reverse("quotas:workspace-idle-policy", kwargs={"workspace_uid": world.workspaces["research"].uid})
    assert f"{place}?threshold_percent=5&amp;idle_minutes=240" in shown
    form = client_for(company.lead_research).get(f"{place}?threshold_percent=7&idle_minutes=300&reason=Evidence")
    text = form.content.decode()
    assert 'value="7"' in text
    assert 'value="300"' in text
    assert "Evidence" in text


@pytest.mark.requirement("monthly-report-3.2")
def test_unknown_use_is_not_idle(idle: Finding, world: World) -> None:
    HourFact.objects.filter(workload_name="notebook").update(coverage_permille=899)
    rows = {one.workload_name: one for one in workloads.workloads_of(world.cluster.pk, START, END)}
    assert rows["notebook"].savable_gpu_ms == rows["notebook"].idle_gpu_ms == rows["notebook"].covered_gpu_ms == 0
    assert rows["unmeasured"].idle_gpu_ms == 0
    assert rows["unmeasured"].used_gpu_ms is None
    assert findings.find_all() == 1
    idle.refresh_from_db()
    assert idle.status == FindingStatus.GONE


@pytest.mark.requirement("monthly-report-3.1")
def test_each_hour_at_its_own_rate(world: World) -> None:
    """The price falls in the middle of an idle run: what is saved is split where the charges are."""
    change = START + timedelta(hours=10)
    assert world.rate is not None
    world.rate.valid = DateTimeTZRange(world.rate.valid.lower, change, "[)")
    world.rate.save(update_fields=["valid"])
    add_rate(world.card, world.flavour, "2.95", change)
    ingest(world, [hold("n", "research-prod", START, START + 20 * HOUR, 2, used=0.0)], START, START + 24 * HOUR)
    (row,) = workloads.workloads_of(world.cluster.pk, START, START + 24 * HOUR)
    assert row.product / HOUR_MS == 2 * (10 * Decimal("3.85") + 10 * Decimal("2.95"))
    assert row.savable_product / HOUR_MS == 2 * (6 * Decimal("3.85") + 10 * Decimal("2.95"))
    (longer,) = workloads.workloads_of(
        world.cluster.pk, START, START + 24 * HOUR, IdlePolicy(enabled=True, idle_minutes=12 * 60)
    )
    assert longer.savable_gpu_ms == 2 * 8 * HOUR_MS


@pytest.mark.requirement("monthly-report-3.7")
def test_what_was_saved_is_measured_two_weeks_after_acting(idle: Finding, world: World) -> None:
    place = world.workspaces["research"]
    place.idle_policy = IdlePolicy(enabled=True).plain()
    place.save(update_fields=["idle_policy"])
    assert findings.find_all() == 1
    idle.refresh_from_db()
    assert (idle.status, idle.realised) == (FindingStatus.ACTED, None)
    later = clock.now() + timedelta(days=15)
    with clock.frozen(later):
        assert realised.measure_realised(later) == 0  # nothing is metered yet: not measured, not zero
        ingest(world, [hold("training", "research-prod", END, later, 1, used=0.8)], END, clock.hour_floor(later))
        assert realised.measure_realised(later) == 1
        assert realised.measure_realised(later) == 0
    idle.refresh_from_db()
    assert idle.realised == (Decimal("3.85") * 662 * 730 / 672).quantize(Decimal("0.01"))
    assert (idle.realised_basis["after"], idle.realised_basis["before_hours"]) == ("0.00", 672)


@pytest.mark.requirement("monthly-report-3.5")
def test_a_spike_says_what_moved(world: World, company: Company) -> None:
    day = END - timedelta(days=1)
    start = day - timedelta(weeks=4)
    ingest(
        world,
        [
            hold("steady", "finance-prod", start, END, 2, used=0.8),
            hold("burst", "finance-prod", day + 3 * HOUR, day + 8 * HOUR, 20, used=0.9),
        ],
        start,
        END,
    )
    findings.find_all()
    found = Finding.objects.get(kind=FindingKind.SPIKE)
    assert (found.team, found.amount) == (company.finance_team, Decimal("3.85") * 100)
    assert len(found.evidence["hours"]) == 5
    effects = {name: Decimal(value) for name, value in found.evidence["effects"].items()}
    assert effects == {"Price": 0, "Quantity": Decimal("385.00"), "Mix": 0}
    page = client_for(company.lead_finance).get(reverse("insights:finding-detail", kwargs={"finding_uid": found.uid}))
    assert page.status_code == 200
    text = page.content.decode()
    assert "385.00" in text
    assert f"{day + 3 * HOUR:%H:%M} to {day + 8 * HOUR:%H:%M}" in text
    assert text.index("Price</td>") < text.index("Quantity</td>") < text.index("Mix</td>")


@pytest.mark.requirement("monthly-report-3.4")
def test_what_stops_the_same_gpus_is_worth_the_greater_once() -> None:
    def proposal(kind: FindingKind, workspace: int, monthly: str, **more: str) -> Finding:
        row = Finding(kind=kind, workspace_id=workspace, proposal={"monthly": monthly, "currency": "USD", **more})
        row.pk = next(numbers)
        return row

    numbers = itertools.count(1)
    rows = [
        proposal(FindingKind.OFF_HOURS, 1, "300.00"),
        proposal(FindingKind.IDLE_WORK, 1, "200.00"),
        # A quarter stays: of the 300 that the clock stops, it would have saved up to 225.
        proposal(FindingKind.RIGHT_SIZE, 1, "250.00", share="0.25", of_idle="10.00"),
        proposal(FindingKind.IDLE_WORK, 2, "7.00"),
        proposal(FindingKind.RIGHT_SIZE, 2, "50.00", share="0.5", of_idle="3.50"),
        proposal(FindingKind.RIGHT_SIZE, 3, "11.00", share="0.5", of_idle="0"),
    ]
    found = selectors.summary(rows)
    assert (found.saving, found.proposals) == (Money(Decimal("389.50"), "USD"), 6)  # 300 + 25 + 7 + 46.50 + 11
    said = {pk: selectors.overlap_words(one) for pk, one in selectors.overlaps(rows).items()}
    assert said[2].startswith("All of it: ")
    assert said[3].startswith("225.00 USD a month: ")
    assert said[5].startswith("3.50 USD a month: ")
    assert set(said) == {2, 3, 5}


hourly = st.lists(st.tuples(st.integers(0, 9), st.booleans(), st.booleans()), min_size=1, max_size=12)


@pytest.mark.requirement("monthly-report-3.4")
@given(st.lists(st.tuples(st.sampled_from(["0.25", "0.5", "0.875"]), hourly), min_size=1, max_size=4), st.booleans())
def test_together_never_saves_an_hour_twice(workloads: list[Any], with_clock: bool) -> None:
    """Each workload: what stays in a smaller size, and per hour its cost, whether idle, whether all rests then."""
    idle = sum(cost for _, hours in workloads for cost, is_idle, _ in hours if is_idle)
    clock_saves = sum(cost for _, hours in workloads for cost, _, rests in hours if rests)
    proposals = [Worth(Decimal(idle), 1, stops=True)]
    if with_clock:
        proposals.append(Worth(Decimal(clock_saves), 1, stops=True, clock=True))
    for share, hours in workloads:
        cut = 1 - Decimal(share)
        proposals.append(
            Worth(
                cut * sum(cost for cost, *_ in hours), 1, share=Decimal(share),
                of_idle=cut * sum(cost for cost, is_idle, _ in hours if is_idle),
            )
        )  # fmt: skip
    counted = together(proposals)
    by_clock = with_clock and clock_saves > idle
    union = Decimal(0)
    for share, hours in workloads:
        for cost, is_idle, rests in hours:
            stopped = rests if by_clock else is_idle
            union += cost if stopped else (1 - Decimal(share)) * cost
    total = sum((one.amount for one in counted), Decimal(0))
    assert total <= union
    assert by_clock or total == union
    for one, proposal in zip(counted, proposals, strict=True):
        assert one.amount + one.included == proposal.monthly
        assert one.amount >= 0
        assert (one.within is None) == (one.included == 0) or one.amount == proposal.monthly == 0


@pytest.mark.requirement("monthly-report-2.6")
def test_workloads_are_kept_by_month(idle: Finding, world: World, company: Company) -> None:
    now = clock.now()
    assert workloads.remember_all(now) == 2
    assert workloads.remember_all(now) == 1  # the running month again; October is there
    assert WorkloadMonth.objects.filter(month=date(2026, 11, 1)).count() == 3
    row = WorkloadMonth.objects.get(month=date(2026, 11, 1), workload_name="notebook")
    assert row.cost == Money(Decimal("3.85") * 17 * 24, "USD")
    client: Any = client_for(company.vp)
    page = client.get(reverse("insights:workload-list") + "?month=2026-11")
    assert page.status_code == 200
    assert "notebook" in page.content.decode()
    files = client.get(reverse("insights:workload-list") + "?month=2026-11&export=csv")
    assert b"notebook" in b"".join(files.streaming_content)
    other = client_for(company.lead_marketing).get(reverse("insights:workload-list") + "?month=2026-11")
    assert "notebook" not in other.content.decode()


@pytest.mark.requirement("monthly-report-3.6")
@pytest.mark.parametrize(("change", "label"), [(-3, "Request less A100"), (1, "Request A100"), (None, "Request A100")])
def test_a_smaller_size_leads_to_the_request_with_its_number(world: World, change: int | None, label: str) -> None:
    proposal = {"flavour": "a100", "flavour_name": "A100", **({"change": change} if change is not None else {})}
    finding = Finding(
        kind=FindingKind.RIGHT_SIZE,
        workspace=world.workspaces["research"],
        proposal=proposal,
        title="train needs 1 of 4",
    )
    action = selectors.action_of(finding)
    assert action is not None
    assert action[0] == label
    query = parse_qs(urlsplit(action[1]).query)
    assert query.get("change") == ([str(change)] if change is not None else None)
    assert (query["flavour"], query["reason"]) == (["a100"], ["train needs 1 of 4"])
