"""Starts a list of processes in order, restarts what crashes, and stops everything in the opposite order."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Protocol

from launcher.errors import LauncherError
from launcher.paths import ROOT
from launcher.processes import end_session, size_of, spawn, tail
from launcher.watchdog import GRACE_SECONDS

FIRST_DELAY_SECONDS = 1.0
LONGEST_DELAY_SECONDS = 30.0
# A process that ran this long was well; its next crash starts the back-off anew.
HEALTHY_SECONDS = 60.0
LOG_BYTES = 10 * 1024 * 1024
POLL_SECONDS = 0.1


class Stopped(Exception):
    """Somebody asked the supervisor to stop."""


class Startable(Protocol):
    """A server that knows itself how to start and how to stop (PostgreSQL, Redis)."""

    process: subprocess.Popen[bytes] | None

    def start(self) -> None:
        """Start and wait until it answers."""

    def stop(self) -> None:
        """Stop and wait for the end."""


@dataclass
class Command:
    """A process that runs until it is stopped."""

    command: Sequence[str]
    log: Path
    env: Mapping[str, str]
    ready: Callable[[], bool] | None = None
    ready_seconds: float = 60.0
    stop_seconds: float = 10.0
    cwd: Path = ROOT
    process: subprocess.Popen[bytes] | None = None
    asked_to_stop: bool = False
    #: The watchdog's pipe, to which the new process makes itself known before it runs anything of its own.
    pipe: int | None = None

    def start(self) -> None:
        """Start it; does not wait until it is ready."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.asked_to_stop = False
        with self.log.open("ab") as handle:
            self.process = spawn(self.command, log=handle, env=self.env, cwd=self.cwd, announce=self.pipe)

    def ask_to_stop(self) -> None:
        """Send SIGTERM once: a second one makes some programs drop the work that the first lets them finish."""
        if self.process is not None and not self.asked_to_stop:
            self.asked_to_stop = True
            self.process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """SIGTERM, then, after ``stop_seconds``, the end of everything it started."""
        if self.process is not None:
            self.ask_to_stop()
            end_session(self.process.pid, stop_signal=None, seconds=self.stop_seconds)
            self.process.wait()
            self.process = None


@dataclass
class BackOff:
    """How long to wait before a crashed process is started again: doubling, with a ceiling, forgiving after a while."""

    crashes: int = 0

    def next_delay(self, ran_seconds: float) -> float:
        """The delay in seconds after a crash that came ``ran_seconds`` after the start."""
        if ran_seconds > HEALTHY_SECONDS:
            self.crashes = 0
        self.crashes += 1
        # The exponent is capped, too: a float overflows after a thousand crashes.
        return min(FIRST_DELAY_SECONDS * 2.0 ** min(self.crashes - 1, 16), LONGEST_DELAY_SECONDS)


@dataclass
class Child:
    """A supervised process and its history."""

    name: str
    server: Startable
    log: Path
    stop_signal: int = signal.SIGTERM
    started: float = 0.0
    # Where in the log this run's lines begin.
    log_start: int = 0
    back_off: BackOff = field(default_factory=BackOff)
    restart_at: float | None = None
    session: int | None = None


class Supervisor:
    """Use as a context manager on the main thread; leaving it stops every child, whatever happened."""

    def __init__(
        self,
        *,
        lock: int | None = None,
        say: Callable[[str], None] | None = None,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        self.children: list[Child] = []
        self.stop_requests = 0
        self.say = say or _say
        self._lock = lock
        self._grace_seconds = grace_seconds
        self._pipe: int | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._handlers: dict[int, object] = {}

    # -- life

    def __enter__(self) -> "Supervisor":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._handlers[number] = signal.signal(number, self._on_signal)
        self._start_watchdog()
        return self

    def _start_watchdog(self) -> None:
        read_end, self._pipe = os.pipe()
        # Before it starts, not after: killed in between, the supervisor would leave a watchdog that knows of nobody.
        # Fifteen bytes a session fit into the pipe's buffer of 64 KiB.
        for child in self.children:
            if child.session is not None:
                os.write(self._pipe, f"+ {child.session} {int(child.stop_signal)}\n".encode())
        inherited = [read_end, *([self._lock] if self._lock is not None else [])]
        self._watchdog = subprocess.Popen(
            [sys.executable, "-m", "launcher.watchdog", str(read_end), str(self._grace_seconds)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=inherited,
        )
        os.close(read_end)

    def __exit__(self, *_: object) -> None:
        try:
            self.stop_all()
        finally:
            if self._pipe is not None:
                os.close(self._pipe)
                self._pipe = None
            if self._watchdog is not None:
                self._watchdog.wait()
            for number, handler in self._handlers.items():
                signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal() returned before

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.stop_requests += 1

    def check(self) -> None:
        """Raises Stopped once somebody has asked to stop."""
        if self.stop_requests:
            raise Stopped

    def _tell_watchdog(self, line: str) -> None:
        if self._pipe is None:
            return
        try:
            os.write(self._pipe, f"{line}\n".encode())
        except BrokenPipeError:
            # Somebody killed the watchdog: a new one learns of every open session, and of this line.
            os.close(self._pipe)
            self._start_watchdog()
            os.write(self._pipe, f"{line}\n".encode())

    # -- children

    def add(self, name: str, server: Startable, log: Path, *, stop_signal: int = signal.SIGTERM) -> Child:
        """Start a child and supervise it from now on. Raises LauncherError when it cannot start."""
        self.check()
        rotate(log)
        child = Child(name, server, log, stop_signal)
        self.children.append(child)
        self._start(child)
        return child

    def _start(self, child: Child) -> None:
        child.log_start = size_of(child.log)
        if isinstance(child.server, Command):
            child.server.pipe = self._pipe
        child.server.start()
        child.started = time.monotonic()
        child.restart_at = None
        if child.server.process is not None:
            child.session = child.server.process.pid
            self._tell_watchdog(f"+ {child.session} {int(child.stop_signal)}")

    def _forget(self, child: Child) -> None:
        if child.session is not None:
            self._tell_watchdog(f"- {child.session}")
            child.session = None

    def wait_ready(self, child: Child) -> None:
        """Wait until a command child is ready, restarting it if it crashes meanwhile.

        Raises LauncherError with the end of its log when it is not ready in time.
        """
        server = child.server
        if not isinstance(server, Command) or server.ready is None:
            return
        deadline = time.monotonic() + server.ready_seconds
        while not server.ready():
            self.check()
            self.tend()
            if time.monotonic() > deadline or child.back_off.crashes >= 3:
                raise LauncherError(f"{child.name} does not answer. The end of {child.log}:\n{self._end_of(child)}")
            time.sleep(POLL_SECONDS)

    def tend(self) -> None:
        """Look at every child once: note crashes, restart what is due."""
        now = time.monotonic()
        if self._watchdog is not None and self._watchdog.poll() is not None:
            self._tell_watchdog("- 0")
        for child in self.children:
            if child.restart_at is not None:
                if now >= child.restart_at:
                    self._restart(child)
                continue
            process = child.server.process
            if process is not None and process.poll() is not None:
                self._crashed(child, f"ended by itself ({describe_exit(process.returncode)})", show_log=True)

    def _restart(self, child: Child) -> None:
        try:
            self._start(child)
        except LauncherError as error:
            self._crashed(child, f"did not start again: {error}", show_log=False)
        else:
            self.say(f"{child.name} runs again.")

    def _crashed(self, child: Child, what: str, *, show_log: bool) -> None:
        delay = child.back_off.next_delay(time.monotonic() - child.started)
        # Its own children would hold its port or its queue.
        child.server.stop()
        self._forget(child)
        child.restart_at = time.monotonic() + delay
        self.say(f"{child.name} {what}; starting it again in {delay:.0f} s.")
        if show_log:
            self.say(f"  The end of {child.log}:\n{self._end_of(child)}")

    def _end_of(self, child: Child) -> str:
        return tail(child.log, start=child.log_start)

    def run_once(self, name: str, command: Command, *, show: bool = False) -> None:
        """Run a command to its end while tending the children.

        With ``show`` it writes to our own output. Raises LauncherError when it fails, Stopped when asked to stop.
        """
        self.check()
        log_start = 0
        if show:
            sys.stdout.flush()
            command.process = spawn(
                command.command, log=sys.stdout.fileno(), env=command.env, cwd=command.cwd, announce=self._pipe
            )
        else:
            rotate(command.log)
            log_start = size_of(command.log)
            command.pipe = self._pipe
            command.start()
        process = command.process
        if process is None:
            raise LauncherError(f"{name} did not start.")
        self._tell_watchdog(f"+ {process.pid} {int(signal.SIGTERM)}")
        try:
            while process.poll() is None:
                self.check()
                self.tend()
                time.sleep(POLL_SECONDS)
        finally:
            command.stop()
            self._tell_watchdog(f"- {process.pid}")
        if process.returncode:
            detail = "" if show else f" The end of {command.log}:\n{tail(command.log, 25, log_start)}"
            raise LauncherError(f"{name} failed ({describe_exit(process.returncode)}).{detail}")

    def run(self) -> None:
        """Tend the children until somebody asks to stop."""
        while not self.stop_requests:
            self.tend()
            time.sleep(POLL_SECONDS)

    def stop_all(self) -> None:
        """Stop every child, the last started first. A second request to stop ends the waiting."""
        stopping = [child for child in reversed(self.children) if child.server.process is not None]
        # The programs side by side, their servers after them and one by one.
        for child in stopping:
            if isinstance(child.server, Command):
                child.server.ask_to_stop()
        for child in stopping:
            if self.stop_requests > 1 and isinstance(child.server, Command):
                child.server.stop_seconds = 0
            child.server.stop()
            self._forget(child)
        self.children.clear()


def rotate(log: Path) -> None:
    """Set a log that has grown large aside; one older log is kept."""
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(log.suffix + ".1"))


def describe_exit(code: int) -> str:
    """An exit code in words."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


def _say(text: str) -> None:
    print(text, flush=True)
