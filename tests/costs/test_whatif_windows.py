"""What if over any span: how it is cut, prices in time, and that the ledger's own prices make no difference."""

from __future__ import annotations

import itertools
import random
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st

from apps.core import clock
from apps.core.actor import Actor
from apps.core.clock import hour_floor
from apps.core.money import MILLISECONDS_PER_HOUR, Money
from apps.costs import pricing
from apps.costs import whatif_questions as questions
from apps.costs import whatif_reading as reading
from apps.costs.whatif_windows import DAY, HOUR, Timetable, TriedPrice, plan
from apps.metering import billing
from apps.metering.ports import Written
from apps.rates import proposals
from apps.rates.models import Rate, RateCard
from apps.rates.publishing import PriceLine
from tests.costs.test_pricing_resources import add_resource, ingest, rate
from tests.metering.world import World, guarantee, hold, make_world, utc

NOW = utc(2026, 11, 18, 9)
FIRST = utc(2026, 10, 30)
USD = "USD"

# ---------------------------------------------------------------- pure

moments = st.integers(0, 60 * 86_400).map(lambda seconds: utc(2026, 1, 1) + timedelta(seconds=seconds))
hours = moments.map(hour_floor)


def tried(cluster: int, low: datetime | None, high: datetime | None, amount: str = "1", **extra: Any) -> TriedPrice:
    return TriedPrice((cluster, 7, ""), "", "", Decimal(amount), low, high, **extra)


@pytest.mark.requirement("what-if-1.1", "what-if-1.5")
@given(st.tuples(hours, hours), st.lists(st.tuples(st.integers(1, 2), moments, moments), max_size=4), st.booleans())
def test_the_pieces_of_a_span_join_without_gap_or_overlap(
    span: tuple[datetime, datetime], valid: list[tuple[int, datetime, datetime]], by_month: bool
) -> None:
    start, end = min(span), max(span) + HOUR
    prices = Timetable(USD, [tried(one, min(a, b), max(a, b)) for one, a, b in valid if a != b], flat=False)
    edges = prices.edges(start, end)
    for cluster in (1, 2, 3):
        covered = []
        for piece in plan(start, end, prices, by_month=by_month):
            if cluster not in piece.clusters and (piece.clusters or cluster in piece.without):
                continue
            spans = list(piece.hours)
            if piece.days is not None:
                spans.append((billing.day_start(piece.days[0]), billing.day_start(piece.days[1])))
                assert not by_month or billing.following(piece.days[0]) >= piece.days[1]
            if piece.cut is not None:
                spans.append((piece.cut, piece.cut + HOUR))
                assert any(piece.cut < edge < piece.cut + HOUR for edge in edges[cluster])
            for low, high in spans:
                inner = [edge for edge in edges.get(cluster, ()) if low < edge < high]
                assert piece.cut is not None or not inner, "the prices of a piece do not change within it"
            covered += spans
        covered.sort()
        assert covered[0][0] == start
        assert covered[-1][1] == end
        assert all(before[1] == after[0] for before, after in itertools.pairwise(covered))


@pytest.mark.requirement("what-if-1.5")
def test_a_proposal_goes_before_a_card_and_two_of_a_kind_are_a_conflict() -> None:
    january, march = utc(2026, 1, 1), utc(2026, 3, 1)
    card = tried(1, january, None, "3", source="card 1", rank=1)
    classed = TriedPrice(card.of, "", "compliance", Decimal(4), january, None, source="card 1", rank=1)
    proposal = tried(1, march, None, "2", source="proposal 1")
    own = Timetable(USD, [card, classed, proposal], flat=False)
    assert own.conflict() is None
    assert own.at(january).table[card.of] == {("", ""): Decimal(3), ("", "compliance"): Decimal(4)}
    assert own.at(march).table[card.of] == {("", ""): Decimal(2)}, "class prices end with the price they are made from"
    flat = Timetable(USD, [card, proposal])
    assert flat.conflict() == (card, proposal)
    other = tried(1, utc(2026, 4, 1), None, "2", source="proposal 2")
    assert Timetable(USD, [proposal, other], flat=False).conflict() == (proposal, other)
    later = tried(1, march, None, "5", source="card 1", rank=1)
    assert Timetable(USD, [card, later]).at(january).table[card.of][("", "")] == 5


# ---------------------------------------------------------------- in the books


@pytest.fixture
def world(company: Any) -> Any:
    """Days over a month's end: a price that changes at 20 minutes past, another card, a class, spot, a resource."""
    with clock.frozen(NOW):
        made = make_world(company.teams.values(), rate=None, gpus=20, since=FIRST)
        change = FIRST + DAY + timedelta(hours=5, minutes=20)
        rate(made, "3.85", FIRST - DAY, change)
        rate(made, "", FIRST - DAY, change, cls="compliance", factor="1.2")
        made.card = RateCard.objects.create(name="Later", cluster=made.cluster)
        rate(made, "2.95", change)
        rate(made, "1.5", FIRST + timedelta(hours=30, minutes=7, seconds=11), capacity_type="spot")
        rate(made, "0.031", FIRST + timedelta(hours=3, minutes=40), resource="cpu")
        guarantee(made, "research", 3, FIRST)
        third = timedelta(minutes=20, seconds=17)
        held = [
            hold("a", "finance-prod", FIRST + third, FIRST + 50 * HOUR + third, 7),
            hold("b", "marketing-prod", FIRST, FIRST + 77 * HOUR, 3, capacity_type="spot"),
            hold("c", "nobody", FIRST + 20 * HOUR, FIRST + 31 * HOUR - third, 1),
        ]
        ingest(made, held, FIRST, 80)
        for hour in (3, 4, 29, 30):
            add_resource(made, FIRST + hour * HOUR, "cpu", 12_345_677 + hour)
        again = [FIRST + hour * HOUR for hour in (3, 4, 29, 30)]
        days = sorted({hour.date() for hour in again})
        pricing.price_hours(Written(made.cluster.pk, again, days, [1] * len(again)))
        yield made


def ledger(start: datetime, end: datetime) -> Money:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT coalesce(sum(c.quantity_ms * r.amount), 0) FROM costs_charge c"
            " JOIN rates_rate r ON r.id = c.rate_id WHERE c.hour >= %s AND c.hour < %s",
            [start, end],
        )
        return Money(Decimal(cursor.fetchone()[0]) / MILLISECONDS_PER_HOUR, USD).quantized()


@pytest.mark.requirement("what-if-1.4")
def test_the_prices_that_were_charged_make_no_difference_on_any_line_of_any_span(world: World, company: Any) -> None:
    cards = reading.prices_of_cards(list(RateCard.objects.all()))
    luck = random.Random(20261123)
    spans = [(FIRST, FIRST + 80 * HOUR), (FIRST + 29 * HOUR, FIRST + 30 * HOUR)]
    spans += [
        (FIRST + low * HOUR, FIRST + (low + luck.randint(1, 80 - low)) * HOUR)
        for low in (luck.randint(0, 79) for _ in range(12))
    ]
    for start, end in spans:
        found = reading.what_if(company.finance, reading.timetable(cards, flat=False), start, end)
        assert found.total.now == ledger(start, end), (start, end)
        for line in [found.total, *(row.line for group in found.groups for row in group.lines)]:
            assert (line.now, line.quantity_ms > 0) == (line.then, True), (start, end, line)
            assert not line.kept
            assert not line.unknown


@pytest.mark.requirement("what-if-1.5")
def test_within_its_own_validity_a_price_counts_to_the_second(world: World, company: Any) -> None:
    begins = FIRST + timedelta(hours=40, minutes=15)
    proposal = proposals.propose_card(
        "Half", world.cluster.pk, [PriceLine(world.flavour.pk, "", "", Decimal("1.00"))], USD, NOW + HOUR,
        actor=Actor.of(company.finance),
    )  # fmt: skip
    prices = reading.prices_of_lines(
        world.cluster.pk, proposals.lines_of(proposal), f"proposal {proposal.pk}", begins, begins + HOUR
    )
    own = reading.what_if(
        company.vp,
        reading.timetable(prices, flat=False), FIRST + 40 * HOUR, FIRST + 42 * HOUR,
    )  # fmt: skip
    # Finance: 7 GPUs for two hours at 2.95, one hour of it at 1.00; Marketing's spot price stays.
    lines = {row.name: row.line for row in own.groups[0].lines}
    assert lines["Finance"].now == Money(Decimal("41.30"), USD)
    assert lines["Finance"].then == Money(Decimal("27.65"), USD)
    assert lines["Marketing"].change == Money.zero(USD)
    assert own.total.kept
    flat = reading.what_if(company.vp, reading.timetable(prices), FIRST + 40 * HOUR, FIRST + 42 * HOUR)
    assert {row.name: row.line.then for row in flat.groups[0].lines}["Finance"] == Money(Decimal("14.00"), USD)


@pytest.mark.requirement("what-if-1.5")
def test_cards_that_follow_each_other_are_tried_in_turn_unless_asked_otherwise(world: World, company: Any) -> None:
    uids = tuple(str(card.uid) for card in RateCard.objects.all())
    asked = questions.Question(FIRST, FIRST + DAY, cards=uids)
    assert not questions.prices_of(asked, company.vp).flat
    assert questions.prices_of(questions.Question(FIRST, FIRST + DAY, cards=uids[:1]), company.vp).flat
    from apps.core.errors import Invalid

    with pytest.raises(Invalid, match="same thing at the same time"):
        questions.prices_of(questions.Question(FIRST, FIRST + DAY, cards=uids, validity="flat"), company.vp)
    stored = questions.Question(
        FIRST, FIRST + DAY, cluster=world.cluster.slug, scale=Decimal("1.1"),
        lines=(PriceLine(world.flavour.pk, "", "", Decimal("2.5"), {"compliance": Decimal("1.2")}),),
    )  # fmt: skip
    assert questions.load(stored.plain()) == stored
    assert Rate.objects.count() == 5
