"""The PostgreSQL and Redis that tests run against: one server each, shared by every test run of the checkout.

``ensure_postgres()`` and ``ensure_redis()`` start the server when none runs and return its addresses. A server belongs
to a small keeper process of its own, so it survives the run that started it; the keeper stops it once nobody has used
it for ``IDLE_SECONDS`` (``COMMONS_TEST_IDLE_SECONDS`` overrides it). Whoever uses a server holds a shared lock on a
file, which the kernel drops with the process, so neither a killed test run nor a forgotten clean-up leaves a server
behind.

Files in the test folder: ``NAME.lock`` orders starting and stopping, ``NAME.keeper`` is locked while a keeper lives,
``NAME.users`` is share-locked by every user, ``NAME.json`` says where the server is.
"""

import contextlib
import fcntl
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import IO, Any

from launcher.errors import LauncherError
from launcher.paths import ROOT, make_private_dir, test_dir
from launcher.postgres import DATABASE, TEST_SETTINGS, Postgres
from launcher.processes import tail
from launcher.redis import Redis

IDLE_SECONDS = 180.0
START_SECONDS = 90.0
REDIS_DATABASES = 16  # Redis's own default

_held: dict[str, IO[str]] = {}
_redis_database: dict[str, int] = {}


def ensure_postgres(folder: Path | None = None) -> dict[str, str]:
    """A running PostgreSQL for tests, as ``DATABASE_URL`` and ``MIGRATE_DATABASE_URL``.

    Both log in as a superuser; tests make the portal's roles with ``manage.py bootstrap_database``. A server of one's
    own comes in through ``TEST_DATABASE_URL`` or ``DATABASE_URL`` (and ``MIGRATE_DATABASE_URL``). The name in the URL
    is ``COMMONS_TEST_DATABASE`` or "commons"; Django prefixes it with ``test_``, so test runs that go on at the same
    time need different names. Raises LauncherError with the end of the log when the server cannot start.
    """
    for name in ("TEST_DATABASE_URL", "DATABASE_URL"):
        if given := os.environ.get(name):
            return {"DATABASE_URL": given, "MIGRATE_DATABASE_URL": os.environ.get("MIGRATE_DATABASE_URL") or given}
    state = _ensure("postgres", folder or test_dir())
    database = os.environ.get("COMMONS_TEST_DATABASE") or DATABASE
    url = f"{state['url']}/{database}"
    return {"DATABASE_URL": url, "MIGRATE_DATABASE_URL": url}


def ensure_redis(folder: Path | None = None) -> dict[str, str]:
    """A running Redis for tests as ``REDIS_URL``, with a numbered database that is empty and this process's alone.

    A server of one's own comes in through ``TEST_REDIS_URL`` or ``REDIS_URL``.
    """
    for name in ("TEST_REDIS_URL", "REDIS_URL"):
        if given := os.environ.get(name):
            return {"REDIS_URL": given}
    folder = folder or test_dir()
    state = _ensure("redis", folder)
    return {"REDIS_URL": f"{state['url']}/{_own_redis_database(folder, state)}"}


def stop(folder: Path | None = None) -> list[str]:
    """Stop the servers nobody uses now; returns the names of those that go on because a test run needs them."""
    folder = folder or test_dir()
    busy = []
    for name in ("postgres", "redis"):
        if not (folder / f"{name}.json").exists():
            continue
        with _locked(folder / f"{name}.lock"):
            if not _try_lock(folder / f"{name}.users", fcntl.LOCK_EX):
                busy.append(name)
                continue
            state = _read_state(folder, name)
            if state and not _try_lock(folder / f"{name}.keeper", fcntl.LOCK_EX):
                os.kill(state["keeper"], signal.SIGTERM)
                with _locked(folder / f"{name}.keeper"):
                    pass
    return busy


# -- locks


@contextlib.contextmanager
def _locked(path: Path, mode: int = fcntl.LOCK_EX) -> Iterator[None]:
    with path.open("a") as handle:
        fcntl.flock(handle, mode)
        yield


def _try_lock(path: Path, mode: int) -> bool:
    """Take and give back a lock at once: True when nobody holds it against us."""
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


# -- the user's side


def _ensure(name: str, folder: Path) -> dict[str, Any]:
    make_private_dir(folder)
    with _locked(folder / f"{name}.lock"):
        state = _read_state(folder, name)
        keeper_lives = not _try_lock(folder / f"{name}.keeper", fcntl.LOCK_EX)
        if state is None or not keeper_lives or not _answers(state["port"]):
            if state is not None and keeper_lives:
                os.kill(state["keeper"], signal.SIGTERM)
            state = _start_keeper(name, folder)
        key = f"{folder}/{name}"
        if key not in _held:
            _held[key] = (folder / f"{name}.users").open("a")
            fcntl.flock(_held[key], fcntl.LOCK_SH)
        return state


def _start_keeper(name: str, folder: Path) -> dict[str, Any]:
    (folder / f"{name}.json").unlink(missing_ok=True)
    log = folder / f"{name}-keeper.log"
    idle = os.environ.get("COMMONS_TEST_IDLE_SECONDS") or str(IDLE_SECONDS)
    with log.open("wb") as handle:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "launcher.testing", name, str(folder), idle],
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if state := _read_state(folder, name):
            return state
        if keeper.poll() is not None:
            break
        time.sleep(0.02)
    raise LauncherError(f"The test server {name} did not start. The end of {log}:\n{tail(log)}")


def _read_state(folder: Path, name: str) -> dict[str, Any] | None:
    try:
        state = json.loads((folder / f"{name}.json").read_text())
    except FileNotFoundError:
        return None
    return state if isinstance(state, dict) else None


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2):
            return True
    except OSError:
        return False


def _own_redis_database(folder: Path, state: dict[str, Any]) -> int:
    key = str(folder)
    if key in _redis_database:
        return _redis_database[key]
    for number in range(REDIS_DATABASES):
        handle = (folder / f"redis-database-{number}").open("a")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.close()
            continue
        _held[f"{key}/redis-database"] = handle
        _redis_database[key] = number
        with socket.create_connection(("127.0.0.1", state["port"]), timeout=5) as connection:
            connection.sendall(f"AUTH {state['password']}\r\nSELECT {number}\r\nFLUSHDB\r\n".encode())
            answer = b""
            while answer.count(b"\r\n") < 3 and (chunk := connection.recv(256)):
                answer += chunk
        if answer != b"+OK\r\n" * 3:
            raise LauncherError(f"The test Redis refused to empty database {number}: {answer!r}")
        return number
    raise LauncherError(f"All {REDIS_DATABASES} databases of the test Redis are in use by other test runs.")


# -- the keeper's side


def keep(name: str, folder: Path, idle_seconds: float) -> None:
    """Run one server until nobody has used it for a while. The body of the keeper process."""
    with (folder / f"{name}.keeper").open("a") as mine:
        fcntl.flock(mine, fcntl.LOCK_EX)
        stopping = False

        def on_signal(_number: int, _frame: FrameType | None) -> None:
            nonlocal stopping
            stopping = True

        signal.signal(signal.SIGTERM, on_signal)
        signal.signal(signal.SIGINT, on_signal)
        server = _start_server(name, folder)
        try:
            last_used = time.monotonic()
            while not stopping:
                time.sleep(0.25)
                if server.process is None or server.process.poll() is not None:
                    break
                if not _try_lock(folder / f"{name}.users", fcntl.LOCK_EX):
                    last_used = time.monotonic()
                elif time.monotonic() - last_used > idle_seconds and _nobody_comes(name, folder):
                    return
        finally:
            (folder / f"{name}.json").unlink(missing_ok=True)
            server.stop()


def _nobody_comes(name: str, folder: Path) -> bool:
    """Withdraw the server's address unless somebody is just asking for it or has it already."""
    with (folder / f"{name}.lock").open("a") as order:
        try:
            fcntl.flock(order, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if not _try_lock(folder / f"{name}.users", fcntl.LOCK_EX):
            return False
        (folder / f"{name}.json").unlink(missing_ok=True)
        return True


def _start_server(name: str, folder: Path) -> Postgres | Redis:
    log = folder / f"{name}.log"
    log.unlink(missing_ok=True)
    server: Postgres | Redis
    if name == "postgres":
        server = _start_postgres(folder, log)
        url = server.url(database="").rstrip("/")
    else:
        server = Redis(folder / "redis", password=secrets.token_hex(16), log=log)
        server.start()
        url = server.url.removesuffix("/0")
    state = {"keeper": os.getpid(), "port": server.port, "password": server.password, "url": url}
    written = folder / f"{name}.json.new"
    written.unlink(missing_ok=True)
    written.touch(mode=0o600)
    written.write_text(json.dumps(state))
    written.rename(folder / f"{name}.json")
    return server


def _start_postgres(folder: Path, log: Path) -> Postgres:
    """Start the test PostgreSQL on the data of the last time, or on fresh data where that no longer works.

    Without fsync a power cut ruins the data, and a new version of the binaries cannot read it; it is only test data.
    """
    password_file = folder / "postgres.password"
    if not password_file.exists():
        password_file.touch(mode=0o600)
        password_file.write_text(secrets.token_hex(16))
    server = Postgres(folder / "postgres", password=password_file.read_text(), log=log, settings=TEST_SETTINGS)
    try:
        server.start()
    except LauncherError as error:
        print(f"Starting on the data of the last time failed ({error}); starting afresh.")
        server.remove()
        server.port = 0
        server.start()
    return server


def main(arguments: list[str]) -> int:
    """``python -m launcher.testing postgres|redis FOLDER IDLE_SECONDS`` runs a keeper."""
    name, folder, idle_seconds = arguments
    keep(name, Path(folder), float(idle_seconds))
    return 0


__all__ = ["ensure_postgres", "ensure_redis", "keep", "stop"]

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
