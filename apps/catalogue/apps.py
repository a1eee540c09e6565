"""App configuration of the catalogue room."""

from django.apps import AppConfig


class CatalogueConfig(AppConfig):
    """Models, versions, cards, evidence, controls, registries."""

    name = "apps.catalogue"
    label = "catalogue"

    def ready(self) -> None:
        """Register what the room offers to others."""
        from apps.catalogue import wiring

        wiring.register()
