"""App configuration of the teams room."""

from django.apps import AppConfig


class TeamsConfig(AppConfig):
    """Registers the scope resolver behind `core.permissions.may`."""

    name = "apps.teams"
    label = "teams"

    def ready(self) -> None:
        """Install the resolver."""
        from apps.core.permissions import register_holders, register_resolver
        from apps.teams import scope

        register_resolver(scope.may, scope.reach)
        register_holders(scope.holders)
