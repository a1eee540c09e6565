"""Copying plain data."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def copied(value: T) -> T:
    """Return a copy of plain data (dicts, lists, and what never changes), many times faster than `copy.deepcopy`.

    Unlike that it copies what stands in two places twice, and keeps any other object as it is.
    """
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}  # type: ignore[return-value]  # a dict as it was
    if isinstance(value, list):
        return [copied(item) for item in value]  # type: ignore[return-value]  # a list as it was
    return value


__all__ = ["copied"]
