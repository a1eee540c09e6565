"""Idempotency-Key on the API: the same call sent twice is done once (draft-ietf-httpapi-idempotency-key-header).

The key is claimed in the very transaction in which the action writes, so that neither a crash nor a race can do the
action twice or lose its answer: a second call with the key waits for the first one's commit and then gets its answer,
marked `Idempotency-Replayed: true`. A refused call (4xx) keeps nothing: it may be sent again, corrected, under its key.
Keys are one person's; they are forgotten after a day (`core.forget_idempotent_calls`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db import connection, transaction
from rest_framework import exceptions
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core import clock
from apps.core.errors import Conflict
from apps.core.models import IdempotentCall

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
KEPT = timedelta(hours=24)
_KEY = re.compile(r"^[\x21-\x7e]{8,200}$")
_SAFE = ("GET", "HEAD", "OPTIONS")
#: Headers of an answer that belong to what was done.
_HEADERS = ("ETag", "Location", "Retry-After")


class BadKey(exceptions.APIException):
    """The header holds no key, or a body too large to be compared (400)."""

    status_code = 400
    default_code = "invalid"


class KeyReused(exceptions.APIException):
    """The key was used for another call (422)."""

    status_code = 422
    default_code = "idempotency_key_reused"

    def __init__(self) -> None:
        super().__init__("This Idempotency-Key was used for another call. Use a new key for every new change.")


class Replay(Exception):
    """The call was done before: here is its answer."""

    def __init__(self, response: Response) -> None:
        super().__init__("replayed")
        self.response = response


def key_of(request: Any) -> str:
    """Return the key of a changing request, "" without one. Raises BadKey."""
    if request.method in _SAFE:
        return ""
    key = str(request.headers.get(HEADER, "")).strip().strip('"')
    if not key:
        return ""
    if not _KEY.match(key):
        raise BadKey("Send 8 to 200 printable characters without spaces as Idempotency-Key, a UUID say.")
    return key


class Claim:
    """A key claimed for one call, inside its transaction. `secret`: its answer is shown once and never stored."""

    def __init__(self, request: Request, key: str, *, secret: bool = False) -> None:
        self._secret = secret
        self.row: IdempotentCall | None = None
        user: Any = request.user
        # The name of the action stands in the path, the row that it is about too.
        said = f"{request.method} {request.path}\n".encode() + request._request.body
        self._fingerprint = hashlib.sha256(said).hexdigest()
        self._key = hashlib.sha256(f"{user.pk}\n{key}".encode()).hexdigest()

    def take(self) -> None:
        """Claim the key, waiting for a call under way with it. Raises Replay, KeyReused, Conflict."""
        at = clock.now()
        with connection.cursor() as cursor:
            # One statement decides: whoever comes second waits here until the first has committed or rolled back.
            cursor.execute(
                "INSERT INTO core_idempotentcall (key, fingerprint, made_at, status, headers, body)"
                " VALUES (%s, %s, %s, 0, '{}', '') ON CONFLICT (key) DO NOTHING RETURNING key",
                [self._key, self._fingerprint, at],
            )
            mine = cursor.fetchone() is not None
        row = IdempotentCall.objects.get(key=self._key)
        if mine:
            self.row = row
            return
        if row.fingerprint != self._fingerprint:
            raise KeyReused
        if self._secret:
            raise Conflict("This was done already. Its answer held a secret, which is shown once.")
        response = Response(json.loads(row.body) if row.body else None, status=row.status)
        for name, value in row.headers.items():
            response[name] = value
        response[REPLAYED] = "true"
        raise Replay(response)

    def keep(self, response: Any) -> None:
        """Store the answer of what was done; forget the claim where it was refused."""
        if self.row is None:
            return
        if response.status_code >= 400:
            IdempotentCall.objects.filter(pk=self.row.pk).delete()
            return
        self.row.status = response.status_code
        self.row.headers = {name: response[name] for name in _HEADERS if response.has_header(name)}
        self.row.body = "" if self._secret else rendered(getattr(response, "data", None))
        self.row.save(update_fields=["status", "headers", "body"])


def rendered(data: Any) -> str:
    """Return an answer's data as the API writes it, "" for none."""
    from rest_framework.renderers import JSONRenderer

    return JSONRenderer().render(data).decode() if data is not None else ""


def once(handle: Callable[[], Any]) -> Any:
    """Run an API view in one transaction with its claim. Answers of 5xx roll everything back."""
    with transaction.atomic():
        response = handle()
        if response.status_code >= 500:
            transaction.set_rollback(True)
        return response


def forget() -> int:
    """Forget keys older than a day; returns how many."""
    return IdempotentCall.objects.filter(made_at__lt=clock.now() - KEPT).delete()[0]
