"""Filters of the trail: who, what, which object, which team, through which door, when."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, time, timedelta
from typing import Any

import django_filters
from django import forms
from django.contrib.auth import get_user_model
from django.db.models import Q, QuerySet

from apps.audit.models import AuditEvent
from apps.core import events
from apps.core.actor import Channel
from apps.core.filters import CommonsFilterSet


def _actions() -> list[tuple[str, str]]:
    return [(event.name, event.name) for event in events.all_events()]


def _rooms() -> list[tuple[str, str]]:
    rooms = sorted({event.name.partition(".")[0] for event in events.all_events()})
    return [(room, room.capitalize()) for room in rooms]


def _day() -> forms.DateInput:
    return forms.DateInput(attrs={"type": "date"})


class AuditEventFilter(CommonsFilterSet):
    """The filter form above the trail."""

    who = django_filters.CharFilter(
        method="filter_who", label="Who", max_length=200, widget=forms.TextInput(attrs={"type": "search"})
    )
    room = django_filters.ChoiceFilter(choices=_rooms, method="filter_room", label="Room", empty_label="All rooms")
    action = django_filters.ChoiceFilter(choices=_actions, label="What", empty_label="Everything")
    object = django_filters.CharFilter(
        method="filter_object",
        label="Object",
        max_length=200,
        widget=forms.TextInput(attrs={"type": "search", "placeholder": "uid or kind, such as quotas.request"}),
    )
    team = django_filters.UUIDFilter(field_name="team_uid", label="Team uid")
    channel = django_filters.ChoiceFilter(
        choices=[(channel.value, channel.value.capitalize()) for channel in Channel],
        label="Through",
        empty_label="Any door",
    )
    since = django_filters.DateFilter(method="filter_since", label="From (UTC)", widget=_day())
    until = django_filters.DateFilter(method="filter_until", label="Until (UTC)", widget=_day())
    request = django_filters.CharFilter(field_name="request_id", label="Request id", max_length=64)

    class Meta:
        model = AuditEvent
        fields: list[str] = []

    def filter_who(self, queryset: QuerySet[AuditEvent], name: str, value: str) -> QuerySet[AuditEvent]:
        """Keep the events of persons with this name, address or uid, and of parts of the portal named so."""
        persons: Any = get_user_model()
        found = persons.objects.filter(Q(display_name__icontains=value) | Q(email__icontains=value))
        ids = [str(uid) for uid in found.values_list("uid", flat=True)[:500]]
        condition = Q(actor_id__in=[*ids, value]) | Q(on_behalf_of__in=[*ids, value])
        return queryset.filter(condition | Q(actor_type="system", actor_id__istartswith=value))

    def filter_room(self, queryset: QuerySet[AuditEvent], name: str, value: str) -> QuerySet[AuditEvent]:
        """Keep the events of one room."""
        return queryset.filter(action__startswith=f"{value}.")

    def filter_object(self, queryset: QuerySet[AuditEvent], name: str, value: str) -> QuerySet[AuditEvent]:
        """Keep the events about one object (by uid) or one kind of object."""
        try:
            return queryset.filter(object_id=uuid.UUID(value.strip()))
        except ValueError:
            return queryset.filter(object_type__istartswith=value.strip())

    def filter_since(self, queryset: QuerySet[AuditEvent], name: str, value: Any) -> QuerySet[AuditEvent]:
        """Keep the events from the start of a day on; as a plain comparison, so that months are skipped."""
        return queryset.filter(occurred_at__gte=datetime.combine(value, time.min, UTC))

    def filter_until(self, queryset: QuerySet[AuditEvent], name: str, value: Any) -> QuerySet[AuditEvent]:
        """Keep the events up to and including a day."""
        return queryset.filter(occurred_at__lt=datetime.combine(value, time.min, UTC) + timedelta(days=1))
