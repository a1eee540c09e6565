"""Filters above the list of requests."""

from __future__ import annotations

from typing import Any

import django_filters

from apps.approvals import ports, selectors
from apps.approvals.choices import RequestStatus
from apps.approvals.models import ApprovalRequest
from apps.core.filters import CommonsFilterSet, SearchFilter


def _teams(request: Any) -> Any:
    return selectors.visible_teams(request.user)


class RequestFilter(CommonsFilterSet):
    """Status, team, kind, text, and what waits for the person who looks."""

    OPEN = "open"

    search = SearchFilter(columns=["title"])
    status = django_filters.ChoiceFilter(
        label="Status", method="by_status", choices=[(OPEN, "Open (any)"), *RequestStatus.choices], empty_label="All"
    )
    team = django_filters.ModelChoiceFilter(label="Team", queryset=_teams, to_field_name="slug", empty_label="All")
    kind = django_filters.ChoiceFilter(label="Kind", field_name="subject_type", empty_label="All")
    waiting = django_filters.ChoiceFilter(
        label="Waits for", method="by_waiting", choices=[("me", "Me, to decide")], empty_label="Anybody"
    )

    class Meta:
        model = ApprovalRequest
        fields: tuple[str, ...] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.filters["kind"].extra["choices"] = [(kind, ports.label_of(kind)) for kind in ports.subject_types()]

    def by_status(self, queryset: Any, name: str, value: str) -> Any:
        """Keep one status, or all open ones."""
        return queryset.open() if value == self.OPEN else queryset.filter(status=value)

    def by_waiting(self, queryset: Any, name: str, value: str) -> Any:
        """Keep what the person can decide now."""
        return queryset.filter(pk__in=selectors.waiting_for(self.request.user).order_by().values("pk"))
