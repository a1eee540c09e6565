"""What the room registers with others when it loads; each part of the room adds its own line."""

from __future__ import annotations


def register() -> None:
    """Register subjects, panels, listeners and checks."""
    from apps.catalogue import (
        events,  # noqa: F401 (declares itself on import)
        evidence_wiring,
        registry_wiring,
    )

    evidence_wiring.register()
    registry_wiring.register()
