"""Proposals: one person writes prices, another publishes exactly these bytes."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from apps.audit.models import AuditEvent
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.core.models import OutboxMessage
from apps.rates import actions, proposals
from apps.rates.models import Rate, RateCard, RateProposal
from apps.rates.publishing import PriceLine
from tests.factories import Company, grant, make_user
from tests.rates.factories import make_pool

pytestmark = pytest.mark.django_db


@pytest.fixture
def pool(company: Company) -> Any:
    return make_pool()


@pytest.fixture
def second(company: Company) -> Any:
    person = make_user("second-finance@example.com")
    grant(person, "finance")
    return person


def lines(pool: Any, amount: str = "3.85", **factors: str) -> list[PriceLine]:
    made = {name: Decimal(value) for name, value in factors.items()}
    return [
        PriceLine(pool.flavours.get().pk, "", "", Decimal(amount), made),
        PriceLine(pool.flavours.get().pk, "", "spot", Decimal("1.5")),
        PriceLine(None, "cpu", "", Decimal("0.031")),
    ]


def propose(pool: Any, company: Company, amount: str = "3.85", **changes: Any) -> RateProposal:
    values: dict[str, Any] = {
        "name": "Prices 2027",
        "cluster_id": pool.cluster_id,
        "lines": lines(pool, amount, compliance="1.2"),
        "currency": "USD",
        "valid_from": clock.now() + timedelta(hours=1),
        "note": "New supplier",
    }
    return proposals.propose_card(**(values | {"actor": Actor.of(company.finance)} | changes))


def approve(proposal: RateProposal, person: Any, **changes: Any) -> RateProposal:
    return proposals.approve_proposal(
        proposal.pk, **({"actor": Actor.of(person), "expected_digest": proposal.digest} | changes)
    )


@pytest.mark.requirement("rate-proposals-2.1", "rate-proposals-2.2", "rate-proposals-2.8", "rate-proposals-1.2")
def test_a_second_person_publishes_exactly_what_was_proposed(pool: Any, company: Company, second: Any) -> None:
    proposal = propose(pool, company)
    assert not RateCard.objects.exists()
    told = OutboxMessage.objects.get(event="rates.proposal.submitted")
    assert second.pk in told.recipient_ids
    assert company.finance.pk not in told.recipient_ids
    with pytest.raises(Conflict):
        approve(proposal, second, expected_digest="0" * 64)
    with pytest.raises(Conflict):
        approve(proposal, second, expected_version=7)
    done = approve(proposal, second, expected_version=1)
    rows = {
        (rate.flavour_id, rate.resource, rate.capacity_type, rate.service_class): rate.amount
        for rate in Rate.objects.filter(card=done.card)
    }
    flavour = pool.flavours.get().pk
    assert rows == {
        (flavour, "", "", ""): Decimal("3.85"),
        (flavour, "", "", "compliance"): Decimal("4.62"),
        (flavour, "", "spot", ""): Decimal("1.5"),
        (None, "cpu", "", ""): Decimal("0.031"),
    }
    assert done.card is not None
    assert done.card.note == "New supplier"
    seen = AuditEvent.objects.filter(object_id=proposal.uid).values_list("action", flat=True)
    assert sorted(seen) == ["rates.proposal.approved", "rates.proposal.submitted"]
    assert OutboxMessage.objects.get(event="rates.proposal.approved").recipient_ids == [company.finance.pk]
    with pytest.raises(Conflict, match="decided already"):
        approve(proposal, second)


@pytest.mark.requirement("rate-proposals-2.3")
def test_nobody_decides_on_their_own_prices(pool: Any, company: Company, second: Any) -> None:
    proposal = propose(pool, company)
    for refused in (
        lambda: approve(proposal, company.finance),
        lambda: proposals.reject_proposal(proposal.pk, "No", actor=Actor.of(company.finance)),
        lambda: approve(proposal, company.vp),
        lambda: approve(proposal, company.auditor),
        lambda: proposals.withdraw_proposal(proposal.pk, actor=Actor.of(second)),
        lambda: proposals.propose_card(
            "Own", pool.cluster_id, lines(pool), "USD", clock.now(), actor=Actor.system("test")
        ),
        lambda: propose(pool, company, actor=Actor.of(company.admin)),
    ):
        with pytest.raises(NotAllowed):
            refused()
    with pytest.raises(IntegrityError), transaction.atomic():
        RateProposal.objects.filter(pk=proposal.pk).update(status="approved", decided_by=company.finance)


@pytest.mark.requirement("rate-proposals-2.4")
def test_a_start_that_has_passed_is_refused(pool: Any, company: Company, second: Any) -> None:
    now = clock.now()
    with clock.frozen(now):
        proposal = propose(pool, company)
    with clock.frozen(now + timedelta(hours=1, seconds=2)), pytest.raises(Conflict, match="propose the prices anew"):
        approve(proposal, second)
    assert not Rate.objects.exists()


@pytest.mark.requirement("rate-proposals-2.5")
def test_prices_published_meanwhile_are_named(pool: Any, company: Company, second: Any) -> None:
    proposal = propose(pool, company)
    actions.publish_card(
        "Stopgap",
        pool.cluster_id,
        [PriceLine(None, "cpu", "", Decimal("0.04"))],
        "USD",
        clock.now() + timedelta(minutes=5),
        actor=Actor.of(second),
    )
    with pytest.raises(Conflict, match=r"CPU core-hour: 0\.04 USD by “Stopgap”"):
        approve(proposal, second)
    again = propose(pool, company, valid_from=clock.now() + timedelta(days=2))
    approve(again, second)
    spans = Rate.objects.filter(resource="cpu").order_by("valid").values_list("amount", flat=True)
    assert list(spans) == [Decimal("0.04"), Decimal("0.031")]


@pytest.mark.requirement("rate-proposals-2.6")
def test_rejecting_takes_a_reason_and_what_is_decided_stays(pool: Any, company: Company, second: Any) -> None:
    proposal = propose(pool, company)
    with pytest.raises(Invalid):
        proposals.reject_proposal(proposal.pk, "  ", actor=Actor.of(second))
    proposals.reject_proposal(proposal.pk, "Too dear", actor=Actor.of(second))
    message = OutboxMessage.objects.get(event="rates.proposal.rejected")
    assert message.recipient_ids == [company.finance.pk]
    assert message.payload["reason"] == "Too dear"
    with pytest.raises(Conflict):
        approve(proposal, second)
    other = propose(pool, company)
    proposals.withdraw_proposal(other.pk, actor=Actor.of(company.finance))
    assert OutboxMessage.objects.get(event="rates.proposal.withdrawn").recipient_ids == [second.pk]
    for change in ("status = 'proposed'", "note = 'x'", "prices = '[]'"):
        with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"UPDATE rates_rateproposal SET {change}")  # noqa: S608 (a list of constants)
    third = propose(pool, company)
    with pytest.raises(IntegrityError), transaction.atomic():
        RateProposal.objects.filter(pk=third.pk).update(prices=[])
    with pytest.raises(IntegrityError), transaction.atomic():
        RateProposal.objects.filter(pk=third.pk).delete()


@pytest.mark.requirement("rate-proposals-1.3")
def test_class_prices_end_with_their_base_price(pool: Any, company: Company, second: Any) -> None:
    first = propose(pool, company)
    approve(first, second)
    start = clock.now().replace(microsecond=0) + timedelta(days=3)
    flavour = pool.flavours.get()
    plain = [PriceLine(flavour.pk, "", "", Decimal(3))]
    later = propose(pool, company, lines=plain, valid_from=start)
    change = proposals.plan_of(later)[0]
    assert [(row.label, row.exact) for row in change.rows] == [
        (flavour.name, "3.00 USD"),
        (f"{flavour.name}, Compliance", ""),
    ]
    approve(later, second)
    ended = Rate.objects.filter(card=first.card or RateCard.objects.get(proposal=first), flavour=flavour)
    assert {rate.service_class: rate.valid.upper for rate in ended if not rate.capacity_type} == {
        "": start,
        "compliance": start,
    }


@pytest.mark.requirement("rate-proposals-1.2", "rate-proposals-1.4", "rates-2.5")
@pytest.mark.parametrize(
    ("bad", "field"),
    [
        ([(None, "cpu", "", "0.12345679", {"compliance": "1.5"})], "factor_compliance"),
        ([(None, "cpu", "", "0.1", {"compliance": "0"})], "factor_compliance"),
        ([(None, "cpu", "", "0.1", {"compliance": "1.00001"})], "factor_compliance"),
        ([(None, "cpu", "", "0.1", {"gold": "2"})], "factor_gold"),
        ([(None, "cpu", "spot", "0.1", {})], "price_cpu_spot"),
        ([(None, "tape", "", "0.1", {})], "price_tape"),
        ([(None, "cpu", "moon", "0.1", {})], "price_cpu_moon"),
        ([(None, "cpu", "", "0.1", {}), (None, "cpu", "", "0.2", {})], "price_cpu"),
        ([], ""),
    ],
)
def test_what_cannot_be_written_exactly_is_refused(pool: Any, company: Company, bad: Any, field: str) -> None:
    made = [PriceLine(f, r, c, Decimal(a), {k: Decimal(v) for k, v in fs.items()}) for f, r, c, a, fs in bad]
    with pytest.raises(Invalid) as refused:
        propose(pool, company, lines=made)
    assert list(refused.value.errors) == [field]
    assert not RateProposal.objects.exists()


@pytest.mark.requirement("rate-proposals-1.2")
def test_the_database_refuses_a_class_price_that_is_not_base_times_factor(
    pool: Any, company: Company, second: Any
) -> None:
    approve(propose(pool, company), second)
    base = Rate.objects.get(service_class="", capacity_type="", resource="")
    with pytest.raises(IntegrityError), transaction.atomic():
        Rate.objects.create(
            card=base.card, cluster=base.cluster, flavour=base.flavour, service_class="compliance_ha", base=base,
            factor=Decimal(2), amount=Decimal("7.71"), currency="USD", valid=base.valid,
        )  # fmt: skip


@pytest.mark.requirement("rate-proposals-1.8")
def test_an_import_never_outranks_a_price_that_was_in_force(pool: Any, company: Company) -> None:
    now, flavour = clock.now(), pool.flavours.get()
    actor = Actor.of(company.finance)
    imported: dict[str, Any] = {"currency": "USD", "actor": actor, "imported": True}
    start = now - timedelta(days=60)
    actions.publish_card("Past", pool.cluster_id, {flavour.pk: Decimal(4)}, valid_from=start, **imported)
    spot = [PriceLine(flavour.pk, "", "spot", Decimal(1))]
    with pytest.raises(Invalid, match="only fills gaps"):
        actions.publish_card("Spot", pool.cluster_id, spot, valid_from=start + timedelta(days=1), **imported)
    whole = [PriceLine(flavour.pk, "", "", Decimal(5)), *spot]
    before = now - timedelta(days=90)
    card = actions.publish_card("Older", pool.cluster_id, whole, valid_from=before, valid_until=start, **imported)
    assert card.rates.count() == 2
