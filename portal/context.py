"""What the layout needs on every page. Lazy: a page that does not draw the shell asks the database nothing."""

from __future__ import annotations

from functools import cache
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from apps.core.actor import current_request_id
from portal.navigation import BELL, counts_for, groups_for


def shell(request: HttpRequest) -> dict[str, Any]:
    """Return name, version, billing zone, demo banner and navigation of the shell."""
    offset = settings.COMMONS_BILLING_TIMEZONE
    return {
        "shell": {
            "organisation": settings.COMMONS_ORGANISATION,
            "version": settings.VERSION,
            "billing_zone": "UTC" if offset == "+00:00" else f"UTC{offset}",
            "currency": settings.COMMONS_CURRENCY,
            "demo": settings.COMMONS_DEMO,
            "request_id": current_request_id(),
        },
        # A function: templates call it, and only those that draw the bell do.
        "unread_count": cache(lambda: counts_for(request)[BELL]),
        "navigation": SimpleLazyObject(lambda: groups_for(request)) if hasattr(request, "user") else [],
    }
