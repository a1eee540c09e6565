"""A supervisor over small processes, in place of the portal: ``python -m tests.launcher.fake_portal FOLDER``.

``plain`` sleeps; ``family`` ignores SIGTERM and has a child that does so, too, as a busy worker does; ``crasher`` fails
twice and then stays; PostgreSQL is the real one. Their process ids go to FOLDER/pids, one a line.
"""

import os
import sys
from pathlib import Path

from launcher.postgres import STOP_SIGNAL, Postgres
from launcher.supervisor import Command, Stopped, Supervisor

PLAIN = "import time; time.sleep(600)"
FAMILY = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = os.fork()
with open(sys.argv[1], "a") as pids:
    pids.write(f"{os.getpid()}\\n")
time.sleep(600)
"""
CRASHER = """
import os, pathlib, sys, time
runs = pathlib.Path(sys.argv[1])
count = int(runs.read_text() or 0) + 1 if runs.exists() else 1
runs.write_text(str(count))
if count < 3:
    print(f"crash number {count}", flush=True)
    sys.exit(3)
time.sleep(600)
"""


def main(folder: Path, *, with_postgres: bool) -> None:
    """Run until stopped."""
    pids, ready = folder / "pids", folder / "ready"
    environment = dict(os.environ)
    with Supervisor(grace_seconds=1.0) as supervisor:
        children = []
        if with_postgres:
            log = folder / "postgres.log"
            server = Postgres(folder / "postgres", password="secret", log=log)
            children.append(supervisor.add("PostgreSQL", server, log, stop_signal=STOP_SIGNAL))
            (folder / "url").write_text(server.url())
        for name, code in (
            ("plain", [PLAIN]),
            ("family", [FAMILY, str(pids)]),
            ("crasher", [CRASHER, str(folder / "runs")]),
        ):
            command = Command([sys.executable, "-c", *code], folder / f"{name}.log", environment, stop_seconds=0.5)
            children.append(supervisor.add(name, command, command.log))
        with pids.open("a") as handle:
            for child in children:
                assert child.server.process is not None
                handle.write(f"{child.server.process.pid}\n")
        ready.touch()
        try:
            supervisor.run()
        except Stopped:
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]), with_postgres="--postgres" in sys.argv)
