"""What rooms above metering hook into: they are told, inside the recording transaction, which hours were written.

Hours of a closed period are frozen: a room above says which (`register_freeze`). Their facts never change again; what a
source tells of them later is kept beside them, revision by revision, and told as `Late`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from datetime import date, datetime


@dataclass(frozen=True, slots=True)
class Written:
    """Hours of one cluster whose facts and capacity lines were replaced, with the billing days they touch."""

    cluster_id: int
    hours: Sequence[datetime]
    days: Sequence[date]
    revisions: Sequence[int]


@dataclass(frozen=True, slots=True)
class Late:
    """Frozen hours of one cluster for which other content arrived: it stands in the metering_late* tables."""

    cluster_id: int
    hours: Sequence[datetime]
    revisions: Sequence[int]


Listener = Callable[[Written], None]
LateListener = Callable[[Late], None]
#: (cluster id, hours) → those of them that belong to a closed period.
Freeze = Callable[[int, Sequence[datetime]], Set[datetime]]
_listeners: dict[str, Listener] = {}
_late_listeners: dict[str, LateListener] = {}
_freezes: dict[str, Freeze] = {}


def on_hours_written(name: str, listener: Listener) -> None:
    """Register `listener` under `name`; it runs in the transaction that writes the facts and may make it fail."""
    _listeners[name] = listener


def tell(written: Written) -> None:
    """Tell every listener."""
    for name in sorted(_listeners):
        _listeners[name](written)


def on_late(name: str, listener: LateListener) -> None:
    """Register `listener` under `name`; it runs in the transaction that writes the late rows and may make it fail."""
    _late_listeners[name] = listener


def tell_late(late: Late) -> None:
    """Tell every listener of late rows."""
    for name in sorted(_late_listeners):
        _late_listeners[name](late)


def register_freeze(name: str, freeze: Freeze) -> None:
    """Register under `name` who says which hours of a cluster are closed for good."""
    _freezes[name] = freeze


def frozen(cluster_id: int, hours: Sequence[datetime]) -> set[datetime]:
    """Return those of `hours` that belong to a closed period of the cluster."""
    found: set[datetime] = set()
    if hours:
        for name in sorted(_freezes):
            found |= _freezes[name](cluster_id, hours)
    return found
