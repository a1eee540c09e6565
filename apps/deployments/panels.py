"""The room in the navigation and on other rooms' pages: each part keeps its own module, one import a line."""

from __future__ import annotations

from apps.deployments import (
    core_panels,
    proof_panels,
    watch_panels,
)

__all__ = ["core_panels", "proof_panels", "watch_panels"]
