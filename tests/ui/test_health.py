"""The probes, with parts missing."""

from __future__ import annotations

import re
import threading
import time
from typing import Any

import pytest
from django.test import Client

from portal import health

pytestmark = pytest.mark.django_db


def _checks(monkeypatch: pytest.MonkeyPatch, **probes: Any) -> None:
    """Put probes in place of the real ones; what is not named answers at once."""
    names = ("database", "migrations", "broker")
    monkeypatch.setattr(health, "CHECKS", tuple(health.Check(name, probes.get(name, lambda: None)) for name in names))


def _fail() -> None:
    raise ConnectionError("connection to commons_app@10.0.0.1 refused")


@pytest.mark.requirement("health-1.1")
def test_health_says_who_it_is_without_asking_anybody(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        response = Client().get("/health")
    body = response.json()
    assert response.status_code == 200
    assert (body["status"], body["service"]) == ("ok", "gpu-commons")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", body["timestamp"])
    assert body["version"]
    assert Client().post("/health").status_code == 405


@pytest.mark.requirement("health-1.2")
def test_ready_when_everything_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    _checks(monkeypatch)
    response = Client().get("/ready")
    body = response.json()
    assert (response.status_code, body["status"]) == (200, "ready")
    assert {name: check["status"] for name, check in body["checks"].items()} == {
        "database": "ok", "migrations": "ok", "broker": "ok",
    }  # fmt: skip
    assert body["consequences"] == []


@pytest.mark.requirement("health-1.2", "health-1.6")
def test_the_real_probes_find_the_test_database_ready() -> None:
    for probe in (health._probe_database, health._probe_migrations):
        probe()


@pytest.mark.requirement("health-1.3", "health-1.7")
def test_without_a_broker_the_portal_is_degraded_and_says_what_waits(settings: Any) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    response = Client().get("/ready")
    body = response.json()
    assert (response.status_code, body["status"]) == (200, "degraded")
    assert body["checks"]["broker"]["status"] == "failed"
    assert "nothing is lost" in body["consequences"][0]
    assert "127.0.0.1" not in response.content.decode()


@pytest.mark.requirement("health-1.4", "health-1.7")
def test_without_a_database_it_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    _checks(monkeypatch, database=_fail, migrations=_fail)
    response = Client().get("/ready")
    assert (response.status_code, response.json()["status"]) == (503, "unavailable")
    assert "10.0.0.1" not in response.content.decode()


@pytest.mark.requirement("health-1.6")
def test_missing_migrations_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    known = health._expected_migrations()
    monkeypatch.setattr(health, "_known_migrations", known | {("core", "9998_later"), ("core", "9999_last")})
    response = Client().get("/ready")
    assert response.status_code == 503
    assert response.json()["checks"]["migrations"]["error"] == "2 migrations are not applied"


@pytest.mark.requirement("health-1.5")
def test_a_hanging_part_costs_half_a_second_and_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    release, started = threading.Event(), []

    def hang() -> None:
        started.append(1)
        release.wait(30)

    _checks(monkeypatch, broker=hang)
    begun = time.monotonic()
    first = Client().get("/ready").json()
    took = time.monotonic() - begun
    second = Client().get("/ready").json()
    release.set()
    assert took < 15, "it waited for the part that hangs"
    assert first["checks"]["broker"]["error"] == "no answer within 500 ms"
    assert second["checks"]["broker"]["error"] == "an earlier check still waits for an answer"
    assert started == [1]
    assert first["status"] == second["status"] == "degraded"
