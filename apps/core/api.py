"""Base of the REST API: scoped viewsets, RFC 9457 problems, cursor pages, versions as ETags; the pages' own actions."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from django.core.exceptions import ImproperlyConfigured, RequestDataTooBig
from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.core.exceptions import ValidationError as DjangoValidationError
from django.db import DatabaseError, DataError, InterfaceError, OperationalError, connection, models, transaction
from django.http import Http404, HttpRequest, JsonResponse
from django.urls import reverse
from rest_framework import exceptions, mixins, viewsets
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core import hooks, idempotency
from apps.core.actor import Actor, Channel, current_request_id
from apps.core.errors import CommonsError, Conflict, Invalid, NotAllowed, NotVisible
from apps.core.pages import assert_scoped
from apps.core.paging import CursorPagination
from apps.core.permissions import may

logger = logging.getLogger(__name__)
PROBLEM_TYPE = "application/problem+json"
_ETAG = re.compile(r'^"(\d{1,10})"$')

#: Problem codes by status, for programs to branch on (`type` stays about:blank, RFC 9457 §4.2.1).
CODES = {
    400: ("invalid", "The input cannot be taken"),
    401: ("not_signed_in", "Sign in first"),
    403: ("not_allowed", "Not allowed"),
    404: ("not_found", "Not found"),
    405: ("method_not_allowed", "Method not allowed"),
    406: ("not_acceptable", "Only application/json can be given"),
    409: ("conflict", "It has changed in the meantime"),
    412: ("version_mismatch", "It has changed since you read it"),
    413: ("too_large", "The request is too large"),
    415: ("unsupported_media_type", "Only application/json is taken"),
    422: ("idempotency_key_reused", "The Idempotency-Key belongs to another call"),
    428: ("precondition_required", "If-Match is required"),
    429: ("too_many_requests", "Too many requests"),
    500: ("server_error", "Something went wrong on our side"),
    503: ("unavailable", "The database is away"),
}


class PreconditionFailed(exceptions.APIException):
    """If-Match names another version than the row's (412)."""

    status_code = 412
    default_code = "version_mismatch"

    def __init__(self, current: Mapping[str, Any] | None = None) -> None:
        super().__init__("Somebody changed this since you read it. Read it again and decide anew.")
        self.current = dict(current or {})


class PreconditionRequired(exceptions.APIException):
    """An action that voids what others decided came without If-Match (428, RFC 6585 §3)."""

    status_code = 428
    default_code = "precondition_required"

    def __init__(self, version: int) -> None:
        super().__init__(
            f'Send If-Match with the ETag that you read, now "{version}": this acts on exactly what you saw. '
            "If-Match: * acts on whatever is there."
        )


def problem(status: int, detail: str = "", *, instance: str = "", **members: Any) -> dict[str, Any]:
    """Return an RFC 9457 problem: type, title, status, detail, instance, plus our `code` and `request_id`."""
    code, title = CODES.get(status, ("error", "The request failed"))
    body: dict[str, Any] = {"type": "about:blank", "title": title, "status": status, "code": code}
    if detail and detail != title:
        body["detail"] = detail
    if instance:
        body["instance"] = instance
    body["request_id"] = current_request_id()
    return {**body, **{name: value for name, value in members.items() if value not in (None, {}, [])}}


def problem_json(request: HttpRequest, status: int, detail: str = "", **members: Any) -> JsonResponse:
    """Return a problem as a plain Django response, for refusals outside any API view (an unknown path, a crash)."""
    body = problem(status, detail, instance=request.path, **members)
    response = JsonResponse(body, status=status, content_type=PROBLEM_TYPE)
    response["Cache-Control"] = "no-store"
    return response


def problem_handler(error: Exception, context: Mapping[str, Any]) -> JsonResponse:
    """Turn every refusal of an API view into a problem (REST_FRAMEWORK's EXCEPTION_HANDLER).

    Unknown exceptions become a 500 without detail; they are logged here with the request id.
    """
    request: Request | None = context.get("request")
    headers: dict[str, str] = {}
    members: dict[str, Any] = {}
    detail = ""
    if isinstance(error, CommonsError):
        status, detail = error.status, error.message
        if isinstance(error, Invalid):
            members["errors"] = {name or "form": messages for name, messages in error.errors.items()}
        elif isinstance(error, Conflict):
            members["current"] = error.current
        elif isinstance(error, NotAllowed):
            members["rule"] = error.rule
            _record_refusal(request, error)
    elif isinstance(error, exceptions.ValidationError):
        status, detail = 400, "Please correct the named fields."
        members["errors"] = _flatten(error.detail)
    elif isinstance(error, exceptions.APIException):
        status, detail = error.status_code, str(error.detail)
        if isinstance(error, PreconditionFailed):
            members["current"] = error.current
        if (challenge := getattr(error, "auth_header", None)) is not None:
            headers["WWW-Authenticate"] = challenge
        if (wait := getattr(error, "wait", None)) is not None:
            headers["Retry-After"] = str(int(wait) + 1)
    elif isinstance(error, Http404):
        status = 404
    elif isinstance(error, DjangoPermissionDenied):
        status = 403
    elif isinstance(error, RequestDataTooBig):
        status, detail = 413, "The body is larger than the portal takes. Send less at once."
    elif isinstance(error, DataError | DjangoValidationError):
        # What no form foresaw: a number, a moment or an offset that the database has no place for.
        status, detail = 400, "The input holds a value that cannot be stored or compared."
        logger.warning("input that the database refused", exc_info=error)
        if isinstance(error, DataError) and connection.in_atomic_block:
            transaction.set_rollback(True)
    elif isinstance(error, OperationalError | InterfaceError):
        logger.error("the database is away", exc_info=error)
        status, detail = 503, "The database does not answer. Nothing was changed; try again in a moment."
        headers["Retry-After"] = "5"
    else:
        # ruff has no way to see that a handler is the place where blind catching belongs; DatabaseError is one of many.
        logger.error(
            "an API request failed",
            exc_info=error,
            extra={"kind": "database" if isinstance(error, DatabaseError) else "code"},
        )
        status, detail = 500, "The error is logged under the request id. Nothing was half-written."
    body = problem(status, detail, instance=request.path if request is not None else "", **members)
    # Not through a renderer: a problem is JSON also where the view gives YAML, HTML or nothing the caller takes.
    return JsonResponse(body, status=status, headers=headers, content_type=PROBLEM_TYPE)


def _flatten(detail: Any, prefix: str = "") -> dict[str, list[str]]:
    """Return serializer errors as path → messages ("lines.0.amount")."""
    if isinstance(detail, Mapping):
        found: dict[str, list[str]] = {}
        for name, inner in detail.items():
            key = "form" if name == "non_field_errors" else str(name)
            found.update(_flatten(inner, f"{prefix}.{key}" if prefix else key))
        return found
    if isinstance(detail, list) and any(isinstance(item, Mapping) for item in detail):
        found = {}
        for position, item in enumerate(detail):
            found.update(_flatten(item, f"{prefix}.{position}" if prefix else str(position)))
        return found
    texts = [str(item) for item in detail] if isinstance(detail, list) else [str(detail)]
    return {prefix or "form": texts} if texts else {}


def _record_refusal(request: Request | None, error: NotAllowed) -> None:
    user: Any = request.user if request is not None else None
    if request is not None and getattr(user, "is_authenticated", False):
        hooks.refused(request._request, Actor.of(user, Channel.API), error)


class ActorMixin:
    """The actor of an API request, and the version its caller saw."""

    request: Any

    @property
    def actor(self) -> Actor:
        """Who acts in this request, through the API."""
        user: Any = self.request.user
        return Actor.of(user, Channel.API)

    @property
    def expected_version(self) -> int | None:
        """The version in If-Match, or None where the header is absent or `*`.

        Raises Invalid for a header that holds no ETag of ours.
        """
        raw = self.request.headers.get("If-Match", "").strip()
        if raw in ("", "*"):
            return None
        match = _ETAG.match(raw)
        if match is None:
            raise Invalid({"If-Match": 'Send the ETag that you read, such as "3".'})
        return int(match.group(1))


class OnceMixin:
    """Takes Idempotency-Key: claim, action and answer are one transaction (`core.idempotency`)."""

    request: Any
    #: Actions whose answers hold something that is shown once: they are done once, but not answered again.
    secret_answers: ClassVar[frozenset[str]] = frozenset()
    _claim: idempotency.Claim | None = None

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Handle the call; with a key, in one transaction."""
        handle = super().dispatch  # type: ignore[misc]  # a mixin in front of APIView
        self._claim = None
        if not request.headers.get(idempotency.HEADER) or request.method in ("GET", "HEAD", "OPTIONS"):
            return handle(request, *args, **kwargs)
        return idempotency.once(lambda: handle(request, *args, **kwargs))

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Authenticate and check, then claim the key. Raises Replay where the call was done before."""
        super().initial(request, *args, **kwargs)  # type: ignore[misc]  # as above
        if key := idempotency.key_of(request):
            claim = idempotency.Claim(request, key, secret=getattr(self, "action", "") in self.secret_answers)
            try:
                claim.take()
            except idempotency.Replay:
                self.check_replay()
                raise
            self._claim = claim

    def check_replay(self) -> None:
        """Refuse an earlier answer to somebody who may not see its row any more. Raises NotVisible."""

    def handle_exception(self, exc: Exception) -> Any:
        """Answer with what was answered before, or with a problem."""
        if isinstance(exc, idempotency.Replay):
            return exc.response
        return super().handle_exception(exc)  # type: ignore[misc]  # as above

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        """Keep the answer with the key."""
        final = super().finalize_response(request, response, *args, **kwargs)  # type: ignore[misc]  # as above
        if self._claim is not None:
            self._claim.keep(final)
        return final


class CommonsViewSet(
    OnceMixin, ActorMixin, mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Any]
):
    """List and retrieve within the caller's scope; rooms add actions with `@action(detail=True, methods=["post"])`.

    `permission` is asked for everything, `permissions["withdraw"]` for that action (on the object, where there is one).
    The order is that of the pages: 404 → 403 → 412/409 → 400 → act.
    """

    queryset: Any = None
    scope_free: ClassVar[str] = ""
    permission: ClassVar[str | None] = None
    permissions: ClassVar[Mapping[str, str]] = {}
    lookup_field = "uid"
    lookup_value_converter = "uuid"

    @classmethod
    def as_view(cls, actions: Any = None, **initkwargs: Any) -> Any:
        """Return the view function. Raises ImproperlyConfigured for a viewset without a scope."""
        if cls.queryset is None:
            if not cls.scope_free and cls.get_base_queryset is CommonsViewSet.get_base_queryset:
                raise ImproperlyConfigured(f"{cls.__module__}.{cls.__qualname__} has no queryset and no scope_free")
        else:
            assert_scoped(cls.queryset, cls.__qualname__)
        return super().as_view(actions, **initkwargs)

    def get_base_queryset(self) -> Any:
        """Return all rows, before scoping."""
        return self.queryset.all()

    def get_queryset(self) -> Any:
        """Return the rows that the caller may see."""
        queryset = assert_scoped(self.get_base_queryset(), type(self).__qualname__)
        return queryset.none() if getattr(self, "swagger_fake_view", False) else queryset.visible_to(self.request.user)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Authenticate, then ask for the permission where it hangs on no object."""
        super().initial(request, *args, **kwargs)
        if not self.detail and (permission := self._permission()) and not may(request.user, permission, None):
            raise NotAllowed(rule=permission)

    def check_replay(self) -> None:
        """An answer about a row is given again only while the caller sees the row."""
        if not self.detail:
            return
        value = self.kwargs[self.lookup_url_kwarg or self.lookup_field]
        if not self.get_queryset().filter(**{self.lookup_field: value}).exists():
            raise NotVisible

    def _permission(self) -> str | None:
        return self.permissions.get(self.action or "", self.permission)

    def get_object(self) -> Any:
        """Return the row. Raises NotVisible, NotAllowed, PreconditionFailed, in that order."""
        value = self.kwargs[self.lookup_url_kwarg or self.lookup_field]
        row = self.filter_queryset(self.get_queryset()).filter(**{self.lookup_field: value}).first()
        if row is None:
            raise NotVisible
        if (permission := self._permission()) and not may(self.request.user, permission, row):
            raise NotAllowed(rule=permission)
        version = getattr(row, "version", None)
        if version is not None and (expected := self.expected_version) is not None and expected != version:
            raise PreconditionFailed({"version": version, "status": getattr(row, "status", None)})
        return row

    def get_matched(self) -> Any:
        """Return the row for an action that requires If-Match. Raises PreconditionRequired after `get_object`'s."""
        row = self.get_object()
        if not self.request.headers.get("If-Match", "").strip():
            raise PreconditionRequired(row.version)
        return row

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return one row, with its version as ETag."""
        return self.answer(self.get_object())

    def answer(self, row: Any, *, status: int = 200, serializer_class: Any = None) -> Response:
        """Return a row as the viewset shows it, with its version as ETag: the end of every action."""
        kind = serializer_class or self.get_serializer_class()
        response = Response(kind(row, context=self.get_serializer_context()).data, status=status)
        if isinstance(row, models.Model) and (version := getattr(row, "version", None)) is not None:
            response["ETag"] = f'"{version}"'
        return response

    def perform(
        self,
        function: Callable[..., Any],
        given: Any = None,
        *,
        matched: bool = False,
        status: int = 200,
        **more: Any,
    ) -> Response:
        """Do one of the room's actions on the row, with the body that `given` describes, and answer with the row.

        The action gets the key, the fields, the actor and, where it takes one, the version of If-Match; `matched`:
        If-Match is required. What the action returns is not shown but the row as it is then, as the viewset reads it.
        """
        row = self.get_matched() if matched else self.get_object()
        data = self.read_input(given) if given is not None else {}
        if "expected_version" in inspect.signature(function).parameters:
            more["expected_version"] = self.expected_version
        function(row.pk, **data, **more, actor=self.actor)
        # Read anew: whoever acted saw the row, even where the action has just moved it out of their sight.
        fresh = self.get_queryset().filter(pk=row.pk).first() or self.get_base_queryset().get(pk=row.pk)
        return self.accepted(fresh) if status == 202 else self.answer(fresh, status=status)

    def made(self, row: Any) -> Response:
        """Answer with a row that was just made (201), as the viewset reads it."""
        return self.answer(self.get_base_queryset().get(pk=row.pk), status=201)

    def accepted(self, row: Any, *, serializer_class: Any = None, location: str = "") -> Response:
        """Answer 202: the work is queued, and `Location` (by default the row's own address) says how far it is."""
        response = self.answer(row, status=202, serializer_class=serializer_class)
        response["Location"] = location or reverse(f"api:{self.basename}-detail", kwargs={"uid": row.uid})
        response["Retry-After"] = "2"
        return response

    def read_input(self, serializer_class: Any) -> dict[str, Any]:
        """Return the validated body of an action. Raises ValidationError, which becomes a 400 problem."""
        serializer = serializer_class(data=self.request.data, context=self.get_serializer_context())
        serializer.is_valid(raise_exception=True)
        return dict(serializer.validated_data)


__all__ = [
    "ActorMixin",
    "CommonsViewSet",
    "CursorPagination",
    "PreconditionFailed",
    "PreconditionRequired",
    "problem",
    "problem_handler",
    "problem_json",
]
