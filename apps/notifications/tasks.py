"""Thin: the sweeps of the notifications room."""

from __future__ import annotations

from datetime import timedelta

from apps.core.sweeps import sweep
from apps.notifications import delivery, webhook_delivery


@sweep("notifications.deliver_outbox", every=timedelta(seconds=10))
def deliver_outbox() -> int:
    """Bring the outbox to people: notifications first, then mail."""
    return delivery.spread_due() + delivery.send_due()


@sweep("notifications.send_webhooks", every=timedelta(seconds=10))
def send_webhooks() -> int:
    """Bring deliveries to webhooks; apart from mail, so that a slow receiver holds up none."""
    return webhook_delivery.send_due()


@sweep("notifications.forget_deliveries", every=timedelta(hours=6))
def forget_deliveries() -> int:
    """Remove deliveries that ended longer ago than they are kept."""
    return webhook_delivery.forget()
