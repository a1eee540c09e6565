"""App configuration of the teams room."""

from django.apps import AppConfig


class TeamsConfig(AppConfig):
    """Registers the scope resolver behind `core.permissions.may`, and who gives roles to groups."""

    name = "apps.teams"
    label = "teams"

    def ready(self) -> None:
        """Install the resolver and the hooks of the rooms below."""
        from apps.accounts.ports import register_groups_changed
        from apps.core.permissions import register_holders, register_resolver
        from apps.teams import scope
        from apps.teams.group_roles import sync_groups

        register_resolver(scope.may, scope.reach)
        register_holders(scope.holders)
        register_groups_changed(sync_groups)
