"""The monthly report: which month, that every figure agrees with every other, what is not known, and the way down."""

from __future__ import annotations

import csv
import io
import re
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st

from apps.audit.models import AuditEvent
from apps.core import clock
from apps.core.errors import NotVisible
from apps.core.money import MILLISECONDS_PER_HOUR, Money
from apps.costs.models import DayCharge
from apps.costs.reporting import MonthReport, month_report
from apps.metering.models import HourFact, HourStatus
from apps.rates.models import Rate
from apps.reports import months
from apps.reports.selectors import charted
from tests.metering.world import hold, utc
from tests.reports.conftest import HOUR, OCTOBER, SEPTEMBER, Books, browser, page_of, read

MONTH = date(2026, 10, 1)
CENT = Decimal("0.01")


def report_of(books: Books, user: Any = None, month: date = MONTH) -> MonthReport:
    return month_report(books.company.unit, month, user or books.company.vp)


def exported(books: Books, user: Any = None, month: str = "2026-10") -> list[dict[str, str]]:
    response = books.report(user or books.company.vp, month=month, query="?export=csv")
    assert response.headers["Content-Disposition"] == f'attachment; filename="retail-bank-{month}.csv"'
    return list(csv.DictReader(io.StringIO(b"".join(response.streaming_content).decode("utf-8-sig"))))


def ledger(kinds: list[str], month: date = MONTH, **where: Any) -> Decimal:
    """Add up quantity × rate of the daily ledger exactly, by the rows alone."""
    last = (month + timedelta(days=32)).replace(day=1)
    rates = dict(Rate.objects.values_list("pk", "amount"))
    rows = DayCharge.objects.filter(kind__in=kinds, day__gte=month, day__lt=last, **where)
    return sum(
        (Decimal(row.quantity_ms) * rates[row.rate_id] / MILLISECONDS_PER_HOUR for row in rows if row.rate_id),
        Decimal(0),
    )


def cents(amount: Decimal) -> Decimal:
    return amount.quantize(CENT)


@pytest.mark.requirement("reports-2.1")
@pytest.mark.parametrize(
    ("zone", "at", "latest"),
    [
        ("+00:00", utc(2026, 11, 18, 9), "2026-10"),
        ("+00:00", utc(2026, 11, 1), "2026-10"),
        ("+00:00", utc(2026, 10, 31, 23), "2026-09"),
        ("+00:00", utc(2027, 1, 15), "2026-12"),
        ("+05:00", utc(2026, 10, 31, 20), "2026-10"),  # November has begun there
        ("-08:00", utc(2026, 11, 1, 3), "2026-09"),  # and not here
    ],
)
def test_it_opens_with_the_latest_month_that_is_over(
    empty_books: Books, settings: Any, zone: str, at: Any, latest: str
) -> None:
    settings.COMMONS_BILLING_TIMEZONE = zone
    with clock.frozen(at):
        for path in ("/reports/monthly/", "/reports/monthly/retail-bank/"):
            response = browser(empty_books.company.vp).get(path)
            assert response.status_code == 302
            assert response.headers["Location"] == f"/reports/monthly/retail-bank/{latest}/"


@pytest.mark.requirement("reports-2.1")
def test_who_reads_no_report_gets_none(empty_books: Books) -> None:
    for person in ("lead_finance", "member_finance", "compliance"):
        assert browser(empty_books.company[person]).get("/reports/monthly/").status_code == 403
        assert empty_books.report(empty_books.company[person]).status_code in (403, 404)


@pytest.mark.requirement("reports-2.2")
def test_lines_total_page_csv_and_ledger_are_the_same_to_the_cent(books: Books) -> None:
    report = report_of(books)
    lines = {line.slug: line for line in report.lines}
    assert {slug: line.allocated_gpu_ms // 3_600_000 for slug, line in lines.items()} == {
        "finance": 7 * 31,
        "marketing": 31 * 24 - 5 + 24 - 12 - 12 + 24,
        "research": 3 * (72 - 1) + 2,
    }
    # Each team by the ledger's own rows, the total by all of them: rounded lines and rounded total agree.
    for line in report.lines:
        assert line.amount is not None
        assert abs(line.amount.amount - ledger(["allocated"], team_id=line.team_id)) < CENT
        assert line.used_gpu_ms is not None
        assert 0 <= line.idle_gpu_ms <= line.allocated_gpu_ms
    assert report.total is not None
    assert report.total.amount == cents(ledger(["allocated"]))
    assert sum((line.amount for line in report.lines if line.amount), Money.zero("USD")) == report.total
    rows = exported(books)
    teams = {row["team"]: row for row in rows if row["line"] == "team"}
    assert {name: Decimal(row["cost"]) for name, row in teams.items()} == {
        line.name: line.amount.amount for line in report.lines if line.amount
    }
    assert {name: Decimal(row["allocated_gpu_hours"]) for name, row in teams.items()} == {
        line.name: Decimal(line.allocated_gpu_ms) / MILLISECONDS_PER_HOUR for line in report.lines
    }
    total = next(row for row in rows if row["line"] == "total")
    assert Decimal(total["cost"]) == report.total.amount
    shown = page_of(books.report(books.company.vp))
    for line in report.lines:
        assert f"{line.amount.amount:,.2f}" in shown  # type: ignore[union-attr]  # asserted above
    assert f"{report.total.amount:,.2f}" in shown
    # Shares are rounded one by one: each is the nearest tenth of a percent.
    for name, row in teams.items():
        exact = Decimal(row["cost"]) / report.total.amount * 100
        assert abs(Decimal(row["share_percent"]) - exact) <= Decimal("0.05"), name


@pytest.mark.requirement("reports-2.2")
def test_use_is_unknown_where_nothing_was_measured(books: Books) -> None:
    day = utc(2026, 9, 29)
    read(books.first, day, 24, [hold("unmeasured", "research-prod", day, day + HOUR, 2)])
    report = report_of(books, month=date(2026, 9, 1))
    line = next(line for line in report.lines if line.slug == "research")
    assert line.used_gpu_ms is None
    assert "unknown" in page_of(books.report(books.company.vp, month="2026-09"))
    row = next(row for row in exported(books, month="2026-09") if row["team"] == "Research")
    assert row["used_gpu_hours"] == ""


@pytest.mark.requirement("reports-2.3")
def test_allocated_and_unallocated_are_the_bill_of_the_pools(books: Books) -> None:
    """For who sees all of it: what teams held, what nobody is known for, what was reserved, what was left."""
    report = month_report(None, MONTH, books.company.finance)
    assert report.total is not None
    assert report.unallocated_total is not None
    bill = ledger(["allocated", "unattributed"]) + ledger(["reserved_unused", "unsold"])
    assert abs(report.total.amount + report.unallocated_total.amount - bill) <= CENT
    quantity = report.allocated_gpu_ms + report.unallocated_gpu_ms
    hours = {"dc1": 31 * 24, "dc2": 24}  # of October, per cluster, as metered
    assert quantity == sum(hours.values()) * 200 * MILLISECONDS_PER_HOUR
    kinds = {line.kind for line in report.unallocated}
    assert kinds == {"reserved_unused", "unsold"}
    assert {line.owner for line in report.unallocated if line.kind == "reserved_unused"} == {"Finance", "Marketing"}
    assert any(line.team_id is None for line in report.lines)  # the stray pod, nobody's
    shown = page_of(books.report(books.company.vp))
    for words in ("Reserved but unused: Finance", "Reserved but unused: Marketing", "Unsold"):
        assert words in shown
    assert f"{report_of(books).unallocated_total.amount:,.2f}" in shown  # type: ignore[union-attr]  # has charges
    below = re.search(r'href="(/costs/unallocated/[^"]*kind=reserved_unused[^"]*owner=finance)"', shown)
    assert below
    reserved = page_of(browser(books.company.vp).get(below[1].replace("&amp;", "&")))
    assert "Reserved but unused: Finance" in reserved
    assert "Nothing was left unallocated" not in reserved


@pytest.mark.requirement("reports-2.3")
def test_foreign_owners_of_reserved_capacity_have_no_names(books: Books) -> None:
    company = books.company
    company.finance_team.unit = company.other_unit
    company.finance_team.save(update_fields=["unit"])
    read(books.first, OCTOBER, 24, [hold("ad-ranking", "marketing-prod", OCTOBER, OCTOBER + HOUR, 1)])
    shown = page_of(books.report(company.vp))
    assert "Reserved but unused: Other owners" in shown
    kinds = {(line.kind, line.owner) for line in report_of(books).unallocated}
    assert ("reserved_unused", "Other owners") in kinds


@pytest.mark.requirement("reports-2.4")
def test_the_change_against_the_month_before(books: Books) -> None:
    report = report_of(books)
    lines = {line.slug: line for line in report.lines}
    before = ledger(["allocated"], date(2026, 9, 1))
    assert before > 0
    marketing = lines["marketing"]
    assert marketing.previous is not None
    assert marketing.previous.amount == cents(before) == Decimal("32.88")  # 2 GPUs × 12 h × 1.37
    assert marketing.change is not None
    assert marketing.change == marketing.amount - marketing.previous  # type: ignore[operator]  # has charges
    assert lines["finance"].previous is None
    assert lines["finance"].change is None
    shown = page_of(books.report(books.company.vp))
    assert f"+{marketing.change.amount:,.2f}" in shown
    row = next(row for row in exported(books) if row["team"] == "Finance")
    assert (row["previous_month_cost"], row["change"]) == ("", "")
    first = page_of(books.report(books.company.vp, month="2026-09"))
    assert "the month before was not metered" in first


@pytest.mark.requirement("reports-2.5")
def test_chart_and_table_by_day_say_the_same(books: Books) -> None:
    report = report_of(books)
    names, rows, figure = charted(report)
    assert names == ["Finance", "Marketing", "Research"]
    assert sum(row.total_gpu_ms for row in rows) == report.allocated_gpu_ms
    drawn = {trace["name"]: trace for trace in figure["data"]}
    assert figure["layout"]["barmode"] == "stack"
    for index, name in enumerate(names):
        cells = [row.cells[index][0] for row in rows]
        assert [round(float(y) * MILLISECONDS_PER_HOUR) for y in drawn[name]["y"]] == cells
        line = next(line for line in report.lines if line.name == name)
        assert sum(cells) == line.allocated_gpu_ms
    shown = page_of(books.report(books.company.vp))
    assert 'data-chart="report-days"' in shown
    assert shown.count('<th scope="row" class="text-nowrap">') == len(rows) == 31
    amounts = [cell.amount for cell in report.by_day if cell.amount]
    assert sum(amounts, Money.zero("USD")) == report.total


@pytest.mark.requirement("reports-2.6")
def test_an_export_is_recorded(books: Books) -> None:
    assert exported(books)
    event = AuditEvent.objects.get(action="reports.monthly.exported")
    assert event.actor_id == str(books.company.vp.uid)
    assert b'"month":"2026-10"' in bytes(event.canonical)
    page_of(books.report(books.company.vp))  # to look is no export
    assert AuditEvent.objects.filter(action="reports.monthly.exported").count() == 1
    assert books.report(books.company.lead_finance, query="?export=csv").status_code in (403, 404)
    assert AuditEvent.objects.filter(action="reports.monthly.exported").count() == 1


@pytest.mark.requirement("reports-2.6")
def test_a_team_named_like_a_formula_is_text_in_a_spreadsheet(books: Books) -> None:
    books.company.finance_team.name = "=1+1"
    books.company.finance_team.save(update_fields=["name"])
    assert "'=1+1" in {row["team"] for row in exported(books)}


@pytest.mark.requirement("reports-2.7")
def test_hours_that_are_not_known_are_counted_beside_the_total(books: Books) -> None:
    expected = 2 * 31 * 24
    shown = page_of(books.report(books.company.vp))
    known = 31 * 24 + 24
    assert f"{known:,} of {expected:,} cluster-hours metered" in shown
    assert f"{expected - known:,} of {expected:,} cluster-hours are not known" in shown
    HourStatus.objects.filter(hour=OCTOBER + 7 * HOUR, cluster_id=books.first.cluster.pk).update(
        state="incomplete", reason="no data"
    )
    shown = page_of(books.report(books.company.vp))
    assert f"{known - 1:,} of {expected:,} cluster-hours metered" in shown
    assert report_of(books).completeness.incomplete == 1


@pytest.mark.requirement("reports-2.8")
def test_the_way_down_by_the_links_alone(books: Books) -> None:
    """Report → days → workloads → hours → fact with the source's query, as a person clicks."""
    client = browser(books.company.vp)
    path = "/reports/monthly/retail-bank/2026-10/"
    for pattern in (
        r'href="(/costs/teams/finance/2026-10/)"',
        r'href="(/costs/teams/finance/2026-10-01/)"',
        r'href="(/costs/teams/finance/2026-10-01/[^"]*fraud-model[^"]*)"',
        r'href="(/costs/facts/[0-9a-f-]{36}/)"',
    ):
        found = re.search(pattern, client.get(path).content.decode())
        assert found, (path, pattern)
        path = found[1].replace("&amp;", "&")
    shown = page_of(client.get(path))
    assert "25,200,000 GPU-ms" in shown  # 7 GPUs, one hour
    assert "SHA-256" in shown
    assert "http://source.example" in shown
    # Unallocated capacity as well: its line → days → lines of a day → hours → the hour with its query.
    path = "/reports/monthly/retail-bank/2026-10/"
    for pattern in (
        r'href="(/costs/unallocated/2026-10/[^"]*kind=reserved_unused&amp;owner=finance)"',
        r'href="(/costs/unallocated/2026-10-02/[^"]*)"',
        r'href="(/costs/unallocated/2026-10-02/hours/[^"]*)"',
        r'href="(/costs/capacity/[^"]*)"',
    ):
        found = re.search(pattern, client.get(path).content.decode())
        assert found, (path, pattern)
        path = found[1].replace("&amp;", "&")
    assert "SHA-256" in page_of(client.get(path))
    # A cell of the table by day leads to the same day.
    assert 'href="/costs/teams/finance/2026-10-01/"' in page_of(client.get("/reports/monthly/retail-bank/2026-10/"))
    assert HourFact.objects.filter(team_id=books.company.finance_team.pk).exists()


@pytest.mark.requirement("reports-2.9")
def test_months_without_anything_say_so(books: Books) -> None:
    for month in ("2027-03", "2026-12", "2026-08", "2000-01"):
        shown = page_of(books.report(books.company.vp, month=month))
        assert "Nothing was metered in this month" in shown, month
        assert "export=csv" not in shown
        rows = exported(books, month=month)
        assert [row["line"] for row in rows] == ["total", "unallocated_total"]


@pytest.mark.requirement("reports-2.9")
def test_what_is_no_month_is_no_page(empty_books: Books) -> None:
    for month in ("2026-13", "2026-00", "october", "2026-1", "1999-12", "9999-12", "2026-10-01"):
        assert empty_books.report(empty_books.company.vp, month=month).status_code == 404, month


@pytest.mark.requirement("reports-2.9")
@given(text=st.text(max_size=12))
def test_reading_a_month_knows_months_and_nothing_else(text: str) -> None:
    try:
        month = months.parse(text)
    except NotVisible:
        return
    assert f"{month:%Y-%m}" == text
    assert month.day == 1


@pytest.mark.requirement("reports-2.1")
def test_a_running_month_says_that_it_runs(books: Books) -> None:
    assert "still running" in page_of(books.report(books.company.vp, month="2026-11"))
    shown = page_of(books.report(books.company.vp))
    assert "still running" not in shown
    assert reverse("reports:monthly", kwargs={"unit_slug": "retail-bank", "month": "2026-09"}) in shown
    assert SEPTEMBER < OCTOBER
