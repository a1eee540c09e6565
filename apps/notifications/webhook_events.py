"""What is recorded and told about webhooks. Addresses may hold keys in their path: events name the host alone."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from apps.core.events import declare
from apps.core.exports import Exported
from apps.notifications.querysets import TEST_EVENT


@dataclass(frozen=True, slots=True)
class WebhookChanged:
    """A webhook as it is now, and which of its fields were changed."""

    webhook: str
    host: str
    events: list[str]
    include_texts: bool
    enabled: bool
    changed: list[str]


@dataclass(frozen=True, slots=True)
class WebhookTested:
    """A test event: what a receiver gets to see that it is reached."""

    webhook_uid: uuid.UUID
    webhook: str


@dataclass(frozen=True, slots=True)
class DeliveryReplayed:
    """Somebody had a delivery sent once more."""

    webhook: str
    event: str
    message_uid: uuid.UUID


@dataclass(frozen=True, slots=True)
class WebhookGone:
    """A receiver said that it is gone for good, and its webhook was disabled."""

    webhook: str
    host: str
    path: str


@dataclass(frozen=True, slots=True)
class DeliveryFailed:
    """A delivery was given up after its last attempt. `since`: when the receiver began to fail."""

    webhook: str
    host: str
    event: str
    message_uid: uuid.UUID
    since: str
    path: str


_ADMINS = "platform admins"
WEBHOOK_CREATED = declare("notifications.webhook.created", WebhookChanged, audience="auditors")
WEBHOOK_EDITED = declare("notifications.webhook.edited", WebhookChanged, audience="auditors")
WEBHOOK_ENABLED = declare("notifications.webhook.enabled", WebhookChanged, audience="auditors")
WEBHOOK_DISABLED = declare("notifications.webhook.disabled", WebhookChanged, audience="auditors")
SECRET_ROTATED = declare("notifications.webhook.secret_rotated", WebhookChanged, audience="auditors")
WEBHOOK_TESTED = declare(TEST_EVENT, WebhookTested, audience="auditors")
DELIVERY_REPLAYED = declare("notifications.delivery.replayed", DeliveryReplayed, audience="auditors")
DELIVERIES_EXPORTED = declare("notifications.delivery.exported", Exported, audience="auditors")
WEBHOOK_GONE = declare(
    "notifications.webhook.gone",
    WebhookGone,
    audience=_ADMINS,
    mail=True,
    headline=lambda p: f"Webhook {p.webhook} was disabled: its receiver is gone",
    body=lambda p: f"{p.host} answered 410 Gone. What happens from now on is not sent there until it is enabled again.",
    path=lambda p: p.path,
)
DELIVERY_FAILED = declare(
    "notifications.delivery.failed",
    DeliveryFailed,
    audience=_ADMINS,
    mail=True,
    headline=lambda p: f"Webhook {p.webhook} does not reach {p.host}",
    body=lambda p: (
        f"A delivery ({p.event}) was given up after its last attempt. It is kept, and so is what fails after it: replay"
        " them once the receiver answers. You are told again only after something has arrived in between."
    ),
    path=lambda p: p.path,
)
