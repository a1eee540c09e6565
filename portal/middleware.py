"""Error mapping: the four errors of actions become pages here, once (the API has its own handler, same statuses)."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from apps.core.errors import CommonsError
from portal.errors import render_error


class ErrorMiddleware:
    """Renders a CommonsError raised by a view as its error page; anything else is Django's to handle."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Pass the request on."""
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Map the exception to its page, or leave it."""
        return render_error(request, exception) if isinstance(exception, CommonsError) else None
