"""A month closed for real: its FOCUS file, its files and its journal agree with the statements that the close froze."""

from __future__ import annotations

import csv
import io
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from apps.core import clock
from apps.core.actor import Actor
from apps.core.testing import settle
from apps.costs import billing_modes, files, files_making, focus, journal_books, periods
from apps.costs.models import Correction, Credit, DistributionPolicy, Period, Statement
from apps.metering import actions
from tests.metering.world import FakeAdapter, World, guarantee, hold, make_world, utc

HOUR = timedelta(hours=1)
FIRST, END, NOW = utc(2026, 9, 24), utc(2026, 10, 1), utc(2026, 10, 2, 9)
SEPTEMBER = utc(2026, 9, 1).date()


@pytest.fixture
def world(company: Any) -> Any:
    """Thirds of hours, a reservation nobody used, an owner unknown; unsold GPU time is shared by allocation."""
    with clock.frozen(NOW):
        world = make_world(company.teams.values(), gpus=20, since=FIRST, rate="3.39")
        guarantee(world, "research", 4, FIRST)
        day, third = utc(2026, 9, 26), timedelta(minutes=20)
        held = [
            hold("train", "finance-prod", day, day + 30 * HOUR + third, 7, used=0.5),
            hold("rank", "marketing-prod", day, day + 11 * HOUR + third, 3),
            hold("stray", "nobody", day, day + 5 * HOUR, 2),
        ]
        actions.ingest_hours(world.source.pk, FIRST, END, actor=Actor.system("test"), adapter=FakeAdapter(held))
        rules = {"unsold": "shared", "reserved_unused": "owners", "unattributed": "shared"}
        DistributionPolicy.objects.create(
            number=92, name="Unsold is shared", month_from=SEPTEMBER, rules=rules, status="approved"
        )
        billing_modes.set_mode(
            company.root.pk, SEPTEMBER, "chargeback", actor=Actor.of(company.finance), account="600100"
        )
        billing_modes.set_account("recovery", "800100", "CC-PLATFORM", actor=Actor.of(company.finance))
        periods.make_periods()
        yield world


def close(world: World, company: Any) -> Period:
    period = Period.objects.get(month=SEPTEMBER)
    team = company.finance_team
    Correction.objects.create(
        period=period, corrects=periods.ensure_period(utc(2026, 8, 1).date()), cluster=world.cluster,
        hour=utc(2026, 8, 31, 22), hour_revision=2, kind="allocated", team_id=team.pk, unit_id=company.unit.pk,
        unit_path=company.unit.path, cost_centre=team.cost_centre, team_name=team.name, flavour_id=world.flavour.pk,
        gpu_model=world.flavour.gpu_model, rate=world.rate, quantity_ms=88_200_000, gpu_ms=88_200_000, reason="Late",
    )  # fmt: skip
    Credit.objects.create(
        period=period, team=company.marketing_team, amount=Decimal("5.00"), currency="USD", reason="A bad night",
        status="approved", proposed_by=company.finance, decided_by=company.auditor,
    )  # fmt: skip
    actor = Actor.of(company.finance)
    periods.start_closing(period.pk, actor=actor)
    for item in periods.checklist(period):
        if not item.settled and item.waiver:
            periods.waive(period.pk, item.waiver, reason="Not needed in this test at all", actor=actor)
    periods.close(period.pk, actor=actor)
    settle(only=("costs.freeze",))
    period.refresh_from_db()
    assert period.status == "closed", period.freeze_error
    return period


@pytest.mark.requirement("focus-1.1", "focus-1.2", "focus-1.5", "focus-1.6", "adjustments-5.2", "adjustments-6.2")
def test_everything_agrees_with_what_the_close_froze(world: World, company: Any) -> None:
    period = close(world, company)
    file = io.BytesIO()
    report = focus.write(period, file)
    assert [entry for entry in report["checked"] if entry["failed"]] == []
    rows = list(csv.DictReader(io.StringIO(file.getvalue().decode(), newline="")))
    assert sum(Decimal(row["BilledCost"]) for row in rows) == period.bill
    statements = Statement.objects.filter(period=period, owner_kind__in=["team", "platform"])
    for statement in statements:
        own = [row for row in rows if row["InvoiceId"] == statement.number]
        assert sum(Decimal(row["BilledCost"]) for row in own) == statement.amount
    kinds = {(row["ChargeCategory"], row["ChargeClass"]) for row in rows}
    assert kinds >= {("Usage", ""), ("Usage", "Correction"), ("Credit", ""), ("Adjustment", "")}
    reserved = [row for row in rows if row["CapacityReservationStatus"] == "Unused"]
    assert {row["SubAccountName"] for row in reserved} == {"Research"}
    assert len({row["ChargePeriodStart"] for row in reserved}) == 7, "a reservation is written day by day"
    shared = [row for row in rows if row["x_AllocatedMethodId"].startswith("v92:unsold:shared")]
    assert sum(Decimal(row["x_AllocatedRatio"]) for row in shared) == 1
    charged = sum(entry.debit - entry.credit for entry in journal_books.entries_of(period) if entry.account == "600100")
    assert charged == sum(row.amount for row in statements if row.owner_kind == "team")
    made = files.ask_for_file(period.pk, "csv", actor=Actor.of(company.finance))
    assert files_making.make_due() == 1
    made.refresh_from_db()
    with files_making.opened(made) as body:
        lines = list(csv.DictReader(io.StringIO(body.read().decode("utf-8-sig"), newline="")))
    assert sum(Decimal(line["Amount"]) for line in lines) == period.bill
