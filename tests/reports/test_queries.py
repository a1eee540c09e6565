"""How often the pages of the room ask the database, shell included, at any number of teams."""

from __future__ import annotations

import pytest

from apps.core.testing import assert_queries
from tests.reports.conftest import Books, browser, more_teams, page_of, run_teams

REPORT = "/reports/monthly/retail-bank/2026-10/"


@pytest.mark.requirement("reports-2.10")
@pytest.mark.parametrize("teams", [3, 60])
def test_the_report_takes_ten_queries_with_everything_around_it(empty_books: Books, teams: int) -> None:
    """Session, person, rights, badges, bell and the report itself: what a browser costs the database."""
    books = empty_books
    run_teams(books, [*books.company.teams.values(), *more_teams(books, teams - 3)])
    for person in (books.company.vp, books.company.auditor):
        client = browser(person)
        with assert_queries(10) as captured:
            shown = page_of(client.get(REPORT + "?all=1"))
        assert len(captured) >= 8  # what is counted does run
        assert shown.count('/2026-10/">') >= teams  # a line per team
        with assert_queries(12):  # recording the export is no reading
            client.get(REPORT + "?export=csv")
