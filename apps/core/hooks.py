"""Hooks that core leaves open because it may import no room: the project fills them when it starts.

Both write audit rows in a transaction of their own, after the request's read transaction is closed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest

from apps.core.actor import Actor
from apps.core.errors import NotAllowed
from apps.core.events import EventType
from apps.core.middleware import after_read

RefusalRecorder = Callable[[Actor, NotAllowed, str, str], None]
ExportRecorder = Callable[[EventType, Any, Actor], None]

_record_refusal: RefusalRecorder | None = None
_record_export: ExportRecorder | None = None


def install(*, refusal: RefusalRecorder, export: ExportRecorder) -> None:
    """Fill the hooks."""
    global _record_refusal, _record_export
    _record_refusal, _record_export = refusal, export


def record_refusal(actor: Actor, error: NotAllowed, method: str, path: str) -> None:
    """Record that `actor` was refused at `path`. Raises RuntimeError while the hook is open: fail closed."""
    if _record_refusal is None:
        raise RuntimeError("no recorder of refusals is installed")
    _record_refusal(actor, error, method, path)


def record_export(event: EventType, payload: Any, actor: Actor) -> None:
    """Record that `actor` took an export. Raises RuntimeError while the hook is open: fail closed."""
    if _record_export is None:
        raise RuntimeError("no recorder of exports is installed")
    _record_export(event, payload, actor)


def refused(request: HttpRequest, actor: Actor, error: NotAllowed) -> None:
    """Have a refusal recorded in a transaction of its own: after the read transaction of a GET, at once otherwise.

    A POST has no transaction open here: the action that refused has rolled back its own.
    """

    def record() -> None:
        record_refusal(actor, error, request.method or "", request.path)

    if request.method in ("GET", "HEAD"):
        after_read(request, record)
    else:
        record()
