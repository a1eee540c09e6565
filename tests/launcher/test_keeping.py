"""What is kept between starts, and what is checked before anything starts."""

import json
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from launcher import demo
from launcher.errors import LauncherError
from launcher.keeping import FolderLock, Secrets, Stamps, fingerprint, settle_ports
from launcher.paths import ROOT
from launcher.processes import free_port


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """COMMONS_DIR for one test."""
    monkeypatch.setenv("COMMONS_DIR", str(tmp_path / "commons"))
    monkeypatch.setenv("PORT", str(free_port()))
    return tmp_path / "commons"


@pytest.mark.requirement("installation-3.6", "installation-3.7")
def test_secrets_are_made_once_and_private(tmp_path: Path) -> None:
    first = Secrets.load(tmp_path)
    assert Secrets.load(tmp_path) == first
    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600
    assert Secrets.load(tmp_path.parent / tmp_path.name) == first
    assert len({first.super_password, first.app_password, first.redis_password}) == 3


@pytest.mark.requirement("installation-3.6")
def test_a_folder_from_before_the_signing_key_gets_one_and_keeps_it(tmp_path: Path) -> None:
    first = Secrets.load(tmp_path)
    kept = json.loads((tmp_path / "secrets.json").read_text())
    del kept["signing_key"]
    (tmp_path / "secrets.json").write_text(json.dumps(kept))
    again = Secrets.load(tmp_path)
    assert again.secret_key == first.secret_key
    assert again.signing_key not in ("", first.signing_key)
    assert Secrets.load(tmp_path) == again


def test_damaged_secrets_are_reported(tmp_path: Path) -> None:
    (tmp_path / "secrets.json").write_text('{"secret_key": "half')
    with pytest.raises(LauncherError, match="damaged"):
        Secrets.load(tmp_path)


@pytest.mark.requirement("installation-3.6")
def test_ports_stay_unless_somebody_has_taken_one(tmp_path: Path) -> None:
    first, moved = settle_ports(tmp_path, ["postgres", "redis"])
    assert moved == set()
    assert settle_ports(tmp_path, ["postgres", "redis"]) == (first, set())
    with socket.socket() as other:
        other.bind(("127.0.0.1", first["redis"]))
        other.listen()
        second, moved = settle_ports(tmp_path, ["postgres", "redis"])
    assert moved == {"redis"}
    assert second["postgres"] == first["postgres"]
    assert second["redis"] != first["redis"]


@pytest.mark.requirement("installation-3.4")
def test_a_taken_port_is_told_before_anything_starts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        monkeypatch.setenv("PORT", str(port))
        result = subprocess.run(
            [sys.executable, "-m", "launcher", "demo"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert result.returncode == 1
    assert f"Port {port} is taken by another program" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (folder / "postgres").exists()
    assert not (folder / "secrets.json").exists()


@pytest.mark.requirement("installation-3.4")
@pytest.mark.parametrize("text", ["0", "65536", "web", "-1", "80.5"])
def test_a_port_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(LauncherError, match="is no port"):
        demo.Options.read(demo=True, environment={"PORT": text})


@pytest.mark.requirement("installation-3.5")
def test_a_folder_in_use_is_refused(folder: Path) -> None:
    folder.mkdir()
    lock = FolderLock(folder)
    lock.take()
    try:
        result = subprocess.run(
            [sys.executable, "-m", "launcher", "demo"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        reset = subprocess.run(
            [sys.executable, "-m", "launcher", "reset"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    finally:
        lock.release()
    for answer in (result, reset):
        assert answer.returncode == 1
        assert "is in use by another running portal" in answer.stderr
        assert "COMMONS_DIR" in answer.stderr
    assert not (folder / "postgres").exists()


@pytest.mark.requirement("installation-3.5")
def test_a_demo_and_a_portal_do_not_share_a_folder(folder: Path) -> None:
    demo.Portal(demo.Options.read(demo=True)).prepare().release()
    with pytest.raises(LauncherError, match="holds the data of a demo"):
        demo.Portal(demo.Options.read(demo=False)).prepare()


@pytest.mark.requirement("installation-3.8")
def test_reset_deletes_only_what_is_ours(folder: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "elsewhere"
    foreign.mkdir()
    (foreign / "precious").touch()
    folder.mkdir()
    (folder / "thesis.txt").touch()
    (folder / "test").mkdir()
    for name in ("postgres", "logs", "stamps"):
        (folder / name / "deep").mkdir(parents=True)
    (folder / "secrets.json").touch()
    # A link is removed, what it points at stays.
    (folder / "mail").symlink_to(foreign)
    demo.reset(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["test", "thesis.txt"]
    assert (foreign / "precious").exists()


@pytest.mark.requirement("installation-3.6")
def test_stamps_hold_for_the_same_inputs_only(tmp_path: Path) -> None:
    source = tmp_path / "0001_initial.py"
    source.write_text("a")
    stamps = Stamps(tmp_path / "stamps")
    before = fingerprint([source], "url")
    assert not stamps.holds("database", before)
    stamps.set("database", before)
    assert stamps.holds("database", fingerprint([source], "url"))
    assert not stamps.holds("database", fingerprint([source], "other url"))
    source.write_text("b")
    assert not stamps.holds("database", fingerprint([source], "url"))
    stamps.set("database", fingerprint([source], "url"))
    stamps.clear("database")
    assert not stamps.holds("database", fingerprint([source], "url"))
