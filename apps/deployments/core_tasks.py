"""Celery tasks of rollouts: thin."""

from __future__ import annotations
