"""What the bell and the settings page need."""

from __future__ import annotations

from typing import Any

from apps.core import events
from apps.notifications.choices import ALWAYS_MAILED, MailWish, group_label
from apps.notifications.models import MailPreference, Notification
from apps.notifications.querysets import NotificationQuerySet

#: The bell counts no further; "99+" is as good as any larger number.
BELL_LIMIT = 100


def unread(user: Any) -> NotificationQuerySet:
    """Return what the person has not read, at most BELL_LIMIT of it."""
    rows = Notification.objects.visible_to(user).unread()
    return Notification.objects.filter(pk__in=rows.order_by()[:BELL_LIMIT].values("pk"))


def unread_count(user: Any) -> int:
    """Return how many notifications the person has not read, at most BELL_LIMIT."""
    return unread(user).count()


def mail_groups() -> list[tuple[str, str]]:
    """Return (group, label) of every group that has an event sent by mail, and that a person may do without."""
    groups = {event.name.partition(".")[0] for event in events.all_events() if event.mail} - ALWAYS_MAILED
    return sorted(((group, group_label(group)) for group in groups), key=lambda pair: pair[1])


def wishes(user: Any) -> dict[str, str]:
    """Return what the person wants by mail, per group; immediately where nothing was chosen."""
    stored = dict(MailPreference.objects.visible_to(user).values_list("group", "wish"))
    return {group: stored.get(group, MailWish.IMMEDIATELY) for group, _ in mail_groups()}
