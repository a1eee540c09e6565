"""What the room registers with others when it loads; each part of the room adds its own line."""

from __future__ import annotations


def register() -> None:
    """Register subjects, panels, listeners and checks: one `<part>_wiring.register()` a line."""
    from apps.deployments import core_wiring, enforcement_wiring, watch_wiring

    core_wiring.register()
    enforcement_wiring.register()
    watch_wiring.register()
