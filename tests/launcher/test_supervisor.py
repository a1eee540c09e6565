"""The supervisor against real processes: nothing outlives it, what crashes comes back."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.errors import LauncherError
from launcher.paths import ROOT
from launcher.processes import is_running, session_members, spawn, wait_until
from launcher.supervisor import (
    FIRST_DELAY_SECONDS,
    HEALTHY_SECONDS,
    LONGEST_DELAY_SECONDS,
    BackOff,
    Command,
    Supervisor,
)
from launcher.watchdog import read_sessions


def start(folder: Path, *options: str) -> subprocess.Popen[bytes]:
    """Start the fake portal and wait until its four processes and a grandchild have said their ids."""
    command = [sys.executable, "-m", "tests.launcher.fake_portal", str(folder), *options]
    with (folder / "out").open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)

    def complete() -> bool:
        pids = folder / "pids"
        least = 5 + bool(options)
        return (folder / "ready").exists() and len(pids.read_text().splitlines()) >= least

    assert wait_until(lambda: complete() or process.poll() is not None, 60), (folder / "out").read_text()
    assert process.poll() is None, (folder / "out").read_text()
    return process


def pids_of(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "pids").read_text().split()]


def watchdogs_of(supervisor: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if b"launcher.watchdog" in (entry / "cmdline").read_bytes():
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == supervisor:
                    found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


@pytest.mark.requirement("installation-3.3")
def test_kill_leaves_no_process_and_no_damage(reachable: Path) -> None:
    portal = start(reachable, "--postgres")
    with psycopg.connect((reachable / "url").read_text()) as connection:
        connection.execute("create table kept (n int)")
        connection.execute("insert into kept values (42)")
    watched = [*pids_of(reachable), *watchdogs_of(portal.pid)]
    sessions = [pid for pid in watched if session_members(pid)]
    assert len(watched) >= 7

    portal.kill()
    portal.wait()

    gone = wait_until(lambda: not any(is_running(pid) for pid in watched), 30)
    assert gone, [pid for pid in watched if is_running(pid)]
    assert [pid for session in sessions for pid in session_members(session)] == []

    for name in ("pids", "ready"):
        (reachable / name).unlink()
    portal = start(reachable, "--postgres")
    try:
        with psycopg.connect((reachable / "url").read_text()) as connection:
            assert connection.execute("select n from kept").fetchone() == (42,)
    finally:
        portal.send_signal(signal.SIGTERM)
        assert portal.wait(30) == 0


@pytest.mark.requirement("installation-3.2")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_everything(tmp_path: Path, number: signal.Signals) -> None:
    portal = start(tmp_path)
    watched = [*pids_of(tmp_path), *watchdogs_of(portal.pid)]
    portal.send_signal(number)
    assert portal.wait(30) == 0, (tmp_path / "out").read_text()
    assert [pid for pid in watched if is_running(pid)] == []


@pytest.mark.requirement("installation-3.2")
def test_servers_stop_after_the_programs_that_use_them(tmp_path: Path) -> None:
    order: list[str] = []

    class Server:
        process: subprocess.Popen[bytes] | None = None

        def start(self) -> None:
            self.process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])

        def stop(self) -> None:
            assert self.process is not None
            order.append("server")
            self.process.kill()
            self.process.wait()
            self.process = None

    class Program(Command):
        def stop(self) -> None:
            super().stop()
            order.append("program")

    with Supervisor(grace_seconds=1) as supervisor:
        supervisor.add("server", Server(), tmp_path / "server.log")
        sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
        for _ in range(2):
            supervisor.add("program", Program(sleeper, tmp_path / "program.log", dict(os.environ)), tmp_path / "p.log")
    assert order == ["program", "program", "server"]


@pytest.mark.requirement("installation-3.1")
def test_a_crashed_process_is_started_again_and_its_log_shown(tmp_path: Path) -> None:
    portal = start(tmp_path)
    try:
        runs = tmp_path / "runs"
        assert wait_until(lambda: runs.exists() and runs.read_text() == "3", 20)
        assert wait_until(lambda: "crasher runs again" in (tmp_path / "out").read_text(), 5)
    finally:
        portal.send_signal(signal.SIGTERM)
        portal.wait(30)
    said = (tmp_path / "out").read_text()
    assert "crasher ended by itself (exit code 3); starting it again in 1 s." in said
    assert "crasher ended by itself (exit code 3); starting it again in 2 s." in said
    assert "crash number 1" in said


@pytest.mark.requirement("installation-3.3")
def test_a_killed_watchdog_is_replaced(tmp_path: Path) -> None:
    portal = start(tmp_path)
    (first,) = watchdogs_of(portal.pid)
    os.kill(first, signal.SIGKILL)
    assert wait_until(lambda: any(pid != first and is_running(pid) for pid in watchdogs_of(portal.pid)), 10)
    watched = pids_of(tmp_path)
    portal.kill()
    portal.wait()
    gone = wait_until(lambda: not any(is_running(pid) for pid in watched), 30)
    assert gone, [pid for pid in watched if is_running(pid)]


@pytest.mark.requirement("installation-3.3")
def test_a_new_watchdog_knows_the_open_sessions_before_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at any moment after the new watchdog began to run, the supervisor leaves nobody unwatched."""
    known: list[str] = []

    def popen(command: list[str], **options: Any) -> Any:
        if "launcher.watchdog" in command and supervisor.children:
            pipe = int(command[3])
            with os.fdopen(os.dup(pipe), "rb", buffering=0) as lines:
                os.set_blocking(pipe, False)
                known.append((lines.read(4096) or b"").decode())
                os.set_blocking(pipe, True)
        return started(command, **options)  # type: ignore[call-overload]  # what was asked, handed on

    started = subprocess.Popen
    supervisor = Supervisor(grace_seconds=1)
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
    with supervisor:
        child = supervisor.add("program", Command(sleeper, tmp_path / "log", dict(os.environ)), tmp_path / "log")
        (first,) = watchdogs_of(os.getpid())
        monkeypatch.setattr("launcher.supervisor.subprocess.Popen", popen)
        os.kill(first, signal.SIGKILL)
        assert wait_until(lambda: not is_running(first), 10)
        supervisor.tend()
        assert known == [f"+ {child.session} {int(signal.SIGTERM)}\n"]


@pytest.mark.requirement("installation-3.3")
def test_a_program_is_known_to_the_watchdog_before_it_runs(tmp_path: Path) -> None:
    read_end, pipe = os.pipe()
    with (tmp_path / "log").open("wb") as log:
        process = spawn([sys.executable, "-c", "pass"], log=log, announce=pipe)
    os.close(pipe)
    process.wait()
    with os.fdopen(read_end) as lines:
        assert read_sessions(lines) == {process.pid: signal.SIGTERM}
    # Where nobody reads, it starts all the same.
    read_end, pipe = os.pipe()
    os.close(read_end)
    with (tmp_path / "log").open("wb") as log:
        assert spawn([sys.executable, "-c", "pass"], log=log, announce=pipe).wait() == 0
    os.close(pipe)


@pytest.mark.requirement("installation-3.1")
@given(st.lists(st.floats(min_value=0, max_value=3600), min_size=1, max_size=1200))
def test_delays_grow_within_bounds_until_a_process_was_well(runs: list[float]) -> None:
    back_off = BackOff()
    before = 0.0
    for ran_seconds in runs:
        delay = back_off.next_delay(ran_seconds)
        assert FIRST_DELAY_SECONDS <= delay <= LONGEST_DELAY_SECONDS
        if ran_seconds > HEALTHY_SECONDS:
            assert delay == FIRST_DELAY_SECONDS
        else:
            assert delay >= before
        before = delay


@pytest.mark.requirement("installation-3.3")
@given(st.lists(st.tuples(st.booleans(), st.integers(2, 9)), max_size=60))
def test_the_watchdog_knows_exactly_the_open_sessions(moves: list[tuple[bool, int]]) -> None:
    lines = [f"+ {session} 15\n" if opened else f"- {session}\n" for opened, session in moves]
    expected: set[int] = set()
    for opened, session in moves:
        expected = expected | {session} if opened else expected - {session}
    assert set(read_sessions(io.StringIO("".join(lines)))) == expected


def test_a_failed_command_shows_the_end_of_its_log(tmp_path: Path) -> None:
    failing = [sys.executable, "-c", "print('the disk is full'); raise SystemExit(4)"]
    command = Command(failing, tmp_path / "log", dict(os.environ))
    with (
        Supervisor(grace_seconds=1) as supervisor,
        pytest.raises(LauncherError, match=r"(?s)exit code 4.*disk is full"),
    ):
        supervisor.run_once("Migrating", command)


def test_a_program_that_never_answers_is_reported(tmp_path: Path) -> None:
    sleeper = [sys.executable, "-c", "import time; print('waiting for nothing', flush=True); time.sleep(600)"]
    command = Command(sleeper, tmp_path / "log", dict(os.environ), ready=lambda: False, ready_seconds=1.0)
    began = time.monotonic()
    with (
        Supervisor(grace_seconds=1) as supervisor,
        pytest.raises(LauncherError, match=r"(?s)web does not.*for nothing"),
    ):
        supervisor.wait_ready(supervisor.add("web", command, command.log))
    assert time.monotonic() - began < 60
