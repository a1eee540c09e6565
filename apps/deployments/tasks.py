"""Celery finds the room's sweeps here: each part keeps its own module of tasks, one import a line."""

from __future__ import annotations

from apps.deployments import (
    core_tasks,
    enforcement_tasks,
    proof_tasks,
    watch_tasks,
)

__all__ = ["core_tasks", "enforcement_tasks", "proof_tasks", "watch_tasks"]
