"""What people do with their notifications and mail."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from django.db import transaction

from apps.accounts.models import User
from apps.audit.actions import record
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Invalid, NotAllowed, NotVisible
from apps.core.permissions import may
from apps.notifications import selectors
from apps.notifications.choices import MAIL_TRANSITIONS, MailWish
from apps.notifications.events import MAIL_RETRIED, PREFERENCES_CHANGED, MailRetried, PreferencesChanged
from apps.notifications.models import MailPreference, Notification, SentMail

#: Asked for sending a failed mail once more.
RETRY_PERMISSION = "notifications.mail.retry"


def _person(actor: Actor) -> User:
    """Return the person behind the actor. Raises NotVisible for the portal itself, which has no notifications."""
    if actor.user_id is None:
        raise NotVisible
    person = User.objects.filter(pk=actor.user_id, is_active=True).first()
    if person is None:
        raise NotVisible
    return person


@transaction.atomic
def mark_read(notification_uid: uuid.UUID, *, actor: Actor) -> Notification:
    """Mark one of the person's own notifications as read; again is harmless. Raises NotVisible for anybody else's.

    Not audited: that somebody looked at their own news changes nothing for anybody.
    """
    row = Notification.objects.visible_to(_person(actor)).select_for_update().filter(uid=notification_uid).first()
    if row is None:
        raise NotVisible
    if row.read_at is None:
        row.read_at = clock.now()
        row.save(update_fields=["read_at"])
    return row


@transaction.atomic
def mark_all_read(*, actor: Actor) -> int:
    """Mark all of the person's notifications as read; returns how many were not."""
    return Notification.objects.visible_to(_person(actor)).unread().update(read_at=clock.now())


@transaction.atomic
def set_preferences(wishes: Mapping[str, str], *, actor: Actor) -> list[MailPreference]:
    """Store what the person wants by mail, per group. Raises Invalid for an unknown group or wish."""
    person = _person(actor)
    known = dict(selectors.mail_groups())
    for group, wish in wishes.items():
        if group not in known:
            raise Invalid({group: "There is no such group of events."})
        if wish not in MailWish.values:
            raise Invalid({group: f"Choose one of: {', '.join(MailWish.values)}."})
    rows = [
        MailPreference.objects.update_or_create(user=person, group=group, defaults={"wish": wish})[0]
        for group, wish in sorted(wishes.items())
    ]
    without = sorted(group for group, wish in selectors.wishes(person).items() if wish == MailWish.NONE)
    record(
        PREFERENCES_CHANGED,
        PreferencesChanged(without_mail=without),
        actor=actor,
        subject_type="accounts.user",
        subject_uid=person.uid,
    )
    return rows


@transaction.atomic
def retry_mail(mail_uid: uuid.UUID, *, actor: Actor) -> SentMail:
    """Queue a mail once more that failed or may be lost.

    Raises NotVisible, NotAllowed without the permission, Conflict where it is on its way or was sent.
    """
    person = _person(actor)
    visible = SentMail.objects.visible_to(person).filter(uid=mail_uid).first()
    if visible is None:
        raise NotVisible
    if not may(person, RETRY_PERMISSION):
        raise NotAllowed("Only a platform admin sends a mail again.", rule=RETRY_PERMISSION)
    mail = SentMail.objects.locked(visible.pk)
    mail.status = MAIL_TRANSITIONS.next(mail.status, "retry")
    mail.attempts, mail.retry_at, mail.error = 0, None, ""
    mail.save(update_fields=["status", "attempts", "retry_at", "error"])
    record(
        MAIL_RETRIED,
        MailRetried(event=mail.event),
        actor=actor,
        subject_type="notifications.mail",
        subject_uid=mail.uid,
    )
    return mail
