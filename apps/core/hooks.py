"""Hooks that core leaves open because it may import no room: the project fills them when it starts.

Recorders write audit rows in a transaction of their own, after the request's read transaction is closed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponseBase

from apps.core.actor import Actor
from apps.core.errors import NotAllowed
from apps.core.events import EventType
from apps.core.middleware import after_read

RefusalRecorder = Callable[[Actor, NotAllowed, str, str], None]
ExportRecorder = Callable[[EventType, Any, Actor], None]
#: Draws what was recorded about `view.object`, whose page (`view`) the person has been let into.
HistoryPage = Callable[[Any], HttpResponseBase]

_record_refusal: RefusalRecorder | None = None
_record_export: ExportRecorder | None = None
_history_page: HistoryPage | None = None


def install(*, refusal: RefusalRecorder, export: ExportRecorder, history: HistoryPage) -> None:
    """Fill the hooks."""
    global _record_refusal, _record_export, _history_page
    _record_refusal, _record_export, _history_page = refusal, export, history


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


def history_page(view: Any) -> HttpResponseBase:
    """Return the page of what was recorded about a detail page's row. Raises RuntimeError while the hook is open."""
    if _history_page is None:
        raise RuntimeError("nobody is installed who shows histories")
    return _history_page(view)


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
