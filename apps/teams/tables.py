"""Tables of the teams room."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import django_tables2 as tables

from apps.core.tables import ActionsColumn, AgeColumn, CommonsTable, TimeColumn, UidLinkColumn
from apps.core.templatetags import commons
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
    expires_at = TimeColumn(verbose_name="Counts until", empty_values=())
    actions = ActionsColumn(template_name="teams/grant_actions.html")

    class Meta(CommonsTable.Meta):
        model = RoleGrant
        fields = ("user", "role", "scope_name", "granted_by", "created_at", "expires_at", "actions")
        order_by = ("user",)
        caption = "Roles in force"

    def render_role(self, value: Any, record: RoleGrant) -> str:
        """Write the role in words."""
        return str(Role(record.role).label)

    def render_expires_at(self, value: datetime | None, record: RoleGrant) -> str:
        """Write the moment, or what ends the role instead."""
        return commons.moment(value) if value is not None else self.value_expires_at(value, record)

    def value_expires_at(self, value: datetime | None, record: RoleGrant) -> Any:
        """Export the moment, or the same words."""
        if value is not None:
            return value
        return "it is revoked" if record.mapping_id is None else "the person leaves the group, or its role ends"
