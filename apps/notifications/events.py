"""What the notifications room writes into the audit trail."""

from __future__ import annotations

from dataclasses import dataclass

from apps.core.events import declare
from apps.core.exports import Exported


@dataclass(frozen=True, slots=True)
class PreferencesChanged:
    """A person chose what comes by mail: the groups of events that do not."""

    without_mail: list[str]


@dataclass(frozen=True, slots=True)
class MailRetried:
    """Somebody had a mail sent once more after it failed."""

    event: str


PREFERENCES_CHANGED = declare("notifications.preference.changed", PreferencesChanged, audience="auditors")
MAIL_RETRIED = declare("notifications.mail.retried", MailRetried, audience="auditors")
MAIL_EXPORTED = declare("notifications.mail.exported", Exported, audience="auditors")
