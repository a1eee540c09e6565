"""Hold specs and tests together: every criterion has a test, every marker a criterion.

A criterion is a list item ``- **X.Y** …`` of ``specs/<capability>/requirements.md``; its id is ``<capability>-X.Y``.
A test names the criteria it proves with ``@pytest.mark.requirement("<capability>-X.Y", …)`` on a function, a class, a
parameter or the module. Markers are read from the source, so they must be plain strings.
"""

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MOST_CRITERIA = 25

_CRITERION = re.compile(r"^- \*\*(?P<number>[^*]+)\*\*\s*(?P<text>.*)$")
_NUMBER = re.compile(r"^\d+\.\d+$")
# EARS: the system named, then SHALL; conditions (WHEN, WHILE, WHERE, IF … THEN) come before, in capitals.
_EARS = re.compile(r"\bTHE\b.*\bSHALL\b", re.DOTALL)


@dataclass(frozen=True)
class Criterion:
    """One numbered sentence of a spec."""

    id: str
    text: str
    where: str


@dataclass(frozen=True)
class Marker:
    """One string inside ``pytest.mark.requirement(…)``."""

    id: str
    where: str


@dataclass(frozen=True)
class Trace:
    """What specs and tests say, and what does not fit."""

    criteria: list[Criterion]
    markers: list[Marker]
    problems: list[str]


def read_criteria(text: str, capability: str, where: str) -> list[Criterion]:
    """The criteria of one requirements file, in order. A criterion runs on over its indented lines."""
    found: list[Criterion] = []
    open_item = False
    for line_number, line in enumerate(text.splitlines(), start=1):
        match = _CRITERION.match(line)
        if match:
            place = f"{where}:{line_number}"
            found.append(Criterion(f"{capability}-{match['number'].strip()}", match["text"].strip(), place))
            open_item = True
        elif open_item and line.startswith("  ") and line.strip():
            last = found[-1]
            found[-1] = Criterion(last.id, f"{last.text} {line.strip()}", last.where)
        else:
            open_item = False
    return found


def criteria_problems(criteria: list[Criterion], capability: str, where: str) -> list[str]:
    """What is wrong with the criteria of one capability by themselves."""
    problems = []
    if not criteria:
        problems.append(f"{where}: no criteria (write them as `- **1.1** WHEN … THE portal SHALL …`)")
    if len(criteria) > MOST_CRITERIA:
        problems.append(f"{where}: {len(criteria)} criteria; a capability has at most {MOST_CRITERIA}, so divide it")
    seen: set[str] = set()
    for criterion in criteria:
        if not _NUMBER.match(criterion.id.removeprefix(f"{capability}-")):
            problems.append(f"{criterion.where}: {criterion.id} is not numbered X.Y")
        if criterion.id in seen:
            problems.append(f"{criterion.where}: {criterion.id} is there twice")
        seen.add(criterion.id)
        if not _EARS.search(criterion.text):
            problems.append(f"{criterion.where}: {criterion.id} does not say THE … SHALL …")
    return problems


def read_markers(source: str, where: str) -> tuple[list[Marker], list[str]]:
    """The requirement markers of one test file, and what is wrong with them."""
    tree = ast.parse(source)
    markers: list[Marker] = []
    problems: list[str] = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not _is_requirement(node.func):
            continue
        place = f"{where}:{node.lineno}"
        if not node.args or node.keywords:
            problems.append(f"{place}: the requirement marker takes ids, and at least one")
        for argument in node.args:
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                markers.append(Marker(argument.value, place))
            else:
                problems.append(f"{place}: write the id as a plain string, or nobody can trace it")
    if markers and not any(
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test")
        for node in ast.walk(tree)
    ):
        problems.append(f"{where}: has requirement markers but no test")
    return markers, problems


def _is_requirement(node: ast.expr) -> bool:
    """True for ``pytest.mark.requirement`` and ``mark.requirement``."""
    if not (isinstance(node, ast.Attribute) and node.attr == "requirement"):
        return False
    owner = node.value
    return (isinstance(owner, ast.Attribute) and owner.attr == "mark") or (
        isinstance(owner, ast.Name) and owner.id == "mark"
    )


def test_files(tests: Path) -> Iterator[Path]:
    """Every Python file below the tests."""
    yield from sorted(tests.rglob("*.py"))


def trace(specs: Path, tests: Path) -> Trace:
    """Read both sides and compare them."""
    criteria: list[Criterion] = []
    markers: list[Marker] = []
    problems: list[str] = []
    for folder in sorted(path for path in specs.iterdir() if path.is_dir()):
        file = folder / "requirements.md"
        where = f"{specs.name}/{folder.name}/requirements.md"
        if not file.exists():
            problems.append(f"{where}: is missing")
            continue
        found = read_criteria(file.read_text(encoding="utf-8"), folder.name, where)
        problems += criteria_problems(found, folder.name, where)
        criteria += found
    for file in test_files(tests):
        where = f"{tests.name}/{file.relative_to(tests)}"
        found_markers, found_problems = read_markers(file.read_text(encoding="utf-8"), where)
        markers += found_markers
        problems += found_problems
    known = {criterion.id for criterion in criteria}
    tested = {marker.id for marker in markers}
    problems += [f"{one.where}: {one.id} has no test" for one in criteria if one.id not in tested]
    problems += [f"{one.where}: {one.id} is no criterion of specs/" for one in markers if one.id not in known]
    return Trace(criteria, markers, problems)


def main() -> int:
    """Check the checkout's specs and tests."""
    result = trace(ROOT / "specs", ROOT / "tests")
    for problem in result.problems:
        print(problem)
    tested = {marker.id for marker in result.markers} & {criterion.id for criterion in result.criteria}
    print(f"{len(result.criteria)} criteria, {len(tested)} with tests, {len(result.problems)} problems")
    return 1 if result.problems else 0


if __name__ == "__main__":
    sys.exit(main())
