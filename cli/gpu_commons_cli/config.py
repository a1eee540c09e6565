"""Where the portal is and how to sign in: environment first, then a file only its owner can read."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Config:
    """Address of the portal and the API token."""

    url: str
    token: str


def path() -> Path:
    """Return the file's place (XDG base directories)."""
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "gpu-commons" / "config.json"


def load() -> Config | None:
    """Return what is configured, None where something is missing. Raises ValueError for a damaged file."""
    stored: dict[str, str] = {}
    file = path()
    if file.exists():
        try:
            stored = dict(json.loads(file.read_text()))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{file} is damaged: sign in again with `commons login`") from error
    url = os.environ.get("COMMONS_URL") or stored.get("url", "")
    token = os.environ.get("COMMONS_TOKEN") or stored.get("token", "")
    return Config(url.rstrip("/"), token) if url and token else None


def save(config: Config) -> Path:
    """Write the file, mode 0600, whole or not at all."""
    file = path()
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = file.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=0o600)
    fresh.write_text(json.dumps(asdict(config)))
    fresh.replace(file)
    return file


def forget() -> bool:
    """Remove the file; False where there was none."""
    file = path()
    existed = file.exists()
    file.unlink(missing_ok=True)
    return existed
