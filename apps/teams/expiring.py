"""Notices before a role ends: to the person, and to whoever could extend it."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import transaction
from django.urls import reverse

from apps import audit
from apps.core import outbox
from apps.core.actor import Actor
from apps.teams import people_events, reviewing, scope
from apps.teams.ending import where_of
from apps.teams.models import RoleGrant


def ending_soon(at: datetime) -> list[int]:
    """Return the keys of the roles given by hand whose notice may be due, the nearest end first."""
    rows = RoleGrant.objects.in_force().filter(
        expires_at__lte=at + timedelta(days=max(reviewing.LADDER)), mapping__isnull=True
    )
    return list(rows.order_by("expires_at", "pk").values_list("pk", flat=True))


@transaction.atomic
def notify(grant_id: int, at: datetime) -> bool:
    """Send the notice that is due, once, under the row's lock; False where none is (any more)."""
    given = RoleGrant.objects.in_force().select_for_update(of=("self",)).filter(pk=grant_id).first()
    if given is None or given.expires_at is None:
        return False
    since = given.starts_at or given.created_at
    days = reviewing.due_reminder(since, given.expires_at, given.noticed_days, at)
    if days is None:
        return False
    given.noticed_days = days
    given.save(update_fields=["noticed_days"])
    _, name, team_uid = where_of(given)
    payload = people_events.RoleEnding(
        given.role, name, given.user.uid, given.expires_at, days,
        reverse("teams:why", kwargs={"user_uid": given.user.uid}),
    )  # fmt: skip
    audit.record(
        people_events.ROLE_ENDING, payload, actor=Actor.system("teams.ending_roles"), subject_type="accounts.user",
        subject_uid=given.user.uid, team_uid=team_uid,
    )  # fmt: skip
    people = {given.user_id, *scope.holders("teams.grant.manage")}
    outbox.publish(people_events.ROLE_ENDING, payload, recipients=people, subject_uid=given.user.uid)
    return True
