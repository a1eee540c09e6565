"""A month from open to closed: order, checklist, waivers, freeze, what comes afterwards."""

from __future__ import annotations

import threading
from datetime import date, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import Sum

from apps.accounts.models import User
from apps.audit.models import AuditEvent
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.core.models import OutboxMessage
from apps.core.testing import settle
from apps.costs import freezing, periods, ports
from apps.costs.choices import LineSort
from apps.costs.models import Bill, BillLine, Charge, Correction, Credit, DayCharge, Period, Statement, StatementLine
from apps.costs.period_calendar import months_with_charges
from apps.costs.statement_digests import digest_from_rows
from apps.metering import actions
from apps.metering.models import HourFact, HourStatus, SourceCheck
from tests.metering.world import MODEL, FakeAdapter, World, add_rate, guarantee, hold, make_world, utc

HOUR = timedelta(hours=1)
SEPTEMBER = date(2026, 9, 1)
START, END = utc(2026, 9, 1), utc(2026, 10, 1)
#: Metering began here: seven days are enough.
FIRST = utc(2026, 9, 24)
NOW = utc(2026, 10, 2, 9)
REASON = "The cluster was switched off for the move."


def ingest(world: World, holdings: list[Any], start: Any = FIRST, end: Any = END) -> None:
    actions.ingest_hours(
        world.source.pk, start, end, actor=Actor.system("test"), adapter=FakeAdapter(holdings)
    )  # fmt: skip


def holdings() -> list[Any]:
    """Three teams and a namespace that nobody owns; thirds of an hour, so that nothing is cent-exact by itself."""
    day = utc(2026, 9, 26)
    third = timedelta(minutes=20)
    return [
        hold("train", "finance-prod", day, day + 30 * HOUR + third, 7, used=0.5),
        hold("rank", "marketing-prod", day, day + 11 * HOUR + third, 3, used=0.1),
        hold("probe", "research-prod", day + HOUR, day + 2 * HOUR + 2 * third, 1),
        hold("stray", "nobody", day, day + 5 * HOUR, 2),
    ]


@pytest.fixture
def world(company: Any) -> Any:
    with clock.frozen(NOW):
        world = make_world(company.teams.values(), gpus=20, since=FIRST)
        guarantee(world, "research", 4, FIRST)
        ingest(world, holdings())
        periods.make_periods()
        yield world


def actor(user: User) -> Actor:
    return Actor.of(user)


def september() -> Period:
    return Period.objects.get(month=SEPTEMBER)


def begin(company: Any) -> Period:
    return periods.start_closing(september().pk, actor=actor(company.finance))


def close(company: Any) -> Period:
    period = begin(company)
    periods.close(period.pk, actor=actor(company.finance))
    settle(only=("costs.freeze",))
    return september()


def open_items(period: Period) -> dict[str, Any]:
    return {item.code: item for item in periods.checklist(period) if not item.settled}


@pytest.mark.requirement("periods-1.1", "periods-1.3", "periods-1.4")
def test_months_are_made_and_named(world: World, settings: Any) -> None:
    assert months_with_charges()[0] == SEPTEMBER
    period = periods.period_of(utc(2026, 9, 30, 23))
    assert (period.start, period.end, period.status) == (START, END, "open")
    assert periods.make_periods() == 0
    assert periods.frozen_hours(world.cluster.pk, [START, END]) == set()
    Period.objects.filter(pk=period.pk).update(status="closing")
    assert periods.frozen_hours(world.cluster.pk, [START]) == set()
    assert periods.open_period_for(NOW).month == date(2026, 10, 1)
    assert periods.open_period_for(START).month == date(2026, 10, 1), "a month that is closing takes nothing new"
    Period.objects.filter(pk=period.pk).update(status="closed")
    assert periods.frozen_hours(world.cluster.pk, [START - HOUR, START, END - HOUR, END]) == {START, END - HOUR}
    settings.COMMONS_BILLING_TIMEZONE = "+05:00"
    assert periods.ensure_period(date(2027, 1, 20)).start == utc(2026, 12, 31, 19)


@pytest.mark.requirement("periods-2.1")
def test_months_close_in_order_after_their_end(world: World, company: Any) -> None:
    period = september()
    with pytest.raises(NotAllowed):
        periods.start_closing(period.pk, actor=actor(company.vp))
    with clock.frozen(END + HOUR), pytest.raises(Invalid, match="2026-10-01 02:00"):
        begin(company)
    with clock.frozen(utc(2026, 11, 2)):
        ingest(world, [hold("x", "finance-prod", END, END + HOUR, 1)], END, END + HOUR)
        october = periods.ensure_period(date(2026, 10, 1))
        with pytest.raises(Invalid, match="2026-09 has charges and is not closed"):
            periods.start_closing(october.pk, actor=actor(company.finance))
    begin(company)
    with pytest.raises(Conflict):
        begin(company)
    with pytest.raises(Conflict):
        periods.back_to_open(period.pk, actor=actor(company.finance), expected_version=1)
    assert periods.back_to_open(period.pk, actor=actor(company.finance)).status == "open"


@pytest.mark.requirement("periods-2.5", "periods-4.1", "periods-4.3", "periods-2.7")
def test_a_closed_month_adds_up_and_can_be_proved(world: World, company: Any) -> None:
    told: list[ports.Closed] = []
    ports.on_closed("test", told.append)
    try:
        period = close(company)
    finally:
        ports._listeners.pop("test")
    assert (period.status, period.freeze_state, period.closed_by) == ("closed", "done", company.finance)
    assert told == [ports.Closed(period.pk, SEPTEMBER)]
    statements = {row.number: row for row in Statement.objects.all()}
    teams = [row for row in statements.values() if row.owner_kind == "team"]
    platform = next(row for row in statements.values() if row.owner_kind == "platform")
    assert sorted(statements) == [
        "2026-09-C-0001", "2026-09-C-0002", "2026-09-C-0003", "2026-09-P-0001", "2026-09-T-0001", "2026-09-T-0002",
        "2026-09-T-0003", "2026-09-U-0001", "2026-09-U-0002",
    ]  # fmt: skip
    # 20 GPUs for seven days, all priced alike: the bill is the pool.
    assert period.bill == 20 * 168 * Decimal("3.85") == sum(row.amount for row in teams) + platform.amount
    for row in statements.values():
        assert row.amount == sum(line.amount for line in row.lines.all())
        assert row.digest == digest_from_rows(row)
    units = [row for row in statements.values() if row.owner_kind == "unit"]
    assert {row.amount for row in units} == {sum(row.amount for row in teams)}
    finance = next(row for row in teams if row.team == company.finance_team)
    assert finance.amount == finance.own_amount == Decimal("817.48")  # 7 × 30⅓ × 3.85 = 817.4833…
    assert (finance.mode, finance.unit, finance.cost_centre) == ("showback", company.unit, "CC-finance")
    assert finance.used_gpu_ms == finance.gpu_ms // 2
    research = next(row for row in teams if row.team == company.research_team)
    assert research.own_amount < research.amount, "its own unused reservation is its own"
    kept = {line.kind for line in platform.lines.all()}
    assert kept == {"unsold", "unattributed"}
    assert AuditEvent.objects.filter(action="costs.period.closed", object_id=period.uid).count() == 1
    mailed = OutboxMessage.objects.filter(event="costs.statement.issued").values_list("recipient_ids", flat=True)
    assert [company.lead_finance.pk] in list(mailed)
    assert [company.vp.pk] in list(mailed)
    assert freezing.freeze_due() == 0


@pytest.mark.requirement("periods-1.2", "periods-1.3", "periods-4.3")
def test_nothing_that_comes_later_moves_a_closed_month(world: World, company: Any) -> None:
    period = close(company)
    before = [
        list(model.objects.filter(**{f"{at}__lt": END}).order_by("pk").values())
        for model, at in ((HourFact, "hour"), (Charge, "hour"))
    ]
    days = list(DayCharge.objects.order_by("pk").values())
    ingest(world, [hold("late", "finance-prod", FIRST, FIRST + 9 * HOUR, 5)])
    team = company.finance_team
    team.unit, team.name, team.cost_centre = company.other_unit, "Renamed", "CC-NEW"
    team.save()
    add_rate(world.card, world.flavour, "99", utc(2025, 6, 1), START)
    settle(only=("costs.", "metering."))
    assert before == [
        list(model.objects.filter(**{f"{at}__lt": END}).order_by("pk").values())
        for model, at in ((HourFact, "hour"), (Charge, "hour"))
    ]
    assert days == list(DayCharge.objects.order_by("pk").values())
    assert HourStatus.objects.get(hour=FIRST).late_revision > 1
    assert all(row.digest == digest_from_rows(row) for row in Statement.objects.all())
    again = Period.objects.get(pk=period.pk)
    assert (again.bill, again.digest, again.version) == (period.bill, period.digest, period.version)


@pytest.mark.requirement("periods-2.2", "periods-2.3", "periods-2.4")
def test_missing_hours_block_until_they_are_waived_by_name(world: World, company: Any) -> None:
    lost = [utc(2026, 9, 27) + n * HOUR for n in range(5)]
    HourStatus.objects.filter(hour__in=lost).update(state="missing", reason="no data")
    HourStatus.objects.filter(hour=utc(2026, 9, 28)).update(state="provisional")
    period = begin(company)
    item = open_items(period)["hours"]
    assert (item.count, [place.text for place in item.places]) == (6, [
        "DC1: 2026-09-27 00:00 UTC to 2026-09-27 05:00 UTC, 5 h missing (no data)",
        "DC1: 2026-09-28 00:00 UTC to 2026-09-28 01:00 UTC, 1 h provisional",
    ])  # fmt: skip
    assert str(world.source.uid) in item.places[0].link
    with pytest.raises(Invalid, match="Every hour is metered"):
        periods.close(period.pk, actor=actor(company.finance))
    who = actor(company.finance)
    for wrong in (
        {"kind": "hours", "reason": "no"},
        {"kind": "capacity", "reason": REASON},
        {"kind": "hours", "reason": REASON, "hours_from": END},
        {"kind": "unpriced", "reason": REASON, "hours_from": START},
        {"kind": "dispute", "reason": REASON, "subject_uid": uuid4()},
        {"kind": "hours", "reason": REASON, "subject_uid": world.source.uid},
    ):
        with pytest.raises(Invalid):
            periods.waive(period.pk, actor=who, **wrong)
    with pytest.raises(NotAllowed):
        periods.waive(period.pk, "hours", reason=REASON, actor=actor(company.auditor))
    periods.waive(
        period.pk, "hours", reason=REASON, actor=who, cluster_id=world.cluster.pk, hours_from=lost[0],
        hours_until=lost[-1] + HOUR,
    )  # fmt: skip
    assert open_items(september())["hours"].places[0].waived
    periods.waive(period.pk, "hours", reason=REASON, actor=who)
    assert open_items(september()) == {}
    periods.close(period.pk, actor=who)
    settle(only=("costs.freeze",))
    kept = {item["code"]: item for item in september().checklist}
    assert kept["hours"]["waived"]
    assert AuditEvent.objects.filter(action="costs.period.waived").count() == 2


@pytest.mark.requirement("periods-4.2", "periods-2.3")
def test_what_has_no_price_blocks_and_is_shown_as_unknown(company: Any) -> None:
    with clock.frozen(NOW):
        world = make_world(company.teams.values(), gpus=20, since=FIRST, rate="")
        add_rate(world.card, world.flavour, "3.85", utc(2026, 9, 26, 10))
        ingest(world, holdings())
        periods.make_periods()
        period = begin(company)
        item = open_items(period)["unpriced"]
        assert "unpriced=true" in item.link
        periods.waive(period.pk, "unpriced", reason=REASON, actor=actor(company.finance))
        periods.close(period.pk, actor=actor(company.finance))
        settle(only=("costs.freeze",))
        row = Statement.objects.get(team=company.finance_team)
        unknown = row.lines.get(rate__isnull=True)
        assert (unknown.exact, unknown.amount, unknown.quantity_ms) == (None, 0, 10 * 7 * 3_600_000)
        assert row.unpriced_ms == unknown.quantity_ms
        assert Statement.objects.filter(owner_kind="unit").first().unpriced_ms > 0


@pytest.mark.requirement("periods-2.2")
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("UPDATE metering_capacityline SET gpu_ms = gpu_ms + 1 WHERE kind = 'unsold' AND hour = %s", "capacity"),
        ("UPDATE costs_charge SET gpu_ms = gpu_ms + 1 WHERE kind = 'allocated' AND hour = %s", "charges"),
        ("DELETE FROM costs_charge WHERE kind = 'unattributed' AND hour = %s", "charges"),
        ("UPDATE costs_daycharge SET quantity_ms = quantity_ms - 1 WHERE day = (%s)::date", "days"),
        ("UPDATE costs_pricedhour SET revision = 9 WHERE hour = %s", "priced"),
    ],
)
def test_books_that_contradict_each_other_block(world: World, company: Any, change: str, code: str) -> None:
    period = begin(company)
    assert open_items(period) == {}
    with connection.cursor() as cursor:
        cursor.execute(change, [utc(2026, 9, 26, 1)])
        assert cursor.rowcount > 0
    item = open_items(period)[code]
    assert item.count > 0
    assert item.waiver == ""


@pytest.mark.requirement("periods-2.2", "periods-2.3")
def test_unfit_sources_block_until_waived(world: World, company: Any) -> None:
    finding = {"code": "retention", "status": "failed", "title": "How long it remembers", "detail": "1 d"}
    SourceCheck.objects.create(source=world.source, verdict="failed", checked_at=NOW, findings=[finding])
    period = begin(company)
    assert open_items(period)["sources"].places[0].subject == str(world.source.uid)
    periods.waive(
        period.pk, "source", reason=REASON, actor=actor(company.finance), subject_uid=world.source.uid
    )  # fmt: skip
    assert open_items(september()) == {}


@pytest.mark.requirement("periods-2.5", "periods-2.4")
def test_a_freeze_that_dies_leaves_nothing_and_is_taken_up_again(
    world: World, company: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    period = begin(company)
    periods.close(period.pk, actor=actor(company.finance))
    with pytest.raises(Conflict):
        periods.close(period.pk, actor=actor(company.finance))
    with pytest.raises(Conflict, match="frozen at this moment"):
        periods.back_to_open(period.pk, actor=actor(company.finance))

    def die(found: Any, *_: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(freezing, "_tell_owners", die)
        with pytest.raises(MemoryError):
            freezing.freeze_due()
    assert (september().status, september().freeze_state) == ("closing", "running")
    assert not Statement.objects.exists()
    assert not StatementLine.objects.exists()
    assert freezing.freeze_due() == 1
    assert september().status == "closed"


@pytest.mark.requirement("periods-2.4")
def test_a_month_that_got_worse_meanwhile_is_not_closed(world: World, company: Any) -> None:
    period = begin(company)
    periods.close(period.pk, actor=actor(company.finance))
    HourStatus.objects.filter(hour=FIRST).update(state="missing")
    settle(only=("costs.freeze",))
    found = september()
    assert (found.status, found.freeze_state) == ("closing", "failed")
    assert "Every hour is metered" in found.freeze_error
    assert OutboxMessage.objects.filter(event="costs.period.blocked", recipient_ids=[company.finance.pk]).exists()
    HourStatus.objects.filter(hour=FIRST).update(state="final")
    periods.close(period.pk, actor=actor(company.finance))
    settle(only=("costs.freeze",))
    assert september().status == "closed"


@pytest.mark.requirement("periods-4.1")
def test_corrections_and_credits_are_lines_and_the_platform_bears_goodwill(world: World, company: Any) -> None:
    period = september()
    older = periods.ensure_period(date(2026, 8, 1))
    Correction.objects.create(
        period=period, corrects=older, cluster=world.cluster, hour=utc(2026, 8, 31, 22), hour_revision=2,
        kind="allocated", team_id=company.finance_team.pk, unit_id=company.unit.pk, cost_centre="CC-finance",
        team_name="Finance", unit_name="Retail Bank", flavour_id=world.flavour.pk, gpu_model=MODEL, rate=world.rate,
        quantity_ms=-3_600_000, gpu_ms=-3_600_000, reason="late facts",
    )  # fmt: skip
    Credit.objects.create(
        period=period, team=company.finance_team, amount=Decimal("100.00"), currency="USD", reason="outage",
        status="approved", proposed_by=company.finance, decided_by=company.vp,
    )  # fmt: skip
    found = close(company)
    row = Statement.objects.get(team=company.finance_team)
    assert row.amount == Decimal("817.48") - Decimal("3.85") - 100
    line = row.lines.get(sort=LineSort.CORRECTION)
    assert (line.charge_start, line.amount, line.hourly) == (utc(2026, 8, 31, 22), Decimal("-3.85"), Decimal("3.85"))
    platform = Statement.objects.get(owner_kind="platform")
    assert platform.lines.get(sort=LineSort.CREDIT).amount == 100
    assert found.bill == 20 * 168 * Decimal("3.85") - Decimal("3.85")


@pytest.mark.requirement("periods-4.1")
def test_the_platform_bears_what_invoices_say_beyond_the_metered_cost(world: World, company: Any) -> None:
    bill = Bill.objects.create(
        cluster=world.cluster, month=SEPTEMBER, vendor="Example Hosting", filename="september.csv", sha256="0" * 64,
        amount=Decimal("13000.00"), currency="USD",
    )  # fmt: skip
    BillLine.objects.create(bill=bill, ordinal=1, amount=Decimal("13000"), description="Nodes")
    found = close(company)
    assert found.bill == 13000
    line = Statement.objects.get(owner_kind="platform").lines.get(sort=LineSort.ROUNDING)
    assert (line.amount, line.description) == (64, "Variance: invoices of DC1 against metered cost")
    shared = Statement.objects.filter(owner_kind__in=["team", "platform"]).aggregate(Sum("amount"))["amount__sum"]
    assert shared == found.bill


@pytest.mark.requirement("periods-2.8")
def test_a_preview_is_what_is_frozen_and_writes_nothing(world: World, company: Any) -> None:
    begin(company)
    found = periods.preview(september())
    assert not Statement.objects.exists()
    close_now = periods.close(september().pk, actor=actor(company.finance))
    settle(only=("costs.freeze",))
    assert september().bill == found.bill.amount
    frozen = list(Statement.objects.order_by("number").values_list("number", "amount"))
    assert frozen == sorted((sheet.statement.number, sheet.statement.amount) for sheet in found.sheets)
    assert close_now.freeze_state == "queued"


@pytest.mark.requirement("periods-1.5", "periods-2.5")
@pytest.mark.django_db(transaction=True)
def test_a_writer_and_the_freeze_never_pass_each_other() -> None:
    from tests.factories import make_company

    company = make_company()
    with clock.frozen(NOW):
        world = make_world(company.teams.values(), gpus=20, since=FIRST)
        ingest(world, holdings())
        periods.make_periods()
        period = begin(company)
        periods.close(period.pk, actor=actor(company.finance))
    frozen = threading.Event()
    seen: list[Any] = []

    def freeze() -> None:
        try:
            with clock.frozen(NOW):
                seen.append(freezing.freeze(period.pk))
        finally:
            connection.close()
            frozen.set()

    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("UPDATE metering_hourfact SET pod = 'renamed' WHERE hour = %s", [utc(2026, 9, 26)])
        assert cursor.rowcount > 0
        worker = threading.Thread(target=freeze)
        worker.start()
        # The sweep skips a month that somebody holds: it finds it the next time.
        assert frozen.wait(30)
        assert seen == [0]
        assert september().status == "closing"
    worker.join()
    with clock.frozen(NOW):
        assert freezing.freeze(period.pk) == 1
    assert september().status == "closed"


@pytest.mark.requirement("periods-1.5", "periods-1.2")
@pytest.mark.django_db(transaction=True)
def test_a_writer_that_meets_a_freeze_waits_and_is_refused() -> None:
    from tests.factories import make_company

    company = make_company()
    with clock.frozen(NOW):
        world = make_world(company.teams.values(), gpus=20, since=END - 4 * HOUR)
        ingest(world, [hold("train", "finance-prod", END - 3 * HOUR, END, 2)], END - 4 * HOUR)
        periods.make_periods()
        begin(company)
    refusals: list[str] = []

    def write() -> None:
        try:
            with connection.cursor() as cursor:
                cursor.execute("UPDATE metering_hourfact SET pod = 'renamed'")
        except IntegrityError as error:
            refusals.append(str(error))
        finally:
            connection.close()

    worker = threading.Thread(target=write)
    with transaction.atomic():
        Period.objects.select_for_update().get(month=SEPTEMBER)
        worker.start()
        pause = threading.Event()
        for _ in range(600):
            with connection.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
                if cursor.fetchone()[0]:
                    break
            pause.wait(0.05)
        else:
            pytest.fail("the writer never waited")
        Period.objects.filter(month=SEPTEMBER).update(status="closed", closed_at=NOW)
    worker.join(30)
    assert len(refusals) == 1
    assert "the books of 2026-09 are closed" in refusals[0]
    assert not HourFact.objects.filter(pod="renamed").exists()
