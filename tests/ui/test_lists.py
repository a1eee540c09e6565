"""Lists: paging, order, filters, fragments, exports, queries."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

import openpyxl
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st

from apps.audit.models import AuditEvent
from apps.core import exports
from apps.core.lists import total_order
from apps.core.querysets import ScopedQuerySet
from apps.teams.models import Team
from tests.factories import Company, client_for, make_team

pytestmark = pytest.mark.urls("tests.ui.urls")


def _many(company: Company, count: int, start: int = 0) -> None:
    for number in range(start, start + count):
        make_team("Same name", company.unit, slug=f"same-{number:03}")


@pytest.mark.requirement("shell-2.1")
def test_paging_neither_repeats_nor_loses_a_row(company: Company) -> None:
    _many(company, 120)
    client = client_for(company.admin)
    seen: list[str] = []
    for page in (1, 2, 3):
        text = client.get(f"/sample/?sort=name&page={page}").content.decode()
        found = re.findall(r"<td >([a-z0-9-]+)</td>", text)
        assert len(found) == (50 if page < 3 else 23)
        seen += found
    assert len(seen) == len(set(seen)) == 123


@pytest.mark.requirement("shell-2.1")
@pytest.mark.parametrize(
    ("query", "status"), [("page=4", 404), ("page=x", 400), ("page=-1", 404), ("sort=password", 200)]
)
def test_odd_pages_and_orders_are_refused_in_words(company: Company, query: str, status: int) -> None:
    assert client_for(company.admin).get(f"/sample/?{query}").status_code == status


@pytest.mark.requirement("shell-2.1")
@pytest.mark.django_db
def test_an_order_is_made_total_without_touching_grouped_rows() -> None:
    assert total_order(Team.objects.order_by("name")).query.order_by == ("name", "-pk")
    assert total_order(Team.objects.order_by("-uid")).query.order_by == ("-uid",)
    assert total_order(Team.objects.all()).query.order_by == ("-pk",)
    grouped = Team.objects.order_by("unit").values("unit")
    assert total_order(grouped).query.order_by == ("unit",)


@pytest.mark.requirement("shell-2.2")
def test_a_sorted_column_says_so_and_keeps_the_filters(company: Company) -> None:
    page = client_for(company.admin).get("/sample/?sort=-slug&search=a").content.decode()
    heading = re.search(r'<th scope="col"[^>]*aria-sort="descending">.*?</th>', page, re.DOTALL)
    assert heading is not None
    assert "Slug" in heading[0]
    assert page.count("aria-sort") == 1
    assert re.search(r'href="\?sort=name&amp;search=a"|href="\?search=a&amp;sort=name"|sort=name', page)


@pytest.mark.requirement("shell-2.2")
def test_htmx_gets_the_list_alone_and_boosted_or_restored_pages_come_whole(company: Company) -> None:
    client = client_for(company.admin)
    fragment = client.get("/sample/?search=fin", HTTP_HX_REQUEST="true").content.decode()
    assert fragment.lstrip().startswith("<section")
    assert "<html" not in fragment
    assert "Finance" in fragment
    assert "Marketing" not in fragment
    for header in ("HTTP_HX_BOOSTED", "HTTP_HX_HISTORY_RESTORE_REQUEST"):
        assert "<html" in client.get("/sample/", HTTP_HX_REQUEST="true", **{header: "true"}).content.decode()


@pytest.mark.requirement("shell-2.2")
def test_an_invalid_filter_shows_its_message_and_no_rows(company: Company) -> None:
    page = client_for(company.admin).get("/sample/?colour=blue").content.decode()
    assert "Enter a number." in page
    assert "Nothing matches these filters" in page


@pytest.mark.requirement("shell-2.5")
def test_empty_lists_say_why(company: Company) -> None:
    assert "Nothing matches these filters" in client_for(company.admin).get("/sample/?search=zzz").content.decode()
    assert "No team yet" in client_for(company.vp_other).get("/sample/").content.decode()


@pytest.mark.requirement("shell-2.4")
def test_the_number_of_queries_does_not_grow(company: Company) -> None:
    client = client_for(company.admin)
    client.get("/sample/")
    with CaptureQueriesContext(connection) as few:
        client.get("/sample/")
    _many(company, 60)
    with CaptureQueriesContext(connection) as many:
        client.get("/sample/")
    assert len(many) == len(few) <= 20


@pytest.mark.requirement("shell-2.3")
def test_csv_holds_all_filtered_rows_neutralised_and_is_audited(company: Company) -> None:
    _many(company, 60)
    make_team("=cmd|' /C calc'!A0", company.unit, slug="formula")
    before = AuditEvent.objects.filter(action="audit.trail.exported").count()
    response = client_for(company.admin).get("/sample/?export=csv&search=m")
    text = b"".join(response.streaming_content).decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert response["Content-Disposition"].startswith('attachment; filename="sample-teams-')
    assert len(rows) == 62  # the 60, marketing, formula; finance and research hold no m
    assert {row["Name"] for row in rows if row["Slug"] == "formula"} == {"'=cmd|' /C calc'!A0"}
    assert AuditEvent.objects.filter(action="audit.trail.exported").count() == before + 1


@pytest.mark.requirement("shell-2.3")
def test_xlsx_opens_and_its_text_is_text(company: Company) -> None:
    make_team("+1+1", company.unit, slug="plus")
    response = client_for(company.admin).get("/sample/?export=xlsx&search=plus")
    book = openpyxl.load_workbook(io.BytesIO(b"".join(response.streaming_content)))
    sheet = book.active
    assert [cell.value for cell in sheet[1]][:3] == ["Name", "Slug", "Kind"]
    assert sheet["A2"].value == "'+1+1"
    assert sheet["A2"].data_type == "s"
    assert sheet["D2"].is_date


@pytest.mark.requirement("shell-2.3")
def test_other_formats_are_refused_and_exports_stay_in_scope(company: Company) -> None:
    assert client_for(company.admin).get("/sample/?export=exe").status_code == 400
    response = client_for(company.lead_finance).get("/sample/?export=csv")
    text = b"".join(response.streaming_content).decode()
    assert "finance" in text
    assert "marketing" not in text


@pytest.mark.requirement("shell-2.3")
@given(st.text())
def test_no_text_begins_like_a_formula(text: str) -> None:
    cell = exports.neutralise(text)
    assert isinstance(cell, str)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert cell.removeprefix("'") == "" or text  # nothing appears from nothing


@pytest.mark.requirement("shell-2.3")
def test_numbers_stay_numbers() -> None:
    assert exports.neutralise(-5) == -5
    assert list(exports.csv_rows(["a", "b"], [[-5, None], ["x,y", 'say "z"']])) == [
        "a,b\r\n", "-5,\r\n", '"x,y","say ""z"""\r\n',
    ]  # fmt: skip


def test_a_queryset_without_a_scope_raises(company: Company) -> None:
    bare: ScopedQuerySet[Any] = ScopedQuerySet(Team)
    with pytest.raises(TypeError, match="visible_to"):
        bare.visible_to(company.admin)
