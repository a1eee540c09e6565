"""Refusals of the provisioning interface, in the words of RFC 7644 §3.12."""

from __future__ import annotations

from apps.core.errors import CommonsError


class ScimError(CommonsError):
    """A request that is refused: HTTP status, `scimType` (RFC 7644 table 9, may be empty) and what to do about it."""

    def __init__(self, status: int, detail: str, scim_type: str = "") -> None:
        super().__init__(detail)
        self.status, self.detail, self.scim_type = status, detail, scim_type


def invalid_value(detail: str) -> ScimError:
    """A value that is missing, of the wrong type, or not taken."""
    return ScimError(400, detail, "invalidValue")


def invalid_path(detail: str) -> ScimError:
    """A path of a PATCH that leads nowhere."""
    return ScimError(400, detail, "invalidPath")


def invalid_filter(detail: str) -> ScimError:
    """A filter that cannot be read or asks for something that is not searched."""
    return ScimError(400, detail, "invalidFilter")


def not_unique(detail: str) -> ScimError:
    """Another resource has this value already."""
    return ScimError(409, detail, "uniqueness")


def not_found(what: str) -> ScimError:
    """No such resource of this provider."""
    return ScimError(404, f"There is no such {what}.")


__all__ = ["ScimError", "invalid_filter", "invalid_path", "invalid_value", "not_found", "not_unique"]
