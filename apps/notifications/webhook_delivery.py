"""From the outbox to other systems: at least once, under a delivery id that never changes.

A delivery is claimed in one transaction, posted outside any, and recorded in another, unless its claim has moved on.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Collection
from dataclasses import dataclass

from django.conf import settings
from django.db import transaction
from django.urls import reverse

from apps.audit.actions import record as audit_record
from apps.core import clock, crypto, events, outbox, outgoing
from apps.core.actor import Actor
from apps.core.models import OutboxMessage
from apps.core.permissions import holders_of
from apps.notifications import webhook_body, webhook_events
from apps.notifications.choices import CLAIM, WEBHOOK_ATTEMPTS, WEBHOOK_TRANSITIONS, WebhookStatus, backoff
from apps.notifications.models import Webhook, WebhookDelivery

logger = logging.getLogger(__name__)
MANAGE = "notifications.webhook.manage"
#: One run of the sweep posts at most so much, and starts nothing after so many seconds.
DELIVERIES_A_RUN, SECONDS_A_RUN = 200, 60.0
GONE = 410


def spread(message: OutboxMessage) -> int:
    """Queue a locked message for every webhook that chose its event; returns how many. Again changes nothing."""
    receivers = [one for one in Webhook.objects.filter(enabled=True).order_by("pk") if one.wants(message.event)]
    if not receivers:
        return 0
    event = events.get(message.event)
    rows = []
    for webhook in receivers:
        data = message.payload if webhook.include_texts else events.without_texts(event, message.payload)
        body = webhook_body.build(
            message_uid=message.uid, source=settings.COMMONS_BASE_URL, event=message.event, at=message.created_at,
            subject_uid=message.subject_uid, data=data,
        )  # fmt: skip
        rows.append(WebhookDelivery(webhook=webhook, message_uid=message.uid, event=message.event, body=body))
    WebhookDelivery.objects.bulk_create(rows, ignore_conflicts=True)
    return len(rows)


def send_due(limit: int = DELIVERIES_A_RUN) -> int:
    """Post every due delivery, one claim at a time; returns how many moved on.

    A receiver that does not answer is left alone for the rest of the run: its next delivery would wait as long.
    """
    moved = take_back_lost()
    silent: set[int] = set()
    end = time.monotonic() + SECONDS_A_RUN
    for _ in range(limit):
        if time.monotonic() > end:
            break
        delivery = claim(without=silent)
        if delivery is None:
            break
        outcome = attempt(delivery)
        record(delivery, outcome)
        moved += 1
        if outcome.status is None:
            silent.add(delivery.webhook_id)
    return moved


def claim(*, without: Collection[int] = ()) -> WebhookDelivery | None:
    """Take one due delivery for this worker, with the headers it is sent with; None where nothing is due."""
    with transaction.atomic():
        due = WebhookDelivery.objects.due().exclude(webhook__in=without).select_related("webhook")
        row = due.select_for_update(skip_locked=True, of=("self",)).order_by("id").first()
        if row is None:
            return None
        row.status = WEBHOOK_TRANSITIONS.next(row.status, "claim")
        row.attempts += 1
        row.claim, row.claimed_until, row.retry_at = uuid.uuid4(), clock.now() + CLAIM, None
        row.save(update_fields=["status", "attempts", "claim", "claimed_until", "retry_at"])
        return row


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one attempt: the answer's status (None: no answer), what was wrong, and what was sent along."""

    status: int | None
    error: str
    headers: dict[str, str]

    @property
    def delivered(self) -> bool:
        """Whether the receiver took it (2xx)."""
        return self.status is not None and 200 <= self.status < 300


def attempt(delivery: WebhookDelivery) -> Outcome:
    """Post a claimed delivery. Whatever goes wrong is an outcome, never an exception."""
    webhook, body = delivery.webhook, bytes(delivery.body)
    try:
        headers = webhook_body.headers(crypto.decrypt(webhook.secret), delivery.uid, clock.now(), body)
    except crypto.CannotDecrypt:
        return Outcome(None, "The webhook's secret cannot be opened with the keys in force.", {})
    try:
        answer = outgoing.post(webhook.url, body, headers)
    except outgoing.CallRefused as error:
        return Outcome(None, f"Not sent: {error}.", {})
    except outgoing.CallFailed as error:
        return Outcome(None, f"{str(error)[:1].upper()}{str(error)[1:]}.", headers)
    if 200 <= answer.status < 300:
        return Outcome(answer.status, "", headers)
    what = "a redirect, which is not followed" if 300 <= answer.status < 400 else answer.excerpt.strip()[:500]
    return Outcome(answer.status, f"HTTP {answer.status}{': ' if what else ''}{what}", headers)


def record(delivery: WebhookDelivery, outcome: Outcome) -> None:
    """Write down what became of an attempt; nothing where the claim has moved on to another worker or a person."""
    with transaction.atomic():
        webhook = Webhook.objects.select_for_update().get(pk=delivery.webhook_id)
        row = WebhookDelivery.objects.select_for_update().filter(pk=delivery.pk).first()
        if row is None or row.status != WebhookStatus.SENDING or row.claim != delivery.claim:
            logger.warning("a delivery's claim moved on before its outcome was known", extra={"uid": str(delivery.uid)})
            return
        action = _action(row, outcome)
        _move(row, action, outcome)
        _note(webhook, outcome)
        if outcome.status == GONE and webhook.enabled:
            _disable_gone(webhook)
        elif action == "give_up":
            _tell_failed(webhook, row)


def _action(row: WebhookDelivery, outcome: Outcome) -> str:
    if outcome.delivered:
        return "deliver"
    return "give_up" if outcome.status == GONE or row.attempts >= WEBHOOK_ATTEMPTS else "again"


def _move(row: WebhookDelivery, action: str, outcome: Outcome) -> None:
    now = clock.now()
    row.status = WEBHOOK_TRANSITIONS.next(row.status, action)
    row.claim = row.claimed_until = None
    row.retry_at = now + backoff(row.attempts) if action == "again" else None
    row.delivered_at = now if action == "deliver" else None
    row.answer_status, row.error, row.headers = outcome.status, outcome.error, outcome.headers
    row.save(
        update_fields=[
            "status", "claim", "claimed_until", "retry_at", "delivered_at", "answer_status", "error", "headers",
        ]
    )  # fmt: skip


def _note(webhook: Webhook, outcome: Outcome) -> None:
    # How it goes is no change of the webhook: its version stays, so that nobody's open form is refused.
    now = clock.now()
    if outcome.delivered:
        webhook.last_delivered_at, webhook.failing_since, webhook.last_error = now, None, ""
    else:
        webhook.failing_since, webhook.last_error = webhook.failing_since or now, outcome.error[:500]
    webhook.save(update_fields=["last_delivered_at", "failing_since", "last_error"])


def _disable_gone(webhook: Webhook) -> None:
    webhook.enabled = False
    webhook.ended_reason = f"{webhook.host} answered 410 Gone: nothing is there any more."[:300]
    webhook.bump("enabled", "ended_reason")
    path = reverse("notifications:webhook-detail", kwargs={"webhook_uid": webhook.uid})
    payload = webhook_events.WebhookGone(webhook.name, webhook.host, path)
    audit_record(
        webhook_events.WEBHOOK_GONE, payload, actor=Actor.system("notifications.send_webhooks"),
        subject_type="notifications.webhook", subject_uid=webhook.uid,
    )  # fmt: skip
    outbox.publish(
        webhook_events.WEBHOOK_GONE, payload, recipients=holders_of(MANAGE), subject_uid=webhook.uid
    )  # fmt: skip


def _tell_failed(webhook: Webhook, row: WebhookDelivery) -> None:
    """Tell the admins that a delivery was given up: once until something arrives again, not once a delivery.

    Under the lock of the webhook, after `_note`.
    """
    event = webhook_events.DELIVERY_FAILED
    since = webhook.failing_since.isoformat() if webhook.failing_since is not None else ""
    if OutboxMessage.objects.filter(event=event.name, subject_uid=webhook.uid, payload__since=since).exists():
        return
    path = reverse("notifications:webhook-detail", kwargs={"webhook_uid": webhook.uid})
    payload = webhook_events.DeliveryFailed(webhook.name, webhook.host, row.event, row.message_uid, since, path)
    audit_record(
        event, payload, actor=Actor.system("notifications.send_webhooks"), subject_type="notifications.webhook",
        subject_uid=webhook.uid,
    )  # fmt: skip
    outbox.publish(event, payload, recipients=holders_of(MANAGE), subject_uid=webhook.uid)


def forget(limit: int = 10_000) -> int:
    """Remove deliveries that ended longer ago than they are kept; returns how many."""
    found = list(WebhookDelivery.objects.old().order_by("pk").values_list("pk", flat=True)[:limit])
    return WebhookDelivery.objects.old().filter(pk__in=found).delete()[0]


def take_back_lost() -> int:
    """Put deliveries whose worker died back in line: they may have arrived, and receivers know them by their id."""
    moved = 0
    for pk in list(WebhookDelivery.objects.lost().order_by("pk").values_list("pk", flat=True)):
        with transaction.atomic():
            row = WebhookDelivery.objects.lost().select_for_update(skip_locked=True).filter(pk=pk).first()
            if row is None:
                continue
            action = "give_up" if row.attempts >= WEBHOOK_ATTEMPTS else "again"
            row.status = WEBHOOK_TRANSITIONS.next(row.status, action)
            row.claim = row.claimed_until = None
            row.retry_at = clock.now() if action == "again" else None
            row.error = "The worker stopped while it sent this; it may have arrived."
            row.save(update_fields=["status", "claim", "claimed_until", "retry_at", "error"])
            moved += 1
        if action == "give_up":
            # Apart: everybody else locks the webhook before its deliveries.
            with transaction.atomic():
                webhook = Webhook.objects.select_for_update().get(pk=row.webhook_id)
                _note(webhook, Outcome(None, row.error, {}))
                _tell_failed(webhook, row)
    return moved
