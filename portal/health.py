"""Probes. `/health`: the process answers. `/ready`: it can serve; each part is checked on its own, within 500 ms."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC
from typing import Any

import psycopg
import redis
from django.conf import settings
from django.db import connections
from django.db.migrations.loader import MigrationLoader
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from apps.core import clock

logger = logging.getLogger(__name__)
TIMEOUT_SECONDS = 0.5

#: What a person notices while a part is away.
CONSEQUENCES = {
    "database": "No page can be served.",
    "migrations": "The database has an older or newer layout than this version needs; run manage.py migrate.",
    "broker": "Pages, requests and decisions work. What workers do (applying to clusters, metering, mail) waits"
    " until the broker is back; nothing is lost.",
}


class Check:
    """One probe in a thread of its own; while an earlier run still hangs, no further thread is started."""

    def __init__(self, name: str, probe: Callable[[], None]) -> None:
        self.name = name
        self.probe = probe
        self._busy = threading.Lock()

    def start(self) -> Callable[[float], dict[str, Any]]:
        """Begin, and return a function that waits until a deadline (monotonic seconds) and reports."""
        result: dict[str, Any] = {}
        if not self._busy.acquire(blocking=False):
            return lambda deadline: {"status": "failed", "error": "an earlier check still waits for an answer"}
        begun = time.monotonic()

        def run() -> None:
            try:
                self.probe()
                result["status"] = "ok"
            except NotReady as error:
                result.update(status="failed", error=str(error))
            except Exception:  # a probe must report whatever happens; the details are for the log only
                logger.warning("readiness check failed", extra={"check": self.name}, exc_info=True)
                result.update(status="failed", error="no answer")
            finally:
                result["milliseconds"] = round((time.monotonic() - begun) * 1000)
                self._busy.release()

        thread = threading.Thread(target=run, name=f"ready-{self.name}", daemon=True)
        thread.start()

        def wait(deadline: float) -> dict[str, Any]:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                return {"status": "failed", "error": f"no answer within {TIMEOUT_SECONDS * 1000:.0f} ms"}
            return dict(result)

        return wait


class NotReady(Exception):
    """A probe got an answer, and it is no; the text may be shown to anyone."""


def _connect() -> psycopg.Connection[Any]:
    # A connection of its own: the pool may be exhausted, and a thread must not share the request's connection.
    params = connections["default"].get_connection_params()
    keep = {
        key: value for key, value in params.items() if key in ("host", "port", "user", "password", "dbname", "sslmode")
    }
    return psycopg.connect(**keep, connect_timeout=1, options="-c statement_timeout=450", autocommit=True)


def _probe_database() -> None:
    with _connect() as connection:
        connection.execute("SELECT 1")


_known_migrations: frozenset[tuple[str, str]] | None = None


def _expected_migrations() -> frozenset[tuple[str, str]]:
    """The migrations this version brings along, read from disk once."""
    global _known_migrations
    if _known_migrations is None:
        loader = MigrationLoader(None, ignore_no_migrations=True)
        _known_migrations = frozenset(loader.disk_migrations or {})
    return _known_migrations


def _probe_migrations() -> None:
    with _connect() as connection:
        applied = set(connection.execute("SELECT app, name FROM django_migrations").fetchall())
    if missing := len(_expected_migrations() - applied):
        raise NotReady(f"{missing} migrations are not applied")


def _probe_broker() -> None:
    client = redis.Redis.from_url(
        settings.REDIS_URL, socket_connect_timeout=TIMEOUT_SECONDS, socket_timeout=TIMEOUT_SECONDS
    )
    try:
        client.ping()
    finally:
        client.close()


CHECKS = (
    Check("database", _probe_database),
    Check("migrations", _probe_migrations),
    Check("broker", _probe_broker),
)


def _about() -> dict[str, str]:
    return {
        "service": "gpu-commons",
        "version": settings.VERSION,
        "timestamp": clock.now().astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    }


@never_cache
@require_safe
def health(request: HttpRequest) -> JsonResponse:
    """The process is alive: always 200, touching neither database nor broker."""
    return JsonResponse({"status": "ok", **_about()})


@never_cache
@require_safe
def ready(request: HttpRequest) -> JsonResponse:
    """Whether requests can be served: 200 "ready", 200 "degraded" without the broker, 503 "unavailable".

    All checks run at once and have 500 ms together.
    """
    waiting = [(check.name, check.start()) for check in CHECKS]
    deadline = time.monotonic() + TIMEOUT_SECONDS
    checks = {name: wait(deadline) for name, wait in waiting}
    failed = [name for name, result in checks.items() if result["status"] != "ok"]
    status = "ready" if not failed else "degraded" if failed == ["broker"] else "unavailable"
    body = {
        "status": status,
        **_about(),
        "checks": checks,
        "consequences": [CONSEQUENCES[name] for name in failed],
    }
    return JsonResponse(body, status=503 if status == "unavailable" else 200)
