"""What must not be in a committed file: leftovers, foreign hosts, silenced checks without a reason, inline code."""

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEXT_SUFFIXES = {
    ".py", ".html", ".css", ".js", ".md", ".txt", ".toml", ".yml", ".yaml", ".json", ".sh", ".svg", ".cfg", ".ini", "",
}  # fmt: skip
LONG_MODULE = 400


@dataclass(frozen=True)
class Rule:
    """A pattern that no line of the files concerned may match."""

    name: str
    pattern: re.Pattern[str]
    concerns: Callable[[str], bool]


def _python(path: str) -> bool:
    return path.endswith(".py")


def _template(path: str) -> bool:
    return path.startswith("templates/") and path.endswith(".html")


def _ours(path: str) -> bool:
    # This file and its test hold the patterns themselves.
    return path not in {"tools/hygiene.py", "tests/tools/test_hygiene.py"}


RULES = (
    Rule("left for later", re.compile(r"\b(TODO|FIXME|XXX)\b"), _ours),
    Rule("not implemented", re.compile(r"\bNotImplemented(Error)?\b"), lambda path: _python(path) and _ours(path)),
    Rule(
        "a silenced check without a rule and a reason beside it",
        re.compile(r"#\s*(type:\s*ignore(?!\[[\w-]+\]\s+\S)|noqa(?!:\s*[A-Z]+\d+(,\s*[A-Z]+\d+)*\s+\(?\S))"),
        lambda path: _python(path) and _ours(path),
    ),
    Rule("an inline script", re.compile(r"<script(?![^>]*(\bsrc=|application/json))", re.IGNORECASE), _template),
    Rule("an inline style", re.compile(r"\sstyle\s*=\s*[\"']|<style\b", re.IGNORECASE), _template),
    Rule("an inline event handler", re.compile(r"\son[a-z]+\s*=\s*[\"']", re.IGNORECASE), _template),
    Rule("a foreign host", re.compile(r"(src|href)\s*=\s*[\"'](https?:)?//", re.IGNORECASE), _template),
    Rule(
        "a package host",
        # Where packages come from is the machine's business: no option or setting of ours points anywhere.
        re.compile(r"(index-url|find-links|registry)[\s=\"']+https?://"),
        _ours,
    ),
)


def committed_files() -> list[str]:
    """The files that git knows, and those it would take."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return sorted(name for name in listed.split("\0") if name and (ROOT / name).is_file())


def problems_in(path: str, text: str) -> list[str]:
    """Every line of one file that breaks a rule."""
    rules = [rule for rule in RULES if rule.concerns(path)]
    return [
        f"{path}:{number}: {rule.name}: {line.strip()[:100]}"
        for number, line in enumerate(text.splitlines(), start=1)
        for rule in rules
        if rule.pattern.search(line)
    ]


def long_modules(files: list[str]) -> list[tuple[int, str]]:
    """Our own modules above the length the design allows, longest first. Tests and migrations may be long."""
    counted = [
        (len((ROOT / name).read_text(encoding="utf-8").splitlines()), name)
        for name in files
        if _python(name) and name.startswith(("apps/", "portal/", "launcher/", "tools/")) and "/migrations/" not in name
    ]
    return sorted((one for one in counted if one[0] > LONG_MODULE), reverse=True)


def main() -> int:
    """Check what is committed."""
    files = committed_files()
    problems = []
    for name in files:
        if Path(name).suffix in TEXT_SUFFIXES:
            try:
                text = (ROOT / name).read_text(encoding="utf-8")
            except UnicodeDecodeError:
                problems.append(f"{name}: is not UTF-8")
                continue
            problems += problems_in(name, text)
    print("\n".join(problems) if problems else f"{len(files)} files, nothing found")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
