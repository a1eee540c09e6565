"""Scope gate and locking. A tenant model's queryset subclasses ScopedQuerySet and answers `visible_to`."""

from __future__ import annotations

import uuid
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
