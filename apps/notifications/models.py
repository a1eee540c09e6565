"""What people are told: in the portal, and by mail."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models

from apps.core.models import Row
from apps.notifications.choices import MailStatus, MailWish, group_label
from apps.notifications.querysets import MailQuerySet, NotificationQuerySet, PreferenceQuerySet


class Notification(Row):
    """One piece of news for one person, shown in the portal. `message_uid` is the outbox message it came from."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="notifications")
    message_uid = models.UUIDField(editable=False)
    event = models.CharField(max_length=100)
    title = models.CharField(max_length=300)
    body = models.TextField(blank=True)
    path = models.CharField(max_length=500, blank=True, help_text="Where it leads, within the portal.")
    happened_at = models.DateTimeField()
    read_at = models.DateTimeField(null=True)

    objects = NotificationQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["user", "message_uid"], name="notification_once"),
        ]
        indexes: ClassVar = [
            models.Index(fields=["user", "-id"], name="notification_of_user"),
            models.Index(fields=["user"], name="notification_unread", condition=models.Q(read_at__isnull=True)),
        ]

    def __str__(self) -> str:
        return self.title

    @property
    def group_label(self) -> str:
        """The name of the group its event belongs to."""
        return group_label(self.event.partition(".")[0])


class SentMail(Row):
    """One mail to one person about one outbox message: at most one ever exists, and it is sent at most once."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="mail")
    message_uid = models.UUIDField(editable=False)
    event = models.CharField(max_length=100)
    address = models.EmailField(max_length=254, help_text="Where it went, as it was then.")
    subject = models.CharField(max_length=300)
    body_text = models.TextField()
    body_html = models.TextField()
    header_id = models.CharField(max_length=255, help_text="The Message-ID header.")
    status = models.CharField(max_length=20, choices=MailStatus.choices, default=MailStatus.QUEUED)
    attempts = models.PositiveIntegerField(default=0)
    claimed_until = models.DateTimeField(null=True)
    retry_at = models.DateTimeField(null=True)
    sent_at = models.DateTimeField(null=True)
    error = models.TextField(blank=True)

    objects = MailQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["user", "message_uid"], name="mail_once")]
        indexes: ClassVar = [
            models.Index(fields=["user", "-id"], name="mail_of_user"),
            models.Index(
                fields=["status", "retry_at"],
                name="mail_unfinished",
                condition=models.Q(status__in=["queued", "retrying", "sending"]),
            ),
        ]

    def __str__(self) -> str:
        return self.subject


class MailPreference(Row):
    """What a person wants by mail of one group of events; without a row: immediately."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="mail_preferences")
    group = models.CharField(max_length=50)
    wish = models.CharField(max_length=20, choices=MailWish.choices)

    objects = PreferenceQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["user", "group"], name="preference_once")]
