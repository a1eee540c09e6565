"""App configuration of the notifications room."""

from django.apps import AppConfig


class NotificationsConfig(AppConfig):
    """In-app, mail and webhooks; consumes the outbox."""

    name = "apps.notifications"
    label = "notifications"

    def ready(self) -> None:
        """Say where secrets are stored."""
        from apps.core.crypto import register_secrets

        register_secrets("notifications.Webhook", "secret", "webhooks")
