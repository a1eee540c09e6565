"""Pages and API of rate cards."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.urls import reverse

from apps.core import clock
from apps.core.actor import Actor
from apps.rates import proposals
from apps.rates.models import Rate, RateCard, RateProposal
from apps.rates.publishing import PriceLine
from tests.factories import Company, client_for, grant, make_user
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
    assert "Propose a rate card" not in page
    detail = client.get(reverse("rates:card-detail", kwargs={"card_uid": card.uid})).content.decode()
    for said in ("2.95 USD", "3.85 USD", "Upcoming", "no end"):
        assert said in detail
    rows = client.get("/api/v1/rate-cards").json()["results"]
    assert {one["state"] for row in rows for one in row["rates"]} == {"in_force", "upcoming"}
    assert rows[0]["rates"][0]["amount"] == "2.95000000"


@pytest.mark.requirement("rates-3.2", "rates-2.7", "rate-proposals-2.1", "rate-proposals-2.7", "rate-proposals-2.8")
def test_finance_sees_what_ends_before_it_proposes_and_a_second_person_publishes(company: Company, rate: Rate) -> None:
    url = reverse("rates:card-create")
    for person in ("lead_finance", "vp", "admin", "auditor"):
        assert client_for(company[person]).get(url).status_code == 403
    finance = client_for(company.finance)
    assert rate.flavour.name in finance.get(url).content.decode()
    start = (clock.now() + timedelta(days=2)).strftime("%Y-%m-%dT%H:%M")
    values: dict[str, Any] = {
        "name": "Prices 2027",
        "valid_from": start,
        f"price_{rate.flavour_id}": "2.95",
        "price_cpu": "0.031",
        "factor_compliance": "1.2",
    }
    preview = finance.post(url, values)
    page = preview.content.decode()
    assert preview.status_code == 200
    for said in ("3.85 USD", "ends at the new start", "3.54 USD", "0.0372 USD", "CPU core-hour"):
        assert said in page
    assert not RateProposal.objects.exists()
    assert "Proposed. A second person" not in page  # a preview is no proposal, and nobody got a mail
    confirm = preview.context["confirm"]
    # Whoever changes a price after the preview sees a new preview.
    changed = finance.post(url, values | {"confirm": confirm, f"price_{rate.flavour_id}": "1.00"})
    assert changed.status_code == 200
    assert not RateProposal.objects.exists()
    done = finance.post(url, values | {"confirm": confirm})
    assert done.status_code == 303
    proposal = RateProposal.objects.get()
    assert RateCard.objects.count() == 1
    assert "A second person has to publish your prices" in finance.get(done["Location"]).content.decode()
    assert finance.post(reverse("rates:proposal-approve", args=[proposal.uid]), {}).status_code == 403
    assert "Prices 2027" not in finance.get("/").content.decode()

    person = make_user("second-finance@example.com")
    grant(person, "finance")
    second = client_for(person)
    assert "Prices 2027" in second.get("/").content.decode()
    assert "Prices 2027" in second.get(reverse("rates:card-list")).content.decode()
    assert "Prices 2027" not in client_for(company.vp).get(reverse("rates:card-list")).content.decode()
    detail = second.get(reverse("rates:proposal-detail", args=[proposal.uid])).content.decode()
    for said in ("3.85 USD", "2.95 USD", "-23.4 %", proposal.digest, "Approve and publish"):
        assert said in detail
    approve = reverse("rates:proposal-approve", args=[proposal.uid])
    asked = second.get(approve)
    assert Rate.objects.count() == 1
    refused = second.post(approve, {"version": "1", "digest": "0" * 64})
    assert refused.status_code == 409
    assert second.post(approve, asked.context["form"].initial).status_code == 303
    assert Rate.objects.get(card__name="Prices 2027", flavour=rate.flavour, service_class="").amount == Decimal("2.95")
    assert second.get(approve).status_code == 409
    assert "Published" in second.get(reverse("rates:proposal-detail", args=[proposal.uid])).content.decode()
    again = finance.get(f"{url}?cluster={rate.cluster.slug}&from={proposal.uid}").content.decode()
    assert 'value="0.031"' in again
    for bad in ("from=7", f"capex={proposal.uid}", "cluster=nowhere"):
        assert finance.get(f"{url}?{bad}").status_code == 404


@pytest.mark.requirement("rate-proposals-2.6", "rate-proposals-2.3")
def test_rejecting_and_withdrawing_on_the_page(company: Company, rate: Rate) -> None:
    person = make_user("second-finance@example.com")
    grant(person, "finance")
    made = [
        proposals.propose_card(
            name, rate.cluster_id, [PriceLine(None, "cpu", "", Decimal("0.03"))], "USD",
            clock.now() + timedelta(days=2), actor=Actor.of(company.finance),
        )
        for name in ("First", "Second")
    ]  # fmt: skip
    second, finance = client_for(person), client_for(company.finance)
    reject = reverse("rates:proposal-reject", args=[made[0].uid])
    assert "This field is required" in second.post(reject, {"version": "1"}).content.decode()
    assert second.post(reject, {"version": "1", "reason": "Too dear"}).status_code == 303
    assert "Too dear" in finance.get(reverse("rates:proposal-detail", args=[made[0].uid])).content.decode()
    withdraw = reverse("rates:proposal-withdraw", args=[made[1].uid])
    assert second.post(withdraw, {"version": "1"}).status_code == 403
    assert finance.post(withdraw, {"version": "1"}).status_code == 303
    listed = finance.get(reverse("rates:proposal-list")).content.decode()
    assert "Rejected" in listed
    assert "Withdrawn" in listed


@pytest.mark.requirement("rate-proposals-2.9")
def test_the_api_decides_by_the_same_rules(company: Company, rate: Rate) -> None:
    person = make_user("second-finance@example.com")
    grant(person, "finance")
    proposal = proposals.propose_card(
        "Through the API", rate.cluster_id, [PriceLine(None, "cpu", "", Decimal("0.03"))], "USD",
        clock.now() + timedelta(days=2), actor=Actor.of(company.finance),
    )  # fmt: skip
    base = f"/api/v1/rate-proposals/{proposal.uid}"
    second, finance = client_for(person), client_for(company.finance)
    body = second.get(base).json()
    assert body["prices"] == [{"resource": "cpu", "capacity_type": "", "amount": "0.03"}]
    json: dict[str, Any] = {"content_type": "application/json"}
    assert finance.post(f"{base}/approve", {"digest": body["digest"]}, **json).status_code == 403
    assert second.post(f"{base}/approve", {"digest": "0" * 64}, **json).status_code == 409
    assert second.post(f"{base}/reject", {"reason": ""}, **json).status_code == 400
    assert second.post(f"{base}/approve", {"digest": body["digest"]}, **json).json()["status"] == "approved"
    assert second.post(f"{base}/reject", {"reason": "Late"}, **json).status_code == 409
    assert client_for(company.vp).get(base).status_code in (403, 404)


@pytest.mark.requirement("rates-2.5")
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"price": "-1"}, "cannot be negative"),
        ({"price": "cheap"}, "Enter an amount"),
        ({"price": ""}, "at least one flavour"),
        ({"factor_compliance": "1.00001"}, "decimal places"),
        ({"price": "0.12345679", "factor_compliance": "1.5"}, "never rounded"),
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
    assert not RateProposal.objects.exists()
    assert finance.get(url, {"cluster": "nowhere"}).status_code == 404
