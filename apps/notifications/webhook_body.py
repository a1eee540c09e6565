"""What a receiver gets: a CloudEvents 1.0 body in structured JSON mode, and the headers that sign it. No ORM.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
"""

from __future__ import annotations

import hashlib
import hmac
import json
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
ID, TIMESTAMP, SIGNATURE = "X-Commons-Delivery", "X-Commons-Timestamp", "X-Commons-Signature"


def build(
    *,
    message_uid: uuid.UUID,
    source: str,
    event: str,
    at: datetime,
    subject_uid: uuid.UUID | None,
    data: Mapping[str, Any],
) -> bytes:
    """Return the body: the same bytes at every attempt, and what the signature is over."""
    body: dict[str, Any] = {
        "specversion": "1.0",
        "id": str(message_uid),
        "source": source,
        "type": event,
        "time": at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "datacontenttype": "application/json",
        "data": dict(data),
    }
    if subject_uid is not None:
        body["subject"] = str(subject_uid)
    return json.dumps(body, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def signature(secret: str, delivery_id: uuid.UUID, timestamp: int, body: bytes) -> str:
    """Return `v1=` and the hex HMAC-SHA256 over `delivery_id.timestamp.body` under the secret's UTF-8 bytes."""
    signed = f"{delivery_id}.{timestamp}.".encode() + body
    return f"v1={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}"


def headers(secret: str, delivery_id: uuid.UUID, at: datetime, body: bytes) -> dict[str, str]:
    """Return the headers of one attempt at the time `at` (a receiver refuses a timestamp that is too old)."""
    timestamp = int(at.timestamp())
    return {
        "Content-Type": CONTENT_TYPE,
        "User-Agent": "gpu-commons-webhooks/1",
        ID: str(delivery_id),
        TIMESTAMP: str(timestamp),
        SIGNATURE: signature(secret, delivery_id, timestamp, body),
    }
