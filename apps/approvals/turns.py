"""Waiting for one's turn at a named point, where no row stands for what must happen one after another."""

from __future__ import annotations

from django.db import connection


def take_turn(kind: str, name: str) -> None:
    """Wait for one's turn at a named point until the transaction ends (a PostgreSQL advisory lock)."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"approvals.{kind}:{name}"])
