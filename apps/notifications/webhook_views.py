"""Pages of webhooks and their deliveries."""

from __future__ import annotations

import json
from typing import Any

from django.http.response import HttpResponseBase
from django.urls import reverse

from apps.core.errors import Conflict
from apps.core.permissions import INSTALLATION, may
from apps.core.views import ActionView, CreateView, Crumb, DetailView, ListView, PageView
from apps.notifications import webhooks
from apps.notifications.choices import WEBHOOK_ATTEMPTS, WEBHOOK_TRANSITIONS
from apps.notifications.models import Webhook, WebhookDelivery
from apps.notifications.querysets import VIEW
from apps.notifications.webhook_delivery import MANAGE
from apps.notifications.webhook_events import DELIVERIES_EXPORTED
from apps.notifications.webhook_forms import WebhookForm, split_events
from apps.notifications.webhook_tables import DeliveryFilter, DeliveryTable, WebhookFilter, WebhookTable, state_of


def url_of(webhook: Webhook) -> str:
    """Return a webhook's page."""
    return reverse("notifications:webhook-detail", kwargs={"webhook_uid": webhook.uid})


def delivery_url(delivery: WebhookDelivery) -> str:
    """Return a delivery's page."""
    return reverse("notifications:webhook-delivery-detail", kwargs={"delivery_uid": delivery.uid})


def _deliveries_url(webhook: Webhook | None = None) -> str:
    url = reverse("notifications:webhook-delivery-list")
    return f"{url}?webhook={webhook.uid}" if webhook is not None else url


class _Installation(PageView):
    """Webhooks belong to the installation."""

    permission = VIEW

    def scope_object(self) -> Any:
        """Ask permissions for the installation."""
        return INSTALLATION

    def breadcrumbs(self) -> list[Crumb]:
        """Start from the list."""
        return [Crumb("Webhooks", reverse("notifications:webhook-list"))]


class WebhookList(_Installation, ListView):
    """Receivers of events."""

    queryset = Webhook.objects.all()
    title = "Webhooks"
    intro = "Systems outside that are told what happens: each event as a signed CloudEvent, until it arrives."
    table_class = WebhookTable
    filterset_class = WebhookFilter
    empty_icon = "send"
    empty_title = "No webhooks yet"
    empty_text = "Have a ticket system, a chat or a CI system told about requests, approvals and releases."

    def breadcrumbs(self) -> list[Crumb]:
        """It is the first step itself."""
        return []

    def get_page_actions(self) -> list[tuple[str, str]]:
        """A new one, and what was sent."""
        new = [("New webhook", reverse("notifications:webhook-create"))]
        return [*(new if may(self.request.user, MANAGE, INSTALLATION) else []), ("Deliveries", _deliveries_url())]

    def get_empty_action(self) -> tuple[str, str] | None:
        """A new one."""
        return self.get_page_actions()[0] if may(self.request.user, MANAGE, INSTALLATION) else None


class WebhookDetail(_Installation, DetailView):
    """One receiver."""

    queryset = Webhook.objects.all()
    template_name = "notifications/webhook_detail.html"

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add its state, its last deliveries, and whether the person keeps it."""
        webhook: Webhook = self.object
        rows = WebhookDelivery.objects.visible_to(self.request.user).filter(webhook=webhook)
        may_manage = may(self.request.user, MANAGE, INSTALLATION)
        return super().get_context(
            webhook=webhook,
            state=state_of(webhook),
            # The path may hold a key: only who may change it reads it.
            address=webhook.url if may_manage else f"{webhook.host}/…",
            recent=list(rows.order_by("-pk")[:10]),
            deliveries_url=_deliveries_url(webhook),
            may_manage=may_manage,
            **extra,
        )


class WebhookCreate(_Installation, CreateView):
    """A new receiver."""

    queryset = Webhook.objects.all()
    permission = MANAGE
    title = "New webhook"
    intro = "The portal makes a secret that signs every delivery, and shows it once."
    form_class = WebhookForm

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Make it and show its secret."""
        values = form.values()
        made = webhooks.create_webhook(
            values["name"], values["url"], values["events"], include_texts=values["include_texts"], actor=self.actor
        )
        return _secret_page(self, made)


def _secret_page(view: Any, made: webhooks.NewSecret) -> HttpResponseBase:
    view.template_name = "notifications/webhook_secret.html"
    response: HttpResponseBase = view.page(webhook=made.webhook, secret=made.secret, url=url_of(made.webhook))
    return response


class _Manage(_Installation, ActionView):
    queryset = Webhook.objects.all()
    permission = MANAGE

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the webhook."""
        return [*super().breadcrumbs(), Crumb(self.object.name, url_of(self.object))]


class WebhookEdit(_Manage):
    """Change a receiver."""

    title = "Edit webhook"
    form_class = WebhookForm
    submit_label = "Save"
    success_message = "Saved."
    intro = "What waits to be sent keeps its contents and goes to the new address."

    def get_initial(self) -> dict[str, Any]:
        """Show what is stored."""
        row: Webhook = self.object
        return {"name": row.name, "url": row.url, "include_texts": row.include_texts, **split_events(row.events)}

    def perform(self, form: Any) -> str:
        """Save."""
        row = webhooks.edit_webhook(
            self.object.pk, actor=self.actor, expected_version=self.expected_version, **form.values()
        )
        return url_of(row)


class WebhookEnable(_Manage):
    """Send again."""

    title = "Enable webhook"
    submit_label = "Enable"
    success_message = "Enabled."
    intro = "What waits is sent now, and what happens from now on. What happened meanwhile is not made up for."

    def check_state(self) -> None:
        """Disabled ones only."""
        if self.object.enabled:
            raise Conflict("This webhook is enabled already.")

    def perform(self, form: Any) -> str:
        """Enable."""
        return url_of(webhooks.enable_webhook(self.object.pk, actor=self.actor, expected_version=self.expected_version))


class WebhookDisable(_Manage):
    """Stop sending."""

    title = "Disable webhook"
    submit_label = "Disable"
    danger = True
    success_message = "Disabled."
    intro = "Nothing is sent there any more, and what happens meanwhile is not kept for it. What waits already stays."

    def check_state(self) -> None:
        """Enabled ones only."""
        if not self.object.enabled:
            raise Conflict("This webhook is disabled already.")

    def perform(self, form: Any) -> str:
        """Disable."""
        return url_of(
            webhooks.disable_webhook(self.object.pk, actor=self.actor, expected_version=self.expected_version)
        )


class WebhookRotate(_Manage):
    """A new secret."""

    title = "New secret"
    submit_label = "Make a new secret"
    danger = True
    intro = "Every attempt from now on is signed with the new secret. The receiver refuses them until it knows it."

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Make and show it."""
        return _secret_page(
            self, webhooks.rotate_secret(self.object.pk, actor=self.actor, expected_version=self.expected_version)
        )


class WebhookTest(_Manage):
    """Send a test event."""

    title = "Send a test event"
    submit_label = "Send"
    success_message = "Queued: it is sent within seconds. Reload to see what became of it."
    intro = "The receiver gets one event of the type notifications.webhook.tested, signed like all others."

    def perform(self, form: Any) -> str:
        """Queue it."""
        return delivery_url(
            webhooks.send_test(self.object.pk, actor=self.actor, expected_version=self.expected_version)
        )


class DeliveryList(_Installation, ListView):
    """What was sent to webhooks."""

    queryset = WebhookDelivery.objects.select_related("webhook").defer("body", "webhook__secret")
    title = "Webhook deliveries"
    intro = f"Every event and every receiver. What fails is tried again, {WEBHOOK_ATTEMPTS} times over about six hours."
    table_class = DeliveryTable
    filterset_class = DeliveryFilter
    export_event = DELIVERIES_EXPORTED
    empty_icon = "send"
    empty_title = "Nothing was sent yet"
    empty_text = "Deliveries appear here once something happens that a webhook chose."


class DeliveryDetail(_Installation, DetailView):
    """One delivery."""

    queryset = WebhookDelivery.objects.select_related("webhook")
    template_name = "notifications/webhook_delivery_detail.html"

    def breadcrumbs(self) -> list[Crumb]:
        """Through the deliveries of its webhook."""
        webhook = self.object.webhook
        return [
            *super().breadcrumbs(),
            Crumb(webhook.name, url_of(webhook)),
            Crumb("Deliveries", _deliveries_url(webhook)),
        ]

    def get_title(self) -> str:
        """Name the event."""
        return str(self.object.event)

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the body, readable, and whether it may be sent again."""
        delivery: WebhookDelivery = self.object
        can_replay = WEBHOOK_TRANSITIONS.can(delivery.status, "replay")
        return super().get_context(
            delivery=delivery,
            webhook_url=url_of(delivery.webhook),
            readable=json.dumps(json.loads(delivery.body_text), indent=2, ensure_ascii=False),
            sent_headers=sorted(delivery.headers.items()),
            most=WEBHOOK_ATTEMPTS,
            can_replay=can_replay and may(self.request.user, MANAGE, INSTALLATION),
            **extra,
        )


class DeliveryReplay(_Installation, ActionView):
    """Send a delivery once more."""

    queryset = WebhookDelivery.objects.select_related("webhook")
    permission = MANAGE
    title = "Send again"
    submit_label = "Send again"
    success_message = "Queued again: it is sent within seconds."
    intro = (
        "The same bytes go out once more, under the same delivery id and signed anew."
        " A receiver that took it before knows it by that id."
    )

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the delivery."""
        return [*super().breadcrumbs(), Crumb(self.object.event, delivery_url(self.object))]

    def check_state(self) -> None:
        """Refuse what is on its way."""
        WEBHOOK_TRANSITIONS.next(self.object.status, "replay")

    def perform(self, form: Any) -> str:
        """Queue it."""
        return delivery_url(webhooks.replay(self.object.pk, actor=self.actor))
