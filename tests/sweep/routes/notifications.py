"""Routes of the notifications room: everybody their own, and the list of all mail for those who run the portal."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from apps.core import clock, crypto
from apps.notifications.models import Notification, SentMail, Webhook, WebhookDelivery
from tests.sweep.types import EVERYBODY, Route


def build(world: SimpleNamespace) -> None:
    """One piece of news and one failed mail for the Finance team lead; nobody else may read the news."""
    message_uid = uuid.uuid4()
    world.notification = Notification.objects.create(
        user=world.lead_finance, message_uid=message_uid, event="quotas.request.approved",
        title="Okapi request approved", body="By the okapi rule.", path="/words/", happened_at=clock.now(),
    )  # fmt: skip
    world.mail = SentMail.objects.create(
        user=world.lead_finance, message_uid=message_uid, event="quotas.request.approved", address="okapi@example.com",
        subject="Okapi mail", body_text="Okapi text", body_html="<p>Okapi text</p>", header_id="<okapi@example.com>",
        status="failed", error="550 no such person",
    )  # fmt: skip
    world.keep_secret("Okapi request", world.notification.uid, sees={"lead_finance"})
    # Not even those who see every tenant read another person's news.
    for name in ("compliance", "finance", "admin", "auditor"):
        world.secrets[name].extend(["Okapi request", str(world.notification.uid)])
    world.keep_secret("Okapi mail", "okapi@example.com", world.mail.uid, sees={"lead_finance"})
    for name in ("compliance", "finance"):
        world.secrets[name].extend(["Okapi mail", "okapi@example.com"])
    world.webhook = Webhook.objects.create(
        name="Okapi tickets", url="https://okapi-hooks.example.com/key", secret=crypto.encrypt("whsec_okapi"),
        events=["quotas"],
    )  # fmt: skip
    world.delivery = WebhookDelivery.objects.create(
        webhook=world.webhook, message_uid=message_uid, event="quotas.request.approved", status="failed",
        body=b'{"type":"okapi body"}', error="HTTP 500",
    )  # fmt: skip
    world.keep_secret("Okapi tickets", "okapi-hooks", "okapi body", world.webhook.uid, world.delivery.uid)
    for name in ("compliance", "finance"):
        world.secrets[name].extend(["Okapi tickets", "okapi-hooks", "okapi body"])


def _news(world: Any) -> Mapping[str, Any]:
    return {"notification_uid": world.notification.uid}


def _mail(world: Any) -> Mapping[str, Any]:
    return {"mail_uid": world.mail.uid}


def _webhook(world: Any) -> Mapping[str, Any]:
    return {"webhook_uid": world.webhook.uid}


def _delivery(world: Any) -> Mapping[str, Any]:
    return {"delivery_uid": world.delivery.uid}


def _webhook_uid(world: Any) -> Mapping[str, Any]:
    return {"uid": world.webhook.uid}


def _delivery_uid(world: Any) -> Mapping[str, Any]:
    return {"uid": world.delivery.uid}


OWN = {"lead_finance"}
WATCHES_MAIL = {"admin", "auditor"}

ROUTES: dict[str, Route] = {
    "notifications:list": Route(allowed=EVERYBODY),
    "notifications:bell": Route(allowed=EVERYBODY),
    "notifications:settings": Route(allowed=EVERYBODY),
    "notifications:settings#POST": Route(allowed=EVERYBODY, method="POST"),
    "notifications:read-all": Route(allowed=EVERYBODY, method="POST"),
    "notifications:open": Route(allowed=OWN, kwargs=_news, method="POST"),
    "notifications:read": Route(allowed=OWN, kwargs=_news, method="POST"),
    "notifications:mail-list": Route(allowed=EVERYBODY),
    "notifications:sent-mail-list": Route(allowed=WATCHES_MAIL),
    "notifications:sent-mail-list#csv": Route(allowed=WATCHES_MAIL, query="?export=csv"),
    "notifications:mail-detail": Route(allowed=OWN | WATCHES_MAIL, kwargs=_mail),
    "notifications:mail-retry": Route(allowed={"admin"}, kwargs=_mail),
    "notifications:mail-retry#POST": Route(allowed={"admin"}, kwargs=_mail, method="POST"),
    "api:notification-list": Route(allowed=EVERYBODY),
    "api:notification-detail": Route(allowed=OWN, kwargs=lambda world: {"uid": world.notification.uid}),
    "api:notification-read": Route(allowed=OWN, kwargs=lambda world: {"uid": world.notification.uid}, method="POST"),
    "api:notification-read-all": Route(allowed=EVERYBODY, method="POST"),
    "api:sent-mail-list": Route(allowed=EVERYBODY),
    "api:sent-mail-detail": Route(allowed=OWN | WATCHES_MAIL, kwargs=lambda world: {"uid": world.mail.uid}),
    "api:sent-mail-retry": Route(allowed={"admin"}, kwargs=lambda world: {"uid": world.mail.uid}, method="POST"),
    "notifications:webhook-list": Route(allowed=WATCHES_MAIL),
    "notifications:webhook-list#csv": Route(allowed=WATCHES_MAIL, query="?export=csv"),
    "notifications:webhook-detail": Route(allowed=WATCHES_MAIL, kwargs=_webhook),
    "notifications:webhook-create": Route(allowed={"admin"}),
    "notifications:webhook-create#POST": Route(allowed={"admin"}, method="POST"),
    **{
        f"notifications:webhook-{verb}{suffix}": Route(allowed={"admin"}, kwargs=_webhook, method=method)
        for verb in ("edit", "enable", "disable", "rotate", "test")
        for suffix, method in (("", "GET"), ("#POST", "POST"))
    },
    "notifications:webhook-delivery-list": Route(allowed=WATCHES_MAIL),
    "notifications:webhook-delivery-list#csv": Route(allowed=WATCHES_MAIL, query="?export=csv"),
    "notifications:webhook-delivery-detail": Route(allowed=WATCHES_MAIL, kwargs=_delivery),
    "notifications:webhook-delivery-replay": Route(allowed={"admin"}, kwargs=_delivery),
    "notifications:webhook-delivery-replay#POST": Route(allowed={"admin"}, kwargs=_delivery, method="POST"),
    "api:webhook-list": Route(allowed=WATCHES_MAIL),
    "api:webhook-list#POST": Route(allowed={"admin"}, method="POST"),
    "api:webhook-detail": Route(allowed=WATCHES_MAIL, kwargs=_webhook_uid),
    "api:webhook-detail#PATCH": Route(allowed={"admin"}, kwargs=_webhook_uid, method="PATCH"),
    **{
        f"api:webhook-{verb}": Route(allowed={"admin"}, kwargs=_webhook_uid, method="POST")
        for verb in ("enable", "disable", "rotate-secret", "test")
    },
    "api:webhook-delivery-list": Route(allowed=WATCHES_MAIL),
    "api:webhook-delivery-detail": Route(allowed=WATCHES_MAIL, kwargs=_delivery_uid),
    "api:webhook-delivery-replay": Route(allowed={"admin"}, kwargs=_delivery_uid, method="POST"),
}
