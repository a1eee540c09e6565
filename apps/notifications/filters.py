"""Filters above the lists of notifications and mail."""

from __future__ import annotations

from typing import Any

import django_filters

from apps.core.filters import CommonsFilterSet, SearchFilter
from apps.notifications.choices import MailStatus
from apps.notifications.models import Notification, SentMail


class NotificationFilter(CommonsFilterSet):
    """Search, and whether it was read."""

    search = SearchFilter(columns=["title", "body"])
    read = django_filters.ChoiceFilter(
        label="Read", method="by_read", choices=[("no", "Not read yet"), ("yes", "Read")], empty_label="All"
    )

    class Meta:
        model = Notification
        fields: list[str] = []

    def by_read(self, queryset: Any, name: str, value: str) -> Any:
        """Keep the read or the unread ones."""
        return queryset.filter(read_at__isnull=value == "no")


class MailFilter(CommonsFilterSet):
    """Search and status."""

    search = SearchFilter(columns=["subject", "address"])
    status = django_filters.ChoiceFilter(label="Status", choices=MailStatus.choices, empty_label="All")

    class Meta:
        model = SentMail
        fields: list[str] = []
