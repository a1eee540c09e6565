"""Append-only, hash-chained audit events. `from apps import audit; audit.record(…)` in the action's transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from apps.audit.actions import Record, record, record_many, record_refusal

__all__ = ["Record", "record", "record_many", "record_refusal"]


def __getattr__(name: str) -> Any:
    """Load what is exported on first use: models may not be imported before the app registry is ready."""
    if name in __all__:
        from apps.audit import actions

        return getattr(actions, name)
    raise AttributeError(name)
