"""Failures of the simulated API server, in the wire form of `metav1.Status`."""

from __future__ import annotations

from typing import Any

Obj = dict[str, Any]
"""A Kubernetes object, or a part of one, as decoded JSON."""


UNCHECKED = (
    "FieldValueInvalid",
    "<nil>",
    "Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing "
    "errors to complete validation",
)
"""What the API server adds where the schema of a custom resource fails, and so its CEL rules do not run."""


class ApiError(Exception):
    """A refusal that the server answers with a `Status` body.

    `reason` and `code` follow apimachinery's `api/errors`; an empty reason is what Go calls `StatusReasonUnknown`.
    """

    def __init__(self, code: int, reason: str, message: str, details: Obj | None = None, retry_after: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details or {}
        self.retry_after = retry_after

    def status(self) -> Obj:
        """Return the `Status` object that goes over the wire."""
        body: Obj = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": self.message}
        if self.reason:
            body["reason"] = self.reason
        details = dict(self.details)
        if self.retry_after:
            details["retryAfterSeconds"] = self.retry_after
        if details:
            body["details"] = details
        body["code"] = self.code
        return body


def _about(resource: str, group: str, name: str) -> Obj:
    about: Obj = {}
    if name:
        about["name"] = name
    if group:
        about["group"] = group
    about["kind"] = resource
    return about


def _qualified(resource: str, group: str) -> str:
    return f"{resource}.{group}" if group else resource


def not_found(resource: str, group: str, name: str) -> ApiError:
    """404: no object of that name."""
    message = f'{_qualified(resource, group)} "{name}" not found'
    return ApiError(404, "NotFound", message, _about(resource, group, name))


def no_such_path() -> ApiError:
    """404: the path leads to no resource of this server."""
    return ApiError(404, "NotFound", "the server could not find the requested resource")


def already_exists(resource: str, group: str, name: str) -> ApiError:
    """409: create of a name that is taken."""
    message = f'{_qualified(resource, group)} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, _about(resource, group, name))


def conflict(resource: str, group: str, name: str, why: str = "") -> ApiError:
    """409: the resourceVersion sent is not the current one."""
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    message = f'Operation cannot be fulfilled on {_qualified(resource, group)} "{name}": {why}'
    return ApiError(409, "Conflict", message, _about(resource, group, name))


def forbidden(resource: str, group: str, name: str, why: str, causes: list[Obj] | None = None) -> ApiError:
    """403 by admission or authorisation; `why` is the admission plugin's sentence."""
    named = f'{_qualified(resource, group)} "{name}"' if name else _qualified(resource, group)
    details = _about(resource, group, name)
    if causes:
        details["causes"] = causes
    return ApiError(403, "Forbidden", f"{named} is forbidden: {why}", details)


def bad_request(message: str) -> ApiError:
    """400: the request cannot be understood."""
    return ApiError(400, "BadRequest", message)


def invalid(kind: str, group: str, name: str, problems: list[tuple[str, str, str]]) -> ApiError:
    """422: semantic validation failed; `problems` are (cause reason, field, sentence)."""
    causes = [{"reason": reason, "message": text, "field": field} for reason, field, text in problems]
    listed = [f"{field}: {text}" for _, field, text in problems]
    text = listed[0] if len(listed) == 1 else "[" + ", ".join(listed) + "]"
    details = _about(kind, group, name)
    details["causes"] = causes
    return ApiError(422, "Invalid", f'{_qualified(kind, group)} "{name}" is invalid: {text}', details)


def expired(message: str) -> ApiError:
    """410: a resourceVersion or continue token that this server no longer holds."""
    return ApiError(410, "Expired", message)
