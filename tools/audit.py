"""``make audit``: ask the public advisories about every locked library, Python's and the browser's.

Needs a network, so it is no part of ``make check``; without one it says so and ends with 3, which is no verdict.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from tools.lock import lock_files

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
#: Exit code of an audit that could not ask.
NOT_ASKED = 3
#: What the two programs say when nobody answers; anything else that goes wrong is a finding.
_UNREACHABLE = (
    "connectionerror", "connection error", "max retries exceeded", "name resolution", "timed out", "timeout",
    "enotfound", "econnrefused", "eai_again", "enetunreach", "network", "proxy", "service unavailable",
    "audit endpoint returned an error", "enoaudit",
)  # fmt: skip


def unreachable(output: str) -> bool:
    """Whether a program failed because nobody answered, rather than because of what it found."""
    said = output.lower()
    found = "found" in said and "vulnerabilit" in said
    return not found and any(word in said for word in _UNREACHABLE)


def commands() -> list[tuple[str, list[str]]]:
    """Return what is asked: each lock of Python libraries, then the browser's libraries where npm is there."""
    asked = [
        (path.name, [str(BIN / "pip-audit"), "--disable-pip", "--require-hashes", "--timeout", "20", "-r", str(path)])
        for path in lock_files()
        if path.suffix == ".txt"
    ]
    if (npm := shutil.which("npm")) is not None:
        asked.append(("package-lock.json", [npm, "audit", "--package-lock-only", "--audit-level", "moderate"]))
    return asked


def main() -> int:
    """Ask, print what was said, and return 0 (nothing known), 1 (something is) or 3 (nobody answered)."""
    verdicts = set()
    for name, command in commands():
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
        output = (result.stdout + result.stderr).strip()
        verdict = 0 if result.returncode == 0 else NOT_ASKED if unreachable(output) else 1
        verdicts.add(verdict)
        words = {0: "nothing known", 1: "FOUND", NOT_ASKED: "could not ask: no network, or the advisories are away"}
        print(f"{name}: {words[verdict]}", flush=True)
        if verdict == 1:
            print("\n".join(f"    {line}" for line in output.splitlines()), flush=True)
    return 1 if 1 in verdicts else NOT_ASKED if NOT_ASKED in verdicts else 0


if __name__ == "__main__":
    raise SystemExit(main())
