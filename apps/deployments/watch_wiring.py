"""What watching registers with other rooms."""

from __future__ import annotations


def register() -> None:
    """Hear what observers see of endpoints."""
    from apps.deployments import live_status, watching
    from apps.provisioning import ports

    ports.register_watch(live_status.KINDS, watching.later)
