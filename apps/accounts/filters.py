"""Filters of the list of people."""

from __future__ import annotations

from typing import Any

import django_filters

from apps.accounts.models import User
from apps.core.filters import CommonsFilterSet, SearchFilter


class UserFilter(CommonsFilterSet):
    """By name or address, and by state."""

    q = SearchFilter(columns=["display_name", "email"])
    is_active = django_filters.ChoiceFilter(
        label="Account",
        choices=[("true", "In use"), ("false", "Switched off")],
        empty_label="All",
        method="by_state",
    )

    class Meta:
        model = User
        fields: list[str] = []

    def by_state(self, rows: Any, name: str, value: str) -> Any:
        """Keep accounts that are in use, or those that are switched off."""
        return rows.filter(is_active=value == "true")
