"""Volumes that an administrator mounted on the portal's machines (COMMONS_MODEL_MOUNTS): read as folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings

from apps.catalogue.reading.base import MAX_FILES, Changed, Entry, Place, WrongContent, bounded
from apps.clusters.errors import Forbidden, NotFound, Unreachable

PIECE = 1024 * 1024


def mounts() -> dict[str, Path]:
    """Return the mounted volumes: claim name → folder."""
    pairs = (text.partition("=") for text in settings.COMMONS_MODEL_MOUNTS if text.strip())
    return {name.strip(): Path(path.strip()) for name, _, path in pairs if name.strip() and path.strip()}


class PvcReader:
    """One folder of a mounted volume. Links that lead out of the volume are refused."""

    def __init__(self, place: Place) -> None:
        claim, _, below = place.location.removeprefix("pvc://").partition("/")
        if claim not in mounts():
            raise NotFound(f"the volume {claim} is not mounted here: an administrator adds it to COMMONS_MODEL_MOUNTS")
        self.root = mounts()[claim].resolve()
        self.folder = self._inside(self.root / below)

    def _inside(self, path: Path) -> Path:
        found = path.resolve()
        if found != self.root and self.root not in found.parents:
            raise Forbidden("a link leads out of the volume")
        return found

    def entries(self) -> list[Entry]:
        """Return every file below the folder."""
        if not self.folder.exists():
            raise NotFound("there is no such folder on the volume")
        if self.folder.is_file():
            return [self._entry(self.folder, self.folder.name)]
        found: list[Entry] = []
        for folder, names, files in os.walk(self.folder, onerror=_refuse):
            names.sort()
            for name in sorted(files):
                path = Path(folder) / name
                found.append(self._entry(path, path.relative_to(self.folder).as_posix()))
            if len(found) > MAX_FILES:
                break
        return bounded(found)

    def _entry(self, path: Path, name: str) -> Entry:
        real = self._inside(path)
        if not real.is_file():
            raise WrongContent(f"{name} is no ordinary file")
        state = real.stat()
        return Entry(name, state.st_size, f"{state.st_mtime_ns}-{state.st_size}-{state.st_ino}", key=str(real))

    @contextmanager
    def open(self, entry: Entry) -> Iterator[Iterator[bytes]]:
        """Give a file's bytes."""
        try:
            with self._inside(Path(entry.key)).open("rb", buffering=0) as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
                yield iter(lambda: file.read(PIECE), b"")
                state = os.fstat(file.fileno())
                if f"{state.st_mtime_ns}-{state.st_size}-{state.st_ino}" != entry.etag:
                    raise Changed(f"{entry.path} was changed while it was read")
        except OSError as error:
            raise Unreachable(f"{entry.path} cannot be read ({error.strerror or type(error).__name__})") from error

    def probe(self) -> str:
        """Look whether the folder is there."""
        if not self.folder.is_dir():
            raise NotFound("there is no such folder on the volume")
        return "The volume is mounted and can be read."

    def close(self) -> None:
        """Nothing is kept open."""


def _refuse(error: OSError) -> None:
    raise Unreachable(f"a folder cannot be read ({error.strerror or type(error).__name__})") from error
