"""App configuration of the core room."""

from django.apps import AppConfig


class CoreConfig(AppConfig):
    """Registers core's system checks."""

    name = "apps.core"
    label = "core"

    def ready(self) -> None:
        """Import the checks so that Django finds them."""
        from apps.core import checks  # noqa: F401 (registers on import)
