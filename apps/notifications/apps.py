"""App configuration of the notifications room."""

from django.apps import AppConfig


class NotificationsConfig(AppConfig):
    """In-app, mail and webhooks; consumes the outbox."""

    name = "apps.notifications"
    label = "notifications"

    def ready(self) -> None:
        """Say where secrets are stored, and what goes with a person who is erased."""
        from apps.accounts.erasing import register
        from apps.core.crypto import register_secrets
        from apps.notifications.erasing import erase

        register("notifications", erase)
        register_secrets("notifications.Webhook", "secret", "webhooks")
