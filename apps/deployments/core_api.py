"""Endpoints, releases and placement rules through the API."""

from __future__ import annotations

from typing import Any

routes: list[tuple[str, Any, str]] = []
paths: list[Any] = []
