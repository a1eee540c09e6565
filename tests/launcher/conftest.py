"""What the launcher's tests share. None of them needs the portal's database."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that an unprivileged account can enter; pytest's own is private."""
    folder = Path(tempfile.mkdtemp(prefix="gpu-commons-test-"))
    if os.geteuid() == 0:
        folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)
