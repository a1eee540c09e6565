"""The servers that test runs share."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from launcher import testing
from launcher.paths import ROOT
from launcher.processes import is_running, wait_until

USER = """
import json, sys
from launcher.testing import ensure_postgres, ensure_redis
print(json.dumps({**ensure_postgres(), **ensure_redis()}), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def environment(reachable: Path) -> Iterator[dict[str, str]]:
    """Servers of their own for one test, which end a second after their last user."""
    kept = {name: value for name, value in os.environ.items() if not name.endswith(("DATABASE_URL", "REDIS_URL"))}
    yield {**kept, "COMMONS_TEST_DIR": str(reachable / "servers"), "COMMONS_TEST_IDLE_SECONDS": "1"}
    assert testing.stop(reachable / "servers") == []


def user(environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", USER],
        cwd=ROOT,
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def answer(process: subprocess.Popen[str]) -> dict[str, str]:
    assert process.stdout is not None
    addresses: dict[str, str] = json.loads(process.stdout.readline())
    return addresses


def leave(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=60)


@pytest.mark.requirement("installation-2.5")
def test_concurrent_runs_share_a_postgres_and_have_a_redis_database_each(
    environment: dict[str, str], reachable: Path
) -> None:
    users = [user(environment) for _ in range(4)]
    answers = [answer(one) for one in users]
    keepers = [
        json.loads((reachable / "servers" / f"{name}.json").read_text())["keeper"] for name in ("postgres", "redis")
    ]
    assert len({one["DATABASE_URL"] for one in answers}) == 1
    assert len({one["REDIS_URL"] for one in answers}) == 4
    with psycopg.connect(answers[0]["MIGRATE_DATABASE_URL"]) as connection:
        assert connection.execute("show fsync").fetchone() == ("off",)

    # A killed run counts as gone, one that is left keeps the servers.
    users[0].kill()
    for one in users[:3]:
        leave(one)
    assert testing.stop(reachable / "servers") == ["postgres", "redis"]
    late = user(environment)
    assert answer(late)["DATABASE_URL"] == answers[0]["DATABASE_URL"]

    leave(late)
    leave(users[3])
    assert wait_until(lambda: not any(is_running(pid) for pid in keepers), 20)
    assert not (reachable / "servers" / "postgres.json").exists()


@pytest.mark.requirement("installation-2.5")
def test_a_dead_server_is_replaced(environment: dict[str, str], reachable: Path) -> None:
    first = user(environment)
    before = answer(first)
    keeper = json.loads((reachable / "servers" / "postgres.json").read_text())["keeper"]
    os.kill(keeper, signal.SIGKILL)
    assert wait_until(lambda: not is_running(keeper), 5)
    second = user(environment)
    after = answer(second)
    with psycopg.connect(after["DATABASE_URL"]) as connection:
        assert connection.execute("select 1").fetchone() == (1,)
    assert after["REDIS_URL"] != before["REDIS_URL"]
    leave(first)
    leave(second)


def test_addresses_of_ones_own_are_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TEST_DATABASE_URL", "postgres://one@db.example/x")
    monkeypatch.setenv("TEST_REDIS_URL", "redis://cache.example/3")
    monkeypatch.delenv("MIGRATE_DATABASE_URL", raising=False)
    assert testing.ensure_postgres(tmp_path) == {
        "DATABASE_URL": "postgres://one@db.example/x",
        "MIGRATE_DATABASE_URL": "postgres://one@db.example/x",
    }
    assert testing.ensure_redis(tmp_path) == {"REDIS_URL": "redis://cache.example/3"}
    assert list(tmp_path.iterdir()) == []
