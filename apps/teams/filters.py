"""Filters of the list of roles."""

from __future__ import annotations

import django_filters

from apps.core.filters import CommonsFilterSet, SearchFilter
from apps.teams.choices import Role
from apps.teams.models import RoleGrant


class GrantFilter(CommonsFilterSet):
    """By person, role and place."""

    q = SearchFilter(columns=["user__display_name", "user__email", "unit__name", "team__name"], label="Person or place")
    role = django_filters.ChoiceFilter(choices=Role.choices, label="Role", empty_label="All")

    class Meta:
        model = RoleGrant
        fields: list[str] = []
