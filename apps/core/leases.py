"""Leases: how a worker claims work without holding a transaction open across a network call."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from django.db import connection, transaction

from apps.core import clock
from apps.core.errors import Conflict
from apps.core.models import Lease


def claim(name: str, *, seconds: float) -> uuid.UUID | None:
    """Take the lease `name` for `seconds` and return its token, or None while another holder's is in force.

    One INSERT … ON CONFLICT decides, so two workers can never both win.
    """
    token, at = uuid.uuid4(), clock.now()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO core_lease (name, holder, acquired_at, expires_at, detail) VALUES (%s, %s, %s, %s, '{}')"
            " ON CONFLICT (name) DO UPDATE SET holder = EXCLUDED.holder, acquired_at = EXCLUDED.acquired_at,"
            " expires_at = EXCLUDED.expires_at, detail = '{}' WHERE core_lease.expires_at <= %s RETURNING holder",
            [name, token, at, at + timedelta(seconds=seconds), at],
        )
        return token if cursor.fetchone() else None


def extend(name: str, token: uuid.UUID, *, seconds: float) -> bool:
    """Prolong a lease still held; False where it has moved to another holder."""
    at = clock.now()
    return bool(Lease.objects.filter(name=name, holder=token).update(expires_at=at + timedelta(seconds=seconds)))


def release(name: str, token: uuid.UUID) -> None:
    """Give the lease back early; harmless where it has moved on."""
    Lease.objects.filter(name=name, holder=token).delete()


def require(name: str, token: uuid.UUID) -> None:
    """Lock the lease row and make sure that it is still ours: call first in the recording transaction.

    Raises Conflict where the lease moved or expired, so that a slow worker never overwrites a newer one's result.
    """
    held = Lease.objects.select_for_update().filter(name=name, holder=token, expires_at__gt=clock.now()).exists()
    if not held:
        raise Conflict(f"the lease {name} has moved on")


@contextmanager
def held(name: str, *, seconds: float) -> Iterator[uuid.UUID | None]:
    """Claim `name` for the block (yields None where it is taken) and release it afterwards."""
    token = claim(name, seconds=seconds)
    try:
        yield token
    finally:
        if token is not None:
            release(name, token)
