"""From an outbox message to words: headline, body, path, and the facts a mail carries. Reads no rows.

A payload may carry, besides what its event's `headline` and `body` use:
`amount` or `monthly_amount` (Decimal as text) with `currency`; `since` (when what waits began to wait); `due_at`.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.template.loader import render_to_string

from apps.core import clock, events, formats
from apps.core.models import OutboxMessage
from apps.core.money import Money
from apps.notifications.attachments import MARK

SUBJECT_LENGTH = 300


@dataclass(frozen=True, slots=True)
class News:
    """What one outbox message says, the same for each of its recipients."""

    event: str
    title: str
    body: str
    path: str
    by_mail: bool
    facts: list[tuple[str, str]] = field(default_factory=list)
    #: The stored file that goes with its mail: kind and uid.
    attachment: tuple[str, uuid.UUID] | None = None

    @property
    def group(self) -> str:
        """The group of events it belongs to: the room's name."""
        return self.event.partition(".")[0]

    @property
    def url(self) -> str:
        """The full address of what it is about."""
        return f"{settings.COMMONS_BASE_URL}{self.path}" if self.path else settings.COMMONS_BASE_URL


def read(message: OutboxMessage) -> News:
    """Return what a message says. Raises KeyError for an event no room declares, and what its functions raise."""
    event = events.get(message.event)
    payload = event.load(message.payload)
    return News(
        event=event.name,
        title=_one_line(event.headline(payload)),
        body=str(event.body(payload)).strip(),
        path=_local(str(event.path(payload))),
        by_mail=event.mail,
        facts=_facts(message.payload),
        attachment=_file(event.attachment(payload)),
    )


def _file(named: tuple[str, Any] | None) -> tuple[str, uuid.UUID] | None:
    """Take the file a payload names; stored payloads hold uids as text."""
    return (named[0], uuid.UUID(str(named[1]))) if named is not None else None


def _one_line(text: Any) -> str:
    """A subject holds one line: a line break within would be a header of its own."""
    return " ".join(str(text).split())[:SUBJECT_LENGTH] or "News from GPU Commons"


def _local(path: str) -> str:
    """Keep a path that leads into the portal; anything else would send people elsewhere."""
    parts = urlsplit(path)
    ok = path.startswith("/") and not path.startswith("//") and "\\" not in path
    return path[:500] if ok and not parts.scheme and not parts.netloc else ""


def _facts(payload: dict[str, Any]) -> list[tuple[str, str]]:
    facts: list[tuple[str, str]] = []
    currency = payload.get("currency")
    for name, label in (("monthly_amount", "Cost a month"), ("amount", "Amount")):
        if currency and payload.get(name) not in (None, ""):
            facts.append((label, formats.money(Money(Decimal(str(payload[name])), str(currency)))))
    for name, label in (("since", "Waiting since"), ("due_at", "Due")):
        if payload.get(name):
            at = datetime.fromisoformat(str(payload[name]))
            facts.append((label, f"{formats.datetime_utc(at)} ({formats.age(at, now=clock.now())})"))
    return facts


def mail_bodies(news: News, *, display_name: str) -> tuple[str, str]:
    """Return the text and the HTML of a mail."""
    context = {
        "news": news,
        "display_name": display_name,
        "organisation": settings.COMMONS_ORGANISATION,
        "settings_url": f"{settings.COMMONS_BASE_URL}/notifications/settings/",
        "demo": settings.COMMONS_DEMO,
        "attachment_mark": MARK if news.attachment else "",
    }
    text = render_to_string("notifications/mail/news.txt", context)
    return text.strip() + "\n", render_to_string("notifications/mail/news.html", context)
