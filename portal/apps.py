"""App configuration of the Django project itself: system checks, panels, the hooks core leaves open."""

from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules


class PortalConfig(AppConfig):
    """Wires the rooms together where they must not know each other."""

    name = "portal"
    label = "portal"

    def ready(self) -> None:
        """Register system checks and hooks, then find every room's panels."""
        from apps.core.permissions import may
        from portal import checks, hooks, panels  # noqa: F401 (checks registers on import)

        panels.set_gate(may)
        hooks.install()
        autodiscover_modules("panels")
