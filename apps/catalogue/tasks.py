"""Sweeps of the catalogue. Each part of the room keeps its own in `<part>_tasks.py` and adds its name here."""

from apps.catalogue import core_tasks, registry_tasks  # noqa: F401 (sweeps register themselves on import)
