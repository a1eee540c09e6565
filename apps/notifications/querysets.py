"""Who sees notifications and mail: the person they are for; those who run the portal see what mail left it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from django.db.models import Q

from apps.core import clock
from apps.core.querysets import ScopedQuerySet
from apps.notifications.choices import MailStatus

if TYPE_CHECKING:
    from apps.notifications.models import MailPreference, Notification, SentMail


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
        return self.all() if scope.of(user).everywhere("notifications.outbox.view") else self.filter(user_id=user.pk)

    def to(self, user: Any) -> Self:
        """Return the person's own mail."""
        return self.filter(user_id=user.pk)

    def due(self) -> Self:
        """Return mail to hand over now."""
        at = clock.now()
        return self.filter(
            Q(status=MailStatus.QUEUED) | Q(status=MailStatus.RETRYING, retry_at__lte=at), user__is_active=True
        )

    def lost(self) -> Self:
        """Return mail whose worker has not been heard of since it claimed it."""
        return self.filter(status=MailStatus.SENDING, claimed_until__lte=clock.now())


class PreferenceQuerySet(ScopedQuerySet["MailPreference"]):
    """Wishes by person."""

    def visible_to(self, user: Any) -> Self:
        """Return the person's own."""
        return self.filter(user_id=user.pk) if getattr(user, "is_authenticated", False) else self.none()
