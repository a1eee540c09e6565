"""The front-end files: picked, stripped, built into one sprite; and the locks they and the packages come by."""

import json
import re
from pathlib import Path

import pytest

from tools import assets, lock
from tools.assets import AssetError

ROOT = Path(__file__).resolve().parents[2]
ICON = """<svg xmlns="http://www.w3.org/2000/svg" width="24" class="icon">
  <path stroke="none" d="M0 0h24v24H0z" fill="none" />
  <path d="M5 6h14" />
</svg>
"""


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """A node_modules folder with tiny packages."""
    folder = tmp_path / "node_modules"
    for source in (*assets.PICKED.values(), *assets.TEST_ONLY.values()):
        path = folder / source
        path.parent.mkdir(parents=True, exist_ok=True)
        mark = "/*# sourceMappingURL=x.css.map */" if source.endswith(".css") else "//# sourceMappingURL=x.js.map"
        path.write_text(f"content of {path.name}\n{mark}\n")
    for package in assets.LICENCES:
        (folder / package).mkdir(parents=True, exist_ok=True)
        described = {"version": "1.0", "license": "MIT", "author": {"name": "Somebody"}}
        (folder / package / "package.json").write_text(json.dumps(described))
    outline = folder / "@tabler/icons/icons/outline"
    outline.mkdir(parents=True)
    for name in ("cpu", "home"):
        (outline / f"{name}.svg").write_text(ICON)
    return folder


@pytest.mark.requirement("installation-1.4")
def test_picked_files_are_copied_without_source_maps(modules: Path, tmp_path: Path) -> None:
    icons = tmp_path / "icons.txt"
    icons.write_text("# comment\nhome\ncpu\n")
    target, test_target = tmp_path / "static", tmp_path / "tests"
    target.mkdir()
    (target / "left over").touch()
    assets.build(modules, target, test_target, icons)
    assert {path.name for path in target.iterdir()} == {*assets.PICKED, "icons.svg", "licences.txt"}
    assert {path.name for path in test_target.iterdir()} == set(assets.TEST_ONLY)
    for path in (*target.iterdir(), *test_target.iterdir()):
        assert "sourceMappingURL" not in path.read_text()
    assert (target / "htmx.min.js").read_text().startswith("content of htmx.min.js")
    sprite = (target / "icons.svg").read_text()
    assert re.findall(r'<symbol id="([\w-]+)"', sprite) == ["cpu", "home"]
    assert "M0 0h24v24H0z" not in sprite
    assert "MIT" in (target / "licences.txt").read_text()


def test_an_unknown_icon_is_named(modules: Path, tmp_path: Path) -> None:
    with pytest.raises(AssetError, match="no outline icon named: moon, sun"):
        assets.sprite(["cpu", "moon", "sun"], modules / "@tabler/icons/icons/outline")


def test_an_icon_listed_twice_is_named() -> None:
    with pytest.raises(AssetError, match=r"twice in icons\.txt: cpu"):
        assets.icon_names("cpu\nhome\ncpu\n")


def test_a_missing_package_is_named(modules: Path, tmp_path: Path) -> None:
    (modules / "htmx.org/dist/htmx.min.js").unlink()
    (tmp_path / "icons.txt").write_text("cpu\n")
    with pytest.raises(AssetError, match=r"htmx.org/dist/htmx.min.js is missing"):
        assets.build(modules, tmp_path / "static", tmp_path / "tests", tmp_path / "icons.txt")
    assert not (tmp_path / "static").exists()


def test_the_icons_that_templates_use_are_in_the_sprite() -> None:
    listed = set(assets.icon_names((ROOT / "tools" / "icons.txt").read_text()))
    used = {
        (name, path.name)
        for path in (ROOT / "templates").rglob("*.html")
        for name in re.findall(r"icons\.svg['\"] %}#([a-z0-9-]+)", path.read_text())
    }
    assert {one for one in used if one[0] not in listed} == set()


@pytest.mark.requirement("installation-1.4")
def test_locks_name_no_host() -> None:
    files = lock.lock_files()
    assert {path.name for path in files} >= {"runtime.txt", "dev.txt", "package-lock.json"}
    for path in files:
        assert lock.addresses(path.read_text()) == [], path
    assert "resolved" not in (ROOT / "package-lock.json").read_text()


@pytest.mark.requirement("installation-1.4")
def test_addresses_in_a_lock_are_found() -> None:
    text = (
        "django==5.2 \\\n    --hash=sha256:ab\n--index-url x\n--find-links /opt/wheels\npip @ https://x.example/y.whl\n"
    )
    assert lock.addresses(text) == ["--index-url x", "--find-links /opt/wheels", "pip @ https://x.example/y.whl"]
    stripped = lock.strip_funding(
        json.dumps({"packages": {"a": {"version": "1", "funding": {"url": "x"}, "resolved": "y", "integrity": "z"}}})
    )
    assert json.loads(stripped) == {"packages": {"a": {"version": "1", "integrity": "z"}}}


@pytest.mark.requirement("installation-1.1")
@pytest.mark.parametrize("name", ["runtime.txt", "dev.txt", "bootstrap.txt", "node.txt", "redis.txt"])
def test_every_locked_package_has_one_version_and_a_hash(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip()]
    assert lines
    for line in lines:
        assert re.match(r"^[a-z0-9.-]+(\[[a-z0-9,-]+\])?==\S+ ", line), line
        assert "--hash=sha256:" in line, line


@pytest.mark.requirement("installation-1.1")
def test_what_runs_in_production_is_what_was_tested() -> None:
    def pins(name: str) -> set[str]:
        return set(re.findall(r"^(\S+==\S+)", (ROOT / "requirements" / name).read_text(), re.MULTILINE))

    assert pins("runtime.txt") <= pins("dev.txt")
