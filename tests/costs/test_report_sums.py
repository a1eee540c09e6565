"""The sums that the monthly report reads are those of the daily charges; lines in integers round as amounts do."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from django.db.models import F, Sum
from hypothesis import given
from hypothesis import strategies as st

from apps.costs.choices import PAID, RESOURCES, ChargeKind
from apps.costs.models import DayCharge, TeamMonth, UnitMonth
from apps.costs.tally import amount_of, round_products, round_to_total
from apps.metering.models import DayUsage
from tests.factories import Company
from tests.metering.world import hold, make_world, utc
from tests.reports.conftest import read

OCTOBER = utc(2026, 10, 1)
_PRODUCTS = st.lists(st.one_of(st.none(), st.integers(-(10**22), 10**26).map(lambda n: Decimal(n).scaleb(-8))))


def total(rows: object, name: str) -> Decimal:
    return Decimal(rows.aggregate(found=Sum(name))["found"] or 0)  # type: ignore[attr-defined]  # any query set


@pytest.mark.requirement("monthly-report-2.8")
def test_sums_by_team_and_unit_are_those_of_the_days(company: Company) -> None:
    first = make_world(company.teams.values())
    second = make_world(company.teams.values(), rate="", slug="dc2")
    for world, hours in ((first, 30), (second, 26)):
        runs = [
            hold("a", "finance-prod", OCTOBER, OCTOBER + timedelta(hours=hours), 2, used=0.5),
            hold("b", "marketing-prod", OCTOBER + timedelta(hours=3), OCTOBER + timedelta(hours=9), 3, used=0.0),
        ]
        read(world, OCTOBER, 48, runs)
    own = DayCharge.objects.filter(kind__in=list(PAID))
    assert total(own, "gpu_ms") == total(TeamMonth.objects, "gpu_ms") > 0
    unpriced = total(own.filter(rate=None), "quantity_ms")
    assert unpriced == total(TeamMonth.objects, "unpriced_ms") > 0
    product = Sum(F("quantity_ms") * F("rate__amount"))
    assert own.aggregate(found=product)["found"] == total(TeamMonth.objects, "product") > 0
    resources = own.filter(kind__in=list(RESOURCES), rate__isnull=False)
    assert total(resources, "quantity_ms") == total(TeamMonth.objects, "resource_priced_ms")
    spare = DayCharge.objects.filter(kind=ChargeKind.RESERVED_UNUSED)
    assert total(spare, "gpu_ms") == total(TeamMonth.objects, "spare_gpu_ms")
    for name in ("allocated_gpu_ms", "used_gpu_ms", "measured_gpu_ms", "idle_gpu_ms"):
        assert total(DayUsage.objects, name) == total(TeamMonth.objects, name) > 0
    for kind in ChargeKind.values:
        of_days, of_units = DayCharge.objects.filter(kind=kind), UnitMonth.objects.filter(kind=kind)
        assert total(of_days, "quantity_ms") == total(of_units, "quantity_ms"), kind
        assert (of_days.aggregate(found=product)["found"] or 0) == total(of_units, "product"), kind


@pytest.mark.requirement("monthly-report-2.8")
@given(products=_PRODUCTS, currency=st.sampled_from(["USD", "JPY", "KWD"]))
def test_lines_rounded_in_integers_are_those_rounded_as_amounts(products: list[Decimal | None], currency: str) -> None:
    found = round_products(products, currency)
    exact = [None if product is None else amount_of(product, currency) for product in products]
    wanted = round_to_total(exact, None)
    known = [one.amount for one in found if one is not None]
    assert sum(known, Decimal(0)) == sum((one.amount for one in wanted if one is not None), Decimal(0))
    smallest = Decimal(1).scaleb({"USD": -2, "JPY": 0, "KWD": -3}[currency])
    for one, amount in zip(found, exact, strict=True):
        assert (one is None) == (amount is None)
        assert one is None or amount is None or abs(one.amount - amount.amount) < smallest
