"""What rooms above metering hook into: they are told, inside the recording transaction, which hours were written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime


@dataclass(frozen=True, slots=True)
class Written:
    """Hours of one cluster whose facts and capacity lines were replaced, with the billing days they touch."""

    cluster_id: int
    hours: Sequence[datetime]
    days: Sequence[date]
    revisions: Sequence[int]


Listener = Callable[[Written], None]
_listeners: dict[str, Listener] = {}


def on_hours_written(name: str, listener: Listener) -> None:
    """Register `listener` under `name`; it runs in the transaction that writes the facts and may make it fail."""
    _listeners[name] = listener


def tell(written: Written) -> None:
    """Tell every listener."""
    for name in sorted(_listeners):
        _listeners[name](written)
