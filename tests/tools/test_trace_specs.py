"""The check that holds specs and tests together."""

import textwrap
from pathlib import Path

import pytest

from tools.trace_specs import read_criteria, read_markers, trace

pytestmark = pytest.mark.requirement("installation-4.1")

SPEC = """
# Bakery

- **1.1** WHEN somebody orders bread, THE bakery SHALL bake it.
- **1.2** IF the oven is cold, THEN THE bakery SHALL say so
  and heat it.

Prose that follows is no part of it.
"""


def lay_out(folder: Path, spec: str, test: str) -> tuple[Path, Path]:
    (folder / "specs" / "bakery").mkdir(parents=True)
    (folder / "specs" / "bakery" / "requirements.md").write_text(spec)
    (folder / "tests" / "bakery").mkdir(parents=True)
    (folder / "tests" / "bakery" / "test_oven.py").write_text(textwrap.dedent(test))
    return folder / "specs", folder / "tests"


def test_criteria_run_on_over_indented_lines() -> None:
    first, second = read_criteria(SPEC, "bakery", "specs/bakery/requirements.md")
    assert (first.id, first.where) == ("bakery-1.1", "specs/bakery/requirements.md:4")
    assert second.text == "IF the oven is cold, THEN THE bakery SHALL say so and heat it."


def test_specs_and_tests_in_step_pass(tmp_path: Path) -> None:
    result = trace(
        *lay_out(
            tmp_path,
            SPEC,
            """
            import pytest
            pytestmark = [pytest.mark.django_db, pytest.mark.requirement("bakery-1.1")]
            @pytest.mark.parametrize("heat", [pytest.param(3, marks=pytest.mark.requirement("bakery-1.2"))])
            def test_oven(heat): ...
            """,
        )
    )
    assert result.problems == []
    assert [marker.id for marker in result.markers] == ["bakery-1.1", "bakery-1.2"]


def test_several_ids_in_one_marker_count_each(tmp_path: Path) -> None:
    test = """
        from pytest import mark
        class TestOven:
            @mark.requirement("bakery-1.1", "bakery-1.2")
            def test_oven(self): ...
        """
    assert trace(*lay_out(tmp_path, SPEC, test)).problems == []


def test_a_criterion_without_a_test_fails(tmp_path: Path) -> None:
    test = """
        import pytest
        @pytest.mark.requirement("bakery-1.1")
        def test_oven(): ...
        """
    assert trace(*lay_out(tmp_path, SPEC, test)).problems == ["specs/bakery/requirements.md:5: bakery-1.2 has no test"]


def test_a_marker_without_a_criterion_fails(tmp_path: Path) -> None:
    test = """
        import pytest
        @pytest.mark.requirement("bakery-1.1", "bakery-1.2", "bakery-1.3")
        def test_oven(): ...
        """
    assert trace(*lay_out(tmp_path, SPEC, test)).problems == [
        "tests/bakery/test_oven.py:3: bakery-1.3 is no criterion of specs/"
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("- **1.1** The bakery bakes bread.", "bakery-1.1 does not say THE … SHALL …"),
        ("- **1.1** WHEN hungry, THE bakery should bake.", "bakery-1.1 does not say THE … SHALL …"),
        ("- **A1** THE bakery SHALL bake.", "bakery-A1 is not numbered X.Y"),
        ("- **1.1** THE bakery SHALL bake.\n- **1.1** THE bakery SHALL sell.", "bakery-1.1 is there twice"),
        ("Nothing yet.", "no criteria"),
    ],
)
def test_badly_written_criteria_fail(tmp_path: Path, line: str, problem: str) -> None:
    problems = trace(*lay_out(tmp_path, f"# Bakery\n\n{line}\n", "")).problems
    assert any(problem in one for one in problems), problems


@pytest.mark.parametrize(("count", "fails"), [(25, False), (26, True)])
def test_a_capability_has_at_most_25_criteria(tmp_path: Path, count: int, fails: bool) -> None:
    spec = "\n".join(f"- **1.{number}** THE bakery SHALL bake." for number in range(count))
    ids = ", ".join(f'"bakery-1.{number}"' for number in range(count))
    test = f"import pytest\n@pytest.mark.requirement({ids})\ndef test_oven(): ...\n"
    problems = trace(*lay_out(tmp_path, spec, test)).problems
    assert bool(problems) is fails
    assert all("at most 25" in one for one in problems)


def test_a_capability_without_requirements_fails(tmp_path: Path) -> None:
    specs, tests = lay_out(tmp_path, SPEC, "")
    (specs / "empty").mkdir()
    assert "specs/empty/requirements.md: is missing" in trace(specs, tests).problems


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("pytest.mark.requirement(ID)\ndef test_x(): ...", "plain string"),
        ("pytest.mark.requirement(f'bakery-{n}')\ndef test_x(): ...", "plain string"),
        ("pytest.mark.requirement()\ndef test_x(): ...", "at least one"),
        ("pytest.mark.requirement('bakery-1.1')", "no test"),
    ],
)
def test_markers_nobody_can_trace_fail(source: str, problem: str) -> None:
    _, problems = read_markers(source, "tests/x.py")
    assert any(problem in one for one in problems)


def test_other_things_named_requirement_are_none() -> None:
    assert read_markers("order.requirement('x')\nrequirement('y')\n", "tests/x.py") == ([], [])
