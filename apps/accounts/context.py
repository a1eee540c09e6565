"""`user` in every template."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from apps.accounts.anonymous import AnonymousUser


def user(request: HttpRequest) -> dict[str, Any]:
    """Return the person behind the request."""
    return {"user": getattr(request, "user", None) or AnonymousUser()}
