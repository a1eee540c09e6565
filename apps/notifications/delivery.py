"""From the outbox to people (and, in `webhook_delivery`, to other systems).

Two steps, each safe to run any number of times, by any number of workers:

1. spread: an outbox message becomes one notification and at most one mail per person, and one delivery per webhook
   (unique constraints);
2. send: a mail is claimed in one transaction, handed over outside any, and recorded in another. One that carries a
   file waits until a worker has made it, for some minutes at most (`attachments`).
"""

from __future__ import annotations

import logging
import smtplib
from dataclasses import dataclass
from email.utils import make_msgid
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.mail import EmailMultiAlternatives, get_connection
from django.db import transaction
from django.db.models import Q

from apps.accounts.models import User
from apps.core import clock
from apps.core.models import OutboxMessage
from apps.notifications import attachments, rendering, webhook_delivery
from apps.notifications.choices import CLAIM, MAIL_ATTEMPTS, MAIL_TRANSITIONS, MailStatus, MailWish, backoff
from apps.notifications.models import MailPreference, Notification, SentMail
from apps.teams.service_selectors import without_services

logger = logging.getLogger(__name__)
#: One run of the sweep does at most so much, so that a flood delays nobody's task by more than seconds.
MESSAGES_A_RUN, MAILS_A_RUN = 500, 200


def spread_due(limit: int = MESSAGES_A_RUN) -> int:
    """Spread every due outbox message; returns how many were delivered. One that fails waits and is tried again."""
    done = 0
    tried: set[int] = set()
    while len(tried) < limit:
        with transaction.atomic():
            at = clock.now()
            message = (
                OutboxMessage.objects.select_for_update(skip_locked=True)
                .filter(Q(retry_at__isnull=True) | Q(retry_at__lte=at), delivered_at__isnull=True)
                .exclude(pk__in=tried)
                .order_by("id")
                .first()
            )
            if message is None:
                break
            tried.add(message.pk)
            done += _spread(message)
    return done


def _spread(message: OutboxMessage) -> int:
    """Make the rows of one locked message; a message nobody can read keeps its error and its next try."""
    try:
        with transaction.atomic():
            _make_rows(message, rendering.read(message))
            webhook_delivery.spread(message)
    except Exception as error:  # whatever a room's wording raises must not hold up the messages behind it
        message.attempts += 1
        message.retry_at = clock.now() + backoff(message.attempts)
        message.last_error = f"{type(error).__name__}: {error}"[:1000]
        message.save(update_fields=["attempts", "retry_at", "last_error"])
        logger.exception(
            "an outbox message cannot be read", extra={"event": message.event, "outbox_uid": str(message.uid)}
        )
        return 0
    message.attempts += 1
    message.delivered_at, message.retry_at, message.last_error = clock.now(), None, ""
    message.save(update_fields=["attempts", "delivered_at", "retry_at", "last_error"])
    return 1


def _make_rows(message: OutboxMessage, news: rendering.News) -> None:
    # What a program asked for is read by the people who keep it: it reads no mail.
    readers = without_services(message.recipient_ids)
    people = list(User.objects.filter(pk__in=readers, is_active=True).order_by("pk"))
    Notification.objects.bulk_create(
        [
            Notification(
                user=person,
                message_uid=message.uid,
                event=news.event,
                title=news.title,
                body=news.body,
                path=news.path,
                happened_at=message.created_at,
            )
            for person in people
        ],
        ignore_conflicts=True,
    )
    if not news.by_mail:
        return
    unwilling = set(
        MailPreference.objects.filter(user__in=people, group=news.group, wish=MailWish.NONE).values_list(
            "user_id", flat=True
        )
    )
    domain = urlsplit(settings.COMMONS_BASE_URL).hostname or "localhost"
    mails = []
    for person in people:
        if person.pk in unwilling:
            continue
        text, html = rendering.mail_bodies(news, display_name=person.display_name)
        mails.append(
            SentMail(
                user=person,
                message_uid=message.uid,
                event=news.event,
                address=person.email,
                subject=news.title,
                body_text=text,
                body_html=html,
                attachment_kind=news.attachment[0] if news.attachment else "",
                attachment_uid=news.attachment[1] if news.attachment else None,
                header_id=make_msgid(idstring=message.uid.hex, domain=domain),
            )
        )
    SentMail.objects.bulk_create(mails, ignore_conflicts=True)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one attempt: "sent", "again" or "give_up", and why."""

    action: str
    error: str = ""
    #: Nobody answers there: the next mail would wait as long and fail as well.
    server_away: bool = False


def send_due(limit: int = MAILS_A_RUN) -> int:
    """Hand over every due mail, one claim at a time; returns how many moved on (sent, failed, or lost by a worker)."""
    moved = _write_off_lost()
    connection: Any = None
    try:
        for _ in range(limit):
            mail = claim()
            if mail is None:
                break
            enclosed = attachments.of(mail)
            if enclosed is None:
                _put_back(mail)
                continue
            if connection is None:
                connection = get_connection()
            outcome = _hand_over(mail, connection, enclosed)
            record(mail, outcome, enclosed)
            moved += 1
            if outcome.server_away:
                break  # ten seconds for each of two hundred mails would outlast the task's time limit
    finally:
        if connection is not None:
            connection.close()
    return moved


def claim() -> SentMail | None:
    """Take one due mail for this worker; None where nothing is due. Commits before anything goes over the network."""
    with transaction.atomic():
        mail = SentMail.objects.due().select_for_update(skip_locked=True, of=("self",)).order_by("id").first()
        if mail is None:
            return None
        mail.status = MAIL_TRANSITIONS.next(mail.status, "claim")
        mail.attempts += 1
        mail.claimed_until = clock.now() + CLAIM
        mail.save(update_fields=["status", "attempts", "claimed_until"])
        return mail


def _put_back(mail: SentMail) -> None:
    """Let a mail wait for the file that goes with it; that is no attempt."""
    with transaction.atomic():
        row = SentMail.objects.select_for_update().filter(pk=mail.pk).first()
        if row is None or row.status != MailStatus.SENDING or row.attempts != mail.attempts:
            return
        row.status = MAIL_TRANSITIONS.next(row.status, "wait")
        row.attempts, row.claimed_until, row.retry_at = row.attempts - 1, None, clock.now() + attachments.AGAIN
        row.save(update_fields=["status", "attempts", "claimed_until", "retry_at"])


def _hand_over(mail: SentMail, connection: Any, enclosed: attachments.Enclosed) -> Outcome:
    message = EmailMultiAlternatives(
        subject=mail.subject,
        body=attachments.text_with(mail.body_text, enclosed.note),
        to=[mail.address],
        headers={"Message-ID": mail.header_id, "Auto-Submitted": "auto-generated"},
        connection=connection,
    )
    message.attach_alternative(attachments.html_with(mail.body_html, enclosed.note), "text/html")
    if (file := enclosed.file) is not None:
        message.attach(file.name, file.body, file.content_type)
    try:
        message.send()
    except smtplib.SMTPRecipientsRefused as error:
        code, text = next(iter(error.recipients.values()), (0, b""))
        said = f"{code} {text.decode(errors='replace')}".strip()
        # 5xx is the server's last word on an address (RFC 5321, 4.2.1).
        return Outcome("give_up" if 500 <= code < 600 else "again", said)
    except (smtplib.SMTPException, OSError, ValueError) as error:
        connection.close()
        away = isinstance(error, smtplib.SMTPServerDisconnected | smtplib.SMTPConnectError) or (
            isinstance(error, OSError) and not isinstance(error, smtplib.SMTPException)
        )
        return Outcome("again", f"{type(error).__name__}: {error}"[:500], server_away=away)
    return Outcome("sent")


def record(mail: SentMail, outcome: Outcome, enclosed: attachments.Enclosed | None = None) -> None:
    """Write down what became of an attempt; nothing where the claim has moved on to another worker or a person."""
    with transaction.atomic():
        row = SentMail.objects.select_for_update().filter(pk=mail.pk).first()
        if row is None or row.status != MailStatus.SENDING or row.attempts != mail.attempts:
            logger.warning("a mail's claim moved on before its outcome was known", extra={"mail": str(mail.uid)})
            return
        action = "give_up" if outcome.action == "again" and row.attempts >= MAIL_ATTEMPTS else outcome.action
        row.status = MAIL_TRANSITIONS.next(row.status, action)
        row.error, row.claimed_until = outcome.error, None
        row.sent_at = clock.now() if action == "sent" else None
        row.retry_at = clock.now() + backoff(row.attempts) if action == "again" else None
        if action == "sent" and enclosed is not None:
            row.attachment_note, row.attachment_sha256 = enclosed.note, enclosed.sha256
            row.attachment_name = enclosed.file.name if enclosed.file is not None else ""
        row.save(
            update_fields=[
                "status", "error", "claimed_until", "sent_at", "retry_at",
                "attachment_note", "attachment_sha256", "attachment_name",
            ]
        )  # fmt: skip


def _write_off_lost() -> int:
    """Mark mail whose worker died while sending: it may have arrived, so it is never sent again by itself."""
    return SentMail.objects.lost().update(
        status=MailStatus.UNCERTAIN,
        claimed_until=None,
        error="The worker stopped while it handed this mail over; it may have arrived.",
    )
