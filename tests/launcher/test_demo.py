"""The demo as a person runs it: first start, kill, second start with the data kept, stop."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from launcher import demo
from launcher.keeping import Secrets
from launcher.paths import ROOT
from launcher.processes import free_port, session_members, wait_until

pytestmark = pytest.mark.full

RUNNING = "Ctrl-C stops everything"
SECOND_START_SECONDS = 10.0


class Run:
    """One run of the demo in a folder."""

    def __init__(self, folder: Path, port: int) -> None:
        self.log = folder / "demo.log"
        environment = {
            name: value for name, value in os.environ.items() if not name.endswith(("DATABASE_URL", "REDIS_URL"))
        }
        environment |= {"COMMONS_DIR": str(folder / "commons"), "PORT": str(port)}
        began = time.monotonic()
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "launcher", "demo"], cwd=ROOT, env=environment, stdout=output, stderr=output
            )
        running = wait_until(lambda: RUNNING in self.said or self.process.poll() is not None, 600, step=0.1)
        self.seconds = time.monotonic() - began
        assert running, self.said
        assert self.process.poll() is None, self.said

    @property
    def said(self) -> str:
        return self.log.read_text()

    def sessions(self) -> list[int]:
        """The sessions of the supervisor's children, found by their parent."""
        children = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            if parent == self.process.pid:
                children.append(int(entry.name))
        return children


@pytest.fixture
def folder(reachable: Path) -> Iterator[Path]:
    """A folder whose demo is stopped and deleted at the end, whatever happens."""
    yield reachable
    demo.reset(reachable / "commons")


@pytest.mark.requirement("installation-3.2", "installation-3.3", "installation-3.6")
def test_the_demo_survives_its_supervisor(folder: Path) -> None:
    port = free_port()
    first = Run(folder, port)
    secrets, ports = Secrets.load(folder / "commons"), (folder / "commons" / "ports.json").read_text()
    with urllib.request.urlopen(f"http://localhost:{port}/health", timeout=10) as answer:
        assert json.load(answer)["status"] == "ok"
    sessions = first.sessions()
    assert len(sessions) >= 8
    url = f"postgres://commons_super:{secrets.super_password}@127.0.0.1:{json.loads(ports)['postgres']}/commons"
    with psycopg.connect(url) as connection:
        connection.execute("create table public.witness (n int)")

    first.process.kill()
    first.process.wait()
    assert wait_until(lambda: not [pid for one in sessions for pid in session_members(one)], 30)

    second = Run(folder, port)
    try:
        # Meant for a machine that does nothing else; where others compete for it, their share is allowed for.
        crowd = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        print(f"second start: {second.seconds:.1f} s at {crowd:.1f} times the machine's capacity")
        assert second.seconds <= SECOND_START_SECONDS * crowd, second.said
        assert Secrets.load(folder / "commons") == secrets
        assert (folder / "commons" / "ports.json").read_text() == ports
        assert re.search(r"http://localhost:\d+", second.said)
        with psycopg.connect(url) as connection:
            assert connection.execute("select count(*) from public.witness").fetchone() == (0,)
        sessions = second.sessions()
    finally:
        second.process.send_signal(signal.SIGTERM)
        assert second.process.wait(60) == 0
    assert [pid for one in sessions for pid in session_members(one)] == []
    assert "ended by itself" not in second.said
