"""The sample company on its first day, as the acceptance tests know it; here its parts break."""

from __future__ import annotations

from tests.acceptance.conftest import stage, world

__all__ = ["stage", "world"]
