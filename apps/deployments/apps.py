"""App configuration of the deployments room."""

from django.apps import AppConfig


class DeploymentsConfig(AppConfig):
    """Endpoints, releases, rollouts, enforcement, placement."""

    name = "apps.deployments"
    label = "deployments"

    def ready(self) -> None:
        """Register what the room offers to others."""
        from apps.deployments import wiring

        wiring.register()
