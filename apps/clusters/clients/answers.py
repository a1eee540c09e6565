"""HTTP statuses and `metav1.Status` bodies of an API server as our error classes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any

from apps.clusters.errors import (
    ClusterError,
    ConflictError,
    Forbidden,
    Gone,
    InvalidObject,
    NotFound,
    ServerError,
    StaleRead,
    Terminating,
    Throttled,
    Unauthorised,
)

# `Warning: 299 - "text"`, several to a header, separated by commas (RFC 9111 §5.5 as Kubernetes sends it).
_WARNING = re.compile(r'\d{3}\s+\S+\s+"((?:[^"\\]|\\.)*)"')
_MANAGER = re.compile(r'conflict with "((?:[^"\\]|\\.)*)"')
# Server-side apply answers an object that does not fit its schema with 500 (reference F): a refusal, not a fault.
_REFUSED_OBJECT = ("failed to create typed patch object", "field not declared in schema", "quantities must match")


def parse_warnings(headers: Mapping[str, str]) -> list[str]:
    """Return the texts of all Warning headers."""
    getlist = getattr(headers, "getlist", None)
    lines = getlist("Warning") if getlist else [headers.get("Warning", "")]
    return [text.replace('\\"', '"') for line in lines for text in _WARNING.findall(line or "")]


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return Retry-After in seconds, at most an hour; None where absent or a date (API servers send seconds)."""
    text = (headers.get("Retry-After") or "").strip()
    return min(float(text), 3600.0) if text.isdigit() else None


def parse_date(headers: Mapping[str, str]) -> datetime | None:
    """Return the server's clock from its Date header (RFC 9110 §6.6.1, whole seconds); None where it sends none."""
    return _date(headers.get("Date") or "")


@lru_cache(maxsize=64)  # whole seconds, so that a burst of answers has one and the same
def _date(text: str) -> datetime | None:
    try:
        return parsedate_to_datetime(text).astimezone(UTC)
    except (TypeError, ValueError):
        return None


def error_of(
    status: int, body: Mapping[str, Any], *, warnings: list[str], retry_after: float | None = None
) -> ClusterError:
    """Return the error that an answer means. `body` is a `metav1.Status`, or anything a proxy on the way sent."""
    message = str(body.get("message") or f"HTTP {status}")
    details: Mapping[str, Any] = body.get("details") or {}
    causes = [cause for cause in details.get("causes") or [] if isinstance(cause, dict)]
    common: dict[str, Any] = {"status": status, "warnings": warnings, "details": details}
    after = retry_after if retry_after is not None else float(details.get("retryAfterSeconds") or 0)
    if status == 401:
        return Unauthorised(message, **common)
    if status == 403:
        if any(cause.get("reason") == "NamespaceTerminating" for cause in causes) or "being terminated" in message:
            return Terminating(message, **common)
        return Forbidden(message, **common)
    if status == 404:
        return NotFound(message, **common)
    if status == 409:
        return _conflict(message, causes, warnings, details)
    if status == 410:
        return Gone(message, **common)
    if status == 429:
        return Throttled(message, retry_after=after or 1.0, **common)
    if status in (400, 413, 415, 422) or (status == 500 and any(text in message for text in _REFUSED_OBJECT)):
        return InvalidObject(message, **common)
    if 300 <= status < 400:
        return ServerError("the server redirects elsewhere, which the portal does not follow", **common)
    return ServerError(message, retry_after=after, **common)


def _conflict(
    message: str, causes: list[dict[str, Any]], warnings: list[str], details: Mapping[str, Any]
) -> ConflictError:
    owners = [
        {
            "manager": (match.group(1) if (match := _MANAGER.search(str(cause.get("message", "")))) else ""),
            "field": str(cause.get("field", "")),
            "message": str(cause.get("message", "")),
        }
        for cause in causes
        if cause.get("reason") == "FieldManagerConflict"
    ]
    if owners:
        return ConflictError(message, causes=owners, warnings=warnings, details=details)
    return StaleRead(message, warnings=warnings, details=details)
