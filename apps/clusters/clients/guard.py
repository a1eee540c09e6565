"""No transaction is open across a network call (design §2): locks would be held for as long as a stranger pleases."""

from __future__ import annotations

from django.db import connection


class TransactionOpen(RuntimeError):
    """A cluster was to be called inside a database transaction."""


def no_transaction(what: str) -> None:
    """Raise TransactionOpen where this thread has a transaction open, other than those a test case opens for itself."""
    if not connection.in_atomic_block:
        return
    # Django marks the atomic blocks of a TestCase (it needs the same distinction for durable blocks).
    if all(getattr(block, "_from_testcase", False) for block in connection.atomic_blocks):
        return
    raise TransactionOpen(f"{what} inside a database transaction: claim, call, then record")
