"""Who sees notifications and mail: the person they are for; those who run the portal see what mail left it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from django.db.models import Q

from apps.core import clock
from apps.core.querysets import ScopedQuerySet
from apps.notifications.choices import DELIVERIES_KEPT, MailStatus, WebhookStatus

#: What the watcher of mail sees of webhooks, too.
VIEW = "notifications.outbox.view"
#: Announces itself, whatever a webhook chose and even while it is disabled.
TEST_EVENT = "notifications.webhook.tested"

if TYPE_CHECKING:
    from apps.notifications.models import MailPreference, Notification, SentMail, Webhook, WebhookDelivery


class NotificationQuerySet(ScopedQuerySet["Notification"]):
    """Notifications by person."""

    def visible_to(self, user: Any) -> Self:
        """Return the person's own; nobody else's, whatever the role."""
        return self.filter(user_id=user.pk) if getattr(user, "is_authenticated", False) else self.none()

    def unread(self) -> Self:
        """Return those not read yet."""
        return self.filter(read_at__isnull=True)


class MailQuerySet(ScopedQuerySet["SentMail"]):
    """Mail by person."""

    def visible_to(self, user: Any) -> Self:
        """Return the person's own mail, and all mail to those who watch over it for the whole installation."""
        from apps.teams import scope

        if not getattr(user, "is_authenticated", False):
            return self.none()
        return self.all() if scope.of(user).everywhere(VIEW) else self.filter(user_id=user.pk)

    def to(self, user: Any) -> Self:
        """Return the person's own mail."""
        return self.filter(user_id=user.pk)

    def due(self) -> Self:
        """Return mail to hand over now."""
        at = clock.now()
        return self.filter(
            Q(status=MailStatus.QUEUED, retry_at__isnull=True)
            | Q(status__in=[MailStatus.QUEUED, MailStatus.RETRYING], retry_at__lte=at),
            user__is_active=True,
        )

    def lost(self) -> Self:
        """Return mail whose worker has not been heard of since it claimed it."""
        return self.filter(status=MailStatus.SENDING, claimed_until__lte=clock.now())


class PreferenceQuerySet(ScopedQuerySet["MailPreference"]):
    """Wishes by person."""

    def visible_to(self, user: Any) -> Self:
        """Return the person's own."""
        return self.filter(user_id=user.pk) if getattr(user, "is_authenticated", False) else self.none()


def _watches(user: Any) -> bool:
    from apps.teams import scope

    return bool(getattr(user, "is_authenticated", False)) and scope.of(user).everywhere(VIEW)


class WebhookQuerySet(ScopedQuerySet["Webhook"]):
    """Webhooks belong to the installation."""

    def visible_to(self, user: Any) -> Self:
        """Return all to those who watch over what leaves the portal."""
        return self.all() if _watches(user) else self.none()


class DeliveryQuerySet(ScopedQuerySet["WebhookDelivery"]):
    """Deliveries to webhooks."""

    def visible_to(self, user: Any) -> Self:
        """Return all to those who watch over what leaves the portal."""
        return self.all() if _watches(user) else self.none()

    def due(self) -> Self:
        """Return what is to be sent now; a disabled webhook's wait, apart from tests."""
        at = clock.now()
        return self.filter(
            Q(status=WebhookStatus.QUEUED) | Q(status=WebhookStatus.RETRYING, retry_at__lte=at),
            Q(webhook__enabled=True) | Q(event=TEST_EVENT),
        )

    def old(self) -> Self:
        """Return what arrived or failed, and is older than it is kept."""
        ended = [WebhookStatus.DELIVERED, WebhookStatus.FAILED]
        return self.filter(status__in=ended, created_at__lt=clock.now() - DELIVERIES_KEPT)

    def lost(self) -> Self:
        """Return deliveries whose worker has not been heard of since it claimed them."""
        return self.filter(status=WebhookStatus.SENDING, claimed_until__lte=clock.now())
