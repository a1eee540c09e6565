"""App configuration of the Django project itself (system checks, template context)."""

from django.apps import AppConfig


class PortalConfig(AppConfig):
    """Registers the project's system checks."""

    name = "portal"
    label = "portal"

    def ready(self) -> None:
        """Import the checks so that Django finds them."""
        from portal import checks  # noqa: F401 (registers on import)
