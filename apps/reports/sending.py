"""The report by mail: on the second working day (Monday to Friday) of a month, at 07:00 in the billing zone, once.

A row per unit and month is the guarantee: it is written in the transaction that hands the message over. What was
missed for ten days is not sent any more: the next report is nearer.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta

from django.db import IntegrityError, transaction

from apps.accounts.models import User
from apps.core import clock, outbox
from apps.core.formats import money
from apps.costs.models import MonthTotal
from apps.insights.report_models import ReportSent
from apps.metering import billing
from apps.reports import events, files, selectors
from apps.reports.folding import fold
from apps.teams import scope
from apps.teams.choices import Role
from apps.teams.models import Unit

WORKING_DAY, HOUR = 2, 7
LATE = timedelta(days=10)


def due_at(month: date) -> datetime:
    """Return when the report of `month` is due: the second working day of the month after, at 07:00."""
    day = billing.following(month)
    left = WORKING_DAY
    while True:
        if day.weekday() < 5:
            left -= 1
            if not left:
                return billing.day_start(day) + timedelta(hours=HOUR)
        day += timedelta(days=1)


def send_due(at: datetime | None = None) -> int:
    """Send the reports of the month that is over to the owners of every unit; returns how many units got theirs."""
    now = at or clock.now()
    month = billing.previous(billing.month_of(now))
    due = due_at(month)
    if not due <= now < due + LATE:
        return 0
    sent = set(ReportSent.objects.filter(month=month).values_list("unit_id", flat=True))
    charged = set(MonthTotal.objects.filter(month=month).order_by().values_list("unit_id", flat=True).distinct())
    moved = 0
    for unit in Unit.objects.filter(archived_at__isnull=True).exclude(pk__in=sent).order_by("pk"):
        owners = scope.holders_of_role(Role.UNIT_OWNER, unit_id=unit.pk)
        below = set(Unit.objects.filter(path__contains=[unit.pk]).values_list("pk", flat=True))
        if owners and below & charged:
            moved += _send(unit, month, due, owners)
    return moved


def _send(unit: Unit, month: date, due: datetime, owners: list[int]) -> int:
    """Hand one unit's message over, unless another worker has."""
    reader = User.objects.get(pk=owners[0])
    report = selectors.monthly_report(unit, month, reader)
    extras = selectors.report_extras(unit, report, fold(report), reader)
    change = f", {money(report.change, whole=True, signed=True)} against the month before" if report.change else ""
    headline = f"{unit.name} in {month:%B %Y}: {money(report.cost, whole=True)}{change}"
    ready = events.ReportReady(
        unit_uid=unit.uid,
        unit_slug=unit.slug,
        month=f"{month:%Y-%m}",
        headline=headline[:300],
        lines=[one.text for one in extras.proposals[:3]],
        idle="" if report.used_gpu_ms is None else money(report.idle_amount, whole=True),
        status=extras.status,
    )
    try:
        with transaction.atomic():
            ReportSent.objects.create(
                unit=unit, month=month, due_at=due, sent_at=clock.now(), recipients=len(owners),
                headline=headline[:300],
            )  # fmt: skip
            file = files.queue(unit, month, reader)
            payload = replace(ready, file_uid=file.uid)
            outbox.publish(events.REPORT_READY, payload, recipients=owners, subject_uid=unit.uid)
    except IntegrityError:  # another worker sent it at the same moment
        return 0
    return 1
