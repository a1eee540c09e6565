"""What owned GPUs cost: the computation, what it refuses, and the way to a proposal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st

from apps.audit.models import AuditEvent
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Invalid, NotAllowed
from apps.rates.capex import hourly
from apps.rates.capex_actions import enter_schedule
from apps.rates.models import CapexSchedule, RateProposal
from tests.factories import Company, client_for
from tests.rates.factories import make_pool


@dataclass(frozen=True)
class Schedule:
    gpus: int = 8
    life_months: int = 48
    purchase: Decimal = Decimal(240000)
    residual: Decimal = Decimal(24000)
    power_watts: int = 700
    pue_permille: int = 1350
    per_kwh: Decimal = Decimal("0.18")
    operations_monthly: Decimal = Decimal(1800)
    sellable_permille: int = 800


@pytest.mark.requirement("rate-proposals-3.1")
def test_worked_case() -> None:
    """216,000 ÷ (48 × 730 × 8 × 0.8) + 0.7 × 1.35 × 0.18 ÷ 0.8 + 1,800 ÷ (730 × 8 × 0.8)."""
    found = hourly(Schedule())
    assert [step.label for step in found.steps] == ["Depreciation", "Energy", "Operations"]
    assert [step.amount.quantize(Decimal("0.000001")) for step in found.steps] == [
        Decimal("0.963185"),
        Decimal("0.212625"),
        Decimal("0.385274"),
    ]
    assert found.price == Decimal("1.5610839")
    assert "(240,000 − 24,000) ÷ (48 months × 730 h × 8 GPUs × 0.8)" in found.steps[0].working


@pytest.mark.requirement("rate-proposals-3.1")
@given(
    st.integers(1, 5000), st.integers(1, 240), st.integers(0, 10**9), st.integers(0, 2000), st.integers(1000, 3000),
    st.integers(0, 10**6), st.integers(0, 10**8), st.integers(1, 1000), st.integers(0, 1000),
)  # fmt: skip
def test_the_price_earns_back_what_was_spent(
    gpus: int, life: int, cents: int, watts: int, pue: int, micro: int, ops: int, share: int, residual: int
) -> None:
    purchase = Decimal(cents) / 100
    schedule = Schedule(
        gpus, life, purchase, (purchase * residual / 1000).quantize(Decimal("0.01"), "ROUND_DOWN"), watts, pue,
        Decimal(micro) / 10**6, Decimal(ops) / 100, share,
    )  # fmt: skip
    found = hourly(schedule)
    sold = Fraction(life * 730 * gpus * share, 1000)
    spent = (
        Fraction(schedule.purchase)
        - Fraction(schedule.residual)
        + Fraction(schedule.operations_monthly) * life
        + Fraction(watts, 1000) * Fraction(pue, 1000) * Fraction(schedule.per_kwh) * life * 730 * gpus
    )
    assert abs(Fraction(found.exact) * sold - spent) <= Fraction(1, 10**30) * max(1, spent)
    assert abs(Fraction(found.price) - Fraction(found.exact)) <= Fraction(1, 2 * 10**8)


@pytest.mark.requirement("rate-proposals-3.3")
@pytest.mark.parametrize(
    "changes",
    [
        {"gpus": 0}, {"life_months": 0}, {"residual": Decimal(240001)}, {"pue_permille": 999},
        {"sellable_permille": 0}, {"sellable_permille": 1001}, {"per_kwh": Decimal(-1)},
    ],
)  # fmt: skip
def test_impossible_inputs_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        hourly(replace(Schedule(), **changes))


VALUES: dict[str, Any] = {
    "gpus": 8, "in_service_from": date(2026, 1, 1), "life_months": 48, "purchase": Decimal(240000),
    "residual": Decimal(24000), "power_watts": 700, "pue_permille": 1350, "per_kwh": Decimal("0.18"),
    "operations_monthly": Decimal(1800), "sellable_permille": 800,
}  # fmt: skip


@pytest.mark.django_db
@pytest.mark.requirement("rate-proposals-3.3", "rate-proposals-3.1")
def test_entering_names_the_field_and_is_recorded(company: Company) -> None:
    pool = make_pool()
    flavour = pool.flavours.get()
    actor = Actor.of(company.finance)
    for field, changes in (
        ("residual", {"residual": Decimal(240001)}),
        ("sellable_percent", {"sellable_permille": 0}),
        ("pue", {"pue_permille": 900}),
        ("purchase", {"purchase": Decimal("0.001")}),
        ("gpus", {"gpus": 0}),
    ):
        with pytest.raises(Invalid) as refused:
            enter_schedule("Nodes", pool.cluster_id, flavour.pk, actor=actor, **(VALUES | changes))
        assert list(refused.value.errors) == [field]
    with pytest.raises(Invalid):
        enter_schedule("Nodes", pool.cluster_id, 987654321, actor=actor, **VALUES)
    with pytest.raises(NotAllowed):
        enter_schedule("Nodes", pool.cluster_id, flavour.pk, actor=Actor.of(company.admin), **VALUES)
    assert not CapexSchedule.objects.exists()
    made = enter_schedule("Nodes", pool.cluster_id, flavour.pk, actor=actor, **VALUES)
    assert AuditEvent.objects.get(object_id=made.uid).action == "rates.capex.entered"


@pytest.mark.django_db
@pytest.mark.requirement("rate-proposals-3.1", "rate-proposals-3.2")
def test_from_the_form_to_a_proposal_that_names_the_schedule(company: Company) -> None:
    pool = make_pool()
    flavour = pool.flavours.get()
    finance = client_for(company.finance)
    values = {
        "name": "Nodes of 2026", "flavour": flavour.pk, "gpus": "8", "in_service_from": "2026-01-01",
        "life_months": "48", "purchase": "240000", "residual": "24000", "power_watts": "700", "pue": "1.35",
        "per_kwh": "0.18", "operations_monthly": "1800", "sellable_percent": "80",
    }  # fmt: skip
    url = reverse("rates:capex-create")
    refused = finance.post(url, values | {"residual": "240001"})
    assert refused.status_code == 400
    assert "between zero and the purchase price" in refused.content.decode()
    done = finance.post(url, values)
    assert done.status_code == 303
    page = finance.get(done["Location"])
    for said in ("0.96318493", "0.21262500", "0.38527397", "1.56108390", "Propose this price"):
        assert said in page.content.decode()
    assert "Nodes of 2026" in finance.get(reverse("rates:capex-list")).content.decode()
    form = finance.get(page.context["propose_url"])
    field = f"price_{flavour.pk}"
    assert form.context["form"].initial[field] == "1.5610839"
    start = (clock.now() + timedelta(days=2)).strftime("%Y-%m-%dT%H:%M")
    typed = {
        "name": "Own nodes", "valid_from": start, field: "1.5610839",
        "capex": str(CapexSchedule.objects.get().uid), "capex_flavour": str(flavour.pk),
    }  # fmt: skip
    create = reverse("rates:card-create")
    preview = finance.post(create, typed)
    assert finance.post(create, typed | {"confirm": preview.context["confirm"]}).status_code == 303
    proposal = RateProposal.objects.get()
    assert proposal.prices[0]["capex"] == str(CapexSchedule.objects.get().uid)
    shown = finance.get(reverse("rates:proposal-detail", args=[proposal.uid])).content.decode()
    assert "Nodes of 2026" in shown
    assert "1.5610839 USD" in shown
