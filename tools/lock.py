"""Write the locks anew from ``pyproject.toml`` and ``package.json``: hashed, and without any host or address.

Versions that still fit are kept; ``--upgrade`` takes the newest that do.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UV = ROOT / ".venv" / "bin" / "uv"
# Lock file → the dependency groups in it besides or instead of the runtime requirements.
LOCKS: dict[str, list[str]] = {
    "runtime.txt": [],
    "dev.txt": ["test", "lint", "local", "bootstrap"],
}
GROUP_LOCKS: dict[str, str] = {"bootstrap.txt": "bootstrap", "node.txt": "node", "redis.txt": "redis"}
COMMON = [
    "--universal",
    "--python-version=3.11",
    "--no-header",
    "--no-annotate",
    "--generate-hashes",
    "--no-emit-index-url",
    "--no-emit-find-links",
    "--quiet",
]


def compile_lock(name: str, arguments: list[str], upgrade: bool) -> None:
    """Compile one requirements file."""
    command = [str(UV), "pip", "compile", *arguments, *COMMON, "--output-file", f"requirements/{name}"]
    subprocess.run([*command, *(["--upgrade"] if upgrade else [])], cwd=ROOT, check=True)


def strip_funding(text: str) -> str:
    """package-lock.json without the addresses of funding pages and download hosts."""
    lock = json.loads(text)
    for package in lock["packages"].values():
        package.pop("funding", None)
        package.pop("resolved", None)
    return json.dumps(lock, indent=2) + "\n"


def addresses(text: str) -> list[str]:
    """The lines that name a host, an index or a folder to take packages from."""
    options = ("--index", "--extra-index", "--find-links")
    return [line for line in text.splitlines() if "://" in line or line.lstrip().startswith(options)]


def lock_files() -> list[Path]:
    """Every committed lock."""
    return [*sorted((ROOT / "requirements").glob("*.txt")), ROOT / "package-lock.json"]


def main(arguments: list[str]) -> int:
    """Compile every lock, then look for addresses in them."""
    upgrade = "--upgrade" in arguments
    for name, groups in LOCKS.items():
        extra = [item for group in groups for item in ("--group", group)]
        # What runs in production is what was tested.
        same = [] if name == "runtime.txt" else ["--constraint", "requirements/runtime.txt"]
        compile_lock(name, ["pyproject.toml", *extra, *same], upgrade)
    for name, group in GROUP_LOCKS.items():
        # Each is one package put aside for the program in it.
        compile_lock(name, ["--group", group, "--no-deps"], upgrade)
    subprocess.run(["npm", "install", "--package-lock-only", "--silent"], cwd=ROOT, check=True)
    package_lock = ROOT / "package-lock.json"
    package_lock.write_text(strip_funding(package_lock.read_text(encoding="utf-8")), encoding="utf-8")
    bad = [f"{path.name}: {line}" for path in lock_files() for line in addresses(path.read_text(encoding="utf-8"))]
    if bad:
        print("These lines of the locks name a host:\n" + "\n".join(bad), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
