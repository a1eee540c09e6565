"""The mail server refuses, goes away, comes back: each person gets each mail once."""

from __future__ import annotations

import smtplib
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from django.core.mail.backends.base import BaseEmailBackend

from apps.core import clock
from apps.core.testing import settle
from apps.notifications import delivery
from apps.notifications.models import Notification, SentMail
from tests.acceptance.world import World

pytestmark = [pytest.mark.django_db, pytest.mark.cluster]
ONLY = ("notifications.",)


class Server:
    """What stands behind the address of the mail server."""

    fault: Exception | None = None
    taken: list[tuple[str, str]] = []
    attempts = 0


class Backend(BaseEmailBackend):
    """Hands mail to `Server`."""

    def send_messages(self, email_messages: Any) -> int:
        for message in email_messages:
            Server.attempts += 1
            if Server.fault is not None:
                raise Server.fault
            Server.taken.append((message.to[0], message.extra_headers["Message-ID"]))
        return len(email_messages)


@pytest.fixture(autouse=True)
def server(settings: Any) -> None:
    settings.EMAIL_BACKEND = f"{__name__}.Backend"
    Server.fault, Server.taken, Server.attempts = None, [], 0


def told(world: World) -> int:
    """How often the portal itself shows the VP what to decide."""
    return Notification.objects.filter(user=world.user("vp"), event__startswith="approvals.").count()


@pytest.mark.requirement("resilience-5.1")
@pytest.mark.parametrize(
    "fault",
    [
        ConnectionRefusedError("[Errno 111] Connection refused"),
        smtplib.SMTPServerDisconnected("Connection unexpectedly closed"),
        smtplib.SMTPResponseException(421, b"Try again later"),
        smtplib.SMTPRecipientsRefused({"vp@example.com": (450, b"Greylisted")}),
        TimeoutError("timed out"),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_refused_mail_is_kept_and_sent_once(world: World, fault: Exception) -> None:
    """Tried again with growing pauses, shown in the portal meanwhile, and handed over once when it works."""
    Server.fault = fault
    world.ask()
    settle(only=ONLY)
    waiting = SentMail.objects.get(user=world.user("vp"))
    assert (waiting.status, waiting.attempts) == ("retrying", 1)
    assert waiting.error
    assert waiting.retry_at is not None
    assert waiting.retry_at > clock.now()
    assert told(world) == 1
    tried = Server.attempts
    settle(only=ONLY)
    assert Server.attempts == tried  # not before its time
    for _ in range(3):
        world.stage.advance(timedelta(minutes=20))
        settle(only=ONLY)
    assert tried < Server.attempts <= tried + 3
    assert not Server.taken
    Server.fault = None
    for _ in range(3):
        world.stage.advance(timedelta(hours=3))
        settle(only=ONLY)
    assert [to for to, _ in Server.taken] == [world.user("vp").email]
    assert SentMail.objects.get(pk=waiting.pk).status == "sent"
    assert told(world) == 1


@pytest.mark.requirement("resilience-5.1")
def test_a_server_that_does_not_answer_is_asked_once_a_round(world: World) -> None:
    """However many mails wait: ten seconds for each would keep the worker past its time limit."""
    Server.fault = TimeoutError("timed out")
    for team in ("finance", "marketing", "research"):
        world.ask(team)
    delivery.spread_due()
    assert SentMail.objects.filter(user=world.user("vp")).count() == 3
    delivery.send_due()
    assert Server.attempts == 1
    Server.fault = None
    world.stage.advance(timedelta(hours=1))
    settle(only=ONLY)
    assert len(Server.taken) == 3


@pytest.mark.requirement("resilience-5.1", "resilience-4.2")
def test_a_worker_that_dies_while_handing_over_sends_no_second_mail(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have arrived: it is marked so and left to a person."""
    world.ask()

    class Killed(BaseException):
        """Nothing after it runs."""

    def die(*args: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(delivery, "record", die)
        with pytest.raises(Killed):
            settle(only=ONLY)
    assert len(Server.taken) == 1
    settle(only=ONLY)
    world.stage.advance(timedelta(hours=2))
    settle(only=ONLY)
    assert len(Server.taken) == 1
    assert SentMail.objects.get(user=world.user("vp")).status == "uncertain"


@pytest.mark.requirement("resilience-5.1")
def test_nobody_gets_a_mail_twice_over_a_whole_request(world: World) -> None:
    """Submitted, approved, granted, applied, with every sweep run again and again: every Message-ID once."""
    request = world.ask()
    settle()
    world.approve(request)
    for _ in range(3):
        settle()
        world.stage.advance(timedelta(minutes=5))
    settle()
    assert {world.user("vp").email, world.user("finance-lead").email} <= {to for to, _ in Server.taken}
    assert max(Counter(Server.taken).values()) == 1
    assert len(Server.taken) == SentMail.objects.filter(status="sent").count()
