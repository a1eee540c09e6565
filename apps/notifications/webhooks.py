"""What platform admins do with webhooks. Secrets are shown once, when they are made, and never again."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.db import IntegrityError, transaction

from apps.accounts.models import User
from apps.audit.actions import record
from apps.core import clock, crypto, events, outgoing
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.events import EventType
from apps.core.permissions import INSTALLATION, may
from apps.notifications import webhook_body, webhook_events
from apps.notifications.choices import WEBHOOK_TRANSITIONS, group_label
from apps.notifications.models import Webhook, WebhookDelivery
from apps.notifications.querysets import TEST_EVENT
from apps.notifications.webhook_delivery import MANAGE

SECRET_PREFIX = "whsec_"  # noqa: S105 (the mark by which a secret is recognised, no secret)
EDITABLE = ("name", "url", "events", "include_texts")


@dataclass(frozen=True, slots=True)
class NewSecret:
    """A webhook with its new secret, which is shown once."""

    webhook: Webhook
    secret: str


def told_events() -> list[EventType]:
    """Return the events that can be chosen: those that reach somebody, unlike entries of the audit trail alone."""
    return [event for event in events.all_events() if event.audience != "auditors"]


def told_groups() -> list[tuple[str, str]]:
    """Return (group, label) of the groups that can be chosen."""
    groups = {event.name.partition(".")[0] for event in told_events()}
    return sorted(((group, group_label(group)) for group in groups), key=lambda pair: pair[1])


@transaction.atomic
def create_webhook(
    name: str, url: str, chosen: Sequence[str], *, actor: Actor, include_texts: bool = False, enabled: bool = True
) -> NewSecret:
    """Have the chosen events (names or groups) posted to `url` from now on. Raises NotAllowed, Invalid."""
    _require(actor)
    values = _checked({"name": name, "url": url, "events": chosen, "include_texts": include_texts})
    secret = _new_secret()
    try:
        with transaction.atomic():
            webhook = Webhook.objects.create(secret=crypto.encrypt(secret), enabled=enabled, **values)
    except IntegrityError as error:
        raise Invalid({"name": _TAKEN}) from error
    _record(webhook_events.WEBHOOK_CREATED, webhook, actor)
    return NewSecret(webhook, secret)


@transaction.atomic
def edit_webhook(webhook_id: int, *, actor: Actor, expected_version: int | None = None, **changes: Any) -> Webhook:
    """Change a webhook (`EDITABLE`); what is queued already keeps its body and goes to the new address.

    Raises NotVisible, NotAllowed, Conflict, Invalid.
    """
    webhook = _locked(webhook_id, actor, expected_version)
    if unknown := sorted(set(changes) - set(EDITABLE)):
        raise Invalid({unknown[0]: "This cannot be changed."})
    values = _checked(changes)
    names = sorted(name for name, value in values.items() if getattr(webhook, name) != value)
    if not names:
        return webhook
    for name in names:
        setattr(webhook, name, values[name])
    try:
        with transaction.atomic():
            webhook.bump(*names)
    except IntegrityError as error:
        raise Invalid({"name": _TAKEN}) from error
    _record(webhook_events.WEBHOOK_EDITED, webhook, actor, changed=names)
    return webhook


@transaction.atomic
def enable_webhook(webhook_id: int, *, actor: Actor, expected_version: int | None = None) -> Webhook:
    """Send again: what waits now, and what happens from now on. Raises NotVisible, NotAllowed, Conflict."""
    webhook = _locked(webhook_id, actor, expected_version)
    if webhook.enabled:
        raise Conflict("This webhook is enabled already.", current={"enabled": True})
    webhook.enabled, webhook.ended_reason, webhook.failing_since, webhook.last_error = True, "", None, ""
    webhook.bump("enabled", "ended_reason", "failing_since", "last_error")
    _record(webhook_events.WEBHOOK_ENABLED, webhook, actor)
    return webhook


@transaction.atomic
def disable_webhook(webhook_id: int, *, actor: Actor, expected_version: int | None = None) -> Webhook:
    """Send nothing any more; what waits is kept. Raises NotVisible, NotAllowed, Conflict."""
    webhook = _locked(webhook_id, actor, expected_version)
    if not webhook.enabled:
        raise Conflict("This webhook is disabled already.", current={"enabled": False})
    webhook.enabled = False
    webhook.bump("enabled")
    _record(webhook_events.WEBHOOK_DISABLED, webhook, actor)
    return webhook


@transaction.atomic
def rotate_secret(webhook_id: int, *, actor: Actor, expected_version: int | None = None) -> NewSecret:
    """Make a new secret; every attempt from now on is signed with it, the old one is void at once.

    Raises NotVisible, NotAllowed, Conflict.
    """
    webhook = _locked(webhook_id, actor, expected_version)
    secret = _new_secret()
    webhook.secret = crypto.encrypt(secret)
    webhook.bump("secret")
    _record(webhook_events.SECRET_ROTATED, webhook, actor, changed=["secret"])
    return NewSecret(webhook, secret)


@transaction.atomic
def send_test(webhook_id: int, *, actor: Actor, expected_version: int | None = None) -> WebhookDelivery:
    """Queue a test event for a webhook, enabled or not. Raises NotVisible, NotAllowed, Conflict."""
    webhook = _locked(webhook_id, actor, expected_version)
    message_uid = uuid.uuid4()
    payload = webhook_events.WebhookTested(webhook.uid, webhook.name)
    body = webhook_body.build(
        message_uid=message_uid, source=settings.COMMONS_BASE_URL, event=TEST_EVENT, at=clock.now(),
        subject_uid=webhook.uid, data=webhook_events.WEBHOOK_TESTED.dump(payload),
    )  # fmt: skip
    delivery = WebhookDelivery.objects.create(webhook=webhook, message_uid=message_uid, event=TEST_EVENT, body=body)
    record(
        webhook_events.WEBHOOK_TESTED, payload, actor=actor, subject_type="notifications.webhook",
        subject_uid=webhook.uid,
    )  # fmt: skip
    return delivery


@transaction.atomic
def replay(delivery_id: int, *, actor: Actor) -> WebhookDelivery:
    """Send a delivery once more that arrived or failed: the same bytes under the same id, signed anew.

    Raises NotVisible, NotAllowed, Conflict where it is on its way.
    """
    _require(actor)
    delivery = WebhookDelivery.objects.select_related("webhook").locked(delivery_id)
    delivery.status = WEBHOOK_TRANSITIONS.next(delivery.status, "replay")
    delivery.attempts, delivery.retry_at, delivery.error, delivery.answer_status = 0, None, "", None
    delivery.delivered_at = None
    delivery.save(update_fields=["status", "attempts", "retry_at", "error", "answer_status", "delivered_at"])
    record(
        webhook_events.DELIVERY_REPLAYED,
        webhook_events.DeliveryReplayed(delivery.webhook.name, delivery.event, delivery.message_uid),
        actor=actor, subject_type="notifications.delivery", subject_uid=delivery.uid,
    )  # fmt: skip
    return delivery


_TAKEN = "Another webhook has this name."


def _new_secret() -> str:
    return f"{SECRET_PREFIX}{secrets.token_urlsafe(32)}"


def _require(actor: Actor) -> User:
    found = User.objects.filter(pk=actor.user_id, is_active=True).first() if actor.user_id is not None else None
    if found is None or not may(found, MANAGE, INSTALLATION):
        raise NotAllowed("Webhooks are kept by platform admins.", rule=MANAGE)
    return found


def _locked(webhook_id: int, actor: Actor, expected_version: int | None) -> Webhook:
    if not Webhook.objects.visible_to(_require(actor)).filter(pk=webhook_id).exists():
        raise NotVisible
    return Webhook.objects.locked(webhook_id, expected_version=expected_version)


def _checked(values: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(values)
    errors: dict[str, str] = {}
    if "name" in found:
        found["name"] = " ".join(str(found["name"]).split())
        if not 1 <= len(found["name"]) <= 120:
            errors["name"] = "Give it a name of at most 120 characters."
    if "url" in found:
        found["url"] = str(found["url"]).strip()
        if fault := _url_fault(found["url"]):
            errors["url"] = fault
    if "events" in found:
        found["events"] = sorted(set(map(str, found["events"])))
        known = {group for group, _ in told_groups()} | {event.name for event in told_events()}
        if not found["events"]:
            errors["events"] = "Choose at least one group or event."
        elif unknown := [name for name in found["events"] if name not in known]:
            errors["events"] = f"There is no event or group {', '.join(unknown)}."
    if errors:
        raise Invalid(errors)
    return found


def _url_fault(url: str) -> str:
    if len(url) > 500 or any(character.isspace() or not character.isprintable() for character in url):
        return "An address has at most 500 characters, and no spaces."
    try:
        outgoing.check_address(url)
        scheme = urlsplit(url).scheme
    except (outgoing.CallRefused, ValueError) as error:
        return f"{str(error)[:1].upper()}{str(error)[1:]}."
    if scheme != "https" and settings.COMMONS_ENVIRONMENT == "production":
        return "Give an https:// address: what is sent is signed, not encrypted."
    return ""


def _record(event: EventType, webhook: Webhook, actor: Actor, *, changed: Sequence[str] = ()) -> None:
    payload = webhook_events.WebhookChanged(
        webhook.name, webhook.host, list(webhook.events), webhook.include_texts, webhook.enabled, list(changed)
    )
    record(event, payload, actor=actor, subject_type="notifications.webhook", subject_uid=webhook.uid)
