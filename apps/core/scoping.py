"""The scope check after writing: what an action leaves must lie where its actor may see it."""

from __future__ import annotations

from typing import Any

from django.db import connection, models

from apps.core.errors import NotAllowed
from apps.core.pages import assert_scoped


def must_see(user: Any, *rows: models.Model) -> None:
    """Refuse a change whose rows the person does not see afterwards, so that its transaction rolls back.

    `user` None is the portal itself, which sees everything. Call it after the last write of an action that makes rows
    in a place that was asked for, or moves them. Raises NotAllowed (rule "outside_scope"), RuntimeError outside a
    transaction: then there would be nothing to roll back.
    """
    if not connection.in_atomic_block:
        raise RuntimeError("the scope check belongs into the transaction that wrote")
    if user is None:
        return
    for row in rows:
        kind = type(row)
        queryset = assert_scoped(kind._default_manager.all(), kind.__qualname__)
        if not queryset.visible_to(user).filter(pk=row.pk).exists():
            raise NotAllowed("This would lie outside what you may see. Nothing was changed.", rule="outside_scope")


__all__ = ["must_see"]
