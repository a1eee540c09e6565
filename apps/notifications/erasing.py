"""What this room holds of a person goes with them: their notices, mails and wishes."""

from __future__ import annotations

from apps.accounts.models import User
from apps.notifications.models import MailPreference, Notification, SentMail


def erase(user: User) -> int:
    """Remove the person's notices, the mails sent to them with their addresses, and their wishes; returns how many."""
    return sum(rows.objects.filter(user=user).delete()[0] for rows in (Notification, SentMail, MailPreference))
