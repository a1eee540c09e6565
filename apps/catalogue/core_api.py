"""Models, versions, files and stores through the API: what the pages show, done by the same actions."""

from __future__ import annotations

from typing import Any

routes: list[tuple[str, Any, str]] = []
paths: list[Any] = []
