"""Request id and the read transaction."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable

from django.db import transaction
from django.http import HttpRequest, HttpResponse

from apps.core import row_security
from apps.core.actor import request_id_var

_REQUEST_ID = re.compile(r"^[A-Za-z0-9_-]{8,64}$")
_Next = Callable[[HttpRequest], HttpResponse]


#: Below these paths views open short transactions of their own for GETs, too: an identity provider sends people and
#: their browsers there, and answering takes calls to the provider, across which no transaction is open. They show no
#: tenant's rows.
OWN_TRANSACTIONS = ("/sign-in/at/",)


class RequestIdMiddleware:
    """Gives every request an id (the caller's X-Request-ID if well-formed), echoed in response and logs."""

    def __init__(self, get_response: _Next) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Set the id for the duration of the request."""
        given = request.headers.get("X-Request-ID", "")
        request_id = given if _REQUEST_ID.match(given) else uuid.uuid4().hex
        token = request_id_var.set(request_id)
        try:
            response = self.get_response(request)
        finally:
            request_id_var.reset(token)
        response["X-Request-ID"] = request_id
        return response


class ReadTransactionMiddleware:
    """Runs safe requests in one read-only transaction: a page shows one state of the books, and cannot write.

    Every request, safe or not, runs behind the wall of its person (`core.row_security`). What a GET must record (an
    audited export, a last-seen time) is done by its view in `after_read()` or a transaction of its own after the
    response is made, behind the same wall.
    """

    def __init__(self, get_response: _Next) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Open the transaction for GET and HEAD, except for health probes, which bring their own short ones."""
        if request.path in ("/health", "/ready") or request.path.startswith("/static/"):
            return self.get_response(request)
        with row_security.walled(getattr(getattr(request, "user", None), "pk", None)):
            return self._answer(request)

    def _answer(self, request: HttpRequest) -> HttpResponse:
        if request.method not in ("GET", "HEAD") or request.path.startswith(OWN_TRANSACTIONS):
            return self.get_response(request)
        with transaction.atomic():
            response = self.get_response(request)
            if hasattr(response, "render") and callable(response.render):
                response = response.render()
        for callback in getattr(request, "_commons_after_read", []):
            callback()
        return response


def after_read(request: HttpRequest, callback: Callable[[], object]) -> None:
    """Run `callback` once the read transaction of this request is closed (an audit row for an export, say)."""
    callbacks = getattr(request, "_commons_after_read", [])
    callbacks.append(callback)
    request._commons_after_read = callbacks  # type: ignore[attr-defined]  # HttpRequest takes attributes; stubs do not know ours
