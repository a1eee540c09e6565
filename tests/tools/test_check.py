"""``make check`` itself: each step is named, one failure fails the whole, and the contracts bite."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools import check
from tools.check import Step

ROOT = Path(__file__).resolve().parents[2]


def python_step(name: str, code: str) -> Step:
    return Step(name, [[sys.executable, "-c", code]])


@pytest.mark.requirement("installation-4.2")
def test_one_failed_step_fails_the_whole(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    steps = (
        python_step("first", "print('quiet when all is well')"),
        python_step("second", "print('the reason'); raise SystemExit(3)"),
        Step("third", function=lambda: (True, "")),
    )
    monkeypatch.setattr(check, "STEPS", steps)
    assert check.main([]) == 1
    said = capsys.readouterr().out
    assert [line.split()[:2] for line in said.splitlines() if line.startswith(("ok", "FAILED"))] == [
        ["ok", "first"],
        ["FAILED", "second"],
        ["ok", "third"],
    ]
    assert "the reason" in said
    assert "exit code 3" in said
    assert "quiet when all is well" not in said
    assert "2 of 3 steps passed; failed: second" in said


@pytest.mark.requirement("installation-4.2")
def test_steps_can_be_chosen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    steps = (python_step("types", "raise SystemExit(1)"), python_step("format", "pass"))
    monkeypatch.setattr(check, "STEPS", steps)
    assert check.main(["form"]) == 0
    assert check.main(["nothing"]) == 2
    assert "No step is named like nothing" in capsys.readouterr().err


@pytest.mark.requirement("installation-4.2")
def test_a_missing_program_is_a_failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(check, "STEPS", (Step("absent", [["/nonexistent/program"]]),))
    assert check.main([]) == 1
    assert "/nonexistent/program" in capsys.readouterr().out


@pytest.mark.requirement("installation-4.2")
def test_every_check_of_the_design_is_a_step() -> None:
    names = " ".join(step.name for step in check.STEPS)
    for word in (
        "ruff check",
        "ruff format",
        "mypy",
        "import-linter",
        "djlint",
        "migrations",
        "specs",
        "deployment",
        "--deploy",
    ):
        assert word in names


@pytest.mark.requirement("installation-4.2")
@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("apps/core/extra.py", "import apps.quotas", "Rooms import downwards only"),
        ("apps/rates/extra.py", "import apps.approvals", "Rooms import downwards only"),
        ("apps/approvals/extra.py", "import apps.clusters", "Approvals know no domain"),
        ("apps/demo/cluster/extra.py", "import django", "The simulated cluster knows neither"),
        ("apps/demo/cluster/extra.py", "import apps.core", "The simulated cluster knows neither"),
        ("apps/teams/extra.py", "import portal.celery", "only its panel registry"),
        ("launcher/extra.py", "import django", "The launcher starts before Django"),
    ],
)
def test_an_import_against_the_design_is_refused(tmp_path: Path, module: str, line: str, contract: str) -> None:
    for name in ("apps", "portal", "launcher"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / module).write_text(f'"""An import that must not be."""\n\n{line}\n')
    result = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    broken = [row for row in result.stdout.splitlines() if "BROKEN" in row]
    assert any(contract in row for row in broken), result.stdout
