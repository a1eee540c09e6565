"""The life of a billing month: open → closing → closed. Every change under the lock of the period's row."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction

from apps import audit
from apps.accounts.models import User
from apps.clusters.models import Cluster
from apps.core import clock, formats, outbox
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotVisible
from apps.core.events import EventType
from apps.core.sweeps import nudge
from apps.costs import period_events as events
from apps.costs import running_marks
from apps.costs.checklist import blockers, checklist
from apps.costs.choices import UNDER_WAY, FileStatus, PeriodStatus, WaiverKind
from apps.costs.models import Dispute, Period, PeriodWaiver
from apps.costs.period_calendar import months_with_charges, period_of
from apps.costs.seconding import checked_text, person
from apps.metering.models import Source
from apps.teams import scope

MANAGE = "costs.period.manage"
#: A month's last hour is final from this long after its end.
SETTLES_AFTER = timedelta(hours=2)


def _locked(period_id: int, expected_version: int | None) -> Period:
    """Load and lock a period. Raises NotVisible, Conflict where it moved on."""
    period = Period.objects.select_for_update(of=("self",)).filter(pk=period_id).first()
    if period is None:
        raise NotVisible
    if expected_version is not None and period.version != expected_version:
        raise Conflict("Somebody changed this month in the meantime.", current={"status": period.status})
    return period


def _finance(actor: Actor, period: Period) -> User:
    return person(actor, MANAGE, period, "Months are closed by finance of the whole installation.")


def _must_be(period: Period, status: str) -> None:
    if period.status != status:
        raise Conflict(
            f"{period} is {PeriodStatus(period.status).label.lower()}: only a month that is"
            f" {PeriodStatus(status).label.lower()} takes this.",
            current={"status": period.status},
        )
    if period.freeze_state in UNDER_WAY:
        raise Conflict(f"{period} is being frozen at this moment.", current={"status": "freezing"})


def _record(event: EventType, period: Period, actor: Actor, *, tell: bool = True) -> None:
    payload = events.PeriodEvent(period.uid, str(period), currency=period.currency, waivers=period.waivers.count())
    audit.record(event, payload, actor=actor, subject_type="costs.period", subject_uid=period.uid)
    others = [pk for pk in scope.holders(MANAGE) if pk != actor.user_id]
    if tell and others:
        outbox.publish(event, payload, recipients=others, subject_uid=period.uid)


@transaction.atomic
def start_closing(period_id: int, *, actor: Actor, expected_version: int | None = None) -> Period:
    """Begin to close a month: its checklist is worked off from now on.

    Raises NotVisible, NotAllowed, Conflict (not open), Invalid before two hours after the month's end and while an
    earlier month with charges is not closed.
    """
    period = _locked(period_id, expected_version)
    _finance(actor, period)
    _must_be(period, PeriodStatus.OPEN)
    now = clock.now()
    if now < period.end + SETTLES_AFTER:
        raise Invalid(
            {"": f"{period} can be closed from {formats.datetime_utc(period.end + SETTLES_AFTER)} on: its last hour is"
                 " final two hours after the month's end."}
        )  # fmt: skip
    earlier = [month for month in months_with_charges() if month < period.month]
    closed = set(Period.objects.filter(status=PeriodStatus.CLOSED).values_list("month", flat=True))
    if waiting := [month for month in earlier if month not in closed]:
        raise Invalid({"": f"{waiting[0]:%Y-%m} has charges and is not closed yet: months are closed in their order."})
    period.status, period.closing_by_id, period.closing_at = PeriodStatus.CLOSING, actor.user_id, now
    period.freeze_state, period.freeze_error = "", ""
    period.bump("status", "closing_by", "closing_at", "freeze_state", "freeze_error")
    # Corrections from now on go to a month that is open.
    period_of(now)
    _record(events.CLOSING_STARTED, period, actor)
    return period


@transaction.atomic
def back_to_open(period_id: int, *, actor: Actor, expected_version: int | None = None) -> Period:
    """Open a month again that is closing and not being frozen. Raises NotVisible, NotAllowed, Conflict."""
    period = _locked(period_id, expected_version)
    _finance(actor, period)
    _must_be(period, PeriodStatus.CLOSING)
    period.status, period.closing_by_id, period.closing_at = PeriodStatus.OPEN, None, None
    period.freeze_state, period.freeze_error = "", ""
    period.bump("status", "closing_by", "closing_at", "freeze_state", "freeze_error")
    _record(events.BACK_TO_OPEN, period, actor)
    return period


def _can_name(kind: str, subject_uid: UUID) -> bool:
    """Whether a waiver of `kind` can name this one: a waiver of nothing would stand with the month for good."""
    if kind == WaiverKind.SOURCE:
        return Source.objects.filter(uid=subject_uid).exists()
    return kind == WaiverKind.DISPUTE and Dispute.objects.filter(uid=subject_uid).exists()


@transaction.atomic
def waive(
    period_id: int,
    kind: str,
    *,
    reason: str,
    actor: Actor,
    cluster_id: int | None = None,
    hours_from: datetime | None = None,
    hours_until: datetime | None = None,
    subject_uid: UUID | None = None,
    expected_version: int | None = None,
) -> PeriodWaiver:
    """Waive, by name, what the close of a month would wait for; without a cluster, hours or subject: all of that kind.

    Raises NotVisible, NotAllowed, Conflict (not closing), Invalid for an unknown kind (identities cannot be waived), a
    reason that says too little, or hours outside the month.
    """
    period = _locked(period_id, expected_version)
    user = _finance(actor, period)
    _must_be(period, PeriodStatus.CLOSING)
    text = checked_text(reason)
    if kind not in WaiverKind.values:
        raise Invalid({"kind": "This cannot be waived."})
    cluster = Cluster.objects.filter(pk=cluster_id).first() if cluster_id is not None else None
    if cluster_id is not None and cluster is None:
        raise Invalid({"cluster": "There is no such cluster."})
    if (hours_from or hours_until) and kind != WaiverKind.HOURS:
        raise Invalid({"hours_from": "Only hours are waived from one time to another."})
    if subject_uid is not None and not _can_name(kind, subject_uid):
        raise Invalid({"subject_uid": "There is no such source or dispute: follow the checklist, or leave it empty."})
    low, high = hours_from or period.start, hours_until or period.end
    if not period.start <= low < high <= period.end:
        raise Invalid({"hours_until": f"The hours must lie in {period} and end after they begin."})
    waiver = PeriodWaiver.objects.create(
        period=period, kind=kind, cluster=cluster, hours_from=hours_from, hours_until=hours_until,
        subject_uid=subject_uid, reason=text, waived_by=user,
    )  # fmt: skip
    period.bump()
    hours = f"{formats.datetime_utc(low)} to {formats.datetime_utc(high)}" if kind == WaiverKind.HOURS else ""
    audit.record(
        events.WAIVED,
        events.PeriodWaived(
            period.uid, str(period), kind, cluster.slug if cluster else "", hours, str(subject_uid or ""), text
        ),
        actor=actor,
        subject_type="costs.period",
        subject_uid=period.uid,
    )
    return waiver


def close(period_id: int, *, actor: Actor, expected_version: int | None = None, preview: str = "") -> Period:
    """Confirm the close of a month: a worker freezes it soon (the sweep guarantees it), once.

    `preview`: digest of the preview that the person had before them; the closed month says whether it is the same.

    Raises NotVisible, NotAllowed, Conflict (not closing, or being frozen), Invalid naming what still blocks. The
    checklist is read before the row is locked, since it takes long; the freeze reads it again under the lock.
    """
    found = Period.objects.filter(pk=period_id).first()
    if found is None:
        raise NotVisible
    _finance(actor, found)
    _must_be(found, PeriodStatus.CLOSING)
    blocking = blockers(checklist(found))
    if blocking:
        raise Invalid({"": [f"{item.title}: {item.detail}" for item in blocking]})
    with transaction.atomic():
        period = _locked(period_id, expected_version)
        _finance(actor, period)
        _must_be(period, PeriodStatus.CLOSING)
        running_marks.confirm(period, preview)
        period.closed_by_id = actor.user_id
        period.freeze_state, period.freeze_error = FileStatus.QUEUED, ""
        period.bump("closed_by", "freeze_state", "freeze_error")
        _record(events.CLOSE_CONFIRMED, period, actor, tell=False)
        from apps.costs import tasks

        nudge(tasks.freeze_due)
    return period


__all__ = ["MANAGE", "SETTLES_AFTER", "back_to_open", "close", "start_closing", "waive"]
