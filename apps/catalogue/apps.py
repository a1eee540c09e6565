"""App configuration of the catalogue room."""

from django.apps import AppConfig


class CatalogueConfig(AppConfig):
    """Models, versions, cards, evidence, controls, registries."""

    name = "apps.catalogue"
    label = "catalogue"

    def ready(self) -> None:
        """Register what the room offers to others, and where secrets are stored."""
        from apps.catalogue import wiring
        from apps.core.crypto import register_secrets

        wiring.register()
        register_secrets("catalogue.ModelStore", "credentials", "model stores")
        register_secrets("catalogue.Registry", "credentials", "registries")
        register_secrets("catalogue.Registry", "webhook_secret", "secrets of registries' events")
