"""`user`, and whom support sees the portal as, in every template."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from apps.accounts.anonymous import AnonymousUser


def user(request: HttpRequest) -> dict[str, Any]:
    """Return the person whose rights count, and the impersonation under way with who is behind it."""
    return {
        "user": getattr(request, "user", None) or AnonymousUser(),
        "impersonation": getattr(request, "impersonation", None),
        "impersonator": getattr(request, "impersonator", None),
    }
