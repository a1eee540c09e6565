"""Where the launcher keeps things."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def commons_dir() -> Path:
    """The data folder of this installation: ``COMMONS_DIR``, or ``.commons`` in the checkout."""
    return Path(os.environ.get("COMMONS_DIR") or ROOT / ".commons").expanduser().resolve()


def test_dir() -> Path:
    """The folder of the shared test servers: ``COMMONS_TEST_DIR``, or ``.commons/test`` in the checkout.

    It does not follow ``COMMONS_DIR``: tests point that at throwaway folders.
    """
    return Path(os.environ.get("COMMONS_TEST_DIR") or ROOT / ".commons" / "test").expanduser().resolve()


def make_private_dir(path: Path) -> Path:
    """Create a folder that only its owner can list.

    For root it stays traversable (0711), because PostgreSQL refuses to run as root and its data lies below.
    """
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o711 if os.geteuid() == 0 else 0o700)
    return path
