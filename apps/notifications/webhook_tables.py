"""Tables and filters of webhooks and deliveries."""

from __future__ import annotations

from typing import Any

import django_filters
import django_tables2 as tables

from apps.core.filters import CommonsFilterSet, SearchFilter
from apps.core.tables import AgeColumn, CommonsTable, StatusColumn, TimeColumn, UidLinkColumn
from apps.notifications.choices import WebhookStatus
from apps.notifications.models import Webhook, WebhookDelivery

_WIDE = {"cell": {"class": "d-none d-md-table-cell"}}


_STATES = {"stopped": "Gone", "none": "Disabled", "degraded": "Failing", "active": "Active"}


def state_of(webhook: Webhook) -> tuple[str, str]:
    """Return (status, word) of a webhook."""
    return webhook.state, _STATES[webhook.state]


class WebhookTable(CommonsTable):
    """Receivers."""

    name = UidLinkColumn("notifications:webhook-detail", kwarg="webhook_uid", verbose_name="Webhook")
    host = tables.Column(verbose_name="Receiver", orderable=False)
    state = StatusColumn(verbose_name="State", labels=_STATES, orderable=False)
    events = tables.Column(verbose_name="Events", orderable=False, attrs=_WIDE)
    last_delivered_at = AgeColumn(verbose_name="Last delivery", default="never", attrs=_WIDE)

    class Meta(CommonsTable.Meta):
        model = Webhook
        fields = ("name", "host", "state", "events", "last_delivered_at")
        order_by = ("name",)
        caption = "Webhooks"

    def render_events(self, value: list[str]) -> str:
        """Name them."""
        return ", ".join(value)

    def value_events(self, value: list[str]) -> str:
        """The same, exported."""
        return ", ".join(value)


class DeliveryTable(CommonsTable):
    """Deliveries, newest first."""

    event = UidLinkColumn("notifications:webhook-delivery-detail", kwarg="delivery_uid", verbose_name="Event")
    webhook = UidLinkColumn(
        "notifications:webhook-detail", kwarg="webhook_uid", target="webhook", verbose_name="Webhook"
    )
    status = StatusColumn(verbose_name="Status")
    attempts = tables.Column(verbose_name="Attempts", attrs={"cell": {"class": "figure d-none d-md-table-cell"}})
    answer_status = tables.Column(verbose_name="Answer", attrs=_WIDE)
    created_at = TimeColumn(verbose_name="Made")
    delivered_at = TimeColumn(verbose_name="Delivered", attrs=_WIDE)

    class Meta(CommonsTable.Meta):
        model = WebhookDelivery
        fields = ("event", "webhook", "status", "attempts", "answer_status", "created_at", "delivered_at")
        order_by = ("-created_at",)
        caption = "Deliveries to webhooks"


class WebhookFilter(CommonsFilterSet):
    """Search and whether it is enabled."""

    search = SearchFilter(columns=["name"])
    enabled = django_filters.BooleanFilter(label="Enabled")

    class Meta:
        model = Webhook
        fields: list[str] = []


class DeliveryFilter(CommonsFilterSet):
    """Search, status and webhook."""

    search = SearchFilter(columns=["event"])
    status = django_filters.ChoiceFilter(label="Status", choices=WebhookStatus.choices, empty_label="All")
    webhook = django_filters.ModelChoiceFilter(
        label="Webhook", queryset=lambda request: _visible(request), to_field_name="uid", empty_label="All"
    )

    class Meta:
        model = WebhookDelivery
        fields: list[str] = []


def _visible(request: Any) -> Any:
    if request is None:  # the API's description is drawn without a caller
        return Webhook.objects.none()
    return Webhook.objects.visible_to(request.user).order_by("name")
