"""Pages and API of rate cards."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.urls import reverse

from apps.core import clock
from apps.rates.models import Rate, RateCard
from tests.factories import Company, client_for
from tests.quotas.conftest import make_rate
from tests.rates.factories import make_pool

pytestmark = pytest.mark.django_db


@pytest.fixture
def rate(company: Company) -> Rate:
    return make_rate(make_pool())


@pytest.mark.requirement("rates-3.1")
def test_everybody_sees_what_is_charged_now_later_and_before(company: Company, rate: Rate) -> None:
    start = clock.now() + timedelta(days=9)
    card = RateCard.objects.create(name="Cheaper", cluster=rate.cluster)
    Rate.objects.filter(pk=rate.pk).update(valid=(rate.valid.lower, start))
    Rate.objects.create(
        card=card,
        cluster=rate.cluster,
        flavour=rate.flavour,
        amount=Decimal("2.95"),
        currency="USD",
        valid=(start, None),
    )
    client = client_for(company.member_finance)
    page = client.get(reverse("rates:card-list")).content.decode()
    assert "In force" in page
    assert "Upcoming" in page
    assert "Publish a rate card" not in page
    detail = client.get(reverse("rates:card-detail", kwargs={"card_uid": card.uid})).content.decode()
    for said in ("2.95 USD", "3.85 USD", "Upcoming", "no end"):
        assert said in detail
    rows = client.get("/api/v1/rate-cards").json()["results"]
    assert {one["state"] for row in rows for one in row["rates"]} == {"in_force", "upcoming"}
    assert rows[0]["rates"][0]["amount"] == "2.95000000"


@pytest.mark.requirement("rates-3.2", "rates-2.7")
def test_finance_sees_what_ends_before_it_publishes(company: Company, rate: Rate) -> None:
    url = reverse("rates:card-create")
    for person in ("lead_finance", "vp", "admin", "auditor"):
        assert client_for(company[person]).get(url).status_code == 403
    finance = client_for(company.finance)
    assert rate.flavour.name in finance.get(url).content.decode()
    start = (clock.now() + timedelta(days=2)).strftime("%Y-%m-%dT%H:%M")
    values: dict[str, Any] = {"name": "Prices 2027", "valid_from": start, f"price_{rate.flavour_id}": "2.95"}
    preview = finance.post(url, values)
    page = preview.content.decode()
    assert preview.status_code == 200
    assert "3.85 USD" in page
    assert "ends at the new start" in page
    assert RateCard.objects.count() == 1
    confirm = preview.context["confirm"]
    # Whoever changes a price after the preview sees a new preview.
    changed = finance.post(url, values | {"confirm": confirm, f"price_{rate.flavour_id}": "1.00"})
    assert changed.status_code == 200
    assert RateCard.objects.count() == 1
    done = finance.post(url, values | {"confirm": confirm})
    assert done.status_code == 303
    assert Rate.objects.get(card__name="Prices 2027").amount == Decimal("2.95")


@pytest.mark.requirement("rates-2.5")
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"price": "-1"}, "cannot be negative"),
        ({"price": "cheap"}, "Enter an amount"),
        ({"price": ""}, "at least one flavour"),
        ({"valid_from": "2020-01-01T00:00"}, "never changes"),
        ({"name": ""}, "This field is required"),
    ],
)
def test_wrong_input_on_the_page(company: Company, rate: Rate, changes: dict[str, str], says: str) -> None:
    finance = client_for(company.finance)
    start = (clock.now() + timedelta(days=2)).strftime("%Y-%m-%dT%H:%M")
    values = {"name": "Prices", "valid_from": start, "price": "2.95"} | changes
    values[f"price_{rate.flavour_id}"] = values.pop("price")
    url = reverse("rates:card-create")
    response = finance.post(url, values)
    if response.status_code == 200:
        response = finance.post(url, values | {"confirm": response.context["confirm"]})
    assert response.status_code == 400
    assert says in response.content.decode()
    assert RateCard.objects.count() == 1
    assert finance.get(url, {"cluster": "nowhere"}).status_code == 404
