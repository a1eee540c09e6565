"""App configuration of the rates room."""

from django.apps import AppConfig


class RatesConfig(AppConfig):
    """Rate cards, prices and estimates."""

    name = "apps.rates"
    label = "rates"

    def ready(self) -> None:
        """Declare the room's events."""
        from apps.rates import events  # noqa: F401 (declares itself on import)
