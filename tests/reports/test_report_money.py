"""The report in money: why it changed, what to do, what it stands on; frozen months; paper and mail."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core import mail as django_mail
from django.urls import reverse

from apps.audit.models import AuditEvent
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import NotVisible
from apps.core.models import OutboxMessage
from apps.core.money import Money
from apps.costs import budget_figures
from apps.costs.models import Budget, BudgetStep, Credit, Period, Statement
from apps.costs.report_types import DaySum, MonthReport
from apps.costs.reporting import month_report
from apps.insights import workloads
from apps.insights.report_models import FileStatus, ReportFile, ReportSent
from apps.metering import billing
from apps.metering.models import HourFact
from apps.notifications import attachments, delivery
from apps.reports import extras, files, sending
from apps.reports.extra_rows import Extras, Proposal
from tests.metering.world import hold, make_world, utc
from tests.reports.conftest import NOW, OCTOBER, Books, browser, page_of, read

MONTH = date(2026, 10, 1)


def usd(text: str) -> Money:
    return Money(Decimal(text), "USD")


@pytest.mark.requirement("monthly-report-3.4")
def test_what_stops_the_same_gpus_is_added_once() -> None:
    def proposal(monthly: str | None, stops: str = "") -> Proposal:
        return Proposal("", usd(monthly) if monthly else None, "", "", "", stops=stops)

    several = [proposal("300.00", "a"), proposal("200.00", "a"), proposal("50.00"), proposal(None, "b"),
               proposal("7.00", "b"), proposal("40.00")]  # fmt: skip
    assert Extras(proposals=several).saving == usd("397.00")
    assert Extras(proposals=[proposal(None)]).saving is None


@pytest.mark.requirement("monthly-report-3.4")
@pytest.mark.parametrize("kind", ["off_hours", "right_size"])
def test_resting_by_the_clock_stops_what_idle_work_stops(kind: str) -> None:
    row = {
        "uid": "5f0c7a52-6a0a-4b6e-9d3a-0d2f3f6f7a11", "kind": kind, "title": "Rests at night", "team": 3,
        "monthly": "5.00", "currency": "USD", "flavour": "h100", "change": None,
        "workspace_uid": "5f0c7a52-6a0a-4b6e-9d3a-0d2f3f6f7a12",
    }  # fmt: skip
    found = extras._of_finding(row)
    assert found.stops == (f"{row['workspace_uid']} 3" if kind == "off_hours" else "")


@pytest.mark.requirement("monthly-report-1.1", "monthly-report-1.2")
def test_the_change_of_unit_and_teams_is_explained_to_the_cent(books: Books) -> None:
    report = month_report(books.company.unit, MONTH, books.company.vp)
    whole = report.effects()
    assert whole is not None
    assert whole.price + whole.quantity + whole.mix == report.change == whole.change
    line = next(line for line in report.lines if line.slug == "marketing")
    own = report.effects_of(line)
    assert own is not None
    assert own.price + own.quantity + own.mix == line.change
    # September was dc2 alone at 1.37 for 24 hours: same price there, more hours, most of them on the dearer cluster.
    assert own.price == usd("0.00")
    hours = Decimal(line.allocated_gpu_ms) / 3_600_000
    assert own.quantity == Money(((hours - 24) * Decimal("1.37")).quantize(Decimal("0.01")), "USD")
    new = next(line for line in report.lines if line.slug == "finance")
    assert report.effects_of(new) is None  # nothing of it is known of the month before


@pytest.mark.requirement(
    "monthly-report-1.5", "monthly-report-2.2", "monthly-report-2.3", "monthly-report-2.6", "monthly-report-3.6"
)
def test_the_page_says_why_and_what_to_do(books: Books) -> None:
    workloads.remember_all(NOW)
    company = books.company
    shown = page_of(books.report(company.vp))
    assert "Why it changed" in shown
    assert 'data-chart="report-why-chart"' in shown
    assert 'id="report-why-table"' in shown
    # The notebook lay idle for 72 hours: 68 of them, on three GPUs, come after the first four.
    text = "from idle workloads: shutting down after 4 idle hours saves about 785 USD a month"
    assert text in shown
    assert "785.40 USD" in shown
    place = books.first.workspaces["research"]
    assert reverse("quotas:workspace-idle-policy", kwargs={"workspace_uid": place.uid}) in shown
    assert "not closed yet" in shown
    assert "fraud-model" in shown
    report = month_report(company.unit, MONTH, company.vp)
    assert report.per_allocated_hour is not None
    assert report.total is not None
    exact = report.total.amount * 3_600_000 / report.allocated_gpu_ms
    assert abs(report.per_allocated_hour.amount - exact) < Decimal("0.0001")
    assert "A used GPU-hour" in shown
    assert "Reserved but unused" in shown
    without = page_of(books.report(company.vp, query="?platform=0"))
    assert "Reserved but unused" not in without
    assert "2026-09/?platform=0" in without
    assert str(report.total) in without


@pytest.mark.requirement("monthly-report-2.1", "monthly-report-2.5", "reports-2.10")
def test_a_closed_month_shows_what_its_statements_say(books: Books) -> None:
    company = books.company
    start, end = billing.month_bounds(MONTH)
    period = Period.objects.create(month=MONTH, start=start, end=end, status="closing", currency="USD")
    common = {"period": period, "currency": "USD", "digest": "0" * 64, "issued_at": NOW}
    Statement.objects.create(
        **common, number="2026-10-U-0003", owner_kind="unit", unit=company.unit, unit_path=company.unit.path,
        own_amount=Decimal("4321.09"), amount=Decimal("5000.10"),
    )  # fmt: skip
    Statement.objects.create(
        **common, number="2026-10-T-0001", owner_kind="team", team=company.finance_team, unit=company.unit,
        unit_path=company.unit.path, own_amount=Decimal("1234.56"), amount=Decimal("1300.00"),
    )  # fmt: skip
    Period.objects.filter(pk=period.pk).update(status="closed")
    budget = Budget.objects.create(
        team=company.finance_team, month_from=MONTH, amount=Decimal("2000.00"), currency="USD"
    )
    BudgetStep.objects.create(
        budget=budget, month=MONTH, measure="money", step="50", figure=Decimal(1234), limit=Decimal(2000),
        reached_at=NOW,
    )  # fmt: skip
    shown = page_of(books.report(company.vp))
    for text in ("closed, statement", "2026-10-U-0003", "4,321.09", "1,234.56", "679.01", "65.44"):
        assert text in shown, text
    assert "765.44 USD" in shown  # left of the budget
    assert "50 %" in shown
    tenants = page_of(books.report(company.vp, query="?platform=0"))
    assert "679.01" not in tenants
    assert "4,321.09" in tenants


@pytest.mark.requirement("budgets-2.5", "monthly-report-2.5")
def test_budgets_of_an_open_month_count_what_is_billed_beside_its_charges(books: Books) -> None:
    company = books.company
    start, end = billing.month_bounds(MONTH)
    period = Period.objects.create(month=MONTH, start=start, end=end, currency="USD")
    rows = [
        Budget.objects.create(month_from=MONTH, amount=Decimal(90_000), currency="USD", **owner)
        for owner in ({"team": company.finance_team}, {"unit": company.unit})
    ]
    before = {budget_figures.standing_of(row, MONTH).left for row in rows}
    Credit.objects.create(
        period=period, team=company.finance_team, amount=Decimal("40.01"), currency="USD", reason="for the outage",
        status="approved", proposed_by=company.finance, decided_by=company.auditor, decided_at=NOW,
    )  # fmt: skip
    after = {budget_figures.standing_of(row, MONTH).left for row in rows}
    assert {left and left.amount - Decimal("40.01") for left in after} == {left and left.amount for left in before}
    shown = page_of(books.report(company.vp)).partition('id="report-budgets"')[2]
    for left in after:
        assert str(left) in shown
    month = browser(company.vp).get(f"/costs/teams/{company.finance_team.slug}/2026-10/").content.decode()
    assert "after corrections and credits" in month
    assert str(budget_figures.standing_of(rows[0], MONTH).left) in month


@pytest.mark.requirement("monthly-report-2.4", "monthly-report-2.7")
def test_a_running_month_has_a_forecast_and_a_week_to_compare(books: Books) -> None:
    start = utc(2026, 11, 1)
    read(books.first, start, 24 * 17, [hold("serve", "marketing-prod", start, NOW, 2, used=0.5)])
    shown = page_of(books.report(books.company.vp, month="2026-11"))
    assert "Forecast of the month" in shown
    assert "stands on" in shown
    # Seven days of two GPUs at 3.85, the same as the week before.
    assert "1,293.60 USD (0.00 USD)" in shown
    first = page_of(books.report(books.company.vp, month="2026-09"))
    assert "not all of the last fourteen days are known" in first
    assert "Forecast of the month" not in first


@pytest.mark.requirement("monthly-report-4.1")
def test_what_cannot_be_made_is_said_after_three_tries(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> bytes:
        raise RuntimeError("the printer is on fire")

    monkeypatch.setattr(files, "make_pdf", broken)
    files.request_file(books.company.unit, MONTH, actor=Actor.of(books.company.vp))
    for _ in range(files.ATTEMPTS):
        with pytest.raises(RuntimeError, match="on fire"):
            files.make_due()
    assert files.make_due() == 0
    row = ReportFile.objects.get()
    assert (row.status, row.error) == (
        FileStatus.FAILED, "Three tries to make it failed; a worker's log says why. Ask for it again.",
    )  # fmt: skip


@pytest.mark.requirement("monthly-report-2.9")
def test_a_running_month_stands_beside_as_many_days_of_the_month_before(books: Books) -> None:
    march, start = date(2026, 3, 1), utc(2026, 3, 1)
    report = MonthReport(
        march, start, utc(2026, 4, 1), "UTC", books.company.unit, "USD",
        days=[
            DaySum(date(2026, 2, 1) + timedelta(days=number), 0, usd("10.00") if number < 28 else usd("12.50"))
            for number in range(28 + 30)
        ],
    )  # fmt: skip
    found = extras._so_far(report, utc(2026, 3, 11, 12))
    assert found is not None
    assert (found.start, found.end) == (march, date(2026, 3, 10))
    assert (found.before_start, found.before_end) == (date(2026, 2, 1), date(2026, 2, 10))
    assert found.change == usd("25.00")
    late = extras._so_far(report, utc(2026, 3, 31, 12))  # February has 28 days: as many of March
    assert late is not None
    assert (late.end, late.before_end) == (date(2026, 3, 28), date(2026, 2, 28))
    report.days.pop(3)
    assert extras._so_far(report, utc(2026, 3, 11, 12)) is None
    shown = page_of(books.report(books.company.vp, month="2026-11"))
    assert "This month is still running" not in shown  # nothing of November is metered


@pytest.mark.requirement("monthly-report-1.4")
def test_what_has_no_price_is_left_out_and_said(empty_books: Books) -> None:
    books = empty_books
    unpriced = make_world(books.company.teams.values(), rate="", slug="dc3")
    read(books.first, OCTOBER, 24, [hold("a", "finance-prod", OCTOBER, OCTOBER + timedelta(hours=5), 2, used=0.5)])
    september = utc(2026, 9, 30)
    read(books.first, september, 24, [hold("a", "finance-prod", september, september + timedelta(hours=3), 1)])
    read(unpriced, OCTOBER, 24, [hold("b", "finance-prod", OCTOBER, OCTOBER + timedelta(hours=5), 2)])
    report = month_report(books.company.unit, MONTH, books.company.vp)
    found = report.effects()
    assert found is not None
    assert (found.before, found.after, found.quantity) == (usd("11.55"), usd("38.50"), usd("26.95"))
    assert "Part of the time has no price and is left out." in page_of(books.report(books.company.vp))


@pytest.mark.requirement("monthly-report-4.1")
def test_the_pdf_is_made_by_a_worker_and_taken_once_ready(books: Books) -> None:
    pytest.importorskip("weasyprint", exc_type=OSError)
    company = books.company
    client = browser(company.vp)
    url = reverse("reports:monthly-pdf", kwargs={"unit_slug": "retail-bank", "month": "2026-10"})
    assert "Nobody has asked" in page_of(client.get(url))
    assert client.post(url).status_code == 303
    assert 'hx-trigger="every 2s"' in page_of(client.get(url))
    assert files.make_due() == 1
    assert files.make_due() == 0
    row = ReportFile.objects.get()
    assert row.status == FileStatus.DONE
    body = client.get(f"{url}?download=1")
    assert body.headers["Content-Type"] == "application/pdf"
    assert body.content.startswith(b"%PDF-")
    assert b"/MarkInfo" in body.content or b"/StructTreeRoot" in body.content or row.size > 10_000
    printed = page_of(client.get(url.replace("/pdf/", "/print/")))
    report = month_report(company.unit, MONTH, company.vp)
    assert str(report.total) in printed
    assert "<script" not in printed
    with pytest.raises(NotVisible):
        files.request_file(company.unit, MONTH, actor=Actor.of(company.vp_other))
    assert browser(company.vp_other).get(url).status_code == 404


@pytest.mark.requirement("monthly-report-4.1")
def test_without_the_library_the_print_page_stands_in(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> bytes:
        raise files.NoPrinter("WeasyPrint cannot be loaded here: no Pango")

    monkeypatch.setattr(files, "make_pdf", missing)
    client = browser(books.company.vp)
    url = reverse("reports:monthly-pdf", kwargs={"unit_slug": "retail-bank", "month": "2026-10"})
    client.post(url)
    assert files.make_due() == 1
    shown = page_of(client.get(url))
    assert "no Pango" in shown
    assert url.replace("/pdf/", "/print/") in shown


@pytest.mark.requirement("monthly-report-4.2")
@pytest.mark.parametrize(
    ("month", "zone", "due"),
    [
        (date(2026, 10, 1), "+00:00", utc(2026, 11, 3, 7)),  # 1 November is a Sunday: Monday, Tuesday
        (date(2026, 9, 1), "+00:00", utc(2026, 10, 2, 7)),  # Thursday, Friday
        (date(2026, 7, 1), "+00:00", utc(2026, 8, 4, 7)),  # 1 August is a Saturday
        (date(2026, 10, 1), "+05:00", utc(2026, 11, 3, 2)),
    ],
)
def test_due_on_the_second_working_day(settings: Any, month: date, zone: str, due: Any) -> None:
    settings.COMMONS_BILLING_TIMEZONE = zone
    assert sending.due_at(month) == due


@pytest.mark.requirement("monthly-report-4.2")
def test_each_unit_gets_its_report_once(books: Books) -> None:
    due = utc(2026, 11, 3, 7)
    with clock.frozen(due - timedelta(minutes=1)):
        assert sending.send_due() == 0
    with clock.frozen(due):
        assert sending.send_due() == 1
        assert sending.send_due() == 0
    sent = ReportSent.objects.get()
    assert (sent.unit, sent.month, sent.due_at) == (books.company.unit, MONTH, due)
    message = OutboxMessage.objects.get(event="reports.monthly.ready")
    assert message.recipient_ids == [books.company.vp.pk]
    assert message.payload["headline"].startswith("Retail Bank in October 2026: ")
    file = ReportFile.objects.get()
    assert (file.status, message.payload["file_uid"]) == (FileStatus.QUEUED, str(file.uid))
    ReportSent.objects.all().delete()
    with clock.frozen(due + timedelta(days=10)):
        assert sending.send_due() == 0  # too late: the next report is nearer


@pytest.mark.requirement("monthly-report-4.2")
@pytest.mark.parametrize("printer", [True, False])
def test_the_mail_carries_the_pdf_or_says_why_not(books: Books, monkeypatch: pytest.MonkeyPatch, printer: bool) -> None:
    def no_printer(*_: Any, **__: Any) -> bytes:
        raise files.NoPrinter("no Pango here")

    monkeypatch.setattr(files, "make_pdf", (lambda *_, **__: b"%PDF-1.7 report") if printer else no_printer)
    with clock.frozen(utc(2026, 11, 3, 7)):
        sending.send_due()
    delivery.spread_due()
    delivery.send_due()
    assert django_mail.outbox == []  # the file is not made yet
    assert files.make_due() == 1
    with clock.frozen(clock.now() + timedelta(minutes=1)):
        delivery.send_due()
    [mail] = django_mail.outbox
    if printer:
        assert mail.attachments == [("retail-bank-2026-10.pdf", b"%PDF-1.7 report", "application/pdf")]
        assert "Attached: retail-bank-2026-10.pdf" in mail.body
    else:
        assert mail.attachments == []
        assert "is not attached: it could not be made." in mail.body
    file = ReportFile.objects.get()
    assert isinstance(files.for_mail(file.uid, books.company.lead_marketing), attachments.Missing)


@pytest.mark.requirement("monthly-report-4.3")
def test_every_level_of_the_way_down_is_a_file(books: Books) -> None:
    """Day by day, workload by workload, hour by hour, down to the rate and the query, each with its export."""
    client = browser(books.company.vp)
    where = reverse("costs:workload-day", kwargs={"team_slug": "research", "day": "2026-10-11"})
    hours = f"{where}?cluster=dc1&namespace=research-prod&name=notebook"
    fact = HourFact.objects.filter(workload_name="notebook").order_by("hour").first()
    assert fact is not None
    for address, said, rows in (
        ("/costs/teams/research/2026-10/?export=csv", b"2026-10-11", 3),
        ("/costs/teams/research/2026-10-11/?export=csv", b"notebook", 1),
        (f"{hours}&export=csv", b"11.55", 24),
        (f"/costs/facts/{fact.uid}/?export=csv", b"3.85", 2),
    ):
        body = b"".join(client.get(address).streaming_content)
        assert said in body, address
        assert body.count(b"\r\n") >= rows + 1, address
    assert AuditEvent.objects.filter(action="costs.drilldown.exported").count() == 4
    assert client.get("/costs/teams/research/2026-10/?export=pdf").status_code == 400
    assert "Rate card" in page_of(client.get(f"/costs/facts/{fact.uid}/"))
