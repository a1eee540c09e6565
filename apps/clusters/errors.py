"""What can go wrong when the portal calls a cluster or a metrics server: told apart by what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class ClusterError(Exception):
    """Base. `code` is stored with failures; `retryable`: trying again later can succeed without a person.

    `status` is the HTTP status (0: no answer); `warnings` are the server's Warning headers.
    """

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = True
    #: Concerns the cluster as a whole, so that trying other objects now is in vain.
    cluster_wide: ClassVar[bool] = False

    def __init__(
        self, message: str, *, status: int = 0, warnings: Sequence[str] = (), details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.warnings = list(warnings)
        self.details = dict(details or {})


class Unreachable(ClusterError):
    """No answer: refused, timed out, name or TLS failure, connection cut."""

    code = "unreachable"
    cluster_wide = True


class AddressRefused(ClusterError):
    """The address is one the portal does not call (design: no way into metadata services)."""

    code = "address_refused"
    cluster_wide = True


class Throttled(ClusterError):
    """429: come back after `retry_after` seconds."""

    code = "throttled"
    cluster_wide = True

    def __init__(self, message: str, *, retry_after: float = 1.0, status: int = 429, **kwargs: Any) -> None:
        super().__init__(message, status=status, **kwargs)
        self.retry_after = retry_after


class ServerError(ClusterError):
    """5xx, a redirect, or an answer that is no such thing as asked for. `retry_after` in seconds, where told."""

    code = "server_error"

    def __init__(self, message: str, *, retry_after: float = 0.0, **kwargs: Any) -> None:
        super().__init__(message, **kwargs)
        self.retry_after = retry_after


class Unauthorised(ClusterError):
    """401: the cluster answers, but not to our credentials; goes on once they are replaced."""

    code = "unauthorised"
    cluster_wide = True


class Forbidden(ClusterError):
    """403: permission or admission refuses; a person has to act."""

    code = "forbidden"
    retryable = False


class Terminating(ClusterError):
    """The namespace is being deleted; it can be made anew once it is gone."""

    code = "terminating"


class ConflictError(ClusterError):
    """409: another manager holds fields (`causes`: {manager, field, message}), or the object moved on (no causes)."""

    code = "conflict"
    retryable = False

    def __init__(self, message: str, *, causes: Sequence[Mapping[str, str]] = (), **kwargs: Any) -> None:
        super().__init__(message, status=409, **kwargs)
        self.causes = [dict(cause) for cause in causes]


class StaleRead(ConflictError):
    """409 without field owners: the object changed between read and write; read again and go on."""

    code = "stale_read"
    retryable = True


class InvalidObject(ClusterError):
    """400, 422, or a 500 that means the object itself: no retry can help."""

    code = "invalid"
    retryable = False


class NotFound(ClusterError):
    """404: no such object, namespace or kind."""

    code = "not_found"


class Gone(ClusterError):
    """410: the resource version or continue token has expired; list again."""

    code = "gone"


class TooLarge(ClusterError):
    """The answer is larger than the portal takes."""

    code = "too_large"
    retryable = False
