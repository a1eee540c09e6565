"""Every refusal as a page: 400, 403, 404, 409, 500, 503 and the CSRF failure; as a fragment for HTMX, as a problem for
the API. A page never tells a missing row from a foreign one, and never shows what went wrong inside.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.views.decorators.csrf import requires_csrf_token

from apps.core import hooks
from apps.core.actor import Actor, current_request_id
from apps.core.api import problem_json
from apps.core.errors import CommonsError, Conflict, Invalid, NotAllowed
from portal.navigation import BELL

logger = logging.getLogger(__name__)
RETRY_SECONDS = 5

_TEXTS = {
    400: ("The request cannot be taken", "Go back, correct what the message names, and send it again."),
    403: (
        "Not allowed",
        "You may see this, but your role does not include what you tried."
        " Ask your team lead or a platform admin if it should.",
    ),
    404: ("Not found", "There is no such page, or it is not yours to see."),
    405: ("Not possible this way", "This address takes another kind of request. Use the button on the page."),
    409: ("It has changed in the meantime", "Somebody was faster. Look at how it stands now and decide anew."),
    413: ("Too large", "Send a smaller file or split it."),
    500: (
        "Something went wrong on our side",
        "Nothing was half-written. The error is logged; name the request id below if you report it.",
    ),
    503: (
        "Back in a moment",
        "The database does not answer. This page tries again by itself; nothing you sent was half-written.",
    ),
}
_CSRF = (
    "This form has expired: you signed in or out in another tab since it was opened."
    " Go back, reload the page and send it again. Nothing was changed."
)


def is_api(request: HttpRequest) -> bool:
    """Whether the request went to the REST API."""
    return request.path.startswith("/api/")


def render_error(request: HttpRequest, error: CommonsError) -> HttpResponse:
    """Draw an action's refusal (called by the error middleware); refused permissions go into the audit trail."""
    user: Any = getattr(request, "user", None)
    if isinstance(error, NotAllowed) and getattr(user, "is_authenticated", False):
        hooks.refused(request, Actor.of(user), error)
    message = error.message if error.message != error.title else ""
    details: list[str] = []
    current: dict[str, Any] = {}
    if isinstance(error, Invalid):
        details = [text for texts in error.errors.values() for text in texts]
        message = "" if details else message
    elif isinstance(error, Conflict):
        current = error.current
    if is_api(request):
        members: dict[str, Any] = {"current": current}
        if isinstance(error, Invalid):
            members["errors"] = {name or "form": texts for name, texts in error.errors.items()}
        return problem_json(request, error.status, message, **members)
    return draw(request, error.status, message=message, details=details, current=current)


def draw(
    request: HttpRequest,
    status: int,
    *,
    message: str = "",
    details: list[str] | None = None,
    current: dict[str, Any] | None = None,
    shell: bool = True,
) -> HttpResponse:
    """Draw an error page. Without `shell` nothing on it needs the database, a session or a person."""
    title, advice = _TEXTS.get(status, _TEXTS[400 if status < 500 else 500])
    htmx = bool(request.headers.get("HX-Request")) and not request.headers.get("HX-Boosted")
    signed_in = shell and getattr(getattr(request, "user", None), "is_authenticated", False)
    context = {
        "status": status,
        "title": title,
        "advice": advice,
        "message": message,
        "details": details or [],
        # Versions and the like are for programs; people see words.
        "current": {key.replace("_", " "): value for key, value in (current or {}).items() if key != "version"},
        "request_id": current_request_id() if status >= 500 else "",
        "retry_seconds": RETRY_SECONDS if status == 503 else 0,
    }
    if signed_in and not hasattr(request, "_commons_counts"):
        # What waits for the person is no matter of a refusal; the bell asks again by itself.
        request._commons_counts = {BELL: 0}  # type: ignore[attr-defined]  # HttpRequest takes attributes; stubs do not know ours
    name = "errors/fragment.html" if htmx else "errors/page.html" if signed_in else "errors/bare.html"
    body = render_to_string(name, context, request if signed_in else None)
    response = HttpResponse(body, status=status)
    response["Cache-Control"] = "no-store"
    if status == 503:
        response["Retry-After"] = str(RETRY_SECONDS)
    return response


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler for 400 (a broken cookie, a forged host, too many fields)."""
    return problem_json(request, 400) if is_api(request) else draw(request, 400, shell=False)


def not_allowed(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler for 403."""
    return problem_json(request, 403) if is_api(request) else draw(request, 403)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler for 404: an address that no page has."""
    return problem_json(request, 404) if is_api(request) else draw(request, 404)


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's handler for everything unforeseen: 500 with the request id, or 503 while the database is away."""
    away = isinstance(sys.exc_info()[1], OperationalError | InterfaceError)
    status = 503 if away else 500
    if is_api(request):
        response: HttpResponse = problem_json(request, status)
        if away:
            response["Retry-After"] = str(RETRY_SECONDS)
        return response
    return draw(request, status, shell=False)


@requires_csrf_token
def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """The form's token is missing or old: a session that ended in another tab, or a forged request."""
    logger.warning("csrf check failed", extra={"reason": reason, "path": request.path})
    if is_api(request):
        return problem_json(request, 403, "The CSRF token is missing or wrong; programs use an API token instead.")
    return draw(request, 403, message=_CSRF)
