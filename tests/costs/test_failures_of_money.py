"""What goes wrong around closing: a freeze that breaks, claims under way, late rows in a month opened again."""

from __future__ import annotations

import threading
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import IntegrityError, OperationalError, connection, transaction

from apps.accounts.models import User
from apps.core import clock
from apps.core.errors import Conflict, Invalid
from apps.core.testing import settle
from apps.costs import checks, corrections_books, credits, files, freezing, periods, reopening
from apps.costs.models import Charge, Correction, Credit, Period, ReopenRequest, Statement
from apps.metering import claims
from apps.metering.models import HourFact
from tests.costs import test_closing as closing
from tests.costs.test_closing import FIRST, NOW, actor, begin, close, holdings, ingest, open_items, september
from tests.factories import grant, make_user
from tests.metering.world import World, hold, utc

HOUR = timedelta(hours=1)
world = closing.world
WHY = "Agreed in the monthly finance meeting"


@pytest.fixture
def second(company: Any) -> User:
    user = make_user("second-finance@example.com")
    grant(user, "finance")
    return user


def reopen(company: Any, second: User, period: Period) -> None:
    request = reopening.request_reopening(period.pk, WHY, actor=actor(company.finance))
    reopening.approve_reopening(request.pk, WHY, actor=actor(second))


@pytest.mark.requirement("periods-4.1")
def test_a_freeze_that_breaks_is_said_and_the_month_can_go_on(
    world: World,
    company: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    period = begin(company)
    periods.close(period.pk, actor=actor(company.finance))

    def broken(*_: Any) -> None:
        raise ValueError("the total is not the sum of these lines")

    with monkeypatch.context() as patch:
        patch.setattr(freezing, "preview", broken)
        settle(only=("costs.freeze",))
    period = september()
    assert (period.status, period.freeze_state) == ("closing", "failed")
    assert "ValueError" in period.freeze_error
    assert not Statement.objects.exists()
    assert periods.back_to_open(period.pk, actor=actor(company.finance)).status == "open"
    assert close(company).status == "closed"


@pytest.mark.requirement("periods-4.1")
def test_a_database_that_goes_away_leaves_the_freeze_to_the_sweep(
    world: World,
    company: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    period = begin(company)
    periods.close(period.pk, actor=actor(company.finance))

    def gone(*_: Any) -> None:
        raise OperationalError("the connection is lost")

    with monkeypatch.context() as patch:
        patch.setattr(freezing, "preview", gone)
        with pytest.raises(OperationalError):
            freezing.freeze_due()
    assert september().freeze_state == "running"
    settle(only=("costs.freeze",))
    assert september().status == "closed"


@pytest.mark.requirement("periods-2.2")
def test_a_claim_that_is_still_moving_hours_blocks_the_close(world: World, company: Any) -> None:
    period = begin(company)
    claims.claim_namespace(
        world.cluster.pk, "nobody", company.finance_team.pk, FIRST, actor=actor(company.admin), reason="Ours"
    )
    assert open_items(period)["claims"].count == 1
    with pytest.raises(Invalid, match="claims"):
        periods.close(period.pk, actor=actor(company.finance))
    settle(only=("metering.move",))
    assert "claims" not in open_items(period)
    periods.close(period.pk, actor=actor(company.finance))
    settle(only=("costs.freeze",))
    assert Statement.objects.get(team=company.finance_team).gpu_ms == (7 * 30 * 3 + 7 + 30) * 1_200_000


@pytest.mark.requirement("adjustments-4.2")
def test_a_claim_in_a_month_opened_again_keeps_what_had_come_late(
    world: World,
    company: Any,
    second: User,
) -> None:
    period = close(company)
    day = utc(2026, 9, 26)
    with clock.frozen(NOW + HOUR):
        late = [*holdings(), hold("late", "finance-prod", day, day + HOUR, 5)]
        ingest(world, late, day, day + HOUR)
        assert Correction.objects.exists()
    with clock.frozen(NOW + 2 * HOUR):
        reopen(company, second, period)
        # Nobody has read the hour again yet, and perhaps the source has forgotten it.
        claims.claim_namespace(
            world.cluster.pk, "nobody", company.research_team.pk, day, actor=actor(company.admin), reason="Ours"
        )
        settle(only=("metering.move", "costs.price"))
    held = HourFact.objects.filter(hour=day, workload_name="late")
    assert [fact.allocated_gpu_ms for fact in held] == [5 * 3_600_000]
    assert HourFact.objects.get(hour=day, namespace="nobody").team_id == company.research_team.pk
    owed = sum(c.gpu_ms for c in Charge.objects.filter(hour=day, team_id=company.finance_team.pk))
    owed += sum(c.gpu_ms for c in Correction.objects.filter(hour=day, team_id=company.finance_team.pk))
    assert owed == (7 + 5) * 3_600_000
    ingest(world, late, day, day + HOUR)
    assert HourFact.objects.filter(hour=day, workload_name="late").count() == 1


@pytest.mark.requirement("adjustments-2.1")
def test_credits_of_a_month_opened_again_count_on_its_newer_statement(
    world: World,
    company: Any,
    second: User,
) -> None:
    period = close(company)
    statement = Statement.objects.get(team=company.finance_team)
    given = credits.propose_credit(statement.pk, statement.amount, WHY, actor=actor(company.finance))
    credits.approve_credit(given.pk, actor=actor(second))
    waits = Statement.objects.get(team=company.marketing_team)
    waiting = credits.propose_credit(waits.pk, waits.amount, WHY, actor=actor(company.finance))
    reopen(company, second, period)
    periods.close(period.pk, actor=actor(company.finance))
    settle(only=("costs.freeze",))
    newer = Statement.objects.get(team=company.finance_team, superseded_at__isnull=True)
    assert credits.left_on(newer).amount == 0
    with pytest.raises(Invalid, match="holds no more than"):
        credits.propose_credit(newer.pk, Decimal("0.01"), WHY, actor=actor(company.finance))
    with pytest.raises(Conflict, match="superseded"):
        credits.approve_credit(waiting.pk, actor=actor(second))


@pytest.mark.requirement("adjustments-6.1")
@pytest.mark.parametrize("kind", ["csv", "xlsx", "focus", "journal"])
def test_no_file_is_made_of_a_month_that_was_opened_again(world: World, company: Any, second: User, kind: str) -> None:
    period = close(company)
    asked = files.ask_for_file(period.pk, kind, actor=actor(company.finance))
    reopen(company, second, period)
    settle(only=("costs.make_due_files",))
    asked.refresh_from_db()
    assert (asked.status, asked.body) == ("failed", None)
    assert "opened again" in asked.error


@pytest.mark.requirement("periods-4.1")
@pytest.mark.parametrize(
    ("code", "found"), [("USD", []), ("JPY", []), ("KWD", ["costs.E002"]), ("usd", ["costs.E001"])]
)
def test_a_currency_that_statements_cannot_hold_is_refused_at_the_start(
    settings: Any, code: str, found: list[str]
) -> None:
    settings.COMMONS_CURRENCY = code
    assert [message.id for message in checks.the_books_can_hold_the_currency(None)] == found


# ---------------------------------------------------------------- what the database itself refuses


@pytest.mark.requirement("adjustments-4.1", "adjustments-2.1")
def test_the_database_wants_a_second_person(world: World, company: Any, second: User) -> None:
    period = close(company)
    statement = Statement.objects.get(team=company.finance_team)
    finance, values = company.finance, {"decided_at": NOW}
    for decided_by in (finance, None):
        with pytest.raises(IntegrityError), transaction.atomic():
            ReopenRequest.objects.create(
                period=period, reason=WHY, status="approved", requested_by=finance, decided_by=decided_by, **values
            )
        with pytest.raises(IntegrityError), transaction.atomic():
            Credit.objects.create(
                team=company.finance_team, statement=statement, amount=Decimal(1), currency="USD", reason=WHY,
                status="approved", proposed_by=finance, decided_by=decided_by, **values,
            )  # fmt: skip


# ---------------------------------------------------------------- two at once


@pytest.mark.requirement("adjustments-1.3")
@pytest.mark.django_db(transaction=True)
def test_late_rows_of_two_clusters_do_not_wait_for_each_other() -> None:
    """Both share the open month's row through its books' triggers before they correct into it: neither waits."""
    period = periods.period_of(clock.now())
    barrier = threading.Barrier(2, timeout=20)
    failed: list[BaseException] = []

    def correct() -> None:
        try:
            with transaction.atomic():
                periods.frozen_hours(1, [period.start])
                barrier.wait()
                assert corrections_books.lock_open_period().pk == period.pk
                barrier.wait()
        except BaseException as error:  # noqa: BLE001  (told to the test below)
            barrier.abort()
            failed.append(error)
        finally:
            connection.close()

    workers = [threading.Thread(target=correct) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert not failed


@pytest.mark.requirement("adjustments-1.3")
@pytest.mark.django_db(transaction=True)
def test_nobody_begins_to_close_the_month_that_is_being_corrected_into() -> None:
    period = periods.period_of(clock.now())
    found: list[int] = []

    def closer() -> None:
        with transaction.atomic():
            found.append(len(Period.objects.select_for_update(skip_locked=True).filter(pk=period.pk)))
        connection.close()

    with transaction.atomic():
        corrections_books.lock_open_period()
        worker = threading.Thread(target=closer)
        worker.start()
        worker.join(30)
    closer()
    assert found == [0, 1]
