"""The stored preview of a month: by a worker, with its age, stale once something moves; the close compares."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext

from apps.audit.models import AuditEvent
from apps.core import clock
from apps.core.testing import assert_queries, settle
from apps.costs import distribution, periods, running, statement_rows
from apps.costs.choices import FileStatus
from apps.costs.models import Credit, DistributionPolicy, RunningMonth, UnitBilling
from apps.metering import actions as metering
from tests.costs.test_closing import FIRST, NOW, begin, holdings, ingest, september
from tests.costs.test_periods_pages import MONTH, get, post, text
from tests.metering.world import FakeAdapter, World, guarantee, hold, make_world


@pytest.fixture
def world(company: Any) -> Any:
    with clock.frozen(NOW):
        made = make_world(company.teams.values(), gpus=20, since=FIRST)
        guarantee(made, "research", 4, FIRST)
        ingest(made, holdings())
        periods.make_periods()
        yield made


def mark() -> RunningMonth:
    return RunningMonth.objects.get(period=september())


def more(world: World) -> None:
    """Another hold arrives for hours that were read before."""
    from apps.core.actor import Actor

    rows = [*holdings(), hold("late", "marketing-prod", FIRST, FIRST + timedelta(hours=3), 2)]
    metering.ingest_hours(
        world.source.pk, FIRST, FIRST + timedelta(hours=6), actor=Actor.system("test"), adapter=FakeAdapter(rows)
    )


@pytest.mark.requirement("periods-2.8")
def test_page_turns_read_what_is_stored_and_any_change_underneath_is_said(
    world: World, company: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.make_due()
    with monkeypatch.context() as patch:
        patch.setattr(statement_rows, "preview", lambda *_: pytest.fail("a page worked statements out"))
        patch.setattr(distribution, "distribute", lambda *_: pytest.fail("a page distributed"))
        for who in (company.finance, company.auditor):
            with assert_queries(30):
                page = text(get(who, "costs:period-preview", **MONTH))
            assert "12,936.00 USD" in page
            assert "Out of date" not in page
            assert ("Work it out anew" in page) is (who == company.finance)
    policy = DistributionPolicy.objects.create(
        number=77, name="Other", month_from=september().month, rules=distribution.DEFAULT, status="approved"
    )
    assert "Out of date" in text(get(company.finance, "costs:period-preview", **MONTH))
    running.make(september().pk)
    assert mark().policy == policy
    assert "Out of date" not in text(get(company.finance, "costs:period-preview", **MONTH))
    credit = Credit.objects.create(
        period=september(), team=company.finance_team, amount=Decimal("5.00"), currency="USD", reason="Promised in May",
        proposed_by=company.finance, status="proposed",
    )  # fmt: skip
    assert "Out of date" not in text(get(company.finance, "costs:period-preview", **MONTH)), "not approved yet"
    Credit.objects.filter(pk=credit.pk).update(status="approved", decided_by=company.admin)
    assert "Out of date" in text(get(company.finance, "costs:period-preview", **MONTH))
    running.make(september().pk)
    billed = UnitBilling.objects.create(
        unit=company.unit, month_from=september().month, mode="showback", set_by=company.finance
    )
    assert "Out of date" in text(get(company.finance, "costs:period-preview", **MONTH))
    running.make(september().pk)
    UnitBilling.objects.filter(pk=billed.pk).update(mode="chargeback", account="700100")
    assert "Out of date" in text(get(company.finance, "costs:period-preview", **MONTH)), "set anew, in place"
    running.make(september().pk)
    with clock.frozen(NOW + timedelta(minutes=1)):
        more(world)
    assert "Out of date" in text(get(company.finance, "costs:period-preview", **MONTH))


@pytest.mark.requirement("periods-2.8")
def test_finance_has_it_worked_out_anew_with_progress_and_a_lost_worker_is_followed(
    world: World, company: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.make_due()
    with clock.frozen(NOW + timedelta(minutes=2)):
        more(world)
        assert running.make_due() == 0
        asked = post(company.finance, "costs:period-preview-make", **MONTH)
        assert asked.status_code == 303
        assert post(company.auditor, "costs:period-preview-make", **MONTH).status_code == 403
        page = text(get(company.finance, "costs:period-preview", **MONTH))
        assert "A worker takes it up" in page
        assert 'hx-trigger="every 2s"' in page
        seen: list[Any] = []

        def watched(sheets: Any, made_at: Any) -> Any:
            seen.append(text(get(company.finance, "costs:period-preview", **MONTH)))
            return real(sheets, made_at)

        real = running.rows
        monkeypatch.setattr(running, "rows", watched)
        assert running.make_due() == 1
        assert "1 of 2" in seen[0]
        page = text(get(company.finance, "costs:period-preview", **MONTH))
        assert "Out of date" not in page
        assert "A worker" not in page
        assert AuditEvent.objects.filter(action="costs.period.preview_asked").count() == 1
        # A worker that died left it running: nobody else takes it before its silence is long.
        RunningMonth.objects.update(state=FileStatus.RUNNING, alive_at=clock.now())
        assert running.make(september().pk) == 0
    with clock.frozen(NOW + timedelta(minutes=13)):
        assert running.make_due() == 2
        monkeypatch.setattr(running, "preview", lambda period: 1 / 0)
        running.ask(september().pk, actor=_finance(company))
        assert running.make(september().pk) == 0
        assert "could not be worked out" in text(get(company.finance, "costs:period-preview", **MONTH))
        assert running.make_due() == 0, "what fails is not tried every minute"

        def gone(period: Any) -> Any:
            raise OperationalError("the connection went")

        monkeypatch.setattr(running, "preview", gone)
        with pytest.raises(OperationalError):
            running.make(september().pk)
        assert mark().state == FileStatus.RUNNING


@pytest.mark.requirement("periods-2.8")
def test_a_preview_is_stored_under_the_lock_of_its_month_as_a_close_takes_them(world: World, company: Any) -> None:
    with CaptureQueriesContext(connection) as queries:
        assert running.make(september().pk) == 1
    told = [query["sql"] for query in queries]
    stored = next(at for at, sql in enumerate(told) if 'INSERT INTO "costs_runningstatement"' in sql)
    begun = max(at for at, sql in enumerate(told[:stored]) if "SAVEPOINT" in sql)
    locks = [sql for sql in told[begun:stored] if " FOR " in sql]
    assert ['"costs_period"' in sql for sql in locks] == [True, False], locks


def _finance(company: Any) -> Any:
    from apps.core.actor import Actor

    return Actor.of(company.finance)


@pytest.mark.requirement("periods-2.9")
@pytest.mark.parametrize("moved", [False, True])
def test_the_closed_month_says_whether_it_came_out_as_the_preview(world: World, company: Any, moved: bool) -> None:
    begin(company)
    running.make_due()
    before = mark().bill
    page = text(get(company.finance, "costs:period-close", **MONTH))
    assert "a bill of 12,936.00 USD" in page
    assert "out of date" not in page
    if moved:
        with clock.frozen(NOW + timedelta(minutes=1)):
            more(world)
        assert "out of date" in text(get(company.finance, "costs:period-close", **MONTH))
    assert post(company.finance, "costs:period-close", {"preview": mark().digest}, **MONTH).status_code == 303
    settle(only=("costs.freeze",))
    assert september().status == "closed"
    kept = next(item for item in september().checklist if item["code"] == "preview")
    page = text(get(company.finance, "costs:period-detail", **MONTH))
    assert kept["detail"].replace("'", "&#x27;") in page
    if moved:
        assert not kept["ok"]
        assert kept["count"] > 0
        assert "12,936.00 USD" in kept["detail"]
        assert "statements are others" in kept["detail"]
    else:
        assert kept["ok"]
        assert september().bill == before


@pytest.mark.requirement("periods-2.9")
def test_nothing_of_the_close_comes_from_a_preview(world: World, company: Any) -> None:
    begin(company)
    running.make_due()
    seen = mark().digest
    RunningMonth.objects.update(bill=1, digest="f" * 64)
    assert post(company.finance, "costs:period-close", {"preview": seen}, **MONTH).status_code == 303
    settle(only=("costs.freeze",))
    assert september().bill == Decimal("12936.00")
    kept = next(item for item in september().checklist if item["code"] == "preview")
    assert "All" in kept["detail"], "what the person saw is what was frozen, whatever stands in the preview now"
