"""Publishing rate cards: what it ends, what it refuses, and what the database itself refuses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from apps.audit.models import AuditEvent
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Invalid, NotAllowed, NotVisible
from apps.core.money import Money
from apps.rates import selectors
from apps.rates.actions import publish_card
from apps.rates.models import Rate, RateCard
from tests.factories import Company
from tests.rates.factories import make_pool

pytestmark = pytest.mark.django_db
PRICE = Decimal("3.85")


@pytest.fixture
def pool(company: Company) -> Any:
    return make_pool()


def publish(pool: Any, company: Company, amount: str = "3.85", **changes: Any) -> RateCard:
    flavour = pool.flavours.get()
    values: dict[str, Any] = {
        "name": "Prices",
        "cluster_id": pool.cluster_id,
        "prices": {flavour.pk: Decimal(amount)},
        "currency": "USD",
        "valid_from": clock.now() + timedelta(hours=1),
    }
    return publish_card(**(values | {"actor": Actor.of(company.finance)} | changes))


def spans(pool: Any) -> list[tuple[datetime | None, datetime | None, Decimal]]:
    rows = Rate.objects.filter(cluster=pool.cluster).order_by("valid")
    return [(row.valid.lower, row.valid.upper, row.amount) for row in rows]


@pytest.mark.requirement("rates-2.1", "rates-2.2", "rates-2.6")
def test_a_later_card_ends_the_earlier_price_at_its_start(pool: Any, company: Company) -> None:
    first = (clock.now() + timedelta(hours=1)).replace(microsecond=0)
    second = first + timedelta(days=10)
    publish(pool, company, valid_from=first)
    card = publish(pool, company, "2.95", valid_from=second, name="Cheaper")
    assert spans(pool) == [(first, second, PRICE), (second, None, Decimal("2.95"))]
    event = AuditEvent.objects.filter(object_id=card.uid).get()
    assert event.action == "rates.card.published"
    flavour = pool.flavours.get()
    found = selectors.rate_at(pool.cluster_id, flavour.pk, second - timedelta(seconds=1))
    assert found is not None
    assert found.amount == PRICE
    assert [rate.amount for rate in selectors.rates_between(pool.cluster_id, first, second + timedelta(days=1))] == [
        PRICE,
        Decimal("2.95"),
    ]


@pytest.mark.requirement("rates-2.1")
def test_a_card_before_a_published_one_runs_until_that_begins(pool: Any, company: Company) -> None:
    soon = (clock.now() + timedelta(hours=1)).replace(microsecond=0)
    later = soon + timedelta(days=10)
    publish(pool, company, valid_from=later)
    publish(pool, company, "4", valid_from=soon)
    assert spans(pool) == [(soon, later, Decimal(4)), (later, None, PRICE)]
    with pytest.raises(Invalid) as refused:
        publish(pool, company, "5", valid_from=later)
    assert list(refused.value.errors) == ["valid_from"]


@pytest.mark.requirement("rates-2.3")
def test_the_past_is_for_imports_into_gaps_only(pool: Any, company: Company) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    with pytest.raises(Invalid) as refused:
        publish(pool, company, valid_from=start)
    assert "valid_from" in refused.value.errors
    with pytest.raises(NotAllowed):
        publish(pool, company, valid_from=start, imported=True, actor=Actor.of(company.admin))
    change = datetime(2026, 6, 1, tzinfo=UTC)
    publish(pool, company, valid_from=start, valid_until=change, imported=True)
    publish(pool, company, "4", valid_from=change, imported=True)
    with pytest.raises(Invalid):
        publish(pool, company, "9", valid_from=datetime(2026, 3, 1, tzinfo=UTC), imported=True)
    assert spans(pool) == [(start, change, PRICE), (change, None, Decimal(4))]


@pytest.mark.requirement("rates-2.5")
@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"amount": "-1"}, "price"),
        ({"amount": "1.123456789"}, "price"),
        ({"amount": "NaN"}, "price"),
        ({"amount": "1e13"}, "price"),
        ({"currency": "EUR"}, "currency"),
        ({"name": "  "}, "name"),
        ({"prices": {}}, ""),
        ({"prices": {987654321: Decimal(1)}}, "price_987654321"),
        ({"valid_until": datetime(2026, 1, 1, tzinfo=UTC)}, "valid_until"),
    ],
)
def test_wrong_input_is_named_and_nothing_is_written(
    pool: Any, company: Company, changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(Invalid) as refused:
        publish(pool, company, **changes)
    wanted = f"price_{pool.flavours.get().pk}" if field == "price" else field
    assert list(refused.value.errors) == [wanted]
    assert not RateCard.objects.exists()


@pytest.mark.requirement("rates-2.7")
@pytest.mark.parametrize("person", ["lead_finance", "vp", "auditor", "admin", "compliance"])
def test_only_finance_publishes(pool: Any, company: Company, person: str) -> None:
    with pytest.raises(NotAllowed):
        publish(pool, company, actor=Actor.of(company[person]))
    with pytest.raises(NotVisible):
        publish(pool, company, cluster_id=987654321)


@pytest.mark.requirement("rates-2.4")
def test_the_database_refuses_overlap_and_every_change_but_an_earlier_end(pool: Any, company: Company) -> None:
    publish(pool, company)
    rate = Rate.objects.get()
    start = rate.valid.lower
    with pytest.raises(IntegrityError), transaction.atomic():
        Rate.objects.create(
            card=rate.card,
            cluster=rate.cluster,
            flavour=rate.flavour,
            amount=1,
            currency="USD",
            valid=(start + timedelta(days=1), None),
        )
    changes = [
        "amount = amount + 1",
        "currency = 'EUR'",
        "valid = tstzrange(lower(valid) - interval '1 day', NULL)",
        "valid = 'empty'",
    ]
    for change in changes:
        with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"UPDATE rates_rate SET {change}")  # noqa: S608 (a list of constants)
    with pytest.raises(IntegrityError), transaction.atomic():
        Rate.objects.all().delete()
    Rate.objects.update(valid=(start, start + timedelta(days=9)))
    with pytest.raises(IntegrityError), transaction.atomic():
        Rate.objects.update(valid=(start, start + timedelta(days=10)))
    assert Rate.objects.get().valid.upper == start + timedelta(days=9)


@pytest.mark.requirement("rates-4.1", "rates-4.2")
def test_an_estimate_names_its_basis_and_is_unknown_without_a_rate(pool: Any, company: Company) -> None:
    flavour = pool.flavours.get()
    at = clock.now() + timedelta(hours=2)
    unknown = selectors.monthly_estimate(pool.cluster_id, flavour.pk, 8, at)
    assert unknown.amount is None
    assert "no rate" in unknown.basis
    publish(pool, company)
    known = selectors.monthly_estimate(pool.cluster_id, flavour.pk, 8, at)
    assert known.amount == Money(Decimal("22484.00"), "USD")
    assert known.rate_uid == Rate.objects.get().uid
    assert known.basis.startswith("+8 × 730 h (a month) × 3.85 USD per hour")
