"""What the screenshot tool reads; that the pages exist is proved by the browser tests."""

from pathlib import Path

import pytest

from tools.screenshots import ScreenshotError, find_sign_in, read_pictures, read_sign_ins

ROOT = Path(__file__).resolve().parents[2]
PRINTED = """
GPU Commons runs at http://localhost:8000  (started in 7 s)

  Sign in at http://localhost:8000/sign-in/ with the password hill:forest
    finance-lead@example.com         Finance team lead      requests quota for Finance
    vp@example.com                   VP Analytics           decides, reads the monthly report
Ctrl-C stops everything; the data is kept.
"""


def test_sign_ins_are_read_from_what_the_demo_prints() -> None:
    people = read_sign_ins(PRINTED)
    assert [one.who for one in people] == ["Finance team lead", "VP Analytics"]
    assert find_sign_in(people, "VP").password == "hill:forest"
    with pytest.raises(ScreenshotError, match="only for: Finance team lead, VP Analytics"):
        find_sign_in(people, "Auditor")


def test_the_readme_shows_only_pictures_that_are_taken() -> None:
    pictures = read_pictures((ROOT / "tools" / "screenshots.toml").read_text())
    assert len({one.name for one in pictures}) == len(pictures)
    assert {one.theme for one in pictures} <= {"light", "dark"}
    shown = {line.split("docs/screenshots/")[1].split(".png")[0] for line in links((ROOT / "README.md").read_text())}
    assert shown <= {one.name for one in pictures}


def links(text: str) -> list[str]:
    return [part for part in text.replace("](", "\n](").splitlines() if "](docs/screenshots/" in part]
