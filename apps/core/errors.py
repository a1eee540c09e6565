"""The only exceptions that actions raise; mapped once to HTML (portal) and once to RFC 9457 (apps.core.api)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class CommonsError(Exception):
    """Base of the four refusals an action knows. `status` is the HTTP status it maps to."""

    status = 500
    title = "Something went wrong"

    def __init__(self, message: str = "") -> None:
        super().__init__(message or self.title)
        self.message = message or self.title


class NotVisible(CommonsError):
    """The row does not exist or lies outside the person's scope: the two look the same on purpose (404)."""

    status = 404
    title = "Not found"


class NotAllowed(CommonsError):
    """The person may see the row but not do this with it (403). `rule` names the rule that refuses."""

    status = 403
    title = "Not allowed"

    def __init__(self, message: str = "", *, rule: str = "") -> None:
        super().__init__(message)
        self.rule = rule


class Conflict(CommonsError):
    """The row moved on since it was read, or is in a state that does not take this action (409).

    `current` describes the newer state for the person: plain values, already within their scope.
    """

    status = 409
    title = "It has changed in the meantime"
    #: Whether sending the same again, having looked, makes sense.
    again = True

    def __init__(self, message: str = "", *, current: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.current = dict(current or {})


class Blocked(Conflict):
    """Something else has to be seen to first; nothing has moved, and sending it again changes nothing (409)."""

    title = "This cannot be done as things stand"
    again = False


class Invalid(CommonsError):
    """Input that cannot be taken (400): field name → messages; the key "" is the form as a whole."""

    status = 400
    title = "Please correct the marked fields"

    def __init__(self, errors: Mapping[str, Sequence[str] | str], message: str = "") -> None:
        self.errors: dict[str, list[str]] = {
            field: [messages] if isinstance(messages, str) else list(messages) for field, messages in errors.items()
        }
        first = next((texts[0] for texts in self.errors.values() if texts), "")
        super().__init__(message or first)
