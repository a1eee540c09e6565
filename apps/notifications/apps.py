"""App configuration of the notifications room."""

from django.apps import AppConfig


class NotificationsConfig(AppConfig):
    """In-app and mail; consumes the outbox."""

    name = "apps.notifications"
    label = "notifications"
