"""The verifying storage container: download a model, hash every file, compare with what was approved, fail closed.

KServe runs it as an init container (ClusterStorageContainer) with pairs of location and target:

    verify.py gpu-commons+s3://bucket/model /mnt/models

GPU_COMMONS_FILES_DIGEST holds, by the downward API from the pod's annotation `gpu-commons/files-digest`, the SHA-256
over the RFC 8785 list of [path, size, sha256] of the approved files, by path. What was found goes into the termination
message, one line of JSON: {"files": digest, "count": n, "bytes": n, "verdict": "verified" | why not}. Unless the two
are the same the exit code is 1 and nothing is left at the target. Standard library only, but for the download itself:
KServe's own storage package knows the credentials that KServe puts into the pod.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

PREFIX = "gpu-commons+"
SCHEMES = ("s3", "hf")
#: Where Kubernetes looks for a container's last words; TERMINATION_MESSAGE_PATH names another file, as a pod may.
MESSAGE = "/dev/termination-log"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_CHUNK = 4 * 1024 * 1024
#: What a download leaves beside the files; it is no part of a model.
_LEFT_BY_DOWNLOADS = (Path(".cache"), Path(".locks"))

Download = Callable[[str, str], object]


class Refused(Exception):
    """The model must not be served; the message says why."""


class Found(NamedTuple):
    """What lies at the target."""

    digest: str
    count: int
    size: int


def expected_digest(environment: Mapping[str, str]) -> str:
    """Return the digest to be found. Raises Refused where none was given: an unverified model is never served."""
    value = environment.get("GPU_COMMONS_FILES_DIGEST", "").strip()
    if not _DIGEST.fullmatch(value):
        raise Refused("the pod has no annotation gpu-commons/files-digest with a SHA-256, so nothing can be verified")
    return value


def source_and_target(arguments: Sequence[str]) -> tuple[str, Path]:
    """Return the location to download from and the folder to fill. Raises Refused for anything but one known pair."""
    if len(arguments) != 2:
        raise Refused(f"one location and one target are verified, not {len(arguments)} arguments")
    location, target = arguments
    if not location.startswith(PREFIX):
        raise Refused(f"the location does not begin with {PREFIX}")
    source = location[len(PREFIX) :]
    if source.partition("://")[0] not in SCHEMES or not source.partition("://")[2]:
        raise Refused(f"only {' and '.join(SCHEMES)} are downloaded")
    if not Path(target).is_absolute():
        raise Refused("the target is no absolute path")
    return source, Path(target)


def hashed(target: Path) -> Found:
    """Return the digest over all files below `target`. Raises Refused for links and devices: they are not followed."""
    lines: list[list[str]] = []
    size = 0
    for path in _files(target):
        amount, digest = _hash(path)
        lines.append([path.relative_to(target).as_posix(), str(amount), digest])
        size += amount
    lines.sort(key=lambda line: line[0])
    text = json.dumps(lines, ensure_ascii=False, separators=(",", ":"))
    return Found(hashlib.sha256(text.encode()).hexdigest(), len(lines), size)


def _files(target: Path) -> Iterator[Path]:
    for folder, names, files in os.walk(target):
        for name in (*names, *files):
            path = Path(folder, name)
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                yield path
            elif not stat.S_ISDIR(mode):
                raise Refused(f"{path.relative_to(target).as_posix()} is no regular file")


def _hash(path: Path) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return size, digest.hexdigest()


def clear(target: Path) -> None:
    """Remove everything at the target, so that a container that starts all the same finds no model."""
    for path in target.iterdir() if target.is_dir() else ():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _forget_leavings(target: Path) -> None:
    for name in _LEFT_BY_DOWNLOADS:
        path = target / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)


def _kserve_download(source: str, target: str) -> object:
    from kserve_storage import Storage

    return Storage.download(source, target)


def run(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    download: Download = _kserve_download,
    message: Path = Path(MESSAGE),
) -> int:
    """Download, hash, compare; return the exit code. Nothing but a verified model ends with 0."""
    target: Path | None = None
    found: Found | None = None
    try:
        expected = expected_digest(environment)
        source, target = source_and_target(arguments)
        target.mkdir(parents=True, exist_ok=True)
        clear(target)
        download(source, str(target))
        _forget_leavings(target)
        found = hashed(target)
        if found.digest != expected:
            raise Refused(f"the files are not the approved ones: found {found.digest}, approved {expected}")
    except Exception as error:  # noqa: BLE001  (whatever went wrong: it was not verified, so it is not served)
        if target is not None:
            clear(target)
        _say(message, found, str(error) or type(error).__name__)
        return 1
    _say(message, found, "verified")
    return 0


def _say(message: Path, found: Found | None, verdict: str) -> None:
    told: dict[str, object] = {"files": "", "count": 0, "bytes": 0, "verdict": verdict[:1000]}
    if found is not None:
        told |= {"files": found.digest, "count": found.count, "bytes": found.size}
    line = json.dumps(told)
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
    try:
        message.write_text(line)
    except OSError as error:
        # The verdict stands and is on the container's log; only the page's short message is missing.
        sys.stderr.write(f"the termination message could not be written: {error}\n")


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], os.environ, message=Path(os.environ.get("TERMINATION_MESSAGE_PATH", MESSAGE))))
