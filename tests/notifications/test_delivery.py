"""From the outbox to people: once each, whatever happens."""

from __future__ import annotations

import hashlib
import smtplib
import threading
import uuid
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core import mail as django_mail
from django.core.mail.backends.locmem import EmailBackend
from django.db import connection, connections, transaction

from apps.core import clock, events
from apps.core.models import OutboxMessage
from apps.core.outbox import publish
from apps.notifications import attachments, delivery
from apps.notifications.choices import MAIL_ATTEMPTS, MailStatus, MailWish, backoff
from apps.notifications.models import MailPreference, Notification, SentMail
from tests.factories import make_user


@dataclass(frozen=True, slots=True)
class Asked:
    """A payload with all facts."""

    flavour: str
    path: str = "/quotas/requests/1/"
    monthly_amount: Decimal | None = None
    currency: str = ""
    since: str = ""


@pytest.fixture
def event(monkeypatch: pytest.MonkeyPatch) -> events.EventType:
    """An event that goes by mail, declared for this test only."""
    monkeypatch.setattr(events, "_registry", dict(events._registry))
    return events.declare(
        "quotas.sample.asked",
        Asked,
        audience="approvers",
        mail=True,
        headline=lambda p: f"Finance asks for\n{p.flavour}",
        body=lambda p: "Four more GPUs.",
        path=lambda p: p.path,
    )


def say(event: events.EventType, *people: Any, **payload: Any) -> OutboxMessage:
    """Publish a message to people."""
    with transaction.atomic():
        return publish(event, Asked(**{"flavour": "A100", **payload}), recipients=[person.pk for person in people])


@pytest.mark.requirement("notifications-1.1", "notifications-1.2")
@pytest.mark.django_db
def test_a_person_is_told_once_in_the_portal_and_once_by_mail(event: events.EventType, frozen_clock: Any) -> None:
    person = make_user("vp@example.com", display_name="Unit owner")
    since = (clock.now() - timedelta(hours=3)).isoformat()
    say(event, person, monthly_amount=Decimal("11242.5"), currency="USD", since=since)
    assert delivery.spread_due() == 1
    assert delivery.send_due() == 1
    news = Notification.objects.get()
    assert (news.title, news.body, news.path) == ("Finance asks for A100", "Four more GPUs.", "/quotas/requests/1/")
    row = SentMail.objects.get()
    assert (row.status, row.attempts, row.address) == (MailStatus.SENT, 1, "vp@example.com")
    [sent] = django_mail.outbox
    assert sent.subject == "Finance asks for A100"
    assert sent.extra_headers["Message-ID"] == row.header_id
    for body in (sent.body, sent.alternatives[0][0]):
        assert "/quotas/requests/1/" in body
        assert "11,242.50 USD" in body
        assert "3 h ago" in body
    assert "<script" not in sent.alternatives[0][0]


@pytest.mark.requirement("notifications-1.3")
@pytest.mark.django_db
def test_delivering_again_tells_nobody_twice(event: events.EventType) -> None:
    message = say(event, make_user(), make_user())
    delivery.spread_due()
    delivery.send_due()
    # As if the worker had died before its commit reached the disk: the message is due once more.
    OutboxMessage.objects.filter(pk=message.pk).update(delivered_at=None)
    assert delivery.spread_due() == 1
    assert delivery.send_due() == 0
    assert Notification.objects.count() == SentMail.objects.count() == len(django_mail.outbox) == 2


@pytest.mark.requirement("notifications-1.3")
@pytest.mark.django_db(transaction=True)
def test_many_workers_at_once_send_each_mail_once(event: events.EventType) -> None:
    for _ in range(3):
        say(event, *[make_user() for _ in range(4)])
    start = threading.Barrier(4)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            start.wait(10)
            delivery.spread_due()
            delivery.send_due()
        except BaseException as error:  # noqa: BLE001 (carried to the test's thread)
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    delivery.spread_due()
    delivery.send_due()
    assert errors == []
    assert len(django_mail.outbox) == 12
    assert len({message.extra_headers["Message-ID"] for message in django_mail.outbox}) == 12
    assert set(SentMail.objects.values_list("status", flat=True)) == {MailStatus.SENT}


class _Backend(EmailBackend):
    """Refuses as told, and notes whether a transaction was open."""

    refuse: list[Exception] = []
    in_transaction: list[bool] = []

    def send_messages(self, messages: Any) -> int:
        self.in_transaction.append(connection.in_atomic_block)
        if self.refuse:
            raise self.refuse.pop(0)
        return super().send_messages(messages)


@pytest.fixture
def server(settings: Any, monkeypatch: pytest.MonkeyPatch) -> type[_Backend]:
    """A mail server that can be told to refuse."""
    monkeypatch.setattr(_Backend, "refuse", [])
    monkeypatch.setattr(_Backend, "in_transaction", [])
    monkeypatch.setattr(delivery, "get_connection", lambda: _Backend())
    return _Backend


@pytest.mark.requirement("notifications-1.6")
@pytest.mark.django_db(transaction=True)
def test_no_transaction_is_open_while_a_mail_goes_out(event: events.EventType, server: type[_Backend]) -> None:
    say(event, make_user())
    delivery.spread_due()
    assert delivery.send_due() == 1
    assert server.in_transaction == [False]


@pytest.mark.requirement("notifications-1.4")
@pytest.mark.django_db
def test_a_busy_server_is_asked_again_later_and_not_for_ever(
    event: events.EventType, server: type[_Backend], frozen_clock: Any
) -> None:
    say(event, make_user())
    delivery.spread_due()
    server.refuse = [smtplib.SMTPServerDisconnected("busy")] * MAIL_ATTEMPTS
    waits = []
    for attempt in range(1, MAIL_ATTEMPTS + 1):
        assert delivery.send_due() == 1
        row = SentMail.objects.get()
        assert row.attempts == attempt
        assert "busy" in row.error
        assert delivery.send_due() == 0  # not before its time
        if row.retry_at is not None:
            waits.append(row.retry_at - clock.now())
            clock.advance(row.retry_at - clock.now())
    assert waits == [timedelta(minutes=m) for m in (1, 2, 4, 8, 16, 32, 60)]
    assert SentMail.objects.get().status == MailStatus.FAILED
    clock.advance(timedelta(days=1))
    assert delivery.send_due() == 0
    assert django_mail.outbox == []


@pytest.mark.requirement("notifications-1.4")
@pytest.mark.django_db
@pytest.mark.parametrize(("code", "status"), [(550, MailStatus.FAILED), (450, MailStatus.RETRYING)])
def test_a_refused_address_ends_it_and_a_full_box_does_not(
    event: events.EventType, server: type[_Backend], code: int, status: str
) -> None:
    say(event, make_user("gone@example.com"), make_user("here@example.com"))
    delivery.spread_due()
    server.refuse = [smtplib.SMTPRecipientsRefused({"gone@example.com": (code, b"no")})]
    assert delivery.send_due() == 2
    assert SentMail.objects.get(address="gone@example.com").status == status
    assert SentMail.objects.get(address="here@example.com").status == MailStatus.SENT


@pytest.mark.requirement("notifications-1.5")
@pytest.mark.django_db
def test_a_mail_whose_worker_died_is_not_sent_again(event: events.EventType, frozen_clock: Any) -> None:
    say(event, make_user())
    delivery.spread_due()
    mail = delivery.claim()
    assert mail is not None
    assert delivery.send_due() == 0  # still claimed
    clock.advance(timedelta(minutes=3))
    assert delivery.send_due() == 1
    row = SentMail.objects.get()
    assert row.status == MailStatus.UNCERTAIN
    assert "may have arrived" in row.error
    # The slow worker comes back after all: its word no longer counts.
    delivery.record(mail, delivery.Outcome("sent"))
    assert SentMail.objects.get().status == MailStatus.UNCERTAIN
    assert django_mail.outbox == []


@pytest.mark.requirement("notifications-1.7")
@pytest.mark.django_db
def test_a_message_nobody_can_read_waits_and_holds_nobody_up(event: events.EventType, frozen_clock: Any) -> None:
    person = make_user()
    with transaction.atomic():
        broken = OutboxMessage.objects.create(event="quotas.sample.unknown", payload={}, recipient_ids=[person.pk])
    say(event, person)
    assert delivery.spread_due() == 1
    broken.refresh_from_db()
    assert broken.delivered_at is None
    assert broken.attempts == 1
    assert "unknown" in broken.last_error
    assert broken.retry_at == clock.now() + backoff(1)
    assert delivery.spread_due() == 0
    clock.advance(timedelta(minutes=1))
    delivery.spread_due()
    broken.refresh_from_db()
    assert broken.attempts == 2


@pytest.mark.requirement("notifications-1.8")
@pytest.mark.django_db
def test_deactivated_people_hear_nothing(event: events.EventType) -> None:
    gone, leaving = make_user(is_active=False), make_user()
    say(event, gone, leaving)
    delivery.spread_due()
    leaving.is_active = False
    leaving.save()
    assert delivery.send_due() == 0
    assert Notification.objects.filter(user=gone).count() == SentMail.objects.filter(user=gone).count() == 0
    assert django_mail.outbox == []


@pytest.mark.requirement("notifications-2.3")
@pytest.mark.django_db
def test_who_wants_no_mail_still_sees_it_in_the_portal(event: events.EventType) -> None:
    person = make_user()
    MailPreference.objects.create(user=person, group="quotas", wish=MailWish.NONE)
    say(event, person)
    delivery.spread_due()
    assert Notification.objects.count() == 1
    assert SentMail.objects.count() == 0


@pytest.mark.requirement("notifications-2.6")
@pytest.mark.django_db
@pytest.mark.parametrize(
    "path", ["https://evil.example/", "//evil.example/x", "javascript:alert(1)", "/\\evil.example"]
)
def test_no_link_leads_out_of_the_portal(event: events.EventType, path: str) -> None:
    say(event, make_user(), path=path)
    delivery.spread_due()
    assert Notification.objects.get().path == ""
    assert "evil" not in SentMail.objects.get().body_html
    assert "alert(1)" not in SentMail.objects.get().body_text


@dataclass(frozen=True, slots=True)
class WithFile:
    """A payload that names a stored file."""

    file_uid: uuid.UUID | None = None


class Shelf:
    """A room that keeps one file, in the state a test gives it."""

    def __init__(self) -> None:
        self.found: attachments.File = attachments.Pending()
        self.asked: list[tuple[uuid.UUID, Any]] = []

    def find(self, uid: uuid.UUID, user: Any) -> attachments.File:
        self.asked.append((uid, user))
        return self.found


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """Register the kind of file of this test only, and the event that carries it."""
    monkeypatch.setattr(events, "_registry", dict(events._registry))
    monkeypatch.setattr(attachments, "_finders", dict(attachments._finders))
    shelf = Shelf()
    attachments.register("sample.file", shelf.find)
    return shelf


def say_with_file(person: Any) -> uuid.UUID:
    """Publish a message whose mail carries a file."""
    event = events.declare(
        "quotas.sample.filed", WithFile, audience="approvers", mail=True, headline=lambda p: "The file",
        body=lambda p: "Costs <rose>.", path=lambda p: "/costs/",
        attachment=lambda p: ("sample.file", p.file_uid) if p.file_uid else None,
    )  # fmt: skip
    uid = uuid.uuid4()
    with transaction.atomic():
        publish(event, WithFile(uid), recipients=[person.pk])
    delivery.spread_due()
    return uid


@pytest.mark.requirement("notifications-1.9")
@pytest.mark.django_db
def test_a_mail_waits_for_its_file_and_carries_it(shelf: Shelf, client_for: Any) -> None:
    person = make_user("vp@example.com")
    start = clock.now()
    with clock.frozen(start):
        uid = say_with_file(person)
        delivery.send_due()
        delivery.send_due()
    row = SentMail.objects.get()
    assert (row.status, row.attempts, django_mail.outbox) == (MailStatus.QUEUED, 0, [])
    assert len(shelf.asked) == 1, "it does not look again at once"
    shelf.found = attachments.Ready("report.pdf", "application/pdf", b"%PDF-1.7 sample")
    with clock.frozen(start + attachments.AGAIN):
        delivery.send_due()
    assert shelf.asked[-1] == (uid, person)
    [sent] = django_mail.outbox
    assert sent.attachments == [("report.pdf", b"%PDF-1.7 sample", "application/pdf")]
    for body in (sent.body, sent.alternatives[0][0]):
        assert "Attached: report.pdf (15 bytes)." in body
        assert attachments.MARK not in body
    assert "Costs &lt;rose&gt;." in sent.alternatives[0][0]
    row.refresh_from_db()
    assert (row.status, row.attempts, row.attachment_name) == (MailStatus.SENT, 1, "report.pdf")
    assert row.attachment_sha256 == hashlib.sha256(b"%PDF-1.7 sample").hexdigest()
    assert row.text == sent.body
    page = client_for(person).get(f"/notifications/mail/{row.uid}/").content.decode()
    assert "Attached: report.pdf" in page
    assert row.attachment_sha256 in page


@pytest.mark.requirement("notifications-1.9")
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("found", "said"),
    [
        (attachments.Pending(), "it was not ready in time."),
        (attachments.Missing("it could not be made."), "it could not be made."),
        (attachments.Ready("r.pdf", "application/pdf", bytes(attachments.LARGEST + 1)), "7.0 MB it is too large"),
    ],
)
def test_a_mail_goes_without_its_file_and_says_so(shelf: Shelf, found: attachments.File, said: str) -> None:
    start = clock.now()
    say_with_file(make_user("vp@example.com"))
    shelf.found = found
    with clock.frozen(start + attachments.PATIENCE + timedelta(minutes=1)):
        delivery.send_due()
    [sent] = django_mail.outbox
    assert sent.attachments == []
    assert "is not attached: " in sent.body
    assert said in sent.body
    row = SentMail.objects.get()
    assert (row.status, row.attachment_name) == (MailStatus.SENT, "")
    assert said in row.text


@pytest.mark.requirement("notifications-1.9")
@pytest.mark.django_db
def test_a_file_as_large_as_allowed_goes_with_the_mail(shelf: Shelf) -> None:
    shelf.found = attachments.Ready("r.pdf", "application/pdf", bytes(attachments.LARGEST))
    say_with_file(make_user("vp@example.com"))
    delivery.send_due()
    assert len(django_mail.outbox[0].attachments) == 1
