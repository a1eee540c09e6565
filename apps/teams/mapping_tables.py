"""Table of group roles."""

from __future__ import annotations

from typing import Any

import django_tables2 as tables

from apps.core.tables import AgeColumn, CommonsTable, UidLinkColumn
from apps.teams.choices import Role
from apps.teams.group_roles import place_of
from apps.teams.models import GroupMapping


class MappingTable(CommonsTable):
    """One mapping a row."""

    group = UidLinkColumn("teams:mapping-detail", kwarg="mapping_uid", verbose_name="Group")
    provider = tables.Column(accessor="provider__name", verbose_name="Identity provider")
    role = tables.Column(verbose_name="Role")
    where = tables.Column(accessor="pk", verbose_name="Where", orderable=False)
    people = tables.Column(verbose_name="People", attrs={"th": {"class": "text-end"}, "td": {"class": "text-end"}})
    made_by = tables.Column(accessor="made_by__display_name", verbose_name="Made by", default="the portal")
    created_at = AgeColumn(verbose_name="Made", attrs={"cell": {"class": "d-none d-md-table-cell"}})

    class Meta(CommonsTable.Meta):
        model = GroupMapping
        fields = ("group", "provider", "role", "where", "people", "made_by", "created_at")
        order_by = ("group",)
        caption = "Roles that groups give"

    def render_role(self, value: Any, record: GroupMapping) -> str:
        """Write the role in words."""
        return str(Role(record.role).label)

    def render_where(self, record: GroupMapping) -> str:
        """Write the place in words."""
        return place_of(record)[1]

    def value_where(self, record: GroupMapping) -> str:
        """Export the place in words."""
        return place_of(record)[1]
