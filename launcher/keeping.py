"""What an installation remembers between starts: its secrets, its ports, its lock, and what it has done already."""

import base64
import fcntl
import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from launcher.errors import LauncherError
from launcher.processes import free_port, is_running, port_is_free

STOPPING_SECONDS = 30.0


@dataclass(frozen=True)
class Secrets:
    """Made once at the first start and kept in ``secrets.json`` (mode 0600). Losing them means starting afresh."""

    secret_key: str
    credentials_key: str
    super_password: str
    app_password: str
    redis_password: str
    signing_key: str

    @classmethod
    def load(cls, folder: Path) -> "Secrets":
        """Read the secrets, or make them."""
        path = folder / "secrets.json"
        if path.exists():
            try:
                kept = json.loads(path.read_text())
                # Folders that were made before the portal signed anything get the key now.
                whole = cls(**{"signing_key": _random_key(), **kept})
            except (TypeError, ValueError) as error:
                raise LauncherError(f"{path} is damaged ({error}). Restore it, or run `make demo-reset`.") from error
            if "signing_key" not in kept:
                write_private(path, json.dumps(asdict(whole), indent=2))
            return whole
        made = cls(
            secret_key=secrets.token_urlsafe(50),
            credentials_key=_random_key(),
            super_password=secrets.token_hex(16),
            app_password=secrets.token_hex(16),
            redis_password=secrets.token_hex(16),
            signing_key=_random_key(),
        )
        write_private(path, json.dumps(asdict(made), indent=2))
        return made


def _random_key() -> str:
    """Return 32 random bytes in URL-safe base64: what a Fernet key is, and an Ed25519 seed."""
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


def write_private(path: Path, text: str) -> None:
    """Write a file only its owner can read, whole or not at all."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=0o600)
    fresh.write_text(text)
    fresh.rename(path)


def settle_ports(folder: Path, names: Iterable[str]) -> tuple[dict[str, int], set[str]]:
    """A free port for each name, the same as the last time where that is possible.

    Returns the ports and the names whose port had to change since the last time (another program has taken it).
    """
    path = folder / "ports.json"
    before: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
    ports: dict[str, int] = {}
    for name in names:
        port = before.get(name)
        while port is None or not port_is_free(port) or port in ports.values():
            port = free_port()
        ports[name] = port
    write_private(path, json.dumps(ports, indent=2))
    return ports, {name for name in ports if name in before and before[name] != ports[name]}


class FolderLock:
    """One supervisor a data folder. The watchdog inherits the lock, so it lasts until the last process has ended."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "supervisor.lock"
        self.handle: IO[str] | None = None

    def take(self) -> int:
        """Take the lock and return its file descriptor.

        Waits for a supervisor that was killed until its processes have ended. Raises LauncherError while one lives.
        """
        handle = self.path.open("a+")
        deadline = time.monotonic() + STOPPING_SECONDS
        told = False
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                pid = self.holder()
                if (pid and is_running(pid)) or time.monotonic() > deadline:
                    handle.close()
                    raise LauncherError(
                        f"{self.path.parent} is in use by another running portal (process {pid}). Stop that one, or "
                        "set COMMONS_DIR to another folder and PORT to another port."
                    ) from None
                if not told:
                    print("Waiting for the processes of the last run to end …", flush=True)
                    told = True
                time.sleep(0.2)
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        self.handle = handle
        return handle.fileno()

    def holder(self) -> int | None:
        """The process id of the supervisor that took the lock last."""
        try:
            return int(self.path.read_text())
        except (FileNotFoundError, ValueError):
            return None

    def release(self) -> None:
        """Give the lock back."""
        if self.handle is not None:
            self.handle.close()
            self.handle = None


class Stamps:
    """Steps that need not be done again while their inputs are the same; what makes the second start quick."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def holds(self, name: str, value: str) -> bool:
        """True when the step was completed for the same inputs."""
        path = self.folder / name
        return path.exists() and path.read_text() == value

    def set(self, name: str, value: str) -> None:
        """Remember a completed step."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(value)

    def clear(self, name: str) -> None:
        """Forget a step, so that it is done again."""
        (self.folder / name).unlink(missing_ok=True)


def fingerprint(files: Iterable[Path], *more: str) -> str:
    """One hash over names and contents of files and some further texts."""
    total = hashlib.sha256()
    for path in sorted(files):
        total.update(str(path).encode() + b"\0" + path.read_bytes() + b"\0")
    for text in more:
        total.update(text.encode() + b"\0")
    return total.hexdigest()
