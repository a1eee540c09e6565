"""What people and other systems are told: in the portal, by mail, by webhook."""

from __future__ import annotations

from typing import ClassVar
from urllib.parse import urlsplit

from django.conf import settings
from django.db import models

from apps.core.models import Row, VersionedRow
from apps.notifications import attachments
from apps.notifications.choices import MailStatus, MailWish, WebhookStatus, group_label
from apps.notifications.querysets import (
    DeliveryQuerySet,
    MailQuerySet,
    NotificationQuerySet,
    PreferenceQuerySet,
    WebhookQuerySet,
)


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
    # The database fills them in, too: a worker of the version before writes mail while an installation is upgraded.
    attachment_kind = models.CharField(
        max_length=60, blank=True, default="", db_default="", help_text="Which room's file goes with it."
    )
    attachment_uid = models.UUIDField(null=True)
    attachment_name = models.CharField(
        max_length=200, blank=True, default="", db_default="", help_text="The file that went with it."
    )
    attachment_sha256 = models.CharField(max_length=64, blank=True, default="", db_default="")
    attachment_note = models.CharField(
        max_length=300, blank=True, default="", db_default="", help_text="What it said about its file."
    )

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

    @property
    def text(self) -> str:
        """The text as it went out, with its line about the attachment."""
        return attachments.text_with(self.body_text, self.attachment_note)


class MailPreference(Row):
    """What a person wants by mail of one group of events; without a row: immediately."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="mail_preferences")
    group = models.CharField(max_length=50)
    wish = models.CharField(max_length=20, choices=MailWish.choices)

    objects = PreferenceQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["user", "group"], name="preference_once")]


class Webhook(VersionedRow):
    """A system outside that receives events as signed CloudEvents."""

    name = models.CharField(max_length=120)
    url = models.CharField(max_length=500)
    secret = models.BinaryField(help_text="Encrypted (core.crypto); signs every delivery.")
    events: models.JSONField = models.JSONField(default=list, help_text="Names of events, or of groups (rooms).")
    enabled = models.BooleanField(default=True)
    include_texts = models.BooleanField(default=False, help_text="Also what people wrote, and names and addresses.")
    ended_reason = models.CharField(max_length=300, blank=True, help_text="Why the portal itself disabled it.")
    failing_since = models.DateTimeField(null=True)
    last_error = models.CharField(max_length=500, blank=True)
    last_delivered_at = models.DateTimeField(null=True)

    objects = WebhookQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["name"], name="webhook_name")]

    def __str__(self) -> str:
        return self.name

    @property
    def host(self) -> str:
        """Scheme and host: all of the address that may be told to others, as its path may hold a key."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def state(self) -> str:
        """How it stands, in words of the status scale."""
        if not self.enabled:
            return "stopped" if self.ended_reason else "none"
        return "degraded" if self.failing_since else "active"

    def wants(self, event: str) -> bool:
        """Whether it receives an event: it chose its name or its group."""
        return event in self.events or event.partition(".")[0] in self.events


class WebhookDelivery(Row):
    """One outbox message on its way to one webhook. Its `uid` is the delivery id, the same at every attempt."""

    webhook = models.ForeignKey(Webhook, models.PROTECT, related_name="deliveries")
    message_uid = models.UUIDField(editable=False)
    event = models.CharField(max_length=100)
    body = models.BinaryField(help_text="The exact bytes that are signed and sent.")
    status = models.CharField(max_length=20, choices=WebhookStatus.choices, default=WebhookStatus.QUEUED)
    attempts = models.PositiveIntegerField(default=0)
    claim = models.UUIDField(null=True, help_text="Of the attempt under way.")
    claimed_until = models.DateTimeField(null=True)
    retry_at = models.DateTimeField(null=True)
    headers: models.JSONField = models.JSONField(default=dict, help_text="Sent with the last attempt.")
    answer_status = models.PositiveSmallIntegerField(null=True)
    error = models.TextField(blank=True)
    delivered_at = models.DateTimeField(null=True)

    objects = DeliveryQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["webhook", "message_uid"], name="webhook_delivery_once"),
        ]
        indexes: ClassVar = [
            models.Index(fields=["webhook", "-id"], name="delivery_of_webhook"),
            models.Index(
                fields=["status", "retry_at"],
                name="delivery_unfinished",
                condition=models.Q(status__in=["queued", "retrying", "sending"]),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.event} to {self.webhook}"

    @property
    def body_text(self) -> str:
        """The body as text."""
        return bytes(self.body).decode()
