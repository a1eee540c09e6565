"""Pages and API of costs and metering: what they show, to whom, with how many queries."""

from __future__ import annotations

import csv
import io
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse
from openpyxl import load_workbook

from apps.audit.models import AuditEvent
from apps.core import clock, exports
from apps.core.actor import Actor
from apps.core.testing import assert_queries
from apps.costs import charge_stream
from apps.costs.models import Budget, Charge
from apps.metering import actions
from apps.metering.models import HourFact, HourStatus, IngestRun, UsageInterval
from tests.factories import client_for
from tests.metering.world import FakeAdapter, World, hold, make_world, utc

HOUR = timedelta(hours=1)
NOW = utc(2026, 11, 18, 9)
DAY = utc(2026, 11, 10)


@pytest.fixture
def world(company: Any) -> Any:
    with clock.frozen(NOW):
        world = make_world(company.teams.values())
        holdings = [
            hold("fraud-model", "finance-prod", DAY, DAY + 30 * HOUR, 4, used=0.5, pod="fraud-model-0", node="n1"),
            hold("old-notebook", "finance-prod", DAY, DAY + 3 * HOUR, 1, used=0.001),
            hold("ad-ranking", "marketing-prod", DAY, DAY + 5 * HOUR, 2),
        ]
        actions.ingest_hours(
            world.source.pk, DAY, DAY + 48 * HOUR, actor=Actor.system("test"), adapter=FakeAdapter(holdings)
        )
        yield world


def get(user: Any, name: str, query: str = "", **kwargs: Any) -> Any:
    return client_for(user).get(reverse(name, kwargs=kwargs) + query)


def text(response: Any) -> str:
    assert response.status_code == 200, response.status_code
    return " ".join(response.content.decode().split())


@pytest.mark.requirement("costs-2.3")
def test_the_way_down_from_month_to_proof(world: World, company: Any) -> None:
    lead = company.lead_finance
    page = text(get(lead, "costs:team-month", team_slug="finance", month="2026-11"))
    assert "473.55 USD" in page  # (4 × 30 + 3) × 3.85
    assert "/costs/teams/finance/2026-11-10/" in page
    page = text(get(lead, "costs:team-day", team_slug="finance", day="2026-11-10"))
    assert "fraud-model" in page
    assert "ad-ranking" not in page
    query = "?cluster=dc1&namespace=finance-prod&name=fraud-model"
    page = text(get(lead, "costs:workload-day", query, team_slug="finance", day="2026-11-10"))
    fact = HourFact.objects.filter(workload_name="fraud-model").earliest("hour")
    assert f"/costs/facts/{fact.uid}/" in page
    assert page.count("15.40 USD") == 24
    page = text(get(lead, "costs:fact-detail", fact_uid=fact.uid))
    assert "14,400,000 GPU-ms" in page
    assert "Standard" in page
    assert "SHA-256" in page
    assert get(lead, "costs:workload-day", "?cluster=dc1", team_slug="finance", day="2026-11-10").status_code == 400
    assert (
        get(lead, "costs:workload-day", "?cluster=dc1&name=x", team_slug="finance", day="2026-11-10").status_code == 404
    )


@pytest.mark.requirement("costs-2.4")
def test_foreign_rows_are_not_found(world: World, company: Any) -> None:
    fact = HourFact.objects.filter(workload_name="fraud-model").earliest("hour")
    for user in (company.lead_marketing, company.vp_other):
        assert get(user, "costs:fact-detail", fact_uid=fact.uid).status_code == 404
        assert get(user, "costs:team-month", team_slug="finance", month="2026-11").status_code == 404
    page = text(get(company.lead_marketing, "costs:charge-list"))
    assert "Finance" not in page


@pytest.mark.requirement("costs-2.4")
def test_a_former_unit_still_sees_its_time(world: World, company: Any) -> None:
    team = company.finance_team
    team.unit = company.other_unit
    team.save()
    page = text(get(company.vp, "costs:team-month", team_slug="finance", month="2026-11"))
    assert "473.55 USD" in page
    page = text(get(company.vp_other, "costs:team-month", team_slug="finance", month="2026-11"))
    assert "473.55 USD" not in page
    assert "No usage in this month" in page


@pytest.mark.requirement("costs-2.2")
def test_pages_name_missing_hours(world: World, company: Any) -> None:
    HourStatus.objects.filter(hour=DAY + 7 * HOUR).update(state="missing", reason="no data")
    page = text(get(company.lead_finance, "costs:team-day", team_slug="finance", day="2026-11-10"))
    assert "1 of 24 hours are missing or incomplete" in page
    assert "2026-11-10 07:00 UTC" in page


@pytest.mark.requirement("costs-2.3")
def test_charges_as_csv_carry_quantity_and_rate(world: World, company: Any) -> None:
    response = get(company.finance, "costs:charge-list", "?export=csv&kind=allocated")
    rows = list(csv.DictReader(io.StringIO(b"".join(response.streaming_content).decode("utf-8-sig"))))
    assert len(rows) == 30 + 3 + 5
    total = sum(Decimal(row["Cost, exact"]) for row in rows)
    assert total == (4 * 30 + 3 + 10) * Decimal("3.85")
    assert {row["Currency"] for row in rows} == {"USD"}
    sheet = load_workbook(
        io.BytesIO(b"".join(get(company.finance, "costs:charge-list", "?export=xlsx&kind=allocated").streaming_content))
    ).active
    header, *others = [["" if cell is None else str(cell) for cell in row] for row in sheet.iter_rows(values_only=True)]
    assert header == list(rows[0])
    assert [row[2:6] for row in others] == [list(row.values())[2:6] for row in rows]
    assert [row[-1] for row in others] == [row["Fact"] for row in rows]
    assert AuditEvent.objects.filter(action="costs.charges.exported").count() == 2
    bad = get(company.finance, "costs:charge-list", "?month=november")
    assert "Write a month as yyyy-mm" in text(bad)


@pytest.mark.requirement("costs-2.3")
def test_charges_leave_before_all_are_read(world: World, company: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = charge_stream.rows
    read: list[int] = []

    def watched(charges: Any) -> Any:
        for number, row in enumerate(made(charges)):
            read.append(number)
            yield row

    monkeypatch.setattr(charge_stream, "rows", watched)
    monkeypatch.setattr(exports, "_PIECE_BYTES", 1000)
    response = get(company.lead_finance, "costs:charge-list", "?export=csv")
    pieces = iter(response.streaming_content)
    first = next(pieces).decode("utf-8-sig")
    assert first.startswith("Hour,")
    assert 0 < len(read) < Charge.objects.filter(team_id=company.finance_team.pk).count()
    body = first + b"".join(pieces).decode()
    assert {row["Team"] for row in csv.DictReader(io.StringIO(body))} == {"Finance"}


@pytest.mark.requirement("costs-3.1", "costs-3.2")
def test_budget_form(world: World, company: Any) -> None:
    url = reverse("costs:budget-set", kwargs={"team_slug": "finance"})
    client = client_for(company.vp)
    assert client.get(url).status_code == 200
    bad = client.post(url, {"amount": "-5", "month_from": "2026-10", "version": "0"})
    assert bad.status_code == 400
    page = " ".join(bad.content.decode().split())
    assert "Give an amount of zero or more" in page
    assert "A month that is over keeps its budget" in page
    done = client.post(url, {"amount": "25000.00", "month_from": "2026-11", "version": "0"})
    assert done.status_code == 303
    budget = Budget.objects.get()
    assert (budget.amount, budget.currency, budget.set_by) == (Decimal("25000.00"), "USD", company.vp)
    stale = client.post(url, {"amount": "1.00", "month_from": "2026-11", "version": "0"})
    assert stale.status_code == 409
    assert client_for(company.lead_finance).get(url).status_code == 403
    assert client_for(company.vp_other).get(url).status_code == 404
    listed = get(company.lead_finance, "costs:budget-list")
    assert url not in listed.content.decode()  # who reads budgets may not set them all
    page = text(listed)
    assert "25,000.00 USD" in page


@pytest.mark.requirement("metering-4.4", "metering-4.1", "metering-5.2")
def test_import_page(world: World, company: Any) -> None:
    client = client_for(company.admin)
    url = reverse("metering:import-create")
    assert "utilisation" in text(client.get(url))

    def post(data: bytes, **extra: Any) -> Any:
        return client.post(url, {"cluster": "dc1", "file": SimpleUploadedFile("u.csv", data), **extra})

    garbage = post(b"\x00\xff" * 5_000_000)
    assert garbage.status_code == 400
    assert "binary data" in garbage.content.decode()
    lines = b"workload,namespace,gpus,start,end\n" + b"x,y,-1,1,2\n" * 300_000
    many = post(lines)
    assert many.status_code == 400
    page = many.content.decode()
    assert "Line 2: gpus must be a whole number" in page
    assert "… and 299950 more." in page
    assert not UsageInterval.objects.exists()
    overlap = post(b"workload,namespace,gpus,start,end\na,finance-prod,1,2026-10-01,2026-10-02\n")
    assert overlap.status_code == 400
    assert "source of record" in overlap.content.decode()
    before = post(b"workload,namespace,gpus,start,end\na,finance-prod,1,2024-10-01,2024-10-02\n")
    assert before.status_code == 303
    assert UsageInterval.objects.count() == 1
    page = text(client.get(before["Location"]))
    assert "1 of 1" in page


@pytest.mark.requirement("metering-5.1", "metering-5.2")
def test_source_and_run_pages(world: World, company: Any) -> None:
    run = IngestRun.objects.get()
    for name, kwargs in (
        ("metering:source-list", {}),
        ("metering:source-detail", {"source_uid": world.source.uid}),
        ("metering:run-list", {}),
        ("metering:run-detail", {"run_uid": run.uid}),
    ):
        assert get(company.auditor, name, **kwargs).status_code == 200
        assert get(company.lead_finance, name, **kwargs).status_code in (403, 404)
    page = text(get(company.auditor, "metering:source-detail", "?month=2026-11", source_uid=world.source.uid))
    assert "Final" in page
    HourStatus.objects.filter(hour=DAY).update(state="incomplete")
    url = reverse("metering:source-retry", kwargs={"source_uid": world.source.uid})
    done = client_for(company.admin).post(url, {"start": "2026-11-10T00:00", "end": "2026-11-11T00:00"})
    assert done.status_code == 303
    assert HourStatus.objects.get(hour=DAY).requested_at is not None
    assert client_for(company.auditor).post(url, {}).status_code == 403


@pytest.mark.requirement("costs-2.6", "costs-2.3")
def test_query_ceilings(world: World, company: Any) -> None:
    fact = HourFact.objects.earliest("hour", "uid")
    pages = [
        (company.vp, "costs:team-list", "", {}),
        (company.vp, "costs:team-month", "", {"team_slug": "finance", "month": "2026-11"}),
        (company.vp, "costs:team-day", "", {"team_slug": "finance", "day": "2026-11-10"}),
        (company.vp, "costs:charge-list", "", {}),
        (company.vp, "costs:budget-list", "", {}),
        (company.vp, "costs:fact-detail", "", {"fact_uid": fact.uid}),
        (company.admin, "metering:source-list", "", {}),
        (company.admin, "metering:source-detail", "", {"source_uid": world.source.uid}),
        (company.admin, "metering:run-list", "", {}),
    ]
    for user, name, query, kwargs in pages:
        client = client_for(user)
        with assert_queries(20):
            assert client.get(reverse(name, kwargs=kwargs) + query).status_code == 200
    for path in ("usage", "charges", "budgets"):
        client = client_for(company.vp)
        with assert_queries(15):
            assert client.get(f"/api/v1/{path}").status_code == 200


@pytest.mark.requirement("costs-2.4", "metering-5.1")
def test_api_shows_the_rows_in_scope(world: World, company: Any) -> None:
    client = client_for(company.lead_finance)
    usage = client.get("/api/v1/usage?page_size=200").json()["results"]
    assert {row["team_name"] for row in usage} == {"Finance"}
    assert sum(row["allocated_gpu_ms"] for row in usage) == (4 * 30 + 3) * 3_600_000
    charges = client.get("/api/v1/charges?page_size=200&kind=allocated").json()["results"]
    assert sum(Decimal(row["cost"]) for row in charges) == (4 * 30 + 3) * Decimal("3.85")
    assert client.get("/api/v1/ingest-runs").status_code == 403
    body = {"team": "finance", "amount": "100.00", "month_from": "2026-12"}
    assert client.post("/api/v1/budgets", body, content_type="application/json").status_code == 403
    made = client_for(company.finance).post("/api/v1/budgets", body, content_type="application/json")
    assert made.status_code == 201
    assert made.json()["amount"] == "100.00"
    body["month_from"] = "2026-13"
    bad = client_for(company.finance).post("/api/v1/budgets", body, content_type="application/json")
    assert (bad.status_code, list(bad.json()["errors"])) == (400, ["month_from"])
