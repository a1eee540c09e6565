"""What several commands need."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import click

from gpu_commons_cli import config
from gpu_commons_cli.client import Failed, Portal

as_json: Callable[[Any], Any] = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def portal() -> Portal:
    """Return the configured portal. Raises Failed where nobody has signed in."""
    try:
        found = config.load()
    except ValueError as error:
        raise Failed(str(error), 3) from error
    if found is None:
        raise Failed("Not signed in: run `commons login --url …`, or set COMMONS_URL and COMMONS_TOKEN.", 3)
    return Portal(found)


def is_uid(text: str) -> bool:
    """Whether a text is a uid."""
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


def workspace(server: Portal, name: str, cluster: str | None = None) -> dict[str, Any]:
    """Return the workspace of a uid or namespace. Raises Failed where there is none, or several."""
    if is_uid(name):
        return dict(server.get(f"workspaces/{name}"))
    found = [row for row in server.every("workspaces", cluster__slug=cluster) if row["namespace"] == name]
    if not found:
        raise Failed(f"There is no workspace {name} in your reach.")
    if len(found) > 1:
        where = ", ".join(sorted(row["cluster"] for row in found))
        raise Failed(f"{name} is on several clusters ({where}): choose one with --cluster.")
    return dict(found[0])
