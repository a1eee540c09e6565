"""What releases and rollouts register with other rooms."""

from __future__ import annotations


def register() -> None:
    """Register releases as a subject of approval."""
