"""Events that a registry posts: signed, fresh, taken once. They say nothing that is believed, but "look now".

MLflow (mlflow/webhooks/delivery.py): `X-MLflow-Signature: v1,<base64 of HMAC-SHA256>` over
`delivery id . timestamp . body`, `X-MLflow-Timestamp` in seconds, `X-MLflow-Delivery-Id`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from datetime import UTC, datetime, timedelta

from django.db import IntegrityError, transaction

from apps.catalogue.models import Registry, RegistryDelivery
from apps.clusters import crypto
from apps.core import clock
from apps.core.errors import CommonsError, Conflict, Invalid
from apps.core.sweeps import nudge

WINDOW = timedelta(minutes=5)
MAX_BODY = 256 * 1024
#: Deliveries are remembered for longer than any could be sent again.
REMEMBERED = timedelta(days=2)
#: Events in a row lead to one poll each so many seconds, no more.
BREATH = timedelta(seconds=10)
_SECONDS = re.compile(r"^[0-9]{1,12}$")
_DELIVERY = re.compile(r"^[\x21-\x7e]{1,100}$")


class NotGenuine(CommonsError):
    """The event is not signed as agreed, or too old. One answer for all reasons: a stranger learns nothing."""

    status = 401


def signature(secret: str, delivery_id: str, timestamp: str, body: bytes) -> str:
    """Return the signature as MLflow writes it."""
    signed = b".".join((delivery_id.encode(), timestamp.encode(), body))
    return "v1," + base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest()).decode()


def take(slug: str, body: bytes, *, signed: str, timestamp: str, delivery_id: str) -> RegistryDelivery:
    """Take an event and have the registry polled at once.

    Raises NotGenuine, Invalid (too large), Conflict (a delivery that was taken before).
    """
    if len(body) > MAX_BODY:
        raise Invalid({"body": f"An event has at most {MAX_BODY // 1024} KiB."})
    registry = Registry.objects.filter(slug=slug, enabled=True).first()
    try:
        secret = crypto.decrypt(registry.webhook_secret) if registry is not None else ""
    except crypto.CannotDecrypt:
        secret = ""
    fine = _DELIVERY.match(delivery_id) is not None and _SECONDS.match(timestamp) is not None
    # Compared in any case, so that no answer tells by its time whether the registry exists.
    expected = signature(secret or "no secret", delivery_id if fine else "-", timestamp if fine else "0", body)
    given = [part.encode("utf-8", "replace") for part in signed.split(" ")[:4]]
    genuine = max(hmac.compare_digest(expected.encode(), part) for part in given)
    sent_at = datetime.fromtimestamp(int(timestamp), UTC) if fine and int(timestamp) < 2**36 else None
    if (
        registry is None or not secret or not fine or not genuine or sent_at is None
        or abs(clock.now() - sent_at) > WINDOW
    ):  # fmt: skip
        raise NotGenuine("The event is not signed by this registry, or not of the last five minutes.")
    entity, action = _what(body)
    with transaction.atomic():
        try:
            with transaction.atomic():
                row = RegistryDelivery.objects.create(
                    registry=registry, delivery_id=delivery_id, sent_at=sent_at, entity=entity, action=action
                )
        except IntegrityError as error:
            raise Conflict("This delivery was taken before.") from error
        locked = Registry.objects.locked(registry.pk)
        due = max(clock.now(), locked.polled_at + BREATH) if locked.polled_at is not None else clock.now()
        if locked.next_poll_at is None or locked.next_poll_at > due or locked.next_poll_at <= clock.now():
            locked.next_poll_at = due
            locked.save(update_fields=["next_poll_at"])
        from apps.catalogue.registry_tasks import poll_registries

        nudge(poll_registries)
    return row


def forget_old() -> int:
    """Drop deliveries whose window is long over."""
    return RegistryDelivery.objects.filter(sent_at__lt=clock.now() - REMEMBERED).delete()[0]


def _what(body: bytes) -> tuple[str, str]:
    """Return entity and action for the list of deliveries; a body that says neither is an event all the same."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return "", ""
    if not isinstance(found, dict):
        return "", ""
    return _word(found.get("entity")), _word(found.get("action"))


def _word(value: object) -> str:
    return "".join(c for c in value if c.isprintable())[:60] if isinstance(value, str) else ""
