"""Scope gate and locking. A tenant model's queryset subclasses ScopedQuerySet and answers `visible_to`."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, Self, TypeVar

from django.db import models

from apps.core.errors import Conflict, NotVisible

_M = TypeVar("_M", bound=models.Model)


class ScopedQuerySet(models.QuerySet[_M]):
    """A queryset that fails closed: a room must say who sees its rows before any page can show them."""

    def visible_to(self, user: Any) -> Self:
        """Return the rows inside the person's scope (`.none()` for nobody)."""
        raise TypeError(f"{type(self).__name__} does not define visible_to(): no page may show {self.model.__name__}")

    def get_visible(self, user: Any, uid: uuid.UUID | str) -> _M:
        """Return one visible row by uid. Raises NotVisible, whether it is missing or foreign."""
        try:
            row = self.visible_to(user).filter(uid=uid).first()
        except (ValueError, TypeError) as error:
            raise NotVisible from error
        if row is None:
            raise NotVisible
        return row

    def select_for_update(
        self, nowait: bool = False, skip_locked: bool = False, of: Sequence[str] = (), no_key: bool = True
    ) -> Self:
        """Lock rows against each other, not against foreign key checks (FOR NO KEY UPDATE unless told otherwise).

        A transaction that commits holds the head of the audit chain while its last foreign keys are checked. Waiting
        there for a row that another committer has locked with FOR UPDATE would be a deadlock: that one waits for the
        head. Nobody changes or reuses keys here, so the weaker lock protects as much.
        """
        return super().select_for_update(nowait=nowait, skip_locked=skip_locked, of=of, no_key=no_key)

    def locked(self, pk: int, *, expected_version: int | None = None) -> _M:
        """Return the row locked for this transaction.

        Raises NotVisible where it is gone, Conflict where `expected_version` is given and the row moved on.
        """
        row = self.select_for_update(of=("self",)).filter(pk=pk).first()
        if row is None:
            raise NotVisible
        version = getattr(row, "version", None)
        if expected_version is not None and version != expected_version:
            raise Conflict(
                "Somebody changed this while you were looking at it. Here is how it stands now.",
                current={"version": version, "status": getattr(row, "status", None)},
            )
        return row
