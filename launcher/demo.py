"""What a whole portal on one machine consists of, and in which order it starts."""

import contextlib
import os
import shutil
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from launcher import postgres as pg
from launcher.errors import LauncherError
from launcher.keeping import FolderLock, Secrets, Stamps, fingerprint, settle_ports
from launcher.paths import ROOT, commons_dir, make_private_dir
from launcher.processes import port_is_free, require_linux
from launcher.redis import Redis
from launcher.supervisor import Command, Stopped, Supervisor

# One worker serves them all here; larger installations give each its own.
QUEUES = "default,apply,ingest,mail"
# Everything the launcher and the portal write below COMMONS_DIR. Nothing else is ever deleted there.
OWN_ENTRIES = (
    "beat",
    "cluster",
    "cluster-borealis",
    "demo-kubeconfig",
    "demo-kubeconfig-borealis",
    "logs",
    "mail",
    "mode",
    "ports.json",
    "postgres",
    "redis",
    "secrets.json",
    "sign-ins",
    "stamps",
    "static",
)


@dataclass(frozen=True)
class Options:
    """What the environment decides."""

    folder: Path
    port: int
    bind: str
    demo: bool

    @classmethod
    def read(cls, *, demo: bool, environment: Mapping[str, str] = os.environ) -> "Options":
        """Raises LauncherError for a PORT that is none."""
        text = environment.get("PORT") or "8000"
        if not text.isdecimal() or not 1 <= int(text) <= 65535:
            raise LauncherError(f"PORT={text} is no port. Give a number from 1 to 65535.")
        return cls(commons_dir(), int(text), environment.get("COMMONS_BIND") or "127.0.0.1", demo)

    @property
    def address(self) -> str:
        """Where a person reaches the portal."""
        return f"http://localhost:{self.port}"


@contextlib.contextmanager
def step(text: str) -> Iterator[None]:
    """Print a step and, when it is done, how long it took."""
    print(f"  {text} …", end="", flush=True)
    started = time.monotonic()
    try:
        yield
    except BaseException:
        print(flush=True)
        raise
    print(f" {time.monotonic() - started:.1f} s", flush=True)


def note(text: str) -> None:
    """Say something in the middle of a step."""
    print(f"\n    {text} …", end="", flush=True)


class Portal:
    """One embedded installation: its folder, its servers and its processes."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.folder = options.folder
        self.logs = self.folder / "logs"
        self.stamps = Stamps(self.folder / "stamps")
        self.kubeconfig = self.folder / "demo-kubeconfig"
        self.kubeconfig_borealis = self.folder / "demo-kubeconfig-borealis"
        self.env: dict[str, str] = {}

    # -- before anything starts

    def prepare(self) -> FolderLock:
        """Check what can be checked before anything starts, and take the folder. Raises LauncherError."""
        require_linux()
        make_private_dir(self.folder)
        make_private_dir(self.logs)
        lock = FolderLock(self.folder)
        lock.take()
        try:
            if not port_is_free(self.options.port, self.options.bind):
                raise LauncherError(
                    f"Port {self.options.port} is taken by another program. Choose another one: "
                    f"PORT={self.options.port + 1} make {'demo' if self.options.demo else 'up'}"
                )
            mode = "demo" if self.options.demo else "portal"
            marker = self.folder / "mode"
            before = marker.read_text().strip() if marker.exists() else mode
            if before != mode:
                raise LauncherError(
                    f"{self.folder} holds the data of a {before}. Set COMMONS_DIR to another folder for a {mode}."
                )
            marker.write_text(mode + "\n")
        except BaseException:
            lock.release()
            raise
        return lock

    # -- the whole run

    def run(self) -> None:
        """Start everything, show the way in, tend it until somebody stops it."""
        lock = self.prepare()
        try:
            print(f"GPU Commons · data in {self.folder} · logs in {self.logs}", flush=True)
            with Supervisor(lock=lock.handle.fileno() if lock.handle else None) as supervisor:
                try:
                    self._start(supervisor)
                    supervisor.run()
                except Stopped:
                    pass
                print("\nStopping …", flush=True)
            print("Stopped; the data is kept.", flush=True)
        finally:
            lock.release()

    def _start(self, supervisor: Supervisor) -> None:
        began = time.monotonic()
        secrets = Secrets.load(self.folder)
        names = ["postgres", "redis", "cluster", "allocation", "borealis", "borealis-allocation"]
        ports, moved = settle_ports(self.folder, names)
        if moved & {"cluster", "allocation", "borealis", "borealis-allocation"}:
            # The clusters' addresses are rows of the database; seeding again brings them up to date.
            self.stamps.clear("seeded")
        self.env = self._environment(secrets, ports)
        self._start_postgres(supervisor, secrets, ports["postgres"])
        self._start_redis(supervisor, secrets, ports["redis"])
        if self.options.demo:
            atlas, borealis = (ports["cluster"], ports["allocation"]), (ports["borealis"], ports["borealis-allocation"])
            self._start_cluster(supervisor, "cluster", self.kubeconfig, *atlas, "--replay")
            history = ROOT / "apps" / "demo" / "borealis.json"
            self._start_cluster(
                supervisor, "cluster-borealis", self.kubeconfig_borealis, *borealis, "--history", str(history)
            )
        self._prepare_database(supervisor)
        self._start_processes(supervisor)
        if self.options.demo:
            self._seed(supervisor)
        print(f"\nGPU Commons runs at {self.options.address}  (started in {time.monotonic() - began:.0f} s)")
        if self.options.demo:
            print(f"\n{self._sign_ins(supervisor)}")
            print(f"\nThe simulated clusters: kubectl --kubeconfig {self.kubeconfig} get resourcequota -A")
            print(f"                        kubectl --kubeconfig {self.kubeconfig_borealis} get nodes")
        print("Ctrl-C stops everything; the data is kept.", flush=True)

    # -- parts

    def _environment(self, secrets: Secrets, ports: Mapping[str, int]) -> dict[str, str]:
        """What every process of the portal is told; a person's own DATABASE_URL or REDIS_URL stands."""
        local = f"127.0.0.1:{ports['postgres']}/{pg.DATABASE}"
        own = {
            "DATABASE_URL": f"postgres://commons_app:{secrets.app_password}@{local}",
            "MIGRATE_DATABASE_URL": f"postgres://{pg.SUPERUSER}:{secrets.super_password}@{local}",
        }
        if given := os.environ.get("DATABASE_URL"):
            own = {"DATABASE_URL": given, "MIGRATE_DATABASE_URL": os.environ.get("MIGRATE_DATABASE_URL") or given}
        redis_url = f"redis://:{secrets.redis_password}@127.0.0.1:{ports['redis']}/0"
        result = {
            **os.environ,
            **own,
            "REDIS_URL": os.environ.get("REDIS_URL") or redis_url,
            "COMMONS_ENVIRONMENT": "demo" if self.options.demo else "development",
            "COMMONS_DIR": str(self.folder),
            "COMMONS_SECRET_KEY": os.environ.get("COMMONS_SECRET_KEY") or secrets.secret_key,
            "COMMONS_CREDENTIALS_KEY": os.environ.get("COMMONS_CREDENTIALS_KEY") or secrets.credentials_key,
            "COMMONS_SIGNING_KEY": os.environ.get("COMMONS_SIGNING_KEY") or secrets.signing_key,
            "COMMONS_CHECKPOINT_DIRS": os.environ.get("COMMONS_CHECKPOINT_DIRS") or str(self.folder / "checkpoints"),
            "COMMONS_ALLOWED_HOSTS": os.environ.get("COMMONS_ALLOWED_HOSTS") or "localhost,127.0.0.1,[::1]",
            "COMMONS_BASE_URL": os.environ.get("COMMONS_BASE_URL") or self.options.address,
            "COMMONS_EMAIL_URL": os.environ.get("COMMONS_EMAIL_URL") or f"filemail://{self.folder}/mail",
            "PORT": str(self.options.port),
            "PYTHONUNBUFFERED": "1",
        }
        if self.options.demo:
            (self.folder / "models").mkdir(parents=True, exist_ok=True)
            result |= {
                "COMMONS_MODEL_MOUNTS": os.environ.get("COMMONS_MODEL_MOUNTS") or f"models={self.folder / 'models'}",
                # A reserved name: without a sink no regulated release can keep its records, and none would be made.
                "COMMONS_PREDICTION_SINK_URL": os.environ.get("COMMONS_PREDICTION_SINK_URL")
                or "http://prediction-sink.example.com",
                "COMMONS_DEMO": "1",
                "COMMONS_DEMO_KUBECONFIG": str(self.kubeconfig),
                "COMMONS_DEMO_KUBECONFIG_BOREALIS": str(self.kubeconfig_borealis),
                "COMMONS_DEMO_ALLOCATION_URL": f"http://127.0.0.1:{ports['allocation']}",
            }
        return result

    def _start_postgres(self, supervisor: Supervisor, secrets: Secrets, port: int) -> None:
        if os.environ.get("DATABASE_URL"):
            print("  PostgreSQL: the server of DATABASE_URL")
            return
        log = self.logs / "postgres.log"
        folder, password = self.folder / "postgres", secrets.super_password
        server = pg.Postgres(folder, password=password, log=log, port=port, say=note)
        if server.data_version is None:
            # Whatever was done to an earlier database was not done to this one.
            for name in ("database", "seeded"):
                self.stamps.clear(name)
        with step(f"PostgreSQL {server.installation.major}"):
            supervisor.add("PostgreSQL", server, log, stop_signal=pg.STOP_SIGNAL)

    def _start_redis(self, supervisor: Supervisor, secrets: Secrets, port: int) -> None:
        if os.environ.get("REDIS_URL"):
            print("  Redis: the server of REDIS_URL")
            return
        log = self.logs / "redis.log"
        with step("Redis"):
            supervisor.add(
                "Redis", Redis(self.folder / "redis", password=secrets.redis_password, log=log, port=port), log
            )

    def _start_cluster(
        self, supervisor: Supervisor, name: str, kubeconfig: Path, port: int, allocation_port: int, *options: str
    ) -> None:
        state = make_private_dir(self.folder / name)
        arguments = ["--port", str(port), "--allocation-port", str(allocation_port), "--state", str(state)]
        program = [sys.executable, "-m", "apps.demo.cluster", *arguments, "--kubeconfig", str(kubeconfig)]
        # Kueue is there, so that borrowed GPUs are taken back as on a cluster that shares in earnest.
        command = self._command(f"{name}.log", [*program, "--kueue", "pods", "--kserve", "--gateway", *options])
        command.ready = lambda: accepts(port) and accepts(allocation_port) and kubeconfig.exists()
        with step("Simulated cluster" if name == "cluster" else "Simulated cluster Borealis"):
            supervisor.wait_ready(supervisor.add(name, command, command.log))

    def _prepare_database(self, supervisor: Supervisor) -> None:
        """Roles and tables; skipped while neither the migrations nor the code that makes the roles has changed."""
        sources = [*ROOT.glob("apps/*/migrations/*.py"), *ROOT.glob("apps/**/bootstrap*.py")]
        value = fingerprint([*sources, ROOT / "requirements" / "runtime.txt"], self.env["DATABASE_URL"])
        if self.stamps.holds("database", value):
            return
        with step("Database roles"):
            supervisor.run_once("Making the database roles", self._manage("bootstrap_database", log="migrate.log"))
        with step("Database tables"):
            supervisor.run_once("Migrating the database", self._manage("migrate", "--no-input", log="migrate.log"))
        self.stamps.set("database", value)

    def _start_processes(self, supervisor: Supervisor) -> None:
        host = f"[{self.options.bind}]" if ":" in self.options.bind else self.options.bind
        gunicorn = [
            *("gunicorn", "portal.wsgi:application", "--bind", f"{host}:{self.options.port}"),
            *("--worker-class", "gthread", "--workers", "2", "--threads", "4"),
            # Loaded once and forked: half the work at the start.
            *("--preload", "--timeout", "60", "--graceful-timeout", "5", "--no-control-socket"),
        ]
        celery = ["celery", "--app", "portal.celery:app"]
        worker = [*("worker", "--concurrency", "2", "--queues", QUEUES), "--without-gossip", "--without-mingle"]
        schedule = make_private_dir(self.folder / "beat") / "schedule"
        beat = ["beat", "--schedule", str(schedule), "--pidfile", ""]
        web = self._command("web.log", [sys.executable, "-m", *gunicorn])
        web.ready = lambda: self.healthy()
        # WhiteNoise warns about a folder for collected files that does not exist; here it serves from the sources.
        make_private_dir(self.folder / "static")
        # One after the other: side by side they would keep a person waiting for the page.
        with step("Web"):
            supervisor.wait_ready(supervisor.add("web", web, web.log))
        for name, command in (
            ("worker", self._command("worker.log", [sys.executable, "-m", *celery, *worker])),
            ("beat", self._command("beat.log", [sys.executable, "-m", *celery, *beat])),
            ("observer", self._manage("observe", log="observer.log")),
        ):
            supervisor.add(name, command, command.log)

    def _seed(self, supervisor: Supervisor) -> None:
        """Make the sample company through the same actions a person uses; once, unless what makes it has changed."""
        sources = [path for path in ROOT.glob("apps/demo/**/*.py") if "cluster" not in path.parts]
        value = fingerprint(sources)
        if self.stamps.holds("seeded", value):
            return
        print("  Making the sample company", flush=True)
        supervisor.run_once("Making the sample company", self._manage("seed_demo", log="seed.log"), show=True)
        self.stamps.set("seeded", value)
        self.stamps.clear("sign-ins")

    def _sign_ins(self, supervisor: Supervisor) -> str:
        """One sign-in per role, as the sample company lists them; kept, because asking takes seconds."""
        listed = self.folder / "sign-ins"
        if not listed.exists() or not self.stamps.holds("sign-ins", self.options.address):
            listed.unlink(missing_ok=True)
            listed.touch(mode=0o600)
            command = Command(self._manage("seed_demo", "--print-sign-ins", log="").command, listed, self.env)
            supervisor.run_once("Listing the sign-ins", command)
            self.stamps.set("sign-ins", self.options.address)
        return listed.read_text().rstrip()

    # -- helpers

    def _command(self, log: str, command: list[str]) -> Command:
        return Command(command, self.logs / log, self.env)

    def _manage(self, *arguments: str, log: str) -> Command:
        return self._command(log, [sys.executable, str(ROOT / "manage.py"), *arguments])

    def healthy(self) -> bool:
        """True when our web process answers at /health."""
        host = "127.0.0.1" if self.options.bind in ("0.0.0.0", "127.0.0.1") else self.options.bind  # noqa: S104 (compared)
        request = urllib.request.Request(f"http://{host}:{self.options.port}/health", headers={"Host": "localhost"})
        try:
            with urllib.request.urlopen(request, timeout=2) as answer:  # noqa: S310 (our own address)
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def accepts(port: int) -> bool:
    """True when something listens on a port of this machine."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def reset(folder: Path) -> None:
    """Delete the data of an installation: what the portal wrote there, and nothing else in the folder.

    Raises LauncherError while it runs.
    """
    outside = pg.outside_dir(folder / "postgres")
    if not folder.exists() and not outside.exists():
        print(f"There is nothing in {folder}.")
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(folder)
    lock.take()
    try:
        for path in [folder / name for name in OWN_ENTRIES] + [outside]:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    finally:
        lock.release()
        lock.path.unlink(missing_ok=True)
    print(f"The data in {folder} is deleted.")
