"""What if: stored months at other prices, side by side, within the person's scope, and nothing written."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
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
from apps.costs import whatif_questions as questions
from apps.costs import whatif_reading as reading
from apps.costs import whatif_runs as runs
from apps.costs.models import Charge, DayCharge, WhatIfRun
from apps.costs.whatif import Quantity, TriedPrices, compare
from apps.costs.whatif import tried as at_prices
from apps.metering import actions as metering
from apps.rates import proposals
from apps.rates.models import Rate, RateCard
from apps.rates.publishing import PriceLine
from apps.teams.models import RoleGrant
from tests.factories import client_for, grant, make_user
from tests.metering.world import FakeAdapter, World, hold, make_world, utc

HOUR = timedelta(hours=1)
HOUR_MS = 3_600_000
NOW = utc(2026, 11, 18, 9)
DAY = utc(2026, 10, 10)
SPAN = (utc(2026, 10, 1), utc(2026, 11, 1))


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
        "team_id": 1, "unit_id": 1, "cluster_id": 1, "kind": "allocated", "flavour_id": 5, "gpu_model": "A",
        "capacity_type": "", "service_class": "", "hourly": Decimal("3.85"), "currency": "USD", "priced_for": ("", ""),
        "quantity_ms": HOUR_MS, "gpu_ms": HOUR_MS,
    }  # fmt: skip
    return Quantity(**(values | changes))


# ---------------------------------------------------------------- pure


@pytest.mark.requirement("what-if-1.2")
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
    found = compare(at_prices([one for one, _, _ in cases], tried), "USD").total
    assert found.unknown
    assert found.change is None
    tried.scale = Decimal("1.1")
    assert tried.price(quantity(flavour_id=6)) == (Decimal("4.235"), True)


amounts = st.decimals(0, 1000, places=8)


@pytest.mark.requirement("what-if-1.1")
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
    found = compare(at_prices(made, tried), "USD")
    for lines in (found.teams, found.units, found.clusters, found.things):
        for side in ("now", "then"):
            total = sum((getattr(line, side) for line in lines), Money.zero("USD"))
            assert total == getattr(found.total, side)
        assert sum(line.quantity_ms for line in lines) == sum(row[3] for row in rows)
    same = compare(at_prices(made, TriedPrices("USD")), "USD").total
    assert same.now == same.then == found.total.now


# ---------------------------------------------------------------- in the books


def of(found: reading.WhatIf, by: str) -> dict[str, Any]:
    return {row.name: row.line for group in found.groups if group.by == by for row in group.lines}


def typed(world: World, amount: str = "2.95") -> Any:
    lines = [PriceLine(world.flavour.pk, "", "", Decimal(amount))] if amount else []
    return reading.timetable(reading.prices_of_lines(world.cluster.pk, lines))


@pytest.mark.requirement("what-if-1.1")
def test_a_card_over_a_stored_month_side_by_side(world: World, company: Any) -> None:
    tried = typed(world)
    found = reading.what_if(company.vp, tried, *SPAN)
    lines = of(found, "team")
    assert set(lines) == {"Finance", "Marketing"}
    assert (str(lines["Finance"].now), str(lines["Finance"].then)) == ("77.00 USD", "59.00 USD")
    assert lines["Finance"].change_percent == Decimal("-23.4")
    assert found.total.change == Money(Decimal("-45.00"), "USD")
    for by in ("unit", "cluster", "price"):
        assert sum((line.then for line in of(found, by).values()), Money.zero("USD")) == found.total.then
    everything = reading.what_if(company.finance, tried, *SPAN)
    assert set(of(everything, "team")) == {"Finance", "Marketing", "No owner known", "Unallocated capacity"}
    gpu = 24 * 50 * Decimal("3.85")
    assert everything.total.now == Money(gpu.quantize(Decimal("0.01")), "USD")
    assert DayCharge.objects.aggregate(total=Sum("gpu_ms"))["total"] == everything.total.gpu_ms
    card = reading.timetable(reading.prices_of_cards([RateCard.objects.get()]))
    assert reading.what_if(company.vp, card, *SPAN).total.change == Money.zero("USD")
    with pytest.raises(NotVisible):
        reading.what_if(company.vp_other, tried, *SPAN, company.unit)
    assert not of(reading.what_if(company.vp_other, tried, *SPAN), "team")


@pytest.mark.requirement("what-if-1.1")
def test_hours_of_a_day_are_a_span_of_their_own(world: World, company: Any) -> None:
    found = reading.what_if(company.vp, typed(world), DAY + 4 * HOUR, DAY + 6 * HOUR)
    assert (found.total.now, found.total.gpu_ms) == (Money(Decimal("38.50"), "USD"), 10 * HOUR_MS)
    page = client_for(company.vp).get(
        "/costs/what-if/", {"start": "2026-10-10T04:00", "end": "2026-10-10T06:00", "scale": "2"}
    )
    assert "77.00 USD" in page.content.decode()


def _everything() -> list[Any]:
    with connection.cursor() as cursor:
        tables = ["costs_charge", "costs_daycharge", "rates_rate", "rates_ratecard", "rates_rateproposal"]
        found = []
        for table in tables:
            rows = f"SELECT t::text AS line FROM {table} t"  # noqa: S608 (a list of constants)
            cursor.execute(f"SELECT count(*), md5(string_agg(line, '' ORDER BY line)) FROM ({rows}) r")  # noqa: S608 (same)
            found.append((table, cursor.fetchone()))
    return found


@pytest.mark.requirement("what-if-1.1", "what-if-1.3")
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
        reading.what_if(company.vp, typed(world, ""), *SPAN, company.unit)
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


@pytest.mark.requirement("what-if-1.1")
@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"from": "2026-10", "to": "2026-09", "scale": "2"}, "before the first"),
        ({"from": "0001-01", "to": "2026-09", "scale": "2"}, "from 2000"),
        ({"start": "2026-10-10T04:30", "end": "2026-10-10T06:00", "scale": "2"}, "Whole hours only"),
        ({"start": "2026-10-10T04:00", "scale": "2"}, "Give both hours"),
        ({"start": "2026-10-10T06:00", "end": "2026-10-10T04:00", "scale": "2"}, "ends before it starts"),
        ({"from": "October", "scale": "2"}, "Enter a month"),
        ({"from": "2026-10"}, "give a factor for all prices"),
        ({"scale": "-1"}, "greater than or equal to 0"),
        ({"scale": "1", "card": "00000000-0000-0000-0000-000000000000"}, "Select a valid choice"),
        ({"scale": "1", "card": "nonsense"}, "Select a valid choice"),
        ({"price_cpu_spot": "-2"}, "cannot be negative"),
    ],
)
def test_what_cannot_be_asked_is_named(world: World, company: Any, query: dict[str, str], says: str) -> None:
    response = client_for(company.vp).get("/costs/what-if/", query)
    assert response.status_code == 400
    assert says in response.content.decode()


@pytest.mark.requirement("what-if-1.1")
def test_only_those_who_may_and_only_their_scope(world: World, company: Any) -> None:
    for person in ("member_finance", "lead_finance", "compliance"):
        assert client_for(company[person]).get("/costs/what-if/").status_code == 403
    other = client_for(company.vp_other).get("/costs/what-if/", {"scale": "2"}).content.decode()
    assert "Marketing" not in other
    assert "Nothing was charged" in other
    assert client_for(company.vp).get("/costs/what-if/", {"cluster": "nowhere"}).status_code == 404


@pytest.mark.requirement("rate-proposals-2.8", "what-if-1.1")
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


@pytest.mark.requirement("what-if-1.6")
def test_a_long_question_is_answered_by_a_worker_and_kept_for_who_asked(world: World, company: Any) -> None:
    client = client_for(company.vp)
    url = "/costs/what-if/?from=2026-01&to=2026-10&scale=2"
    page = client.get(url).content.decode()
    assert "This takes a while" in page
    assert not WhatIfRun.objects.exists()
    asked = client.post(url)
    run = WhatIfRun.objects.get()
    assert asked.status_code == 303
    assert client.post(url).headers["Location"] == asked.headers["Location"], "the same question is asked once"
    assert "A worker takes it up" in client.get(asked.headers["Location"]).content.decode()
    assert client.get(asked.headers["Location"] + "?export=csv").status_code == 409
    told: list[tuple[int, int]] = []
    before = _everything()
    with monitored(told):
        assert runs.answer_due() == 1
    assert told == [(1, 1)], "what is not stored is not looked for"
    assert runs.answer_due() == 0
    assert _everything() == before
    done = client.get(asked.headers["Location"]).content.decode()
    for said in ("192.50 USD", "385.00 USD", "Retail Bank", "100.0", "flat over the whole time"):
        assert said in done
    text = b"".join(client.get(asked.headers["Location"] + "?export=csv").streaming_content).decode("utf-8-sig")
    assert text.splitlines()[-1].startswith("total,Total,50.000000,,192.50,385.00,192.50,100.0,USD")
    assert "Ready" in client.get("/costs/what-if/").content.decode()
    assert AuditEvent.objects.filter(action="costs.whatif.asked").count() == 1
    # Nobody else sees it, and it is not shown once the person's rights are others.
    assert client_for(company.finance).get(asked.headers["Location"]).status_code == 404
    WhatIfRun.objects.filter(pk=run.pk).update(reach="0" * 64)
    assert client.get(asked.headers["Location"]).status_code == 404
    WhatIfRun.objects.filter(pk=run.pk).update(created_at=NOW - 31 * 24 * HOUR)
    runs.answer_due()
    assert not WhatIfRun.objects.exists()


@contextmanager
def monitored(told: list[tuple[int, int]]) -> Iterator[None]:
    """Note the progress that is written while a question is answered."""
    real = reading.what_if

    def what_if(*args: Any, progress: Any, **kwargs: Any) -> Any:
        def both(done: int, total: int) -> None:
            progress(done, total)
            told.append(WhatIfRun.objects.values_list("done", "total").get())

        return real(*args, progress=both, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "what_if", what_if)
        yield


@pytest.mark.requirement("what-if-1.6")
def test_a_worker_that_was_lost_is_followed_by_another_and_a_question_without_rights_fails(
    world: World, company: Any
) -> None:
    question = questions.Question(*SPAN, scale=Decimal(2))
    run = runs.ask(question, actor=Actor.of(company.vp))
    WhatIfRun.objects.filter(pk=run.pk).update(status="running", attempts=1, updated_at=NOW)
    assert runs.answer(run.pk) == 0
    with clock.frozen(NOW + HOUR):
        assert runs.answer(run.pk) == 1
    run.refresh_from_db()
    assert (run.status, run.attempts) == ("done", 2)
    RoleGrant.objects.filter(user=company.vp).update(revoked_at=NOW)
    WhatIfRun.objects.filter(pk=run.pk).update(status="queued")
    assert runs.answer(run.pk) == 1
    run.refresh_from_db()
    assert (run.status, "your rights have changed" in run.error) == ("failed", True)
    lost = WhatIfRun.objects.create(requested_by=company.vp, question=run.question, attempts=3, status="queued")
    assert runs.answer(lost.pk) == 1
    lost.refresh_from_db()
    assert "was lost 3 times" in lost.error


@pytest.mark.requirement("what-if-1.7")
def test_any_card_is_found_by_its_name_and_stays_chosen(world: World, company: Any) -> None:
    RateCard.objects.bulk_create([RateCard(name=f"Later {n}", cluster=world.cluster) for n in range(120)])
    client = client_for(company.vp)
    first = world.card
    page = client.get("/costs/what-if/").content.decode()
    assert str(first.uid) not in page
    assert "there are more" in page
    found = client.get("/costs/what-if/", {"find": "stand DC1", "search": "1"}).content.decode()
    assert str(first.uid) in found
    assert "Later 7" not in found
    kept = client.get("/costs/what-if/", {"card": str(first.uid), "find": "Later 7", "search": "1"}).content.decode()
    assert f'value="{first.uid}"' in kept
    assert "Later 77" in kept
    assert "checked" in kept
    answer = client.get("/costs/what-if/", {"card": str(first.uid), "from": "2026-10", "to": "2026-10"})
    assert "192.50 USD" in answer.content.decode()
