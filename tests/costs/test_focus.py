"""FOCUS 1.2: columns, sums, corrections, unused reservations, rounding; the checks find what is wrong."""

from __future__ import annotations

import csv
import io
import time
import tracemalloc
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.core import clock
from apps.core.actor import Actor
from apps.costs import focus, focus_rows
from apps.costs.choices import LineSort
from apps.costs.focus_checker import Checker, check_file
from apps.costs.focus_rules import COLUMNS, DEFECTS, FOCUS_COLUMNS, RULES
from apps.costs.models import Correction, Credit, DayCharge, Period, Statement
from apps.metering import actions as metering
from tests.costs.frozen import Draft, freeze, open_month
from tests.metering.world import FakeAdapter, World, add_rate, guarantee, hold, make_world, utc

HOUR = timedelta(hours=1)
AUGUST = utc(2026, 8, 1)
NOW = utc(2026, 9, 3, 9)


@pytest.fixture
def world(company: Any) -> Any:
    """Two days of August: odd quantities at an odd price, a reservation that nobody used, a price that changes."""
    with clock.frozen(utc(2026, 8, 4, 9)):
        world = make_world(company.teams.values(), gpus=8, rate="3.39", slug="dc2")
        guarantee(world, "research", 2)
        assert world.rate is not None
        change = AUGUST + timedelta(hours=30, seconds=7)
        world.rate.valid = type(world.rate.valid)(world.rate.valid.lower, change, "[)")
        world.rate.save()
        add_rate(world.card, world.flavour, "2.12345678", change)
        holdings = [
            hold("training", "finance-prod", AUGUST, AUGUST + timedelta(hours=31, minutes=7, seconds=13), 3),
            hold("=cmd", "marketing-prod", AUGUST + timedelta(seconds=11), AUGUST + timedelta(hours=5, seconds=30), 2),
        ]
        metering.ingest_hours(
            world.source.pk, AUGUST, AUGUST + 48 * HOUR, actor=Actor.system("test"), adapter=FakeAdapter(holdings)
        )
        yield world


def adjust(world: World, company: Any) -> None:
    """A correction of July and a credit, both billed in August."""
    july = open_month(utc(2026, 7, 1).date())
    august = open_month(AUGUST.date())
    Correction.objects.create(
        period=august, corrects=july, cluster=world.cluster, hour=utc(2026, 7, 31, 22), hour_revision=2,
        kind="allocated", team_id=company.finance_team.pk, unit_id=company.unit.pk,
        cost_centre=company.finance_team.cost_centre, team_name="Finance", flavour_id=world.flavour.pk,
        gpu_model=world.flavour.gpu_model, rate=world.rate, quantity_ms=88_200_000, gpu_ms=88_200_000, reason="Late",
    )  # fmt: skip
    Credit.objects.create(
        period=august, team=company.marketing_team, amount=Decimal("5.00"), currency="USD", reason="A bad night",
        status="approved", proposed_by=company.finance, decided_by=company.auditor,
    )  # fmt: skip


def export(period: Period) -> tuple[list[dict[str, str]], dict[str, Any], bytes]:
    file = io.BytesIO()
    report = focus.write(period, file)
    body = file.getvalue()
    return list(csv.DictReader(io.StringIO(body.decode(), newline=""))), report, body


def failures(report: dict[str, Any]) -> list[str]:
    return [entry["rule"] for entry in report["checked"] if entry["failed"]]


def total(found: list[dict[str, str]]) -> Decimal:
    return sum((Decimal(row["BilledCost"]) for row in found), Decimal(0))


@pytest.mark.requirement("focus-1.1", "focus-1.2", "focus-1.3", "focus-2.1")
def test_a_closed_month_keeps_the_rules_and_adds_up_to_its_bill(world: World, company: Any) -> None:
    adjust(world, company)
    with clock.frozen(NOW):
        period = freeze(AUGUST.date())
    found, report, body = export(period)
    assert failures(report) == []
    assert report["verdict"] == "passed"
    assert report["rules"] >= 60
    assert tuple(found[0]) == COLUMNS
    assert list(FOCUS_COLUMNS) == sorted(FOCUS_COLUMNS)
    assert len(FOCUS_COLUMNS) == 57
    assert total(found) == period.bill
    for statement in Statement.objects.filter(period=period):
        assert total([row for row in found if row["InvoiceId"] == statement.number]) == statement.amount
    usage = [row for row in found if row["ChargeCategory"] == "Usage" and not row["ChargeClass"]]
    for row in usage:
        assert Decimal(row["ContractedUnitPrice"]) * Decimal(row["PricingQuantity"]) == Decimal(row["BilledCost"])
        assert row["ChargePeriodStart"].endswith("T00:00:00Z")
    assert {row["ChargePeriodStart"][:10] for row in usage} == {"2026-08-01", "2026-08-02"}
    assert check_file(csv.reader(io.StringIO(body.decode(), newline="")), bill=period.bill)["failed"] == 0


@pytest.mark.requirement("focus-1.4")
def test_a_correction_keeps_its_original_time(world: World, company: Any) -> None:
    adjust(world, company)
    with clock.frozen(NOW):
        period = freeze(AUGUST.date())
    found, _, _ = export(period)
    rows = [row for row in found if row["ChargeClass"] == "Correction"]
    assert [(row["ChargePeriodStart"], row["ChargePeriodEnd"], row["BilledCost"]) for row in rows] == [
        ("2026-07-31T22:00:00Z", "2026-07-31T23:00:00Z", "83.055")
    ]
    assert rows[0]["BillingPeriodStart"] == "2026-08-01T00:00:00Z"
    assert all(row["ChargePeriodStart"] >= "2026-08-01" for row in found if not row["ChargeClass"])


@pytest.mark.requirement("focus-1.5", "focus-1.6")
def test_reservations_credits_shares_and_rounding(world: World, company: Any) -> None:
    adjust(world, company)
    assert world.rate is not None
    share = Draft(
        LineSort.DISTRIBUTED, "Share of maintenance", Decimal("3.39"), company.finance_team.pk,
        {
            "kind": "maintenance", "cluster_id": world.cluster.pk, "flavour_id": world.flavour.pk, "rate": world.rate,
            "hourly": world.rate.amount, "quantity_ms": 3_600_000, "gpu_ms": 3_600_000, "ratio_ppm": 250_000,
            "method": "v1:maintenance:shared-by-allocated-gpu-time",
        },
    )  # fmt: skip
    with clock.frozen(NOW):
        period = freeze(AUGUST.date(), extra=[share])
    found, report, _ = export(period)
    assert failures(report) == []
    reserved = [row for row in found if row["x_ChargeKind"] == "reserved_unused"]
    assert reserved
    assert {row["CapacityReservationStatus"] for row in reserved} == {"Unused"}
    assert all(row["CapacityReservationId"].startswith("dc2/") and row["ConsumedQuantity"] == "0" for row in reserved)
    credit = [row for row in found if row["ChargeCategory"] == "Credit"]
    assert [(row["BilledCost"], row["PricingQuantity"], row["SkuPriceId"]) for row in credit] == [("-5", "", "")]
    shared = [row for row in found if row["x_AllocatedMethodId"]]
    assert [(row["x_AllocatedRatio"], row["BilledCost"], row["ChargeCategory"]) for row in shared] == [
        ("0.25", "3.39", "Usage")
    ]
    rounding = [row for row in found if row["ChargeCategory"] == "Adjustment"]
    assert rounding
    assert all(abs(Decimal(row["BilledCost"])) < Decimal("0.10") for row in rounding)
    without = total(found) - total(rounding)
    assert without != period.bill


@pytest.mark.requirement("focus-1.7")
def test_how_values_are_written(world: World, company: Any) -> None:
    with clock.frozen(NOW):
        period = freeze(AUGUST.date())
    found, _, body = export(period)
    assert b"E-" not in body.replace(b"CC-", b"")
    for row in found:
        for column, value in row.items():
            assert value == "" or value.strip(), column
            assert not value.startswith(("=", "+", "@", "\t")), (column, value)
    assert focus_rows.number(Decimal("1E-9")) == "0.000000001"
    assert focus_rows.number(Decimal("-0.00")) == "0"
    assert focus_rows.number(Decimal("1E+3")) == "1000"


@given(st.decimals(-(10**12), 10**12, places=12))
def test_numbers_come_back_as_they_were(value: Decimal) -> None:
    text = focus_rows.number(value)
    assert Decimal(text) == value
    assert "E" not in text.upper()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**13), st.decimals("0.00000001", 10**4, places=8))
def test_the_written_cost_is_the_product_of_what_is_written(quantity_ms: int, hourly: Decimal) -> None:
    charge = focus_rows.Charge("charge", "allocated", "x", 1, "c", "C", "s", "S", hourly=hourly, rate="r")
    row, cost = focus_rows.usage_row({}, charge, AUGUST, AUGUST + HOUR, quantity_ms, quantity_ms)
    assert Decimal(row["BilledCost"]) == cost == hourly * Decimal(row["PricingQuantity"])
    exact = Decimal(quantity_ms) * hourly / 3_600_000
    assert abs(exact - cost) <= hourly * Decimal("5.1E-10")


@pytest.mark.requirement("focus-1.2")
def test_daily_charges_that_a_line_does_not_cover_leave_no_gap(world: World, company: Any) -> None:
    """A month whose days say less than its line: the rest is written for the line's own time."""
    with clock.frozen(NOW):
        period = freeze(AUGUST.date())
    missing = DayCharge.objects.filter(team_id=company.finance_team.pk, day=AUGUST.date()).first()
    assert missing is not None
    first = export(period)[0]
    original = focus.Export._daily
    try:
        focus.Export._daily = lambda self: original(self).exclude(pk=missing.pk)  # type: ignore[method-assign]  # one day less
        found, report, _ = export(period)
    finally:
        focus.Export._daily = original  # type: ignore[method-assign]  # as it was
    assert failures(report) == []
    assert total(found) == total(first) == period.bill
    key = "PricingQuantity"
    assert abs(sum(Decimal(r[key] or 0) for r in found) - sum(Decimal(r[key] or 0) for r in first)) < Decimal("1E-6")


# ---------------------------------------------------------------- the checks


def good_row() -> dict[str, str]:
    month = focus_rows.Month("Example Group", "gpu-pool", "USD", AUGUST, utc(2026, 9, 1))
    invoice = focus_rows.Invoice("2026-08-T-0001", "team-1", "Finance", "CC-1", "showback", "Retail Bank")
    charge = focus_rows.Charge(
        "charge", "allocated", "Allocated", 1, "dc2", "DC2", "a100", "A100", gpu_model="A100", rate="rate-1",
        hourly=Decimal("3.39"),
    )  # fmt: skip
    base = focus_rows.template(month, invoice, charge)
    return focus_rows.usage_row(base, charge, AUGUST, AUGUST + 24 * HOUR, 3_600_000, 3_600_000)[0]


def checked(row: dict[str, str]) -> list[str]:
    checker = Checker()
    checker.header(COLUMNS)
    checker.row(row)
    return failures(checker.report())


BREAKS = {
    "BilledCost-C-002-M": {"BilledCost": "3.39E0"},
    "BilledCost-C-003-M": {"BilledCost": ""},
    "BilledCost-C-005-C": {"ProviderName": "Somebody else"},
    "BillingCurrency-C-003-M": {"BillingCurrency": "usd"},
    "CapacityReservationStatus-C-004-C": {"CapacityReservationId": "r"},
    "CapacityReservationStatus-C-006-M": {"CapacityReservationId": "r", "CapacityReservationStatus": "Idle"},
    "CapacityReservationStatus-C-003-C": {"CapacityReservationStatus": "Unused"},
    "CapacityReservationId-C-005-C": {"x_ChargeKind": "reserved_unused"},
    "ChargeCategory-C-003-M": {"ChargeCategory": "usage"},
    "ChargeClass-C-005-C": {"ChargeClass": "correction"},
    "ChargeClass-C-003-C": {"ChargeClass": "Correction"},
    "ChargeClass-C-004-C": {"ChargePeriodStart": "2026-07-31T22:00:00Z"},
    "ChargeFrequency-C-003-M": {"ChargeFrequency": "Daily"},
    "ChargePeriodEnd-C-004-M": {"ChargePeriodEnd": "2026-08-01T00:00:00Z"},
    "ChargePeriodStart-C-002-M": {"ChargePeriodStart": "2026-08-01 00:00:00"},
    "ContractedCost-C-009-C": {"ContractedCost": "3.40"},
    "ContractedUnitPrice-C-009-C": {"ContractedUnitPrice": "-3.39"},
    "ConsumedUnit-C-006-C": {"ConsumedUnit": ""},
    "ConsumedQuantity-C-004-C": {"ChargeCategory": "Adjustment"},
    "EffectiveCost-C-010-C": {"ChargeCategory": "Adjustment", "EffectiveCost": "1"},
    "ListUnitPrice-C-005-C": {"ListUnitPrice": ""},
    "PricingCategory-C-007-M": {"PricingCategory": "Spot"},
    "PricingUnit-C-006-C": {"PricingUnit": ""},
    "ResourceType-C-005-C": {"ResourceType": ""},
    "ServiceSubcategory-C-004-M": {"ServiceCategory": "Storage"},
    "SkuId-C-005-C": {"SkuId": ""},
    "SkuPriceDetails-C-017-C": {"SkuPriceDetails": '{"GPUs":1}'},
    "Tags-C-001-M": {"Tags": '{"a":{"b":1}}'},
}


@pytest.mark.requirement("focus-2.1")
@pytest.mark.parametrize("rule", sorted(BREAKS))
def test_each_rule_finds_what_breaks_it(rule: str) -> None:
    assert checked(good_row()) == []
    assert rule in checked({**good_row(), **BREAKS[rule]})


@pytest.mark.requirement("focus-2.1")
def test_sums_and_columns_are_rules_of_the_file() -> None:
    row = good_row()
    assert len({one.id for one in RULES}) == len(RULES)
    checker = Checker(Decimal("3.40"), {"2026-08-T-0001": Decimal("3.40"), "2026-08-T-0002": Decimal("1.00")})
    checker.header([name for name in COLUMNS if name != "ChargeClass"])
    checker.row(row)
    checker.row({**row, "SkuId": "another", "BillingCurrency": "EUR", "BilledCost": "0", "ContractedCost": "0"})
    checker.row({**row, "ServiceCategory": "Storage", "ServiceSubcategory": "Block Storage"})
    found = failures(checker.report())
    wanted = {"BilledCost-C-007-M", "x_Bill", "CostAndUsage-D-026-M", "BillingCurrency-C-005-M", "SkuPriceId-C-008-M"}
    wanted |= {"ServiceName-C-005-C", "ServiceName-C-008-C"}
    assert wanted <= set(found)


@pytest.mark.requirement("focus-2.2")
def test_the_models_own_defects_are_named_and_not_counted() -> None:
    checker = Checker()
    checker.header(COLUMNS)
    checker.row(good_row())
    report = checker.report()
    named = {entry["rule"]: entry["rows"] for entry in report["defects"]}
    assert named["InvoiceId-C-004-C"] == 1
    assert {"ResourceType-C-005-C", "ConsumedQuantity-C-006-C", "PricingCurrency-C-004-M"} <= named.keys()
    assert len(named) == len(DEFECTS)
    assert report["verdict"] == "passed"


@pytest.mark.requirement("focus-2.1")
def test_a_quantity_without_a_price_is_said_to_break_the_rules(world: World, company: Any) -> None:
    unpriced = Draft(
        LineSort.CHARGE, "Without a price", Decimal(0), company.finance_team.pk,
        {"kind": "allocated", "cluster_id": world.cluster.pk, "flavour_id": world.flavour.pk, "quantity_ms": 3_600_000},
    )  # fmt: skip
    with clock.frozen(NOW):
        period = freeze(AUGUST.date(), extra=[unpriced])
    found, report, _ = export(period)
    assert [row["x_Unpriced"] for row in found if row["x_Unpriced"]] == ["true"]
    assert "ListUnitPrice-C-005-C" in failures(report)
    assert total(found) == period.bill


@pytest.mark.requirement("focus-2.3")
def test_a_large_month_is_written_as_a_stream(world: World, company: Any) -> None:
    """20,000 more daily charges take no more memory than their statement lines."""
    template = DayCharge.objects.filter(kind="allocated").first()
    assert template is not None
    made = []
    for index in range(20_000):
        row = DayCharge.objects.model(
            **{
                field.attname: getattr(template, field.attname)
                for field in DayCharge._meta.concrete_fields
                if not field.primary_key
            }
        )
        row.day = AUGUST.date() + timedelta(days=2 + index // 700)
        row.quantity_ms = row.gpu_ms = 3_600_000 + index
        row.gpu_model = f"Model {index % 700}"
        made.append(row)
    DayCharge.objects.bulk_create(made, batch_size=5000)
    with clock.frozen(NOW):
        period = freeze(AUGUST.date())

    class Sink(io.RawIOBase):
        size = 0

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.size += len(data)
            return len(data)

    sink = io.BufferedWriter(Sink())
    seen: list[tuple[int, int]] = []
    tracemalloc.start()
    began = time.monotonic()
    report = focus.write(period, sink, progress=lambda done, all_: seen.append((done, all_)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert report["verdict"] == "passed"
    assert report["rows"] > 20_000
    assert peak < 60 * 1024 * 1024, peak
    assert time.monotonic() - began < 120
    assert seen[-1][0] == seen[-1][1] >= 20_000
