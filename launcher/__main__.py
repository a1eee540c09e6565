"""``python -m launcher``: run the portal on one machine."""

import argparse
import ctypes
import os
import signal
import subprocess
import sys

from launcher import testing
from launcher.demo import Options, Portal, reset
from launcher.errors import LauncherError
from launcher.paths import commons_dir

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m launcher", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("demo", help="the portal with a sample company and a simulated cluster")
    commands.add_parser("up", help="the portal alone, for clusters of your own")
    commands.add_parser("reset", help="delete the data in COMMONS_DIR")
    services = commands.add_parser("test-services", help="the PostgreSQL and Redis that tests use")
    services.add_argument("--stop", action="store_true", help="stop them unless a test run uses them")
    wrapped = commands.add_parser("with-test-services", help="run a command with the test servers' addresses set")
    wrapped.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    chosen = parser.parse_args(arguments)
    try:
        return _run(chosen)
    except LauncherError as error:
        print(f"gpu-commons: {error}", file=sys.stderr)
        return 1


def _run(chosen: argparse.Namespace) -> int:
    if chosen.command in ("demo", "up"):
        if os.environ.get("MAKELEVEL"):
            # When somebody kills make, the portal should not run on unseen.
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        Portal(Options.read(demo=chosen.command == "demo")).run()
        return 0
    if chosen.command == "reset":
        reset(commons_dir())
        return 0
    if chosen.command == "with-test-services":
        environment = {**os.environ, **testing.ensure_postgres(), **testing.ensure_redis()}
        return subprocess.run(chosen.words, env=environment, check=False).returncode
    if chosen.stop:
        for name in testing.stop():
            print(f"{name} runs on: a test run uses it.")
        return 0
    for name, value in {**testing.ensure_postgres(), **testing.ensure_redis()}.items():
        print(f"{name}={value}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
