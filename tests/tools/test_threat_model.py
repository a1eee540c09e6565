"""THREAT_MODEL.md names a control and tests that exist for every threat."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _threats() -> list[list[str]]:
    text = (ROOT / "THREAT_MODEL.md").read_text(encoding="utf-8")
    section = text.split("## Threats and controls", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip().strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


@pytest.mark.requirement("tenant-walls-1.11")
def test_every_threat_has_a_control_and_tests_that_exist() -> None:
    threats = _threats()
    assert len(threats) > 30
    wrong = []
    for row in threats:
        assert len(row) == 3, f"three cells: {row}"
        threat, control, tests = row
        named = re.findall(r"`([^`]+)`", tests)
        if not control or not named:
            wrong.append(f"{threat}: no control or no test")
        for name in named:
            path, _, test = name.partition("::")
            place = ROOT / path
            if not path.startswith("tests/") or not place.exists():
                wrong.append(f"{threat}: {path} does not exist")
            elif place.is_dir() and not list(place.glob("test_*.py")):
                wrong.append(f"{threat}: {path} holds no test")
            elif test and not re.search(rf"^(async )?def {test}\(", place.read_text(encoding="utf-8"), re.MULTILINE):
                wrong.append(f"{threat}: {path} has no {test}")
    assert not wrong, "\n".join(wrong)
