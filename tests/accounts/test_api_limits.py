"""Calls a minute, counted in a real Redis; and without one."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from apps.accounts import actions, api_limits
from apps.accounts.models import User
from apps.core import clock
from apps.core.actor import Actor
from launcher.redis import Redis
from launcher.testing import ensure_redis
from tests.factories import client_for, make_user

URL = "/api/v1/notifications"


@pytest.fixture(autouse=True)
def _limited(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Switch counting on, with small limits, and forget the outages of other tests."""
    settings.COMMONS_API_LIMITED = True
    settings.COMMONS_API_PER_MINUTE = 3
    settings.COMMONS_API_ANONYMOUS_PER_MINUTE = 2
    monkeypatch.setattr(api_limits, "_silent_until", 0.0)
    monkeypatch.setattr(api_limits, "_logged_at", float("-inf"))
    monkeypatch.setattr(api_limits, "_clients", {})
    yield
    for client in api_limits._clients.values():
        client.close()


@pytest.fixture
def counter(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real Redis, with patience for a busy machine."""
    monkeypatch.setattr(api_limits, "TIMEOUT_SECONDS", 10.0)
    settings.REDIS_URL = ensure_redis()["REDIS_URL"]


def bearer(person: User) -> dict[str, str]:
    """Return the headers of a program with a token of its own."""
    ends = clock.now() + timedelta(days=1)
    _, secret = actions.create_token(person.pk, "Program", ends, True, actor=Actor.of(person))
    return {"Authorization": f"Bearer {secret}"}


def standing(response: Any) -> tuple[int, str, str, str]:
    """Return status and the three headers."""
    return (response.status_code, *(response[f"RateLimit-{name}"] for name in ("Limit", "Remaining", "Reset")))


@pytest.mark.broker
@pytest.mark.django_db
@pytest.mark.requirement("api-limits-1.1", "api-limits-1.3")
def test_a_token_has_so_many_calls_a_minute(counter: None) -> None:
    person, other = make_user(), make_user()
    client, headers = Client(), bearer(person)
    minute = clock.now().replace(second=20, microsecond=0)
    with clock.frozen(minute):
        for left in ("2", "1", "0"):
            assert standing(client.get(URL, headers=headers)) == (200, "3", left, "40")
        refused = client.get(URL, headers=headers)
        assert standing(refused) == (429, "3", "0", "40")
        assert refused["Retry-After"] == "40"
        assert refused["Content-Type"] == "application/problem+json"
        assert (refused.json()["code"], refused.json()["status"]) == ("too_many_requests", 429)
        # Another token of the same person, another person, and the browser's session go on.
        for headers_of_other in (bearer(person), bearer(other)):
            assert client.get(URL, headers=headers_of_other).status_code == 200
        assert standing(client_for(person).get(URL)) == (200, "3", "2", "40")
        clock.advance(timedelta(seconds=40))
        assert standing(client.get(URL, headers=headers)) == (200, "3", "2", "60")
    page = client_for(person).get("/notifications/")
    assert "RateLimit-Limit" not in page


@pytest.mark.broker
@pytest.mark.django_db
@pytest.mark.requirement("api-limits-1.2")
def test_calls_of_nobody_are_counted_by_address(counter: None) -> None:
    client, headers = Client(), bearer(make_user())
    with clock.frozen(clock.now().replace(second=20, microsecond=0)):
        assert standing(client.get(URL)) == (401, "2", "1", "40")
        # Every made-up token counts against the address that it came from.
        made_up = {"Authorization": f"Bearer gpuc_{uuid.uuid4().hex}"}
        assert standing(client.get(URL, headers=made_up)) == (401, "2", "0", "40")
        for refused in (client.get(URL), client.get(URL, headers=made_up)):
            assert (refused.status_code, refused["Retry-After"]) == (429, "40")
            assert refused["Content-Type"] == "application/problem+json"
        assert client.get(URL, REMOTE_ADDR="192.0.2.7").status_code == 401
        # Who is somebody comes through from the same address.
        assert standing(client.get(URL, headers=headers)) == (200, "3", "2", "40")


@pytest.mark.broker
@pytest.mark.requirement("api-limits-1.4")
def test_many_at_once_are_counted_exactly(counter: None) -> None:
    who, passed, lock = f"test:{uuid.uuid4().hex}", list[bool](), threading.Lock()
    at = clock.now().replace(second=20, microsecond=0)

    def call() -> None:
        for _ in range(25):
            found = api_limits.count(who, 60)
            with lock:
                passed.append(found is not None and not found.exceeded)

    with clock.frozen(at):
        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert (len(passed), sum(passed)) == (200, 60)
    key = f"commons:rate:{who}:{int(at.timestamp()) // 60}"
    assert 0 < int(api_limits._client().ttl(key)) <= 120  # type: ignore[arg-type]  # the stubs join sync and async


@pytest.mark.django_db
@pytest.mark.requirement("api-limits-1.5")
def test_without_redis_everybody_gets_through_and_the_log_says_so_once(
    settings: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        settings.REDIS_URL = f"redis://127.0.0.1:{unused.getsockname()[1]}/0"
        client, headers = Client(), bearer(make_user())
        with caplog.at_level(logging.WARNING, logger="apps.accounts.api_limits"):
            for _ in range(5):
                response = client.get(URL, headers=headers)
                assert response.status_code == 200
                assert "RateLimit-Limit" not in response
                monkeypatch.setattr(api_limits, "_silent_until", 0.0)  # as if the seconds of silence were over
            assert client.get(URL).status_code == 401
    said = [record for record in caplog.records if record.name == "apps.accounts.api_limits"]
    assert len(said) == 1
    assert "not counted" in said[0].getMessage()


@pytest.mark.broker
@pytest.mark.requirement("api-limits-1.5")
def test_a_redis_that_hangs_is_asked_once(settings: Any, tmp_path: Path) -> None:
    server = Redis(tmp_path / "redis", password="p", log=tmp_path / "log")
    server.start()
    try:
        settings.REDIS_URL = server.url
        assert server.process is not None
        os.kill(server.process.pid, signal.SIGSTOP)
        assert api_limits.count("somebody", 3) is None
        assert api_limits._silent_until > time.monotonic()
        start = time.monotonic()
        assert [api_limits.count("somebody", 3) for _ in range(100)] == [None] * 100
        assert time.monotonic() - start < api_limits.TIMEOUT_SECONDS * 10
        os.kill(server.process.pid, signal.SIGCONT)
    finally:
        server.stop()


@pytest.mark.django_db
@pytest.mark.requirement("api-limits-1.1")
def test_switched_off_nothing_is_asked(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.COMMONS_API_LIMITED = False
    monkeypatch.setattr(api_limits, "_client", lambda: pytest.fail("Redis was asked"))
    assert Client().get(URL).status_code == 401
    assert client_for(make_user()).get(URL).status_code == 200
