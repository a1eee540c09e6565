"""The page of a long report: nothing is lost, whatever is folded."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.money import Money
from apps.costs.reporting import MonthReport, TeamLine, UnallocatedLine
from apps.reports.folding import OWNERS, SHOWN, fold
from tests.reports.conftest import Books, browser, more_teams, page_of, run_teams


def line(number: int, cents: int | None, hours: int) -> TeamLine:
    amount = None if cents is None else Money(Decimal(cents) / 100, "USD")
    return TeamLine(
        number, None, f"team-{number}", f"Team {number}", "Unit", 0, hours, hours // 2, hours // 4, 1000, amount, 0,
        Decimal(1), amount, amount,
    )  # fmt: skip


def spare(number: int, cents: int, hours: int) -> UnallocatedLine:
    return UnallocatedLine("reserved_unused", f"Team {number}", number, hours, Money(Decimal(cents) / 100, "USD"), 0)


_SIZES = st.lists(st.tuples(st.one_of(st.none(), st.integers(0, 10**9)), st.integers(0, 10**12)), max_size=3 * SHOWN)


@pytest.mark.requirement("reports-2.11")
@given(sizes=_SIZES, owners=st.lists(st.integers(1, 10**9), max_size=2 * SHOWN))
def test_what_is_shown_adds_up_to_the_report(sizes: list[tuple[int | None, int]], owners: list[int]) -> None:
    at = datetime(2026, 10, 1, tzinfo=UTC)
    report = MonthReport(date(2026, 10, 1), at, at, "UTC", "USD", None)
    report.lines = [line(number, cents, hours) for number, (cents, hours) in enumerate(sizes)]
    report.unallocated = [spare(number, size, size) for number, size in enumerate(owners)]
    report.unallocated.append(UnallocatedLine("unsold", "", None, 5, Money(Decimal(7), "USD"), 0))
    shown = fold(report)
    assert len(shown.lines) <= SHOWN + 1
    assert len(shown.unallocated) <= OWNERS + 2
    for name in ("allocated_gpu_ms", "used_gpu_ms", "idle_gpu_ms"):
        assert sum(getattr(one, name) or 0 for one in shown.lines) == sum(getattr(one, name) for one in report.lines)
    zero = Money.zero("USD")
    assert sum((one.amount for one in shown.lines if one.amount), zero) == sum(
        (one.amount for one in report.lines if one.amount), zero
    )
    assert sum((one.amount for one in shown.unallocated if one.amount), zero) == sum(
        (one.amount for one in report.unallocated if one.amount), zero
    )
    named = [one for one in shown.lines if one.team_id is not None]
    hidden = [one for one in report.lines if one not in named]
    assert not hidden or min(one.allocated_gpu_ms for one in named) >= max(one.allocated_gpu_ms for one in hidden)
    assert fold(report, every=True).lines == report.lines


@pytest.mark.requirement("reports-2.11")
def test_a_page_of_sixty_teams_shows_fifty_and_leads_to_all(empty_books: Books) -> None:
    run_teams(empty_books, [*empty_books.company.teams.values(), *more_teams(empty_books, 57)])
    client = browser(empty_books.company.vp)
    path = "/reports/monthly/retail-bank/2026-10/"
    shown = page_of(client.get(path))
    assert "10 further teams" in shown
    assert 'href="?all=1"' in shown
    whole = page_of(client.get(path + "?all=1"))
    assert "further teams" not in whole
    assert "Team 056" in whole
    csv = b"".join(client.get(path + "?export=csv").streaming_content).decode()
    assert csv.count("Retail Bank,team,") == 60
