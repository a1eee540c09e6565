"""What registry sync registers when the room loads."""

from __future__ import annotations


def register() -> None:
    """Declare events."""
    from apps.catalogue import registry_events  # noqa: F401 (declares itself on import)
