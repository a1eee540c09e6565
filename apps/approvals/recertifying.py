"""Grants that end: notices 30 and 7 days before and at the end, the room prepares and hears. Usable is never stored."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from django.db import transaction
from django.db.models import Q

from apps.approvals import deciders, events, notices, ports
from apps.approvals.models import Grant
from apps.core import clock
from apps.core.actor import Actor
from apps.teams.choices import Role

#: So many days before the end; a grant shorter than that gets no such notice.
LADDER: Final = (30, 7)


def due_notice(not_before: datetime, expires_at: datetime, noticed_days: int | None, at: datetime) -> int | None:
    """Return which notice (days before the end) is due at `at` and was not sent yet; None where none is.

    Only the nearest one: after an outage nobody hears "30 days" with five left.
    """
    if at >= expires_at:
        return None
    due = [days for days in LADDER if at >= expires_at - timedelta(days=days) > not_before]
    nearest = min(due, default=None)
    return nearest if nearest is not None and (noticed_days is None or noticed_days > nearest) else None


def ending(at: datetime) -> list[int]:
    """Return the keys of the grants whose notice or end may be due, the nearest end first."""
    rows = Grant.objects.filter(
        Q(expires_at__lte=at + timedelta(days=max(LADDER))) | Q(revoked_at__isnull=False),
        end_handled_at__isnull=True,
        subject_type__in=ports.hears_of_ends(),
    )
    return list(rows.order_by("expires_at", "pk").values_list("pk", flat=True))


@transaction.atomic
def attend(grant_id: int, *, actor: Actor) -> bool:
    """Send the notice that is due, or tell the room that the grant has ended: each once, under the row's lock.

    False where nothing is due (any more), so any number of sweeps at once do no harm.
    """
    grant = Grant.objects.select_for_update(of=("self",)).filter(pk=grant_id, end_handled_at__isnull=True).first()
    if grant is None:
        return False
    at, request = clock.now(), grant.request
    ended = grant.revoked_at is not None or (grant.expires_at is not None and grant.expires_at <= at)
    if not ended:
        if grant.expires_at is None:
            return False
        days = due_notice(grant.not_before, grant.expires_at, grant.noticed_days, at)
        if days is None:
            return False
        grant.noticed_days = days
        grant.save(update_fields=["noticed_days"])
        if not _renewed(grant, at):
            _tell_ending(grant, days, at, actor)
        return True
    grant.end_handled_at, grant.noticed_days = at, 0
    grant.save(update_fields=["end_handled_at", "noticed_days"])
    ports.tell_ended(grant)
    people = set() if _renewed(grant, at) else notices.concerned(request)
    notices.tell_of_grant(events.GRANT_ENDED, grant, people, actor=actor)
    return True


def _tell_ending(grant: Grant, days: int, at: datetime, actor: Actor) -> None:
    """Have the room prepare the renewal, tell the people concerned, and late in time those above them as well."""
    request = grant.request
    subject, people = ports.get_subject(request.subject_type), notices.concerned(request)
    prepared = None
    if isinstance(subject, ports.Recertified):
        prepared = subject.on_ending(request.subject_uid, grant, at)
        if prepared is not None and prepared.waiting and days == min(LADDER):
            people |= notices.watchers(request) | set(deciders.holders(Role.UNIT_OWNER, request.unit_id))
            subject.on_escalated(request.subject_uid, grant, at)
    notices.tell_of_grant(
        events.GRANT_ENDING, grant, people, actor=actor, note=prepared.note if prepared is not None else "",
        renewal_path=prepared.path if prepared is not None else "",
    )  # fmt: skip


def _renewed(grant: Grant, at: datetime) -> bool:
    subject = ports.get_subject(grant.request.subject_type)
    return isinstance(subject, ports.Renewable) and subject.renewed(grant.request.subject_uid, at)
