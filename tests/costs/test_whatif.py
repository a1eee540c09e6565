"""What if: stored months at other prices, side by side, within the person's scope, and nothing written."""

from __future__ import annotations

import csv
import io
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.db.models import Sum
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st

from apps.audit.models import AuditEvent
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import NotVisible
from apps.core.money import Money
from apps.costs import whatif_reading as reading
from apps.costs.models import Charge, DayCharge
from apps.costs.whatif import Quantity, TriedPrices, compare
from apps.metering import actions as metering
from apps.rates import proposals
from apps.rates.models import Rate, RateCard
from apps.rates.publishing import PriceLine
from tests.factories import client_for, grant, make_user
from tests.metering.world import FakeAdapter, World, hold, make_world, utc

HOUR = timedelta(hours=1)
HOUR_MS = 3_600_000
NOW = utc(2026, 11, 18, 9)
DAY = utc(2026, 10, 10)
MONTH = DAY.date().replace(day=1)


@pytest.fixture
def world(company: Any) -> Any:
    with clock.frozen(NOW):
        made = make_world(company.teams.values())
        rows = [
            hold("a", "finance-prod", DAY, DAY + 10 * HOUR, 2),
            hold("b", "marketing-prod", DAY, DAY + 10 * HOUR, 3),
            hold("c", "nobody", DAY, DAY + HOUR, 1),
        ]
        metering.ingest_hours(
            made.source.pk, DAY, DAY + 24 * HOUR, actor=Actor.system("test"), adapter=FakeAdapter(rows)
        )
        yield made


def quantity(**changes: Any) -> Quantity:
    values: dict[str, Any] = {
        "team_id": 1, "cluster_id": 1, "kind": "allocated", "flavour_id": 5, "gpu_model": "A", "capacity_type": "",
        "service_class": "", "hourly": Decimal("3.85"), "currency": "USD", "priced_for": ("", ""),
        "quantity_ms": HOUR_MS, "gpu_ms": HOUR_MS,
    }  # fmt: skip
    return Quantity(**(values | changes))


# ---------------------------------------------------------------- pure


@pytest.mark.requirement("rate-proposals-5.2")
def test_what_the_list_says_nothing_of_stays_and_what_has_no_price_is_unknown() -> None:
    tried = TriedPrices("USD")
    tried.add((1, 5, ""), "", "", Decimal(2))
    cases = [
        (quantity(), Decimal(2), True),
        (quantity(flavour_id=6), Decimal("3.85"), False),
        (quantity(kind="cpu", flavour_id=None), Decimal("3.85"), False),
        (quantity(hourly=None, currency=None, priced_for=None), Decimal(2), True),
        (quantity(flavour_id=6, hourly=None, currency=None, priced_for=None), None, False),
        # A price of its own for spot stays beside a new price for every type; a class price ends with its base price.
        (quantity(capacity_type="spot", priced_for=("spot", "")), Decimal("3.85"), False),
        (quantity(capacity_type="spot", priced_for=("", "")), Decimal(2), True),
        (quantity(service_class="compliance", priced_for=("", "compliance")), Decimal(2), True),
    ]
    for one, hourly, listed in cases:
        assert tried.price(one) == (hourly, listed), one
    found = compare([one for one, _, _ in cases], tried).total
    assert found.unknown
    assert found.change is None
    tried.scale = Decimal("1.1")
    assert tried.price(quantity(flavour_id=6)) == (Decimal("4.235"), True)


amounts = st.decimals(0, 1000, places=8)


@pytest.mark.requirement("rate-proposals-5.1")
@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.integers(1, 3), st.sampled_from(["", "spot"]), st.integers(0, 10**12), amounts),
        min_size=1, max_size=20,
    ),
    st.dictionaries(st.tuples(st.integers(1, 3), st.sampled_from(["", "spot"])), amounts, max_size=4),
)  # fmt: skip
def test_lines_add_up_to_the_total_on_both_sides(rows: list[Any], table: dict[Any, Decimal]) -> None:
    tried = TriedPrices("USD")
    for (flavour, capacity), amount in table.items():
        tried.add((1, flavour, ""), capacity, "", amount)
    made = [
        quantity(team_id=team, flavour_id=flavour, capacity_type=capacity, quantity_ms=ms, gpu_ms=ms, hourly=hourly)
        for team, flavour, capacity, ms, hourly in rows
    ]
    found = compare(made, tried)
    for lines in (found.teams, found.things):
        for side in ("now", "then"):
            total = sum((getattr(line, side) for line in lines), Money.zero("USD"))
            assert total == getattr(found.total, side)
        assert sum(line.quantity_ms for line in lines) == sum(row[3] for row in rows)
    same = compare(made, TriedPrices("USD")).total
    assert same.now == same.then == found.total.now


# ---------------------------------------------------------------- in the books


@pytest.mark.requirement("rate-proposals-5.1")
def test_a_card_over_a_stored_month_side_by_side(world: World, company: Any) -> None:
    tried = reading.prices_of_lines(world.cluster.pk, [PriceLine(world.flavour.pk, "", "", Decimal("2.95"))])
    found = reading.what_if(company.vp, tried, MONTH, MONTH)
    lines = {row.name: row.line for row in found.teams}
    assert set(lines) == {"Finance", "Marketing"}
    assert (str(lines["Finance"].now), str(lines["Finance"].then)) == ("77.00 USD", "59.00 USD")
    assert found.comparison.total.change == Money(Decimal("-45.00"), "USD")
    everything = reading.what_if(company.finance, tried, MONTH, MONTH)
    assert {row.name for row in everything.teams} == {
        "Finance", "Marketing", "No owner known", "Unallocated capacity",
    }  # fmt: skip
    gpu = 24 * 50 * Decimal("3.85")
    assert everything.comparison.total.now == Money(gpu.quantize(Decimal("0.01")), "USD")
    assert DayCharge.objects.aggregate(total=Sum("gpu_ms"))["total"] == everything.comparison.total.gpu_ms
    card = reading.prices_of_card(RateCard.objects.get())
    assert reading.what_if(company.vp, card, MONTH, MONTH).comparison.total.change == Money.zero("USD")
    with pytest.raises(NotVisible):
        reading.what_if(company.vp_other, tried, MONTH, MONTH, company.unit)
    assert not reading.what_if(company.vp_other, tried, MONTH, MONTH).teams


def _everything() -> list[Any]:
    with connection.cursor() as cursor:
        tables = ["costs_charge", "costs_daycharge", "rates_rate", "rates_ratecard", "rates_rateproposal"]
        found = []
        for table in tables:
            rows = f"SELECT t::text AS line FROM {table} t"  # noqa: S608 (a list of constants)
            cursor.execute(f"SELECT count(*), md5(string_agg(line, '' ORDER BY line)) FROM ({rows}) r")  # noqa: S608 (same)
            found.append((table, cursor.fetchone()))
    return found


@pytest.mark.requirement("rate-proposals-5.1", "rate-proposals-5.3")
def test_the_page_answers_by_link_writes_nothing_and_asks_little(world: World, company: Any) -> None:
    client = client_for(company.vp)
    url = "/costs/what-if/"
    assert "Try prices" in client.get(url).content.decode()
    before = _everything()
    query = {"from": "2026-10", "to": "2026-10", f"price_{world.flavour.pk}": "2.95", "unit": company.unit.slug}
    with CaptureQueriesContext(
        connection,
    ) as queries:
        page = client.get(url, query)
    own = [q["sql"] for q in queries if not any(word in q["sql"] for word in ("SAVEPOINT", "SET ", "set_config"))]
    assert page.status_code == 200
    body = page.content.decode()
    for said in ("77.00 USD", "59.00 USD", "−45.00 USD" if "−45.00 USD" in body else "-45.00 USD", "Marketing"):
        assert said in body
    assert len(own) <= 20, "\n".join(own)
    with CaptureQueriesContext(connection) as queries:
        reading.what_if(company.vp, reading.prices_of_lines(world.cluster.pk, []), MONTH, MONTH, company.unit)
    assert len(queries) <= 10
    file = client.get(url, query | {"export": "csv"})
    text = b"".join(file.streaming_content).decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["By"], row["Now"], row["Then"], row["Difference"]) for row in rows][-1] == (
        "total", "192.50", "147.50", "-45.00",
    )  # fmt: skip
    assert AuditEvent.objects.filter(action="costs.whatif.exported").count() == 1
    assert _everything() == before
    assert Charge.objects.filter(kind="allocated").count() == 20


@pytest.mark.requirement("rate-proposals-5.1")
@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"from": "2026-10", "to": "2026-09", "scale": "2"}, "before the first"),
        ({"from": "2020-01", "to": "2026-09", "scale": "2"}, "At most 36 months"),
        ({"from": "October", "scale": "2"}, "Enter a month"),
        ({"from": "2026-10"}, "give a factor for all prices"),
        ({"scale": "-1"}, "greater than or equal to 0"),
        ({"scale": "1", "card": "00000000-0000-0000-0000-000000000000"}, "Select a valid choice"),
        ({"price_cpu_spot": "-2"}, "cannot be negative"),
    ],
)
def test_what_cannot_be_asked_is_named(world: World, company: Any, query: dict[str, str], says: str) -> None:
    response = client_for(company.vp).get("/costs/what-if/", query)
    assert response.status_code == 400
    assert says in response.content.decode()


@pytest.mark.requirement("rate-proposals-5.1")
def test_only_those_who_may_and_only_their_scope(world: World, company: Any) -> None:
    for person in ("member_finance", "lead_finance", "compliance"):
        assert client_for(company[person]).get("/costs/what-if/").status_code == 403
    other = client_for(company.vp_other).get("/costs/what-if/", {"scale": "2"}).content.decode()
    assert "Marketing" not in other
    assert "Nothing was charged" in other
    assert client_for(company.vp).get("/costs/what-if/", {"cluster": "nowhere"}).status_code == 404


@pytest.mark.requirement("rate-proposals-2.8", "rate-proposals-5.1")
def test_a_proposal_shows_what_the_last_month_would_have_cost(world: World, company: Any) -> None:
    person = make_user("second-finance@example.com")
    grant(person, "finance")
    proposal = proposals.propose_card(
        "Cheaper", world.cluster.pk, [PriceLine(world.flavour.pk, "", "", Decimal("2.95"))], "USD", NOW + HOUR,
        actor=Actor.of(company.finance),
    )  # fmt: skip
    page = client_for(person).get(f"/rates/proposals/{proposal.uid}/").content.decode()
    assert "What October 2026 would have cost" in page
    for said in ("4,620.00 USD", "3,540.00 USD"):
        assert said in page
    detail = client_for(person).get("/costs/what-if/", {"proposal": str(proposal.uid), "from": "2026-10"})
    assert "3,540.00 USD" in detail.content.decode()
    assert Rate.objects.count() == 1
