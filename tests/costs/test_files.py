"""Files: queued, made once, read back to the statement's total; the PDF; what happens where a worker dies."""

from __future__ import annotations

import csv
import hashlib
import io
import sys
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import openpyxl
import pytest
from django.urls import reverse

from apps.audit.models import AuditEvent
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.models import OutboxMessage
from apps.core.testing import assert_queries
from apps.costs import files, files_making
from apps.costs.models import Period, Statement, StatementFile
from tests.costs.frozen import Draft, freeze
from tests.factories import client_for
from tests.metering.world import utc

AUGUST = date(2026, 8, 1)
NOW = utc(2026, 9, 3, 9)


@pytest.fixture
def period(company: Any) -> Any:
    """A closed August: sixty lines of Finance with thirds of cents and names that spreadsheets run; the platform."""
    extra = [
        Draft("charge", f"=SUM({index}) use", Decimal(100 + index) / 3, company.finance_team.pk) for index in range(60)
    ]
    extra += [
        Draft("credit", "A bad night", Decimal("-5.00"), company.finance_team.pk),
        Draft("charge", "Use", Decimal("41.005"), company.marketing_team.pk),
        Draft("charge", "Spare", Decimal("7.331"), None),
    ]
    with clock.frozen(NOW):
        yield freeze(AUGUST, extra=extra)


@pytest.fixture
def statement(company: Any, period: Period) -> Statement:
    return Statement.objects.get(team=company.finance_team)


def made(period: Period, kind: str, company: Any, statement: Statement | None = None) -> StatementFile:
    row = files.ask_for_file(
        period.pk, kind, actor=Actor.of(company.finance), statement_id=statement.pk if statement else None
    )
    assert row.status == "queued"
    assert files_making.make_due() == 1
    row.refresh_from_db()
    return row


def plain(row: StatementFile) -> bytes:
    with files_making.opened(row) as file:
        return file.read()


def csv_rows(body: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(body.decode("utf-8-sig"), newline="")))


@pytest.mark.requirement("adjustments-6.2")
def test_csv_and_xlsx_say_what_the_statement_says(period: Period, statement: Statement, company: Any) -> None:
    row = made(period, "csv", company, statement)
    assert row.status == "done", row.error
    body = plain(row)
    rows = csv_rows(body)
    assert len(rows) == 61
    assert sum(Decimal(one["Amount"]) for one in rows) == statement.amount
    assert not any(one["Description"].startswith("=") for one in rows)
    assert (row.sha256, row.size) == (hashlib.sha256(body).hexdigest(), len(body))
    sheet = made(period, "xlsx", company, statement)
    book = openpyxl.load_workbook(io.BytesIO(plain(sheet)), read_only=True)
    cells = list(book.active.iter_rows(values_only=True))  # type: ignore[union-attr]  # it has a sheet
    column = cells[0].index("Amount")
    assert sum(Decimal(str(one[column])).quantize(Decimal("0.01")) for one in cells[1:]) == statement.amount
    assert len(cells) == len(rows) + 1


@pytest.mark.requirement("adjustments-6.2")
def test_a_whole_month_adds_up_to_its_bill(period: Period, company: Any) -> None:
    rows = csv_rows(plain(made(period, "csv", company)))
    assert sum(Decimal(one["Amount"]) for one in rows) == period.bill
    assert {one["Owner"] for one in rows} == {"Finance", "Marketing", "Platform"}
    focus = made(period, "focus", company)
    assert focus.status == "done", focus.error
    assert sum(Decimal(one["BilledCost"]) for one in csv_rows(plain(focus))) == period.bill
    assert focus.report["verdict"] == "passed", [one for one in focus.report["checked"] if one["failed"]]


@pytest.mark.requirement("adjustments-6.2")
def test_the_pdf_holds_every_line_and_is_the_same_twice(period: Period, statement: Statement, company: Any) -> None:
    pypdf = pytest.importorskip("pypdf", reason="reads the text back where it is installed")
    row = made(period, "pdf", company, statement)
    assert row.status == "done", row.error
    first = plain(row)
    reader = pypdf.PdfReader(io.BytesIO(first))
    text = " ".join(" ".join(page.extract_text() for page in reader.pages).split())
    assert len(reader.pages) > 1
    assert statement.number in text
    assert statement.digest in text.replace(" ", "")
    assert f"page 1 of {len(reader.pages)}" in text
    assert f"{statement.amount:,}" in text
    assert "A bad night" in text
    assert reader.trailer["/Root"]["/MarkInfo"]["/Marked"]
    StatementFile.objects.all().delete()
    with clock.frozen(NOW + timedelta(days=40)):
        assert plain(made(period, "pdf", company, statement)) == first


@pytest.mark.requirement("adjustments-6.2")
@pytest.mark.parametrize("kind", ["csv", "xlsx", "pdf"])
def test_the_same_statement_gives_the_same_bytes(kind: str, period: Period, statement: Statement, company: Any) -> None:
    first = made(period, kind, company, statement)
    assert first.status == "done", first.error
    assert first.size > 1000
    assert plain(first).startswith({"pdf": b"%PDF-", "xlsx": b"PK"}.get(kind, b"\xef\xbb\xbfMonth"))
    StatementFile.objects.all().delete()
    with clock.frozen(NOW + timedelta(days=40)):
        second = made(period, kind, company, statement)
    assert second.sha256 == first.sha256


@pytest.mark.requirement("adjustments-6.3")
def test_without_pango_the_file_fails_and_the_print_page_is_offered(
    period: Period, statement: Statement, company: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    row = made(period, "pdf", company, statement)
    assert row.status == "failed"
    assert "Pango" in row.error
    client = client_for(company.finance)
    page = client.get(reverse("costs:file-list", kwargs={"month": "2026-08"})).content.decode()
    print_url = reverse("costs:statement-print", kwargs={"statement_uid": statement.uid})
    assert print_url in page
    assert "Pango" in page
    printed = client.get(print_url).content.decode()
    assert f"{statement.amount:,}" in printed
    assert statement.digest in printed
    monkeypatch.undo()
    retry = reverse("costs:file-retry", kwargs={"file_uid": row.uid})
    assert client.post(retry, {"version": str(row.version)}).status_code == 303
    assert files_making.make_due() == 1
    row.refresh_from_db()
    assert (row.status, row.error) == ("done", "")


@pytest.mark.requirement("adjustments-6.1")
def test_a_worker_that_dies_is_followed_by_another(period: Period, company: Any) -> None:
    row = files.ask_for_file(period.pk, "csv", actor=Actor.of(company.finance))
    assert files.ask_for_file(period.pk, "csv", actor=Actor.of(company.auditor)).pk == row.pk
    dead = files.claim(row.pk)
    assert dead is not None
    assert files.claim(row.pk) is None
    assert files_making.make_due() == 0
    with clock.frozen(NOW + files.SILENCE + timedelta(minutes=1)):
        StatementFile.objects.filter(pk=row.pk).update(updated_at=NOW)
        assert files_making.make_due() == 1
        assert files_making.make_due() == 0
    assert not files.finish(dead, b"late", "0", 4, {})
    row.refresh_from_db()
    assert row.status == "done"
    assert sum(Decimal(one["Amount"]) for one in csv_rows(plain(row))) == period.bill
    assert OutboxMessage.objects.filter(event="costs.file.made", recipient_ids=[company.finance.pk]).count() == 1


@pytest.mark.requirement("adjustments-6.1")
def test_a_file_that_kills_its_workers_fails(period: Period, company: Any) -> None:
    row = files.ask_for_file(period.pk, "csv", actor=Actor.of(company.finance))
    for attempt in range(files.MAX_ATTEMPTS):
        StatementFile.objects.filter(pk=row.pk).update(updated_at=NOW - timedelta(hours=1))
        assert files.claim(row.pk) is not None, attempt
    StatementFile.objects.filter(pk=row.pk).update(updated_at=NOW - timedelta(hours=1))
    assert files.claim(row.pk) is None
    row.refresh_from_db()
    assert row.status == "failed"
    assert "lost 3 times" in row.error
    assert files.retry_file(row.pk, actor=Actor.of(company.finance)).status == "queued"
    with pytest.raises(Conflict):
        files.retry_file(row.pk, actor=Actor.of(company.finance))


@pytest.mark.requirement("adjustments-5.3", "adjustments-6.1")
def test_a_journal_without_accounts_fails_naming_them(company: Any) -> None:
    with clock.frozen(NOW):
        period = freeze(
            AUGUST, extra=[Draft("charge", "Use", Decimal("9.99"), company.finance_team.pk)], mode="chargeback"
        )
        row = made(period, "journal", company)
        assert row.status == "failed"
        assert "expense account of Finance" in row.error
        assert "recovery" in row.error


@pytest.mark.requirement("adjustments-6.4")
def test_taking_a_file_takes_the_statement_s_permission_and_is_recorded(
    period: Period, statement: Statement, company: Any
) -> None:
    row = made(period, "csv", company, statement)
    url = reverse("costs:file-take", kwargs={"file_uid": row.uid})
    answer = client_for(company.lead_finance).get(url)
    assert answer.status_code == 200
    body = b"".join(answer.streaming_content)
    assert hashlib.sha256(body).hexdigest() == row.sha256 == answer["X-Content-SHA256"]
    assert f'filename="{row.name}"' in answer["Content-Disposition"]
    taken = AuditEvent.objects.filter(action="costs.file.taken").latest("occurred_at")
    assert row.sha256.encode() in bytes(taken.canonical)
    assert client_for(company.lead_marketing).get(url).status_code == 404
    whole = made(period, "csv", company)
    assert client_for(company.lead_finance).get(
        reverse("costs:file-take", kwargs={"file_uid": whole.uid})
    ).status_code == 404  # fmt: skip
    with pytest.raises(NotAllowed):
        files.ask_for_file(period.pk, "focus", actor=Actor.of(company.lead_finance))
    with pytest.raises(NotVisible):
        files.ask_for_file(period.pk, "csv", actor=Actor.of(company.lead_marketing), statement_id=statement.pk)
    with pytest.raises(Invalid):
        files.ask_for_file(period.pk, "journal", actor=Actor.of(company.finance), statement_id=statement.pk)


@pytest.mark.requirement("adjustments-6.1", "adjustments-6.4", "focus-2.1", "focus-2.2")
def test_pages(period: Period, statement: Statement, company: Any) -> None:
    client = client_for(company.finance)
    listing = reverse("costs:file-list", kwargs={"month": "2026-08"})
    assert "No files yet" in client.get(listing).content.decode()
    ask = reverse("costs:file-ask", kwargs={"month": "2026-08"})
    assert client.post(ask, {"kind": "focus"}).status_code == 303
    assert client.post(reverse("costs:statement-file", kwargs={"statement_uid": statement.uid}), {"kind": "csv"})
    waiting = client.get(listing).content.decode()
    assert "Queued" in waiting
    assert 'hx-trigger="every 3s"' in waiting
    assert files_making.make_due() == 2
    with assert_queries(20):
        done = client.get(listing).content.decode()
    assert "Download" in done
    assert 'hx-trigger="every 3s"' not in done
    focus = StatementFile.objects.get(kind="focus")
    assert focus.sha256[:16] in done
    detail = client.get(reverse("costs:file-detail", kwargs={"file_uid": focus.uid})).content.decode()
    assert "passed" in detail
    assert "BilledCost-C-007-M" in detail
    assert "InvoiceId-C-004-C" in detail
    assert client.post(ask, {"kind": "pdf"}).status_code == 400
    lead = client_for(company.lead_finance).get(listing).content.decode()
    assert f"statement-{statement.number}.csv" in lead
    assert "focus-1.2" not in lead
