"""The verifier as its image starts it: the very entry point, in a process of its own, over real files."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from apps.catalogue.manifest import File
from apps.deployments import manifests
from tests.deployments.samples import served_manifest

HERE = Path(__file__).parents[2] / "deploy" / "verifier"
FILES = {"config.json": b"{}", "weights/a.bin": b"\x00" * 70_000, "weights/none.bin": b""}
Run = tuple[subprocess.CompletedProcess[str], list[str], Path]
Start = Callable[..., Run]
#: Stands for KServe's package: its download copies a folder, links and all.
STORAGE = """
import os, shutil
class Storage:
    @staticmethod
    def download(uri, target):
        assert uri == "s3://models/fraud", uri
        shutil.copytree(os.environ["LIES_AT"], target, symlinks=True, dirs_exist_ok=True)
"""


def _entry_point() -> list[str]:
    """The image's command, with the program where it lies here."""
    text = (HERE / "Dockerfile").read_text()
    found = re.search(r"^ENTRYPOINT (\[.*\])$", text, re.MULTILINE)
    copied = re.search(r"^COPY (\S+) /verify.py$", text, re.MULTILINE)
    assert found is not None
    assert copied is not None
    command = json.loads(found[1])
    assert command[0] == "python"
    return [sys.executable, "-B", *(str(HERE / copied[1]) if one == "/verify.py" else one for one in command[1:])]


def _change(folder: Path, fault: str) -> None:
    match fault:
        case "tampered":
            (folder / "weights/a.bin").write_bytes(b"\x00" * 69_999 + b"\x01")
        case "truncated":
            (folder / "weights/a.bin").write_bytes(b"\x00" * 69_999)
        case "extra":
            (folder / "weights/z.py").write_bytes(b"import os")
        case "missing":
            (folder / "weights/none.bin").unlink()
        case "filled":
            (folder / "weights/none.bin").write_bytes(b" ")
        case "link":
            (folder / "config.json").unlink()
            (folder / "config.json").symlink_to("/etc/hostname")
        case "linked folder":
            shutil.rmtree(folder / "weights")
            (folder / "weights").symlink_to("/etc")
        case "pipe":
            os.mkfifo(folder / "weights/pipe")
        case "empty":
            shutil.rmtree(folder)
            folder.mkdir()


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Start it over the files with a fault; returns the process, what is left at the target, and its message."""

    def run(fault: str = "", **environment: str) -> Run:
        lies, target, message = tmp_path / "lies", tmp_path / "models", tmp_path / "message"
        for path, body in FILES.items():
            (lies / path).parent.mkdir(parents=True, exist_ok=True)
            (lies / path).write_bytes(body)
        _change(lies, fault)
        (tmp_path / "lib").mkdir()
        (tmp_path / "lib" / "kserve_storage.py").write_text(STORAGE)
        target.mkdir()
        (target / "left.bin").write_bytes(b"of an earlier start")
        listed = sorted(
            (File(path, len(body), hashlib.sha256(body).hexdigest()) for path, body in FILES.items()),
            key=lambda one: one.path,
        )
        given = {
            "PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path / "lib"), "LIES_AT": str(lies),
            "GPU_COMMONS_FILES_DIGEST": manifests.files_digest(served_manifest(files=tuple(listed))),
            "TERMINATION_MESSAGE_PATH": str(message),
        }  # fmt: skip
        done = subprocess.run(
            [*_entry_point(), "gpu-commons+s3://models/fraud", str(target)], env=given | environment, check=False,
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        left = sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if not path.is_dir())
        return done, left, message

    return run


@pytest.mark.requirement("enforcement-watch-2.1")
def test_the_approved_files_are_there_and_nothing_of_an_earlier_start(start: Start) -> None:
    done, left, message = start()
    assert (done.returncode, left) == (0, sorted(FILES)), done.stderr
    told = json.loads(message.read_text())
    assert told == json.loads(done.stdout)
    assert (told["verdict"], told["count"], told["bytes"]) == ("verified", 3, 70_002)


@pytest.mark.requirement("enforcement-watch-2.2")
@pytest.mark.parametrize(
    "fault",
    ["tampered", "truncated", "extra", "missing", "filled", "link", "linked folder", "pipe", "empty"],
)
def test_whatever_differs_ends_with_one_and_an_empty_target(start: Start, fault: str) -> None:
    done, left, message = start(fault)
    assert (done.returncode, left) == (1, [])
    assert json.loads(message.read_text())["verdict"] != "verified"


@pytest.mark.requirement("enforcement-watch-2.2")
def test_without_a_digest_or_a_place_for_its_last_words_it_still_fails_closed(start: Start, tmp_path: Path) -> None:
    nowhere = str(tmp_path / "no" / "such" / "folder")
    done, left, _message = start("tampered", TERMINATION_MESSAGE_PATH=nowhere)
    assert (done.returncode, left) == (1, [])
    assert "could not be written" in done.stderr
    shutil.rmtree(tmp_path / "lib")
    shutil.rmtree(tmp_path / "models")
    done, _left, _message = start(GPU_COMMONS_FILES_DIGEST="")
    assert done.returncode == 1
    assert "no annotation" in done.stdout


@pytest.mark.requirement("enforcement-watch-2.2")
def test_the_image_is_built_from_hashed_wheels_and_without_a_network() -> None:
    text = (HERE / "Dockerfile").read_text()
    steps = re.sub(r"\\\n", " ", text)
    runs = [line for line in steps.splitlines() if line.startswith("RUN")]
    assert len(runs) == 1
    assert "--no-index" in runs[0]
    assert "--require-hashes" in runs[0]
    assert not re.search(r"\b(curl|wget|apt-get|apk|git)\b|https?:", steps)
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", text, re.MULTILINE)
    locked = (HERE / "requirements.txt").read_text()
    names = re.findall(r"^([a-z0-9._-]+)==", locked, re.MULTILINE)
    assert "kserve-storage" in names
    for entry in re.split(r"\n(?=[a-z])", locked.strip()):
        assert "--hash=sha256:" in entry, entry
    assert "://" not in locked
