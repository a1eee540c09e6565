"""Invoices beside our own bill of a cluster: import, withdrawal, comparison by day, the month's variance."""

from __future__ import annotations

import calendar
from datetime import date, timedelta
from decimal import Decimal

from django.conf import settings
from django.db import IntegrityError, connection, transaction

from apps import audit
from apps.clusters.models import Cluster
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotVisible
from apps.core.money import Money, largest_remainder
from apps.costs import cross_check_causes as causes
from apps.costs import cross_checks
from apps.costs.bills_file import Parsed
from apps.costs.choices import CheckKind
from apps.costs.cross_check_actions import require
from apps.costs.cross_check_events import BILL_IMPORTED, BILL_WITHDRAWN, BillEvent
from apps.costs.models import Bill, BillLine, CrossCheck, Period
from apps.costs.tally import Tally
from apps.metering import billing

_MICRO = Decimal("0.000001")
MAX_AMOUNT = Decimal("1e15")


def ledger() -> str:
    """Return the currency that bills are in."""
    return str(settings.COMMONS_CURRENCY)


@transaction.atomic
def import_bill(cluster_id: int, month: date, parsed: Parsed, *, vendor: str, filename: str, actor: Actor) -> Bill:
    """Take all lines of an invoice. Raises NotVisible, NotAllowed, Invalid (wrong lines, the same file twice)."""
    require(actor)
    cluster = Cluster.objects.select_for_update(of=("self",)).filter(pk=cluster_id).first()
    if cluster is None:
        raise NotVisible
    first = month.replace(day=1)
    errors: dict[str, str] = {}
    if parsed.errors:
        number, reason = parsed.errors[0]
        errors["file"] = f"Line {number}: {reason}. Nothing was taken."
    elif not parsed.lines:
        errors["file"] = "The file has no lines."
    if not vendor.strip() or len(vendor.strip()) > 200:
        errors["vendor"] = "Say who sent the invoice, in 200 characters at most."
    if first > billing.month_of(clock.now()):
        errors["month"] = "This month has not begun."
    if abs(parsed.total) >= MAX_AMOUNT:
        errors["file"] = "The total is beyond any invoice: check the amounts."
    if errors:
        raise Invalid(errors)
    try:
        with transaction.atomic():
            bill = Bill.objects.create(
                cluster=cluster, month=first, vendor=vendor.strip(), filename=filename[:200], sha256=parsed.sha256,
                amount=parsed.total.quantize(Decimal("0.01")), currency=ledger(), imported_by_id=actor.user_id,
            )  # fmt: skip
    except IntegrityError as error:
        raise Invalid(
            {"file": f"This very file is imported for {cluster} already. Withdraw that bill first."}
        ) from error
    BillLine.objects.bulk_create(
        [
            BillLine(bill=bill, ordinal=n, day=line.day, description=line.description, amount=line.amount)
            for n, line in enumerate(parsed.lines, start=1)
        ],
        batch_size=2000,
    )
    audit.record(
        BILL_IMPORTED, _event(bill, len(parsed.lines)), actor=actor, subject_type="costs.bill", subject_uid=bill.uid
    )
    compare(cluster.pk, first)
    return bill


@transaction.atomic
def withdraw(bill_id: int, reason: str, *, actor: Actor, expected_version: int | None = None) -> Bill:
    """Take a bill out of every comparison; its rows stay. Raises NotVisible, NotAllowed, Invalid, Conflict."""
    require(actor)
    bill = Bill.objects.select_for_update(of=("self",)).select_related("cluster").filter(pk=bill_id).first()
    if bill is None:
        raise NotVisible
    if bill.withdrawn_at is not None or (expected_version is not None and bill.version != expected_version):
        raise Conflict("This bill was changed in the meantime.", current={"version": bill.version})
    text = reason.strip()
    if not 5 <= len(text) <= 500:
        raise Invalid({"reason": "Say why in 5 to 500 characters: auditors read it."})
    bill.withdrawn_at = clock.now()
    bill.bump("withdrawn_at")
    audit.record(
        BILL_WITHDRAWN, _event(bill, bill.lines.count()), actor=actor, subject_type="costs.bill",
        subject_uid=bill.uid, reason=text,
    )  # fmt: skip
    compare(bill.cluster_id, bill.month)
    return bill


def _event(bill: Bill, lines: int) -> BillEvent:
    return BillEvent(
        bill.uid, bill.cluster.uid, f"{bill.month:%Y-%m}", lines, str(bill.amount), bill.currency, bill.sha256
    )


def days_of(month: date) -> list[date]:
    """Return the days of a month."""
    first = month.replace(day=1)
    return [first + timedelta(days=n) for n in range(calendar.monthrange(first.year, first.month)[1])]


def ours_by_day(cluster_id: int, month: date) -> dict[date, Decimal | None]:
    """Return our pool's bill of a cluster by day: everything that carries a price, whoever bears it; None: unknown."""
    first = month.replace(day=1)
    tallies: dict[date, Tally] = {}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT d.day, r.amount, r.currency, sum(d.quantity_ms), sum(d.gpu_ms) FROM costs_daycharge d"
            " LEFT JOIN rates_rate r ON r.id = d.rate_id"
            " WHERE d.cluster_id = %s AND d.day >= %s AND d.day < %s GROUP BY 1, 2, 3",
            [cluster_id, first, billing.following(first)],
        )
        for day, hourly, code, quantity, gpu_ms in cursor.fetchall():
            tallies.setdefault(day, Tally(ledger())).add(int(quantity), int(gpu_ms), hourly, code)
    found: dict[date, Decimal | None] = {}
    for day in days_of(first):
        tally = tallies.get(day)
        if tally is None:
            found[day] = Decimal(0)
        else:
            amount = tally.amount
            found[day] = None if tally.unpriced_ms or amount is None else amount.amount
    return found


def theirs_by_day(cluster_id: int, month: date) -> dict[date, Decimal] | None:
    """Return what the month's invoices say by day; None without one.

    Lines without a day are spread evenly over the month's days, in millionths by largest remainder: the days add up.
    """
    first = month.replace(day=1)
    lines = BillLine.objects.filter(bill__cluster_id=cluster_id, bill__month=first, bill__withdrawn_at__isnull=True)
    rows = list(lines.values_list("day", "amount"))
    if not rows:
        return None
    days = days_of(first)
    found = dict.fromkeys(days, Decimal(0))
    whole = Decimal(0)
    for day, amount in rows:
        if day is None:
            whole += amount
        else:
            found[day] += amount
    micro = int(abs(whole) / _MICRO)
    sign = -1 if whole < 0 else 1
    for day, part in zip(days, largest_remainder(micro, [1] * len(days)), strict=True):
        found[day] += sign * part * _MICRO
    return found


@transaction.atomic
def compare(cluster_id: int, month: date) -> int:
    """Write the comparison of each day of a month that has an invoice and has ended; returns how many there are."""
    first = month.replace(day=1)
    theirs = theirs_by_day(cluster_id, first)
    rows = CrossCheck.objects.filter(
        cluster_id=cluster_id, kind=CheckKind.BILL, day__gte=first, day__lt=billing.following(first)
    )
    if theirs is None:
        # The last invoice was withdrawn: there is nothing to compare with. The trail keeps what was explained.
        rows.delete()
        return 0
    rows.filter(day__gte=billing.day_of(clock.now())).delete()
    setting = cross_checks.setting_for(Cluster.objects.get(pk=cluster_id))
    ended = _ended(ours_by_day(cluster_id, first))
    for day, ours in ended.items():
        mine = None if ours is None else ours.quantize(_MICRO)
        matched = mine is not None and causes.within(
            mine - theirs[day], mine, setting.tolerance_permille, setting.tolerance_amount
        )
        note = "Part of our quantities has no price." if mine is None else ""
        cross_checks.store(cluster_id, day, CheckKind.BILL, mine, theirs[day], matched, [], {}, note)
    return len(ended)


def _ended(days: dict[date, Decimal | None]) -> dict[date, Decimal | None]:
    """Leave out days that have not ended: nothing is used yet, which is no agreement."""
    today = billing.day_of(clock.now())
    return {day: ours for day, ours in days.items() if day < today}


def compare_due(months: int = 3) -> int:
    """Compare again where our side moved since, for the invoices of the last months; returns how many months did."""
    first = billing.month_of(clock.now())
    for _ in range(months):
        first = billing.previous(first)
    moved = 0
    pairs = Bill.objects.filter(withdrawn_at__isnull=True, month__gte=first).values_list("cluster_id", "month")
    for cluster_id, month in sorted(set(pairs)):
        known = {
            row.day: row.ours
            for row in CrossCheck.objects.filter(
                cluster_id=cluster_id, kind=CheckKind.BILL, day__gte=month, day__lt=billing.following(month)
            )
        }
        now = {
            day: None if ours is None else ours.quantize(_MICRO)
            for day, ours in _ended(ours_by_day(cluster_id, month)).items()
        }
        if known != now:
            compare(cluster_id, month)
            moved += 1
    return moved


def variance(period: Period | date) -> dict[int, Money | None]:
    """Return for each cluster with an invoice of the month: invoice − our pool's bill, exact, by cluster id.

    Positive: the invoice is higher than what is charged. None: part of ours has no price, so it is unknown. The
    platform bears it; a cluster without an invoice is left out.
    """
    month = (period.month if isinstance(period, Period) else period).replace(day=1)
    clusters = Bill.objects.filter(month=month, withdrawn_at__isnull=True).values_list("cluster_id", flat=True)
    found: dict[int, Money | None] = {}
    for cluster_id in sorted(set(clusters)):
        theirs, ours = theirs_by_day(cluster_id, month), list(ours_by_day(cluster_id, month).values())
        if theirs is None:
            continue
        known = [value for value in ours if value is not None]
        if len(known) != len(ours):
            found[cluster_id] = None
        else:
            found[cluster_id] = Money(sum(theirs.values(), Decimal(0)) - sum(known, Decimal(0)), ledger())
    return found
