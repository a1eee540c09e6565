"""An installation of real processes: PostgreSQL, Redis, web, worker, beat; and the handles to break them."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kombu.pools
from django.conf import settings
from django.db import connections

from apps.core.bootstrap import APP_ROLE, Logins
from apps.core.management.commands.bootstrap_database import run as bootstrap
from apps.core.testing.database import set_role
from apps.demo.cluster import SimulatedCluster
from launcher.paths import ROOT
from launcher.postgres import DATABASE, SUPERUSER, TEST_SETTINGS, Postgres
from launcher.processes import end_session, free_port, session_members, spawn
from launcher.redis import Redis
from portal.celery import app
from tests.acceptance.world import Now, Stage, World, fresh, history, until, without_workloads
from tests.factories import client_for

QUEUES = "default,apply,ingest,mail"


@dataclass
class Answer:
    """What the web process said, and how long it took."""

    status: int
    body: str
    headers: dict[str, str]
    seconds: float


class _Stay(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


_opener = urllib.request.build_opener(_Stay)


@dataclass
class Browser:
    """A signed-in person at the web process; cookies were made beside it, the sign-in page has tests of its own."""

    address: str
    cookies: dict[str, str]

    def ask(self, path: str, form: dict[str, Any] | None = None, *, seconds: float = 20) -> Answer:
        """GET, or POST a form. Never raises for a status."""
        data = None if form is None else urllib.parse.urlencode(form).encode()
        request = urllib.request.Request(self.address + path, data=data)
        token = self.cookies["csrftoken"]
        request.add_header("Cookie", "; ".join(f"{name}={value}" for name, value in self.cookies.items()))
        request.add_header("X-CSRFToken", token)
        began = time.monotonic()
        try:
            answer = _opener.open(request, timeout=seconds)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            body = answer.read().decode()
        return Answer(answer.status, body, dict(answer.headers), time.monotonic() - began)


@dataclass
class Site:
    """The running installation. The test process writes to its database, too, as the portal's role."""

    folder: Path
    postgres: Postgres
    redis: Redis
    cluster: SimulatedCluster
    env: dict[str, str]
    port: int
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    world: World = None  # type: ignore[assignment]  # made once the database answers

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, name: str) -> None:
        """Start one of web, worker, beat."""
        celery = ["celery", "--app", "portal.celery:app"]
        commands = {
            "web": ["gunicorn", "portal.wsgi:application", "--bind", f"127.0.0.1:{self.port}", "--worker-class",
                    "gthread", "--threads", "4", "--no-control-socket"],
            "worker": [*celery, "worker", "--concurrency", "2", "--queues", QUEUES, "--without-gossip",
                       "--without-mingle"],
            "beat": [*celery, "beat", "--schedule", str(self.folder / "schedule"), "--pidfile", ""],
        }  # fmt: skip
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = spawn(
                [sys.executable, "-m", *commands[name]], log=log, env=self.env, cwd=ROOT, death_signal=signal.SIGKILL
            )

    def kill(self, name: str) -> None:
        """SIGKILL a process with all its children, as the machine running out of memory would."""
        process = self.processes.pop(name)
        for pid in session_members(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.wait()

    def running(self, name: str) -> bool:
        return self.processes[name].poll() is None

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-3000:]

    def browser(self, key: str) -> Browser:
        client = client_for(self.world.user(key))
        session = client.cookies[settings.SESSION_COOKIE_NAME].value
        cookies = {settings.SESSION_COOKIE_NAME: session, "csrftoken": secrets.token_hex(16)}
        return Browser(self.address, cookies)

    def ready(self) -> Answer:
        return Browser(self.address, {"csrftoken": "x"}).ask("/ready")

    def close(self) -> None:
        for process in self.processes.values():
            end_session(process.pid, seconds=3)
            process.wait()
        self.cluster.close()
        self.redis.stop()
        self.postgres.stop()


def _copy_database(server: Postgres) -> None:
    """Bring roles and the migrated schema of the test run's database to another server: quicker than migrating."""
    source = connections["default"].settings_dict
    login = {"host": "127.0.0.1", "port": server.port, "user": SUPERUSER, "password": server.password}
    bootstrap({**login, "dbname": "postgres"}, Logins(migrate=SUPERUSER, runtime=APP_ROLE, runtime_password="app"))
    dump = subprocess.run(
        [server.installation["pg_dump"], "-h", source["HOST"], "-p", str(source["PORT"]), "-U", source["USER"],
         source["NAME"]],
        env={**os.environ, "PGPASSWORD": source["PASSWORD"]}, check=True, capture_output=True,
    ).stdout  # fmt: skip
    subprocess.run(
        [server.installation["psql"], "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(server.port), "-U",
         SUPERUSER, DATABASE],
        env={**os.environ, "PGPASSWORD": server.password}, input=dump, check=True, capture_output=True,
    )  # fmt: skip


def _forget_broker() -> None:
    kombu.pools.reset()
    app._pool = None
    app.amqp._producer_pool = None


@contextmanager
def _this_process_uses(server: Postgres, redis: Redis) -> Iterator[None]:
    """Let Django and Celery of the test process work on the installation's servers."""
    connection = connections["default"]
    before = dict(connection.settings_dict)
    broker = os.environ.get("CELERY_BROKER_URL")
    here = {"HOST": "127.0.0.1", "PORT": server.port, "USER": APP_ROLE, "PASSWORD": "app", "NAME": DATABASE}
    connection.close()
    connection.settings_dict.update(here)
    set_role(None)
    os.environ["CELERY_BROKER_URL"] = redis.url
    _forget_broker()
    try:
        yield
    finally:
        connection.close()
        connection.settings_dict.update({key: before[key] for key in here})
        set_role(APP_ROLE)
        os.environ.pop("CELERY_BROKER_URL")
        if broker is not None:
            os.environ["CELERY_BROKER_URL"] = broker
        _forget_broker()


@contextmanager
def installed(folder: Path) -> Iterator[Site]:
    """Start everything on free ports; stops all of it afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    postgres = Postgres(folder / "postgres", password=secrets.token_hex(8), log=folder / "postgres.log",
                        settings=TEST_SETTINGS, say=lambda text: None)  # fmt: skip
    redis = Redis(folder / "redis", password=secrets.token_hex(8), log=folder / "redis.log")
    now = Now()
    cluster = SimulatedCluster(folder / "cluster", history_file=history(without_workloads, folder))
    try:
        postgres.start()
        redis.start()
        _copy_database(postgres)
        cluster.start()
        port = free_port()
        env = {
            **os.environ,
            "DATABASE_URL": postgres.url(APP_ROLE, "app"),
            "REDIS_URL": redis.url,
            "COMMONS_DIR": str(folder / "commons"),
            "COMMONS_EMAIL_URL": f"filemail://{folder}/mail",
            "COMMONS_ENVIRONMENT": "development",
            "PORT": str(port),
            "PYTHONUNBUFFERED": "1",
            "PYTHONWARNINGS": "ignore",
        }
        site = Site(folder, postgres, redis, cluster, env, port)
        with _this_process_uses(postgres, redis):
            try:
                for name in ("web", "worker", "beat"):
                    site.start(name)
                site.world = fresh(Stage(cluster, now, folder))
                until(lambda: _answers(site), 120, site.log("web"))
                yield site
            finally:
                site.close()
    finally:
        cluster.stop()
        redis.stop()
        postgres.stop()


def _answers(site: Site) -> bool:
    try:
        return site.ready().status == 200
    except OSError:
        return False


__all__ = ["Answer", "Browser", "Site", "installed"]
