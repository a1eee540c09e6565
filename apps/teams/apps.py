"""App configuration of the teams room."""

from django.apps import AppConfig


class TeamsConfig(AppConfig):
    """Registers the scope resolver behind `core.permissions.may`, and who gives roles to groups."""

    name = "apps.teams"
    label = "teams"

    def ready(self) -> None:
        """Install the resolver and the hooks of the rooms below."""
        from apps.accounts.ports import (
            register_groups_changed,
            register_impersonation_bar,
            register_permissions,
            register_rights_mover,
            register_roles_beyond_membership,
        )
        from apps.core.permissions import register_holders, register_resolver
        from apps.teams import scope
        from apps.teams.choices import ALL_PERMISSIONS
        from apps.teams.group_roles import sync_groups, sync_many
        from apps.teams.handing_over import move_rights
        from apps.teams.support import impersonation_bar, roles_beyond_membership

        register_resolver(scope.may, scope.reach)
        register_holders(scope.holders)
        register_groups_changed(sync_groups, sync_many)
        register_impersonation_bar(impersonation_bar)
        register_roles_beyond_membership(roles_beyond_membership)
        register_rights_mover(move_rights)
        register_permissions(ALL_PERMISSIONS)
