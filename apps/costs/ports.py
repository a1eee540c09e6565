"""What rooms above costs hook into: they are told, inside the closing transaction, that a month is closed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True, slots=True)
class Closed:
    """A billing month was closed: its statements stand."""

    period_id: int
    month: date


Listener = Callable[[Closed], None]
_listeners: dict[str, Listener] = {}


def on_closed(name: str, listener: Listener) -> None:
    """Register `listener` under `name`; it runs in the transaction that closes the month and may make it fail."""
    _listeners[name] = listener


def tell(closed: Closed) -> None:
    """Tell every listener."""
    for name in sorted(_listeners):
        _listeners[name](closed)
