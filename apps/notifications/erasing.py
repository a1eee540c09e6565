"""What this room holds of a person goes with them: their notices, mails and wishes."""

from __future__ import annotations

from django.db.models import F, Value
from django.db.models.functions import Replace
from django.utils.html import escape

from apps.accounts import erasing
from apps.accounts.models import User
from apps.notifications.models import MailPreference, Notification, SentMail


def erase(user: User) -> int:
    """Remove the person's notices, the mails sent to them with their addresses, and their wishes; returns how many."""
    _forget_name(user)
    return sum(rows.objects.filter(user=user).delete()[0] for rows in (Notification, SentMail, MailPreference))


def _forget_name(user: User) -> None:
    """Take the name out of notices and mails to others whose message names the person."""
    told = [message.uid for message in erasing.messages_naming(user)]
    for rows, fields in (
        (Notification.objects, ("title", "body")),
        (SentMail.objects, ("subject", "body_text", "body_html")),
    ):
        for word in (user.display_name, user.email):
            for shown in {word, escape(word)}:
                changes = {name: Replace(F(name), Value(shown), Value(erasing.ERASED)) for name in fields}
                rows.filter(message_uid__in=told).update(**changes)
