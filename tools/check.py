"""``make check``: every static check of the portal, one step each, with a total at the end.

``python -m tools.check [NAME …]`` runs the steps whose names contain one of the words.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from launcher.errors import LauncherError
from launcher.testing import ensure_postgres
from tools import hygiene, lock

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

# A production installation as `.env.example` describes it. No server is asked: these checks read settings only.
PRODUCTION: Mapping[str, str] = {
    "COMMONS_ENVIRONMENT": "production",
    "COMMONS_SECRET_KEY": "Qm9vGz7wXr2Ls8Kd4Tf6Yh1Nc3Vb5Mj0Pq-Rk_Zt9Uw8Ex7Si6Ad5Fg4Hj3",  # used nowhere else
    "COMMONS_CREDENTIALS_KEY": "3Jq6mX0cZk1yqk8tJt1oJ3cQx2b5m0bW1s9f8d7g6h4=",
    "COMMONS_ALLOWED_HOSTS": "gpu-commons.example.com",
    "COMMONS_BASE_URL": "https://gpu-commons.example.com",
    "COMMONS_BEHIND_PROXY": "1",
    "DATABASE_URL": "postgres://commons_app:0123456789abcdef@db.example.com:5432/commons",
    "MIGRATE_DATABASE_URL": "postgres://commons_owner:fedcba9876543210@db.example.com:5432/commons",
    "REDIS_URL": "redis://:0123456789abcdef@redis.example.com:6379/0",
    "COMMONS_DEMO": "0",
}


@dataclass(frozen=True)
class Result:
    """How a step ended."""

    name: str
    passed: bool
    output: str
    seconds: float


@dataclass(frozen=True)
class Step:
    """One check: commands that all have to end with 0, or a function returning problems."""

    name: str
    commands: list[list[str]] = field(default_factory=list)
    environment: Callable[[], Mapping[str, str]] = dict
    function: Callable[[], tuple[bool, str]] | None = None

    def run(self) -> Result:
        """Run the step; anything that goes wrong is its result."""
        began = time.monotonic()
        try:
            passed, output = self.function() if self.function else self._run_commands()
        except (LauncherError, OSError) as error:
            passed, output = False, str(error)
        return Result(self.name, passed, output.rstrip(), time.monotonic() - began)

    def _run_commands(self) -> tuple[bool, str]:
        environment = {**os.environ, **self.environment()}
        outputs = []
        for command in self.commands:
            result = subprocess.run(
                command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            outputs.append(result.stdout + result.stderr)
            if result.returncode:
                return False, "".join(outputs) + f"\n(exit code {result.returncode}: {' '.join(command)})"
        return True, "".join(outputs)


def tool(name: str, *arguments: str) -> list[str]:
    """A program of the virtual environment."""
    return [str(BIN / name), *arguments]


def python(*arguments: str) -> list[str]:
    """The virtual environment's Python."""
    return [sys.executable, *arguments]


def database() -> Mapping[str, str]:
    """The addresses of the test PostgreSQL; starts it."""
    return ensure_postgres()


def locks() -> tuple[bool, str]:
    """No lock names a host."""
    bad = [
        f"{path.relative_to(ROOT)}: {line}"
        for path in lock.lock_files()
        for line in lock.addresses(path.read_text(encoding="utf-8"))
    ]
    return not bad, "\n".join(bad)


def module_length() -> tuple[bool, str]:
    """Report modules above the length of the design. A judgement, so it never fails."""
    found = hygiene.long_modules(hygiene.committed_files())
    lines = [f"  {count} lines: {name}" for count, name in found]
    return True, "\n".join([f"longer than about {hygiene.LONG_MODULE} lines:", *lines]) if lines else ""


STEPS = (
    Step("types (mypy)", [tool("mypy")], lambda: {"COMMONS_WITH_DEMO_ROOM": "1"}),
    Step("lint (ruff check)", [tool("ruff", "check", "--output-format", "concise")]),
    Step("format (ruff format)", [tool("ruff", "format", "--check", "--output-format", "concise")]),
    Step("architecture (import-linter)", [tool("lint-imports", "--no-cache")]),
    # Skipped is what ruff's S rules ask of the same lines already, each with its reason beside it: SQL of constants
    # (B608), our own addresses (B104, B310), escaped markup (B308, B703), bounded XML (B314), YAML by a safe loader
    # (B506); and B113, which takes a dict named `requests` for the library.
    Step(
        "security (bandit)",
        [
            tool(
                "bandit",
                "--quiet",
                "--severity-level",
                "medium",
                "--recursive",
                "--skip",
                "B104,B113,B308,B310,B314,B506,B608,B703",
                "apps",
                "portal",
                "launcher",
                "tools",
                "cli",
            )
        ],
    ),
    # Its formatter is left out: it moves whitespace within inline text, which shows.
    Step("templates (djlint)", [tool("djlint", "templates", "--lint", "--quiet")]),
    Step(
        "migrations in step",
        [
            python("manage.py", "bootstrap_database"),
            python("manage.py", "makemigrations", "--check", "--dry-run"),
        ],
        lambda: {**database(), "COMMONS_WITH_DEMO_ROOM": "1"},
    ),
    Step(
        "production settings (check --deploy)",
        [python("manage.py", "check", "--deploy", "--fail-level", "WARNING")],
        lambda: PRODUCTION,
    ),
    Step("specs traced", [python("-m", "tools.trace_specs")]),
    Step("actions audited", [python("-m", "tools.audited")]),
    Step("deployment files", [python("-m", "tools.deployment")]),
    Step("locks without hosts", function=locks),
    Step("nothing left behind", [python("-m", "tools.hygiene")]),
    Step("module length", function=module_length),
)


def report(result: Result) -> None:
    """One line for a step, and what it said when it failed."""
    print(f"{'ok    ' if result.passed else 'FAILED'}  {result.name}  ({result.seconds:.1f} s)", flush=True)
    if result.output and (not result.passed or result.name == "module length"):
        print("\n".join(f"        {line}" for line in result.output.splitlines()), flush=True)


def main(words: list[str]) -> int:
    """Run the chosen steps, two at a time, reported in order."""
    chosen = [step for step in STEPS if not words or any(word in step.name for word in words)]
    if not chosen:
        print(f"No step is named like {' or '.join(words)}.", file=sys.stderr)
        return 2
    failed = []
    with ThreadPoolExecutor(max_workers=2) as pool:
        for result in pool.map(lambda step: step.run(), chosen):
            report(result)
            if not result.passed:
                failed.append(result.name)
    print(
        f"\n{len(chosen) - len(failed)} of {len(chosen)} steps passed"
        + (f"; failed: {', '.join(failed)}" if failed else "")
    )
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
