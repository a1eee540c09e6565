"""Event types: one name for the audit action, the outbox type and the webhook type, declared once per room.

A room's `events.py` declares, at import:

    REQUEST_APPROVED = declare("quotas.request.approved", RequestApproved, audience="the requester", mail=True,
                               headline=lambda p: f"Your request for {p.flavour} is approved", path=lambda p: p.path)
"""

from __future__ import annotations

import dataclasses
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

_NAME = re.compile(r"^[a-z]+(\.[a-z_]+){2}$")
_registry: dict[str, EventType] = {}


@dataclasses.dataclass(frozen=True, slots=True)
class EventType:
    """A declared event. `payload` is a frozen dataclass of plain values with opaque ids (uids, never primary keys)."""

    name: str
    payload: type[Any]
    audience: str
    mail: bool
    headline: Callable[[Any], str]
    body: Callable[[Any], str]
    path: Callable[[Any], str]
    #: The stored file a mail carries, as (kind, uid); None: none.
    attachment: Callable[[Any], tuple[str, uuid.UUID] | None] = lambda _: None

    def dump(self, payload: Any) -> dict[str, Any]:
        """Return the payload as JSON-ready values. Raises TypeError for a payload of another type."""
        if not isinstance(payload, self.payload):
            raise TypeError(f"{self.name} takes {self.payload.__name__}, not {type(payload).__name__}")
        return {f.name: plain(getattr(payload, f.name)) for f in dataclasses.fields(payload)}

    def load(self, data: Mapping[str, Any]) -> Any:
        """Return the payload object from stored JSON; unknown keys of a later version are dropped."""
        known = {f.name for f in dataclasses.fields(self.payload)}
        return self.payload(**{key: value for key, value in data.items() if key in known})


#: Payload fields that hold words of people or their identity wherever they appear: kept out of hashed audit bytes.
_PRIVATE_NAMES = re.compile(
    r"(^|_)(reason|comment|note|email|display_name|person_name|(requester|actor|approver)_name)$"
)


def private(**options: Any) -> Any:
    """Declare a payload field as personal or free text: `name: str = private()`. Audit keeps it in an erasable note."""
    return dataclasses.field(metadata={"private": True}, **options)


def is_private(field: dataclasses.Field[Any]) -> bool:
    """Whether a payload field is private: so declared, or named like one (`reason`, `email`, `…_comment`)."""
    return bool(field.metadata.get("private")) or _PRIVATE_NAMES.search(field.name) is not None


def without_texts(event: EventType, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored payload without its private fields, at any depth, and without what `event` does not declare."""
    known = {field.name for field in dataclasses.fields(event.payload) if not is_private(field)}
    return {key: _impersonal(value) for key, value in data.items() if key in known}


def _impersonal(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _impersonal(item) for key, item in value.items() if not _PRIVATE_NAMES.search(str(key))}
    return [_impersonal(item) for item in value] if isinstance(value, list) else value


def plain(value: Any) -> Any:
    """Return `value` as JSON-ready data the way audit and outbox store it (RFC 8785-safe: no floats, no big ints)."""
    if type(value) is str:  # nearly all of them are
        return value
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, int):
        return value if abs(value) < 2**53 else str(value)
    if isinstance(value, Decimal | uuid.UUID):
        return str(value)
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    raise TypeError(f"{type(value).__name__} has no plain form; pass a string, an integer or a Decimal")


def declare(
    name: str,
    payload: type[Any],
    *,
    audience: str,
    mail: bool = False,
    headline: Callable[[Any], str] | None = None,
    body: Callable[[Any], str] | None = None,
    path: Callable[[Any], str] | None = None,
    attachment: Callable[[Any], tuple[str, uuid.UUID] | None] | None = None,
) -> EventType:
    """Declare an event `room.noun.verb`. Raises ValueError for a malformed name or one declared twice."""
    if not _NAME.match(name):
        raise ValueError(f"event names look like quotas.request.approved, not {name!r}")
    if name in _registry and _registry[name].payload.__qualname__ != payload.__qualname__:
        raise ValueError(f"{name} is declared twice")
    event = EventType(
        name,
        payload,
        audience,
        mail,
        headline or (lambda _: name),
        body or (lambda _: ""),
        path or (lambda _: ""),
        attachment or (lambda _: None),
    )
    _registry[name] = event
    return event


def get(name: str) -> EventType:
    """Return a declared event type. Raises KeyError for an unknown name."""
    return _registry[name]


def all_events() -> list[EventType]:
    """Return every declared event, by name."""
    return [_registry[name] for name in sorted(_registry)]
