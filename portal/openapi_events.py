"""What webhooks send, for the OpenAPI description: one CloudEvent per declared event, its data by the payload's types.

https://spec.openapis.org/oas/v3.1.0#fixed-fields (webhooks); the envelope is CloudEvents 1.0 in structured JSON mode.
"""

from __future__ import annotations

import dataclasses
import pkgutil
import types
import typing
import uuid
from collections.abc import Mapping, Sequence, Set
from datetime import datetime
from decimal import Decimal
from enum import Enum
from importlib import import_module
from typing import Any

from django.conf import settings

from apps.core import events
from apps.notifications import webhook_body

_DATE_TIME = {"type": "string", "format": "date-time"}


def of_type(kind: Any) -> dict[str, Any]:
    """Return the JSON schema of what `events.plain` makes of a value of this type; {} where any may come."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [of_type(one) for one in inner]}
    if origin in (list, tuple, set, frozenset) or (isinstance(origin, type) and _is_sequence(origin)):
        items = [one for one in inner if one is not Ellipsis]
        return {"type": "array", "items": of_type(items[0]) if len(set(items)) == 1 else {}}
    if origin is dict or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return {"type": "object", "additionalProperties": of_type(inner[1]) if len(inner) == 2 else {}}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return of_payload(kind)
    if kind is None or kind is type(None):
        return {"type": "null"}
    if not isinstance(kind, type):
        return {}
    if issubclass(kind, bool):
        return {"type": "boolean"}
    if issubclass(kind, Enum | str | Decimal | bytes):
        return {"type": "string"}
    if issubclass(kind, int):
        # Beyond 2^53 an integer is sent as text: not every reader of JSON keeps it otherwise.
        return {"type": ["integer", "string"]}
    if issubclass(kind, uuid.UUID):
        return {"type": "string", "format": "uuid"}
    if issubclass(kind, datetime):
        return dict(_DATE_TIME)
    if issubclass(kind, list | tuple):
        return {"type": "array", "items": {}}
    return {"type": "object"} if issubclass(kind, Mapping) else {}


def _is_sequence(kind: type) -> bool:
    return issubclass(kind, Sequence | Set)


def of_payload(payload: type[Any]) -> dict[str, Any]:
    """Return the schema of a payload. Private fields may be left out: webhooks carry them only where so wished."""
    hints = typing.get_type_hints(payload)
    fields = dataclasses.fields(payload)
    return {
        "type": "object",
        "description": (payload.__doc__ or "").strip().splitlines()[0] if payload.__doc__ else "",
        "properties": {field.name: of_type(hints[field.name]) for field in fields},
        "required": [field.name for field in fields if not events.is_private(field)],
        "additionalProperties": False,
    }


def of_event(event: events.EventType) -> dict[str, Any]:
    """Return the schema of a whole delivery of this event."""
    return {
        "type": "object",
        "required": ["specversion", "id", "source", "type", "time", "datacontenttype", "data"],
        "properties": {
            "specversion": {"const": "1.0"},
            "id": {"type": "string", "format": "uuid", "description": "The event's; again at every attempt."},
            "source": {"type": "string", "format": "uri-reference"},
            "type": {"const": event.name},
            "subject": {"type": "string", "format": "uuid"},
            "time": dict(_DATE_TIME),
            "datacontenttype": {"const": "application/json"},
            "data": of_payload(event.payload),
        },
        "additionalProperties": False,
    }


def _load() -> None:
    """Import every room's modules of events: what has not been imported has not been declared."""
    for room in settings.ROOMS:
        for module in pkgutil.iter_modules(import_module(room).__path__):
            if module.name.endswith("events"):
                import_module(f"{room}.{module.name}")


def webhooks() -> dict[str, Any]:
    """Return OpenAPI's `webhooks`: what the portal posts to those who asked for an event."""
    _load()
    signed = [
        {"name": webhook_body.ID, "in": "header", "required": True, "schema": {"type": "string", "format": "uuid"}},
        {"name": webhook_body.TIMESTAMP, "in": "header", "required": True, "schema": {"type": "string"}},
        {
            "name": webhook_body.SIGNATURE,
            "in": "header",
            "required": True,
            "description": "`v1=` and the hex HMAC-SHA256 over `delivery.timestamp.body` under the webhook's secret.",
            "schema": {"type": "string", "pattern": "^v1=[0-9a-f]{64}$"},
        },
    ]
    return {
        event.name: {
            "post": {
                "operationId": f"event_{event.name.replace('.', '_')}",
                "summary": event.name,
                "tags": ["webhooks"],
                "parameters": signed,
                "requestBody": {
                    "required": True,
                    "content": {"application/cloudevents+json": {"schema": of_event(event)}},
                },
                "responses": {"2XX": {"description": "Taken. Anything else is tried again, later and later."}},
            }
        }
        for event in events.all_events()
    }
