"""What `make audit` makes of what the two programs say."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from tools import audit


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("npm error audit endpoint returned an error", True),
        ("requests.exceptions.ConnectionError: Max retries exceeded", True),
        ("Found 1 known vulnerability in 1 package", False),
        ("2 vulnerabilities found: timeout handling in example", False),
        ("Traceback: a mistake of ours", False),
    ],
)
def test_no_network_is_no_verdict(output: str, expected: bool) -> None:
    assert audit.unreachable(output) is expected


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        ([(0, "")], 0),
        ([(0, ""), (1, "connection error")], 3),
        ([(1, "connection error"), (1, "Found 1 known vulnerability")], 1),
    ],
)
def test_the_worst_answer_counts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answers: list[tuple[int, str]], code: int
) -> None:
    left = list(answers)

    def run(command: list[str], **kwargs: Any) -> subprocess.CompletedProcess[str]:
        status, said = left.pop(0)
        return subprocess.CompletedProcess(command, status, said, "")

    monkeypatch.setattr(audit, "commands", lambda: [(f"lock {i}", ["x"]) for i in range(len(answers))])
    monkeypatch.setattr(subprocess, "run", run)
    assert audit.main() == code
    assert capsys.readouterr().out.count("lock") == len(answers)


def test_every_lock_is_asked_about() -> None:
    asked = {name for name, _ in audit.commands()}
    assert {path.name for path in audit.lock_files() if path.suffix == ".txt"} <= asked
