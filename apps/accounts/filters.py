"""Filters of the list of people."""

from __future__ import annotations

import django_filters

from apps.accounts.models import User
from apps.core.filters import CommonsFilterSet, SearchFilter


class UserFilter(CommonsFilterSet):
    """By name or address, and by state."""

    q = SearchFilter(columns=["display_name", "email"])
    is_active = django_filters.ChoiceFilter(
        label="Account", choices=[("true", "In use"), ("false", "Switched off")], empty_label="All"
    )

    class Meta:
        model = User
        fields: list[str] = []
