"""Tables of the teams room."""

from __future__ import annotations

from typing import Any

import django_tables2 as tables

from apps.core.tables import ActionsColumn, AgeColumn, CommonsTable, TimeColumn, UidLinkColumn
from apps.teams.choices import Role
from apps.teams.models import RoleGrant


class GrantTable(CommonsTable):
    """Roles in force."""

    user = UidLinkColumn(
        "accounts:user-detail", kwarg="user_uid", target="user", accessor="user__display_name", verbose_name="Person"
    )
    role = tables.Column(verbose_name="Role")
    scope_name = tables.Column(verbose_name="Where", orderable=False)
    granted_by = tables.Column(accessor="granted_by__display_name", verbose_name="Given by", default="the portal")
    created_at = AgeColumn(verbose_name="Given", attrs={"cell": {"class": "d-none d-md-table-cell"}})
    expires_at = TimeColumn(verbose_name="Counts until", default="revoked")
    actions = ActionsColumn(template_name="teams/grant_actions.html")

    class Meta(CommonsTable.Meta):
        model = RoleGrant
        fields = ("user", "role", "scope_name", "granted_by", "created_at", "expires_at", "actions")
        order_by = ("user",)
        caption = "Roles in force"

    def render_role(self, value: Any, record: RoleGrant) -> str:
        """Write the role in words."""
        return str(Role(record.role).label)
