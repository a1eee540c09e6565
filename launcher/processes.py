"""Starting and ending processes so that none outlives the one that started it (Linux)."""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from launcher.errors import LauncherError

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Account:
    """The unprivileged account a server runs under when the launcher itself runs as root."""

    uid: int
    gid: int


@dataclass(frozen=True)
class ProcessInfo:
    """A row of ``/proc``: see proc_pid_stat(5)."""

    pid: int
    command: str
    state: str
    parent: int
    session: int


def _die_with_parent(death_signal: int, parent: int, announce: int | None) -> Callable[[], None]:
    def run() -> None:
        if announce is not None:
            # A watchdog that is gone is replaced by the parent, which tells the new one of this process, too; so no
            # broken pipe may end this one here, where the signal has its default action already.
            signal.signal(signal.SIGPIPE, signal.SIG_IGN)
            with contextlib.suppress(BrokenPipeError):
                os.write(announce, f"+ {os.getpid()} {death_signal}\n".encode())
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        _libc.prctl(_PR_SET_PDEATHSIG, death_signal)
        if os.getppid() != parent:  # the parent died before the line above took effect
            os._exit(1)

    return run


def spawn(
    command: Sequence[str],
    *,
    log: IO[bytes] | int,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    death_signal: int = signal.SIGTERM,
    account: Account | None = None,
    pass_fds: Sequence[int] = (),
    announce: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start ``command`` in a session of its own; the kernel sends it ``death_signal`` when the caller's thread ends.

    Call it from the main thread only: the kernel watches the thread, not the process. The session lets
    ``end_session`` reach the grandchildren (gunicorn's and Celery's workers), which the death signal does not.

    ``announce``: the watchdog's pipe. The process itself says there that it is, before its program runs: however soon
    after that the caller is killed, a program that ignores the death signal is known.
    """
    return subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=dict(env) if env is not None else None,
        cwd=cwd,
        start_new_session=True,
        # Runs after the change of user, which would clear the death signal.
        preexec_fn=_die_with_parent(death_signal, os.getpid(), announce),
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
        pass_fds=pass_fds,
    )


def process_info(pid: int) -> ProcessInfo | None:
    """Read one process, or None when there is none with that id."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command stands in parentheses and may hold spaces and parentheses itself.
    command, _, rest = text.partition("(")[2].rpartition(")")
    state, parent, _group, session = rest.split()[:4]
    return ProcessInfo(pid, command, state, int(parent), int(session))


def is_running(pid: int) -> bool:
    """True for a process that exists and is not a zombie."""
    info = process_info(pid)
    return info is not None and info.state not in "ZX"


def session_members(session: int) -> list[int]:
    """The running processes of a session, whoever their parent is by now."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            info = process_info(int(entry.name))
            if info and info.session == session and info.state not in "ZX":
                found.append(info.pid)
    return sorted(found)


def send(pid: int, number: int) -> None:
    """Send a signal; a process that has gone meanwhile is as good."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def wait_until(condition: Callable[[], bool], seconds: float, step: float = 0.02) -> bool:
    """Poll ``condition`` for at most ``seconds``; True as soon as it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(step)
    return True


def end_session(session: int, *, stop_signal: int | None = signal.SIGTERM, seconds: float = 10) -> None:
    """End every process of a session: politely its leader, then, after ``seconds``, whatever is left of it.

    Without a ``stop_signal`` the leader has been told already.
    """
    leader = process_info(session)
    if leader and leader.session == session and leader.state not in "ZX":
        if stop_signal is not None:
            send(session, stop_signal)
        wait_until(lambda: not session_members(session), seconds)
    for pid in session_members(session):
        send(pid, signal.SIGKILL)
    wait_until(lambda: not session_members(session), 5)


def free_port() -> int:
    """A TCP port on 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """True when a server could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def size_of(path: Path) -> int:
    """The size of a log in bytes, 0 when there is none yet."""
    return path.stat().st_size if path.exists() else 0


def tail(path: Path, lines: int = 15, start: int = 0) -> str:
    """The last lines of a log after byte ``start``, indented, or a word that there are none."""
    try:
        with path.open("rb") as handle:
            handle.seek(max(start, path.stat().st_size - 64 * 1024))
            text = handle.read().decode(errors="replace")
    except FileNotFoundError:
        text = ""
    kept = text.rstrip().splitlines()[-lines:]
    return "\n".join(f"    {line}" for line in kept) or "    (the log is empty)"


def require_linux() -> None:
    """Raises LauncherError where the kernel's parent-death signal does not exist."""
    if not Path("/proc/self/stat").exists():
        raise LauncherError("The embedded servers need Linux with /proc mounted. Give DATABASE_URL and REDIS_URL.")
