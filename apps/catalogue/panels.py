"""Panels and navigation of the catalogue. Each part of the room keeps its own in `<part>_panels.py`, named here."""

from apps.catalogue import core_panels, evidence_panels, registry_panels  # noqa: F401 (they register on import)
