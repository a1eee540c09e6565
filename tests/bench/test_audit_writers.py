"""Eight writers at once: commits a second with the chain against the same commits without it, and a chain that holds.

A transaction inserts an event as the portal does and then works on for some milliseconds before it commits, as a
business transaction does; the chain is sealed at the commit. Without the chain the sealing trigger does not fire.
"""

from __future__ import annotations

import statistics
import threading
import time
import uuid
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from django.db import connection

from apps.audit import canonical, partitions
from apps.audit.models import AuditHead
from apps.audit.verification import verify_trail
from apps.core.events import plain

pytestmark = [pytest.mark.bench, pytest.mark.django_db(transaction=True)]
TARGET = 0.90
WRITERS, SECONDS, ROUNDS = 8, 4.0, 3
_INSERT = (
    "INSERT INTO audit.event (id, occurred_at, actor_type, actor_id, on_behalf_of, channel, action, object_type,"
    " object_id, team_id, request_id, canonical)"
    " VALUES (%s, %s, 'system', 'bench', '', 'task', 'bench.event.written', 'bench', %s, NULL, '', %s)"
)


def _event() -> tuple[Any, ...]:
    uid, subject, at = uuid.uuid4(), uuid.uuid4(), datetime.now(UTC)
    data = canonical.event_bytes(
        uid=str(uid), at=plain(at), actor=canonical.ActorFields("system", "bench", "task"),
        action="bench.event.written", object_type="bench", object_id=str(subject), team="", changes={}, note="",
        request_id="",
    )  # fmt: skip
    return uid, at, subject, data


def _session(chained: bool) -> psycopg.Connection[Any]:
    parameters = connection.get_connection_params()
    login = {key: parameters[key] for key in ("host", "port", "user", "password", "dbname")}
    session = psycopg.connect(**login)
    # Only a superuser leaves triggers out: this is what the measure without the chain needs.
    session.execute(b"SET ROLE commons_app" if chained else b"SET session_replication_role = replica")
    session.commit()
    return session


def _rate(chained: bool, hold: float) -> tuple[float, float, int]:
    """Commits a second of all writers, their median time in milliseconds, and how many failed."""
    took: list[float] = []
    failed: list[str] = []
    start = threading.Barrier(WRITERS + 1)
    sessions = [_session(chained) for _ in range(WRITERS)]
    ends = [0.0]

    def write(session: psycopg.Connection[Any]) -> None:
        start.wait()
        while time.perf_counter() < ends[0]:
            began = time.perf_counter()
            try:
                with session.transaction():
                    session.execute(_INSERT, _event())
                    session.execute("SELECT pg_sleep(%s)", [hold])
            except psycopg.Error as error:
                failed.append(str(error))
            else:
                took.append(time.perf_counter() - began)

    threads = [threading.Thread(target=write, args=(session,)) for session in sessions]
    for thread in threads:
        thread.start()
    began = time.perf_counter()
    ends[0] = began + SECONDS
    start.wait()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - began
    for session in sessions:
        session.close()
    return len(took) / elapsed, statistics.median(took) * 1000, len(failed)


@pytest.mark.requirement("audit-keeping-5.2")
@pytest.mark.parametrize("hold_ms", [10, 50])
def test_eight_writers_keep_their_pace_and_one_chain(hold_ms: int) -> None:
    partitions.ensure(datetime.now(UTC))
    rates: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(ROUNDS):
        # By turns, so that whatever else the machine does falls on both.
        for chained in (True, False):
            before = AuditHead.objects.get().seq
            rate, median, failed = _rate(chained, hold_ms / 1000)
            rates[chained].append(rate)
            print(f"hold {hold_ms} ms, {'chain' if chained else 'none '}: {rate:7.1f}/s, median {median:5.1f} ms")
            assert failed == 0
            sealed = AuditHead.objects.get().seq - before
            assert sealed > 0 if chained else sealed == 0
    findings = [one for one in verify_trail().findings if one.kind != "stray"]
    assert findings == [], "one chain without fork or gap; strays are the events of the measure without it"
    share = statistics.median(rates[True]) / statistics.median(rates[False])
    print(f"hold {hold_ms} ms: {share:.1%} of the pace without a chain (wanted {TARGET:.0%})")
    assert share >= TARGET
